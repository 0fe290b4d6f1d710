"""The meter `energy`: the best instrument of the device, and where there is one, a second beside it.

For a GPU its energy counter: NVML's, or AMD's under ROCm; never an estimate. For the CPU the RAPL counters, else what
codecarbon makes of its CPU time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from pydantic import Field

from compressbench.core.errors import CompressbenchError, MeterError
from compressbench.core.protocols import Instrument
from compressbench.core.spec import Spec
from compressbench.meters.crosscheck import NAME, Chosen
from compressbench.meters.nvml_device import cuda_uuid


class Energy(Spec):
    """Energy of blocks of calls, in joules. What can be read depends on the device: see `available`."""

    scope: ClassVar[str] = "block"

    crosscheck: bool = Field(True, description="read a second meter in the same windows, if there is one")

    def open(self, device: str) -> Instrument:
        """The instrument for `device` ("cpu", "cuda", "cuda:1"). Its provenance notes why better ones aren't there.

        Raises MeterError with the reasons if there is none; for a GPU no estimate takes its place.
        """
        kind = device.partition(":")[0]
        if kind == "cuda":
            return self._first(device, _gpu_meters(device))
        if kind == "cpu":
            return self._first(device, _CPU_METERS)
        raise MeterError(f"no energy meter for the device '{device}'", do="Known: cpu, cuda.")

    def available(self, device: str) -> str:
        """One sentence: what would be read on `device`, or why nothing. Opens the instrument (up to 3 s)."""
        try:
            instrument = self.open(device)
        except MeterError as error:
            return f"No energy on {device}: {error}"
        how = instrument.provenances[NAME]
        instrument.close()
        return f"Energy on {device}: {how.kind}, {how.source}, of the {how.boundary}."

    def _first(self, device: str, meters: Sequence[_Meter]) -> Instrument:
        """The first meter that opens, with its cross-check. A single one's error is raised as it is."""
        errors: list[tuple[str, CompressbenchError]] = []
        for meter in meters:
            try:
                primary = meter.open()
            except CompressbenchError as error:
                errors.append((meter.name, error))
                continue
            notes = [f"{name}: {error}" for name, error in errors]
            second = self._second(meter, notes)
            return Chosen(primary, second, notes)
        if len(errors) == 1:
            raise errors[0][1]
        raise MeterError("no energy meter can be read", where=device, got="; ".join(f"{n}: {e}" for n, e in errors))

    def _second(self, meter: _Meter, notes: list[str]) -> Instrument | None:
        if not self.crosscheck or meter.crosscheck is None:
            return None
        try:
            return meter.crosscheck()
        except CompressbenchError as error:
            notes.append(f"no cross-check: {error}")
            return None


class _Meter(NamedTuple):
    """`crosscheck` opens a second meter of the same thing."""

    name: str
    open: Callable[[], Instrument]
    crosscheck: Callable[[], Instrument] | None = None


def _gpu_meters(device: str) -> list[_Meter]:
    if _is_rocm():
        return [_Meter("AMD's counter", lambda: _amd(device))]
    uuid = cuda_uuid(device)
    return [_Meter("NVML's counter", lambda: _nvml(uuid), lambda: _nvml_power(uuid))]


def _nvml(uuid: str) -> Instrument:
    from compressbench.meters.energy_nvml import NvmlEnergy

    return NvmlEnergy(uuid)


def _nvml_power(uuid: str) -> Instrument:
    from compressbench.meters.energy_nvml_power import NvmlPower

    return NvmlPower(uuid)


def _amd(device: str) -> Instrument:
    from compressbench.meters.energy_amdsmi import AmdEnergy

    return AmdEnergy(device)


def _rapl() -> Instrument:
    from compressbench.meters.energy_rapl import RaplEnergy

    return RaplEnergy()


def _codecarbon() -> Instrument:
    from compressbench.meters.energy_estimate import EstimatedEnergy

    return EstimatedEnergy()


_CPU_METERS = (_Meter("RAPL", _rapl, _codecarbon), _Meter("codecarbon", _codecarbon))


def _is_rocm() -> bool:
    """Builds of torch for AMD's GPUs call them "cuda", too."""
    try:
        import torch
    except ImportError as error:
        raise MeterError("torch, which knows the CUDA devices, can't be imported", got=str(error)) from error
    return torch.version.hip is not None
