"""The meter `energy`: NVML's counter for an NVIDIA GPU, codecarbon for the CPU; never an estimate for a GPU."""

from __future__ import annotations

from typing import ClassVar

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument
from compressbench.core.spec import Spec


class Energy(Spec):
    """Energy of blocks of calls, in joules. What can be read depends on the device: see `available`."""

    scope: ClassVar[str] = "block"

    def open(self, device: str) -> Instrument:
        """The instrument for `device` ("cpu", "cuda", "cuda:1").

        Raises MeterError with the reason if there is none; for a GPU no estimate takes its place.
        """
        kind = device.partition(":")[0]
        if kind == "cuda":
            from compressbench.meters.energy_nvml import NvmlEnergy

            return NvmlEnergy(_cuda_uuid(device))
        if kind == "cpu":
            from compressbench.meters.energy_estimate import EstimatedEnergy

            return EstimatedEnergy()
        raise MeterError(f"no energy meter for the device '{device}'", do="Known: cpu, cuda.")

    def available(self, device: str) -> str:
        """One sentence: what would be read on `device`, or why nothing. Opens the instrument (up to 3 s)."""
        try:
            instrument = self.open(device)
        except MeterError as error:
            return f"No energy on {device}: {error}"
        provenance = instrument.provenance
        instrument.close()
        return f"Energy on {device}: {provenance.kind}, {provenance.source}, of the {provenance.boundary}."


def _cuda_uuid(device: str) -> str:
    """NVML's name of a CUDA device; their numbers differ under CUDA_VISIBLE_DEVICES and CUDA's own ordering."""
    try:
        import torch

        return f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    except ImportError as error:
        raise MeterError("torch, which knows the CUDA devices, can't be imported", got=str(error)) from error
    except (RuntimeError, AssertionError, ValueError) as error:
        raise MeterError(f"CUDA has no device '{device}'", got=str(error)) from error
