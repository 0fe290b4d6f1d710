"""Energy of timed blocks of generations, from a counter of which no increment is just at a block's ends.

    python benchmarks/generation_energy.py

A fake NVML whose counter moves every 100 ms (jitter 1 %), and whole comparisons of generations whose prefill draws 650 W
and whose decoding 320 W, in simulated time. The counter takes 3.2 ms to read, as an H200's does, and is read beside the
blocks only; or 0.1 ms, and is read within. What lies between a block's ends and the increments is charged at one power
(the mean where it is read beside, that of the nearest increments where within), and as `measure.beside` does, at the
powers of prefill and decode. Then a model that waits for every reading. A few seconds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import NamedTuple
from unittest.mock import patch

from compressbench.core.progress import SilentProgress
from compressbench.core.protocols import Batch
from compressbench.measure.beside import Beside, Ends
from compressbench.measure.blocks import CallersOfArm, Tools, compare
from compressbench.measure.calls import caller
from compressbench.measure.schedule import Schedule
from compressbench.measure.steady_state import WarmUpRule
from compressbench.measure.working import working
from compressbench.meters.energy_nvml import NvmlEnergy
from compressbench.records.measurement import Arm, Block
from compressbench.testing import FakeSession
from compressbench.testing.event_clock import EventClock
from compressbench.testing.gpu_session import OnFakeGpu, Times, Watts
from compressbench.testing.nvml import FakeGpu, FakeNvml

INPUTS: list[Batch] = [{"input_ids": [[1, 2, 3]]}]
WATTS, ROUNDS, NUM_STALLED, STALLED_W = Watts(650.0, 320.0), 20, 200, 120.0
SLOW_S, QUICK_S = 3.2e-3, 1e-4
KINDS: Mapping[str, tuple[Times, Times, int]] = {
    "short, 0.18 and 0.14 s": (Times(0.030, 0.020), Times(0.050, 0.012), 9),
    "long prompt, 1.2 and 0.7 s": (Times(0.15, 0.008), Times(0.15, 0.004), 128),
    "as 7B models, 3.3 and 1.7 s": (Times(0.10, 0.025), Times(0.10, 0.0125), 128),
    "half prefill, 1.0 and 0.7 s": (Times(0.40, 0.010), Times(0.40, 0.005), 64),
}


class Errors(NamedTuple):
    """Relative errors of blocks, and those in stated standard uncertainties."""

    relative: list[float]
    in_uncertainties: list[float]

    def __str__(self) -> str:
        mean, spread = 100 * statistics.mean(self.relative), 100 * statistics.stdev(self.relative)
        held = statistics.mean(abs(each) <= 1.96 for each in self.in_uncertainties)
        return f"{mean:+.2f} % (sd {spread:.2f}), intervals hold {100 * held:.0f} %"


def opened(read_s: float) -> tuple[EventClock, FakeNvml, NvmlEnergy]:
    clock = EventClock()
    nvml = FakeNvml(clock, FakeGpu(power=WATTS.decode_w, jitter=0.01), read_s=read_s)
    return clock, nvml, NvmlEnergy(0, nvml=nvml, timing=clock.timing)


def errors_of(read_s: float, baseline: Times, candidate: Times, num_tokens: int) -> tuple[dict[str, Errors], float]:
    """Of a comparison's blocks by arm, and the seconds that it took beyond its blocks, per block."""
    clock, nvml, meter = opened(read_s)
    base, other = (OnFakeGpu(nvml, clock, times, WATTS) for times in (baseline, candidate))
    sessions: dict[Arm, OnFakeGpu] = {"baseline": base, "candidate": other, "control": base}
    arms = {
        arm: CallersOfArm.of(lambda session=session: caller(session, INPUTS, num_tokens, clock))  # type: ignore[misc]
        for arm, session in sessions.items()
    }
    schedule = Schedule(ROUNDS, 0.75, output_tokens=num_tokens, warm_up=WarmUpRule(min_calls=10, min_s=0.0, max_s=9.0))
    begun_ns = clock()
    found = compare(
        arms,
        {"batch_size": 1, "num_inputs": 1},
        schedule,
        Tools({"energy": meter}, None, clock, clock.advance),
        SilentProgress(),
    ).measurement
    errors = {arm: Errors([], []) for arm in arms}
    for block in found.blocks:
        truth_j = sessions[block.arm].joules(*seconds_of(block))
        error_j = block.raw["energy_j"] - truth_j
        errors[block.arm].relative.append(error_j / truth_j)
        errors[block.arm].in_uncertainties.append(error_j / block.uncertainties["energy_j"])
    timed_s = sum(block.seconds or 0.0 for block in found.blocks)
    return {str(arm): each for arm, each in errors.items()}, ((clock() - begun_ns) / 1e9 - timed_s) / len(found.blocks)


def seconds_of(block: Block) -> tuple[float, float]:
    prefill_s = sum(block.first_token_ns) / 1e9
    return prefill_s, sum(block.latencies_ns) / 1e9 - prefill_s


def stalled() -> tuple[Errors, float]:
    """Of windows of 1.03 s of a model that draws 650 W, and 120 W while the counter is read; and readings per window."""
    clock, nvml, meter = opened(SLOW_S)
    nvml.set_power(WATTS.prefill_w)
    spend = nvml._spend

    def waiting() -> None:
        nvml.set_power(STALLED_W)
        spend()
        nvml.set_power(WATTS.prefill_w)

    beside, call = Beside(working({"energy": meter}), clock), caller(FakeSession(clock, [0.002]), INPUTS, None, clock)
    errors, num_reads = Errors([], []), nvml.num_reads
    with patch.object(nvml, "_spend", waiting):
        for _ in range(NUM_STALLED):
            beside.lead(call, before=True)
            meter.start()
            begin_ns = clock()
            clock.advance(1.03)
            meter.stop()
            truth_j = nvml.joules_between(begin_ns, clock())
            beside.lead(call, before=False)
            (window,) = meter.collect()
            error_j = window.values["energy_j"] - truth_j
            errors.relative.append(error_j / truth_j)
            errors.in_uncertainties.append(error_j / window.uncertainties["energy_j"])
    return errors, (nvml.num_reads - num_reads) / NUM_STALLED


def main() -> None:
    for where, read_s in (("beside blocks", SLOW_S), ("within blocks", QUICK_S)):
        for name, kind in KINDS.items():
            found, beside_s = errors_of(read_s, *kind)
            with patch.object(Ends, "divided", lambda self, block, *args: block):
                plain, _ = errors_of(read_s, *kind)
            print(f"read {where}, calls {name}; warm-up and calls beside blocks {beside_s:.2f} s per block")
            for arm, errors in found.items():
                print(f"  {arm:<10} at one power {plain[arm]}; at two {errors}")
    errors, num_reads = stalled()
    print(f"a model that waits for readings, {num_reads:.1f} of them per window: {errors}")


if __name__ == "__main__":
    main()
