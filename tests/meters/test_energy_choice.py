"""Which instrument the meter `energy` takes, what it says of those that aren't there, and what it reads beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument, Meter, Provenance
from compressbench.core.registry import meters
from compressbench.meters.energy import Energy
from compressbench.testing import ReplayInstrument

CLASSES = {
    "energy_nvml": "NvmlEnergy",
    "energy_nvml_power": "NvmlPower",
    "energy_amdsmi": "AmdEnergy",
    "energy_rapl": "RaplEnergy",
    "energy_estimate": "EstimatedEnergy",
}


class Shelf:
    """What this machine has: instruments by module, or the errors that they raise; `asked` are those tried, in order."""

    def __init__(self) -> None:
        self.instruments: dict[str, ReplayInstrument | Exception] = {}
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def put(self, **found: float | Exception) -> Shelf:
        for name, joules in found.items():
            self.instruments[name] = joules if isinstance(joules, Exception) else self._made(name, joules)
        return self

    @staticmethod
    def _made(name: str, joules: float) -> ReplayInstrument:
        made = ReplayInstrument([{"energy_j": joules}])
        how = Provenance(kind="measured", source=name, boundary="device", relative_uncertainty=0.05, tick_s=0.1)
        made.provenances = {"energy_j": how}
        return made

    def opener(self, name: str) -> Callable[..., Any]:
        def open_it(*arguments: str) -> ReplayInstrument:
            self.asked.append((name, arguments))
            found = self.instruments.get(name, MeterError(f"no {name} here"))
            if isinstance(found, Exception):
                raise found
            return found

        return open_it

    def tried(self) -> list[str]:
        return [name for name, _ in self.asked]


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """All instruments replaced; torch is one of NVIDIA's builds with a single device."""
    made = Shelf()
    for module, name in CLASSES.items():
        stand_in = ModuleType(module)
        setattr(stand_in, name, made.opener(module))
        monkeypatch.setitem(sys.modules, f"compressbench.meters.{module}", stand_in)
    put_torch(monkeypatch, hip=None)
    return made


def put_torch(monkeypatch: pytest.MonkeyPatch, hip: str | None) -> None:
    def properties(device: str) -> SimpleNamespace:
        if device != "cuda:1":
            raise AssertionError("Invalid device id")
        return SimpleNamespace(uuid="ffc79498-8ff3-c2dc-3b0d-fafd804516ae")

    cuda = SimpleNamespace(get_device_properties=properties)
    torch = SimpleNamespace(version=SimpleNamespace(hip=hip), cuda=cuda)
    monkeypatch.setitem(sys.modules, "torch", torch)


def values_of(instrument: Instrument) -> dict[str, float]:
    instrument.start()
    instrument.stop()
    [window] = instrument.collect()
    return dict(window.values)


def notes_of(instrument: Instrument) -> str:
    return "; ".join(instrument.provenances["energy_j"].notes)


def test_the_word_energy_is_this_meter() -> None:
    meter: Meter = Energy()
    assert meters.resolve("energy") is Energy
    assert meter.scope == "block"


def test_the_cpu_is_read_by_rapl_with_codecarbon_beside_it(shelf: Shelf) -> None:
    shelf.put(energy_rapl=10.0, energy_estimate=9.0)
    opened = Energy().open("cpu")
    assert values_of(opened) == {"energy_j": 10.0, "crosscheck_energy_j": 9.0}
    assert notes_of(opened) == ""
    assert opened.provenances["crosscheck_energy_j"].source == "energy_estimate"


def test_without_rapl_the_cpu_is_estimated_and_the_note_says_why(shelf: Shelf) -> None:
    shelf.put(energy_rapl=MeterError("there is no powercap tree"), energy_estimate=9.0)
    opened = Energy().open("cpu")
    assert values_of(opened) == {"energy_j": 9.0}
    assert notes_of(opened) == "RAPL: there is no powercap tree"
    assert shelf.tried() == ["energy_rapl", "energy_estimate"]


def test_a_cpu_without_any_meter_names_every_reason(shelf: Shelf) -> None:
    shelf.put(energy_rapl=MeterError("permission denied"), energy_estimate=MeterError("codecarbon can't be imported"))
    with pytest.raises(MeterError, match=r"RAPL: permission denied; codecarbon: codecarbon can't be imported"):
        Energy().open("cpu")


