"""Comparisons of generations on a fake GPU in simulated time, for tests of energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from nvml_bench import Bench

from compressbench.core.progress import SilentProgress
from compressbench.core.protocols import Batch, Instrument
from compressbench.measure.blocks import CallersOfArm, Comparison, Tools, compare
from compressbench.measure.calls import caller
from compressbench.measure.schedule import Schedule
from compressbench.measure.steady_state import WarmUpRule
from compressbench.meters.crosscheck import Chosen
from compressbench.meters.energy_nvml_power import NvmlPower
from compressbench.records.measurement import Arm, Block
from compressbench.testing.gpu_session import OnFakeGpu, Times, Watts
from compressbench.testing.nvml import FakeGpu

PREFILL_W, DECODE_W = 600.0, 250.0
INPUTS: list[Batch] = [{"input_ids": [[index, 1, 2]]} for index in range(3)]
QUICK = WarmUpRule(min_calls=10, min_s=0.0, max_s=10.0)


def on_gpu(bench: Bench, times: Times) -> OnFakeGpu:
    return OnFakeGpu(bench.nvml, bench.clock, times, Watts(PREFILL_W, DECODE_W))


class Run(NamedTuple):
    found: Comparison
    bench: Bench
    seconds: float


def compared(
    times: Mapping[str, Times],
    num_tokens: int,
    *,
    read_s: float = 3.2e-3,
    rounds: int = 3,
    gpu: FakeGpu | None = None,
    is_checked: bool = False,
) -> Run:
    """A comparison of generations whose energy is metered by NVML's counter, with the integrated power beside it or not."""
    bench = Bench(gpu or FakeGpu(power=PREFILL_W), read_s=read_s).open()
    sessions = {arm: on_gpu(bench, each) for arm, each in times.items()}
    sessions["control"] = sessions["baseline"]
    arms: dict[Arm, CallersOfArm] = {}
    for arm, session in sessions.items():
        arms[arm] = CallersOfArm.of(lambda session=session: caller(session, INPUTS, num_tokens, bench.clock))  # type: ignore[index, misc]
    meter: Instrument = bench.meter
    if is_checked:
        meter = Chosen(bench.meter, NvmlPower(0, nvml=bench.nvml, timing=bench.clock.timing))
    begun_ns = bench.clock()
    found = compare(
        arms,
        {"batch_size": 1, "num_inputs": len(INPUTS)},
        Schedule(rounds, 0.75, output_tokens=num_tokens, warm_up=QUICK),
        Tools({"energy": meter}, None, bench.clock, bench.clock.advance),
        SilentProgress(),
    )
    return Run(found, bench, (bench.clock() - begun_ns) / 1e9)


def true_joules(block: Block) -> float:
    prefill_s = sum(block.first_token_ns) / 1e9
    return PREFILL_W * prefill_s + DECODE_W * (sum(block.latencies_ns) / 1e9 - prefill_s)
