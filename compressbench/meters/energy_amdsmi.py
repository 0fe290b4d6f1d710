"""`energy-amdsmi`: energy of an AMD GPU from the accumulator that ROCm's amdsmi shows, counter x resolution (15.3 uJ).

Some GPUs and drivers have a counter that stands still or counts something else (github.com/ROCm/amdsmi/issues/38). So it
is compared with the polled power when it is opened, as Zeus does, and refused if it is ten times off. The second die of an
MI250 counts nothing, and the first counts both.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
from collections.abc import Mapping
from typing import Any, ClassVar

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument, Provenance
from compressbench.core.spec import Spec
from compressbench.meters.counted import Counted
from compressbench.meters.edges import REAL_TIME, EdgeSampler, Timing
from compressbench.meters.probe import slow_reading

INSTALL = "Install ROCm's AMD SMI and its Python package of the same version (pip install amdsmi==<version of ROCm>)."
PROBE_EDGES, PROBE_LIMIT_S = 20, 5.0
TEST_S, TEST_POLL_S = 0.5, 0.05
MIN_RATIO, MAX_RATIO = 0.1, 10.0
MAX_W = 4000.0  # more than any accelerator with all of its dies
DUAL_DIE = ("MI250", "MI250X")
_J_PER_UJ = 1e-6


class EnergyAmdsmi(Spec):
    """Joules of blocks of calls on an AMD GPU, from its energy counter; no other instrument takes its place."""

    scope: ClassVar[str] = "block"

    def open(self, device: str) -> Instrument:
        """Raises MeterError if `device` isn't an AMD GPU ("cuda", "cuda:1" under ROCm) whose counter can be trusted."""
        if device.partition(":")[0] != "cuda":
            raise MeterError("amdsmi counts the energy of AMD GPUs, not of this device", got=device)
        return AmdEnergy(device)


