"""codecarbon, opened so that nothing outside this package can change what it reports; and the meter `energy-codecarbon`.

A `.codecarbon.config` in the working or home directory, or a CODECARBON_ variable, could otherwise set the watts,
multiply the joules or send them somewhere. The private names that this takes are pinned by a test.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument
from compressbench.core.spec import Spec

INSTALL = 'Install it with: pip install "codecarbon>=3.3.2,<4".'

# given explicitly, so that no configuration can overrule them; the country only enters carbon arithmetic, unused here
SETTINGS: dict[str, Any] = {
    "country_iso_code": "USA",
    "region": None,
    "cloud_provider": None,
    "cloud_region": None,
    "output_methods": [],
    "output_handlers": [],
    "emissions_endpoint": None,
    "electricitymaps_api_token": None,
    "gpu_ids": None,
    "force_cpu_power": None,
    "force_ram_power": None,
    "force_carbon_intensity_g_co2e_kwh": None,
    "force_mode_cpu_load": False,
    "rapl_include_dram": False,
    "rapl_prefer_psys": False,
    "pue": 1.0,
    "wue": 0,
    "allow_multiple_runs": True,
    "tracking_mode": "process",
    "log_level": "error",
}

# codecarbon detects the hardware, and warns about it, once per process; later instruments repeat what was said then
_said_at_detection: list[str] = []
_ABOUT_OUR_SETTINGS = "Multiple instances of codecarbon are allowed"


class EnergyCodecarbon(Spec):
    """Energy of the CPU as codecarbon has it: measured where it reads a counter, else estimated from CPU time."""

    scope: ClassVar[str] = "block"

    def open(self, device: str) -> Instrument:
        """Raises MeterError if codecarbon has no number for the CPU, and for every other device."""
        if device.partition(":")[0] != "cpu":
            raise MeterError("codecarbon is asked about the CPU only", got=device, do="Use the meter `energy`.")
        from compressbench.meters.energy_estimate import EstimatedEnergy

        return EstimatedEnergy()


def make_tracker(notes: list[str]) -> Any:
    """A codecarbon tracker that was never started, with its hardware detected; its warnings go to `notes`.

    Raises MeterError.
    """
    try:
        with _no_foreign_settings() as codecarbon, _listening(_said_at_detection) as listen:
            tracker = codecarbon.OfflineEmissionsTracker(**SETTINGS)
            listen()  # again: the constructor resets the logger
            tracker.get_detected_hardware()
    except ImportError as error:
        raise MeterError("codecarbon can't be imported", got=str(error), do=INSTALL) from error
    except Exception as error:
        raise failed("detecting the hardware", error) from error
    finally:
        notes.extend(_said_at_detection)
    return tracker


def find_hardware(tracker: Any) -> tuple[Any, Any]:
    """codecarbon's CPU and RAM objects (RAM may be None). Raises MeterError if it tracks no CPU."""
    hardware = getattr(tracker, "_hardware", None) or []
    # other classes than CPU and RAM (Apple, Raspberry) say in `chip_part` which one they are
    parts = {str(getattr(one, "chip_part", type(one).__name__)): one for one in hardware}
    if "CPU" not in parts:
        raise MeterError("codecarbon tracks no CPU on this machine", got=repr(hardware))
    return parts["CPU"], parts.get("RAM")


def failed(doing: str, error: Exception) -> MeterError:
    return MeterError(f"codecarbon failed when {doing}", got=f"{type(error).__name__}: {error}")


class _Notes(logging.Handler):
    """Keeps each distinct message. No StreamHandler: codecarbon's constructor throws those away."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        if text not in self._texts and not text.startswith(_ABOUT_OUR_SETTINGS):
            self._texts.append(text)


@contextmanager
def _listening(texts: list[str]) -> Iterator[Callable[[], None]]:
    """Send codecarbon's warnings to `texts` instead of the terminal; afterwards only its errors go there."""
    logger, notes = logging.getLogger("codecarbon"), _Notes(texts)
    handlers = list(logger.handlers)

    def listen() -> None:
        logger.handlers = [notes]
        logger.setLevel(logging.WARNING)

    listen()
    try:
        yield listen
    finally:
        logger.handlers = handlers
        logger.setLevel(logging.ERROR)


@contextmanager
def _no_foreign_settings() -> Iterator[Any]:
    """codecarbon's tracker module, imported and used without CODECARBON_ variables and without configuration files."""
    hidden = {name: value for name, value in os.environ.items() if name.lower().startswith("codecarbon_")}
    for name in hidden:
        del os.environ[name]
    try:
        module: Any = importlib.import_module("codecarbon.emissions_tracker")
        read_config = module.get_hierarchical_config
        module.get_hierarchical_config = dict
        try:
            yield module
        finally:
            module.get_hierarchical_config = read_config
    finally:
        os.environ.update(hidden)