def test_a_gpu_is_found_by_the_uuid_that_cuda_gives_it(shelf: Shelf) -> None:
    shelf.put(energy_nvml=100.0, energy_nvml_power=97.0)
    opened = Energy().open("cuda:1")
    uuid = ("GPU-ffc79498-8ff3-c2dc-3b0d-fafd804516ae",)
    assert shelf.asked == [("energy_nvml", uuid), ("energy_nvml_power", uuid)]
    assert values_of(opened) == {"energy_j": 100.0, "crosscheck_energy_j": 97.0}


def test_under_rocm_the_gpu_is_read_by_amds_counter_only(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    put_torch(monkeypatch, hip="6.4.1")
    shelf.put(energy_amdsmi=50.0, energy_nvml=100.0, energy_estimate=9.0)
    assert values_of(Energy().open("cuda:1")) == {"energy_j": 50.0}
    assert shelf.asked == [("energy_amdsmi", ("cuda:1",))]


@pytest.mark.parametrize("hip", [None, "6.4.1"])
def test_a_gpu_without_a_counter_is_an_error_and_never_an_estimate(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, hip: str | None
) -> None:
    put_torch(monkeypatch, hip)
    shelf.put(energy_nvml=MeterError("MIG mode is enabled"), energy_amdsmi=MeterError("MIG mode is enabled"))
    shelf.put(energy_estimate=9.0, energy_rapl=10.0)
    with pytest.raises(MeterError, match=r"^MIG mode is enabled$"):
        Energy().open("cuda:1")
    assert len(shelf.asked) == 1


@pytest.mark.parametrize("error", [RuntimeError("no driver"), AssertionError("Torch not compiled"), ValueError("bad")])
def test_a_gpu_that_is_not_there_is_an_error(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_device: str) -> None:
        raise error

    monkeypatch.setattr(sys.modules["torch"].cuda, "get_device_properties", fail)
    with pytest.raises(MeterError, match=f"CUDA has no device 'cuda:0'.*{error}"):
        Energy().open("cuda:0")
    assert shelf.asked == []


@pytest.mark.usefixtures("shelf")
def test_without_torch_a_gpu_has_no_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MeterError, match="torch, which knows the CUDA devices"):
        Energy().open("cuda")


def test_the_cross_check_can_be_switched_off(shelf: Shelf) -> None:
    shelf.put(energy_rapl=10.0, energy_estimate=9.0)
    opened = Energy(crosscheck=False).open("cpu")
    assert values_of(opened) == {"energy_j": 10.0}
    assert shelf.tried() == ["energy_rapl"]
    assert set(opened.provenances) == {"energy_j"}


def test_a_cross_check_that_is_not_there_is_a_note_and_no_error(shelf: Shelf) -> None:
    shelf.put(energy_nvml=100.0, energy_nvml_power=MeterError("power can't be read"))
    opened = Energy().open("cuda:1")
    assert values_of(opened) == {"energy_j": 100.0}
    assert notes_of(opened) == "no cross-check: power can't be read"


def test_another_device_has_no_meter() -> None:
    with pytest.raises(MeterError, match="no energy meter for the device 'mps'"):
        Energy().open("mps")


def test_available_says_what_would_be_read_and_closes_it(shelf: Shelf) -> None:
    shelf.put(energy_rapl=10.0, energy_estimate=9.0)
    assert Energy().available("cpu") == "Energy on cpu: measured, energy_rapl, of the device."
    for name in ("energy_rapl", "energy_estimate"):
        made = shelf.instruments[name]
        assert isinstance(made, ReplayInstrument)
        assert made.calls == ["close"]


def test_available_says_why_nothing_would_be_read() -> None:
    assert Energy().available("mps").startswith("No energy on mps: no energy meter for the device 'mps'")


def test_the_meter_is_imported_without_torch_and_without_codecarbon() -> None:
    code = "import sys; import compressbench.meters.energy; print({'torch', 'codecarbon', 'pynvml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_on_this_machine_the_cpu_has_a_number_and_says_what_it_is() -> None:
    opened = Energy().open("cpu")
    how = opened.provenances["energy_j"]
    opened.close()
    if how.kind == "estimated":
        assert any(note.startswith("RAPL: ") for note in how.notes)
    assert how.boundary.startswith("cpu")