class AmdEnergy(Counted):
    """Joules of one whole GPU ("energy_j") in windows that should last `min_window_s` or longer.

    Opening takes 0.5 s for the comparison with the polled power, and then 20 ticks of the counter.
    """

    def __init__(self, device: int | str, *, amdsmi: Any = None, timing: Timing = REAL_TIME) -> None:
        """`device` is torch's name of it ("cuda:0"), a PCI address ("0000:c1:00.0"), or an index in amdsmi's order.

        Raises MeterError if amdsmi is missing, or the counter can't be read, stands still, or counts something else.
        """
        self._amdsmi = amdsmi if amdsmi is not None else _import_amdsmi()
        self._timing = timing
        self._resolution_uj: float | None = None
        self._call("amdsmi_init")
        try:
            self._handle = self._find(device)
            self._refuse_partitions()
            self.name = self._market_name()
            self.ratio = self._self_test()
            sampler = EdgeSampler(
                self._joules,
                name="the amdsmi energy counter",
                resolution_j=(self._resolution_uj or 0.0) * _J_PER_UJ,
                max_w=MAX_W,
                timing=timing,
            )
            self.probe = sampler.probe(PROBE_EDGES, PROBE_LIMIT_S)
        except BaseException:
            self._shut_down()
            raise
        self.provenances: Mapping[str, Provenance] = {"energy_j": self._provenance()}
        super().__init__(sampler, self.probe)

    def close(self) -> None:
        """End the thread and let go of amdsmi. A second call does nothing."""
        if self._sampler.is_running:
            self._sampler.close()
            self._shut_down()

    def _shut_down(self) -> None:
        """That a lost GPU fails here too is of no interest to anybody."""
        with contextlib.suppress(MeterError):
            self._call("amdsmi_shut_down")

    def _call(self, name: str, *arguments: Any) -> Any:
        function = getattr(self._amdsmi, name, None)
        if function is None:
            raise MeterError(f"this amdsmi has no {name}", do=INSTALL)
        try:
            return function(*arguments)
        except self._amdsmi.AmdSmiException as error:
            text = " ".join(str(error).split())
            raise MeterError(f"amdsmi failed in {name}", got=text, do="Look at: amd-smi metric --energy.") from error

    def _table(self, name: str) -> dict[str, Any]:
        """What a function says of this GPU that says several things."""
        found = self._call(name, self._handle)
        if not isinstance(found, dict):
            raise MeterError(f"amdsmi gave nothing usable in {name}", got=repr(found), do=INSTALL)
        return found

    def _asked(self, name: str, default: str) -> str:
        """What not every GPU or version knows."""
        try:
            return str(self._call(name, self._handle))
        except MeterError:
            return default

    def _market_name(self) -> str:
        try:
            return str(self._table("amdsmi_get_gpu_asic_info").get("market_name", "an AMD GPU"))
        except MeterError:
            return "an AMD GPU"

    def _find(self, device: int | str) -> Any:
        handles = self._call("amdsmi_get_processor_handles") or []
        if isinstance(device, int):
            if not 0 <= device < len(handles):
                raise MeterError(f"amdsmi has no GPU number {device}", got=f"{len(handles)} GPUs")
            return handles[device]
        address = _pci_address(device) if device.startswith("cuda") else device
        found = {str(self._call("amdsmi_get_gpu_device_bdf", handle)): handle for handle in handles}
        for bdf, handle in found.items():
            # the function behind the dot numbers the partitions of one GPU
            if bdf.partition(".")[0].lower() == address.partition(".")[0].lower():
                return handle
        raise MeterError(f"amdsmi has no GPU at {address}", where=device, got=", ".join(found) or "none at all")

    def _refuse_partitions(self) -> None:
        mode = self._asked("amdsmi_get_gpu_compute_partition", "SPX")
        if mode not in ("SPX", "N/A", ""):
            raise MeterError(f"the GPU is partitioned ({mode}): its energy counter covers all partitions, not this one")

    def _self_test(self) -> float:
        """Energy of the counter in half a second, in those of the polled power. Raises MeterError if it is implausible."""
        watts: list[float] = []
        begin_ns, begin_j = self._timing.clock(), self._joules()
        while (seconds := (self._timing.clock() - begin_ns) * 1e-9) < TEST_S:
            watts.append(self._watts())
            self._timing.sleep(TEST_POLL_S)
        counted_j, polled_j = self._joules() - begin_j, sum(watts) / len(watts) * seconds
        got = f"{counted_j:.3g} J counted and {polled_j:.3g} J by its power in {seconds:.2g} s"
        if polled_j == 0 and counted_j <= 0:
            what = f"this die of {self.name} reports no power and no energy"
            do = "On cards with two dies the one before it counts both: measure there, with nothing else running on it."
            raise MeterError(what, got=got, do=do)
        if polled_j == 0 or not MIN_RATIO < counted_j / polled_j < MAX_RATIO:
            what = f"the amdsmi energy counter of {self.name} is stuck or wrong"
            raise MeterError(what, got=got, do="See github.com/ROCm/amdsmi/issues/38; a reboot has helped.")
        return counted_j / polled_j

    def _watts(self) -> float:
        info = self._table("amdsmi_get_power_info")
        # MI300 and later have the current power, others the average; what isn't there is "N/A"
        found = [info.get(name) for name in ("current_socket_power", "average_socket_power", "socket_power")]
        watts = [float(one) for one in found if isinstance(one, int | float) and 0 <= one < MAX_W]
        if not watts:
            raise MeterError("amdsmi knows no power of this GPU to compare its energy counter with", got=repr(found))
        return max(watts)

    def _joules(self) -> float:
        info = self._table("amdsmi_get_energy_count")
        count = info.get("energy_accumulator", info.get("power"))  # "power" until ROCm 6.2
        resolution_uj = info.get("counter_resolution")
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise MeterError("the amdsmi energy counter gave no count", got=repr(count))
        if not isinstance(resolution_uj, int | float) or not 0 < resolution_uj < math.inf:
            raise MeterError("the amdsmi energy counter gave no resolution", got=repr(resolution_uj))
        if self._resolution_uj is None:
            self._resolution_uj = resolution_uj
        if resolution_uj != self._resolution_uj:
            got = f"{self._resolution_uj} then {resolution_uj} uJ"
            raise MeterError("the amdsmi energy counter changed its resolution", got=got)
        return count * resolution_uj * _J_PER_UJ

    def _shared_with(self) -> tuple[str, ...]:
        """A sentence about other processes on this GPU, whose energy is in the numbers; or none."""
        try:
            found = self._call("amdsmi_get_gpu_process_list", self._handle)
            pids = [int(one["pid"]) for one in found]
        except (MeterError, TypeError, KeyError, ValueError) as error:
            return (f"whether other processes compute on this GPU can't be read: {error}",)
        others = [pid for pid in pids if pid != os.getpid()]
        if not others:
            return ()
        return (f"shared device: {len(others)} other processes are on this GPU, their energy is included",)

    def _provenance(self) -> Provenance:
        is_dual = any(name in self.name for name in DUAL_DIE)
        return Provenance(
            kind="measured",
            source=f"amdsmi energy counter of {self.name}",
            boundary="device (both dies of the card)" if is_dual else "device",
            uncertainty_reason="AMD states no accuracy of the counter",
            tick_s=self.probe.tick_s,
            notes=(
                f"tick {self.probe.tick_s * 1e3:.3g} ms, jitter {self.probe.jitter_s * 1e3:.2g} ms",
                f"counted {self.ratio:.2f} times the polled power when it was opened",
                *slow_reading(self.probe),
                *self._shared_with(),
            ),
        )


def _import_amdsmi() -> Any:
    try:
        # it prints to stdout when it doesn't find libamd_smi.so, and then raises KeyError
        with contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module("amdsmi")
    except (ImportError, KeyError, OSError, AttributeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise MeterError("amdsmi, which reads AMD GPUs, can't be imported", got=got, do=INSTALL) from error


def _pci_address(device: str) -> str:
    """Where torch's device is: amdsmi counts otherwise, and doesn't know HIP_VISIBLE_DEVICES."""
    try:
        import torch

        if torch.version.hip is None:
            raise MeterError("this torch is not built for AMD GPUs", got=torch.__version__)
        found: Any = torch.cuda.get_device_properties(device)
        return f"{found.pci_domain_id:04x}:{found.pci_bus_id:02x}:{found.pci_device_id:02x}"
    except (ImportError, RuntimeError, AssertionError, ValueError, AttributeError) as error:
        raise MeterError(f"torch can't say where the device '{device}' is", got=str(error)) from error
