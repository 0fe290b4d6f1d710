from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Meter, Provenance
from compressbench.core.registry import meters
from compressbench.meters import energy, energy_estimate, energy_nvml
from compressbench.meters.energy import Energy


class Opened:
    def __init__(self, device: str = "") -> None:
        self.device, self.is_closed = device, False
        self.min_window_s = 1.0
        self.provenance = Provenance(kind="measured", source="a counter", boundary="device")

    def start(self) -> None:
        pass

    def stop(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self.is_closed = True


def test_the_word_energy_is_this_meter() -> None:
    meter: Meter = Energy()
    assert meters.resolve("energy") is Energy
    assert meter.scope == "block"


def test_the_cpu_is_read_through_codecarbon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy_estimate, "EstimatedEnergy", Opened)
    assert isinstance(Energy().open("cpu"), Opened)


def test_a_gpu_is_found_by_the_uuid_that_cuda_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    properties = {"cuda:1": SimpleNamespace(uuid="ffc79498-8ff3-c2dc-3b0d-fafd804516ae")}
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties.__getitem__)
    monkeypatch.setattr(energy_nvml, "NvmlEnergy", Opened)
    opened = Energy().open("cuda:1")
    assert isinstance(opened, Opened)
    assert opened.device == "GPU-ffc79498-8ff3-c2dc-3b0d-fafd804516ae"


@pytest.mark.parametrize("error", [RuntimeError("no driver"), AssertionError("Invalid device id")])
def test_a_gpu_that_is_not_there_is_an_error_and_never_an_estimate(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    torch = pytest.importorskip("torch")

    def fail(device: str) -> None:  # noqa: ARG001
        raise error

    monkeypatch.setattr(torch.cuda, "get_device_properties", fail)
    monkeypatch.setattr(energy_estimate, "EstimatedEnergy", pytest.fail)
    with pytest.raises(MeterError, match=f"CUDA has no device 'cuda:0'.*{error}"):
        Energy().open("cuda:0")


def test_an_unreadable_gpu_counter_is_an_error_and_never_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(device: str) -> None:
        raise MeterError("MIG mode is enabled", where=device)

    monkeypatch.setattr(energy, "_cuda_uuid", lambda device: device)
    monkeypatch.setattr(energy_nvml, "NvmlEnergy", refuse)
    monkeypatch.setattr(energy_estimate, "EstimatedEnergy", pytest.fail)
    with pytest.raises(MeterError, match="MIG"):
        Energy().open("cuda")


def test_another_device_has_no_meter() -> None:
    with pytest.raises(MeterError, match="no energy meter for the device 'mps'"):
        Energy().open("mps")


def test_available_says_what_would_be_read_and_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened()
    monkeypatch.setattr(energy_estimate, "EstimatedEnergy", lambda: opened)
    assert Energy().available("cpu") == "Energy on cpu: measured, a counter, of the device."
    assert opened.is_closed


def test_available_says_why_nothing_would_be_read() -> None:
    assert Energy().available("mps").startswith("No energy on mps: no energy meter for the device 'mps'")


def test_the_meter_is_imported_without_torch_and_without_codecarbon() -> None:
    code = "import sys; import compressbench.meters.energy; print({'torch', 'codecarbon', 'pynvml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
