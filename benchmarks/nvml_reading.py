"""What reading NVML costs, and what it does to kernels that are launched meanwhile. Needs an NVIDIA GPU.

    python benchmarks/nvml_reading.py

Every call that meters and watchers make, 20 times idle and under load; then loops of tiny kernels with a thread beside
them that reads nothing, the energy counter every 25 ms, the power every 50 ms, or what the watcher samples every 100 ms.
About 15 s.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pynvml
import torch

from compressbench.meters.edges import in_thread
from compressbench.meters.nvml_device import cuda_uuid

NUM_READS, NUM_LAUNCHES, NUM_LOOPS = 20, 3000, 15


def readings() -> dict[str, Callable[[], object]]:
    pynvml.nvmlInit()
    device = pynvml.nvmlDeviceGetHandleByUUID(cuda_uuid("cuda"))
    return {
        "total energy": lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(device),
        "power": lambda: pynvml.nvmlDeviceGetPowerUsage(device),
        "momentary power": lambda: pynvml.nvmlDeviceGetFieldValues(device, [pynvml.NVML_FI_DEV_POWER_INSTANT]),
        "throttle reasons": lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(device),
        "SM clock": lambda: pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM),
        "memory clock": lambda: pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_MEM),
        "temperature": lambda: pynvml.nvmlDeviceGetTemperature(device, pynvml.NVML_TEMPERATURE_GPU),
        "power limit": lambda: pynvml.nvmlDeviceGetPowerManagementLimit(device),
        "processes": lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(device),
    }


def costs(reads: dict[str, Callable[[], object]]) -> None:
    for name, read in reads.items():
        spent = []
        for _ in range(NUM_READS):
            begun = time.perf_counter_ns()
            read()
            spent.append((time.perf_counter_ns() - begun) / 1e3)
        print(f"  {name:<17} median {statistics.median(spent):8.1f} µs, {min(spent):.1f} to {max(spent):.1f}")


@contextmanager
def beside(step: Callable[[], object] | None, pause_s: float = 0.0) -> Iterator[None]:
    """`step` again and again in a thread."""
    if step is None:
        yield
        return

    def again() -> float:
        step()
        return pause_s

    end = in_thread(again)
    try:
        yield
    finally:
        end()


def microseconds(tiny: torch.Tensor, *, waits: bool) -> float:
    """Of a launch, one after the other; or of a launch that is waited for."""
    torch.cuda.synchronize()
    begun = time.perf_counter_ns()
    for _ in range(NUM_LAUNCHES):
        tiny.mul_(1.0)
        if waits:
            torch.cuda.synchronize()
    torch.cuda.synchronize()
    return (time.perf_counter_ns() - begun) / 1e3 / NUM_LAUNCHES


def main() -> None:
    reads, tiny = readings(), torch.rand(1024, device="cuda")
    large = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)

    def products() -> None:
        for _ in range(20):
            large @ large
        torch.cuda.synchronize()

    print(
        f"{torch.cuda.get_device_name()}, driver {pynvml.nvmlSystemGetDriverVersion()}, torch {torch.__version__}\nidle"
    )
    costs(reads)
    print("under load")
    with beside(products):
        costs(reads)
    watched = [reads[name] for name in ("throttle reasons", "SM clock", "memory clock", "temperature")]
    threads: dict[str, tuple[Callable[[], object] | None, float]] = {
        "nothing": (None, 0.0),
        "energy, every 25 ms": (reads["total energy"], 0.025),
        "power, every 50 ms": (reads["momentary power"], 0.05),
        "watcher, every 100 ms": (lambda: [read() for read in watched], 0.1),
    }
    microseconds(tiny, waits=False)
    for _ in range(2):  # twice, so that what warming up does is seen apart
        for name, (step, pause_s) in threads.items():
            with beside(step, pause_s):
                launched = [microseconds(tiny, waits=False) for _ in range(NUM_LOOPS)]
                waited = [microseconds(tiny, waits=True) for _ in range(NUM_LOOPS)]
            print(
                f"{name:<22} launch {statistics.median(launched):6.2f} µs, waited for {statistics.median(waited):6.2f} µs"
            )


if __name__ == "__main__":
    main()
