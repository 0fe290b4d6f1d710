"""NVML's counter where reading it takes 3 ms, as on an H200: not read while calls are timed, and right all the same."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from nvml_bench import Bench

from compressbench.testing.nvml import FakeGpu


class Slow(Bench):
    """Reading takes 3.2 ms. Work goes on in calls of `call_s`; `num_reads` are those while a window was open."""

    call_s = 0.004

    def __init__(self, gpu: FakeGpu | None = None) -> None:
        super().__init__(gpu, read_s=3.2e-3)
        self.num_reads, self._is_timed, self._read = 0, False, self.nvml.nvmlDeviceGetTotalEnergyConsumption
        self.nvml.nvmlDeviceGetTotalEnergyConsumption = self._counted  # type: ignore[method-assign]

    def _counted(self, handle: Any) -> int:
        self.num_reads += self._is_timed
        return self._read(handle)

    def lead(self, *, before: bool) -> None:
        is_over = self.meter.lead(before=before)
        for _ in range(500):
            self.clock.advance(self.call_s)
            if is_over():
                return

    def block(self, seconds: float) -> None:
        self.lead(before=True)
        self._is_timed = True
        self.window(seconds)
        self._is_timed = False
        self.lead(before=False)


def test_a_counter_that_is_slow_to_read_wants_a_lead_and_says_so() -> None:
    bench = Slow().open()
    assert bench.meter.wants_lead
    (note,) = bench.meter.provenances["energy_j"].notes
    assert note == "reading the counter takes 3.2 ms: it is not read while calls are timed"
    quick = Bench(read_s=1e-4).open()
    assert not quick.meter.wants_lead
    assert quick.meter.provenances["energy_j"].notes == ()


def test_it_is_not_read_within_a_window_that_has_a_lead_and_the_next_window_without_one_is_read_again() -> None:
    bench = Slow(FakeGpu(power=500.0)).open()
    for _ in range(5):
        bench.block(1.0)
    assert bench.num_reads == 0
    bench._is_timed = True
    bench.window(1.0)
    assert bench.num_reads >= 10
    for found, truth in zip(bench.joules(), bench.truths, strict=True):
        assert found == pytest.approx(truth, rel=0.005)


def test_nobody_reads_it_while_no_window_needs_it() -> None:
    bench = Slow(FakeGpu(power=500.0)).open()
    bench._is_timed = True
    bench.clock.advance(20.0)
    assert bench.num_reads == 0
    bench.window(1.0)
    (window,) = bench.meter.collect()
    assert window.values["energy_j"] == pytest.approx(500.0, rel=0.005)
    in_window = bench.num_reads
    bench.clock.advance(20.0)
    assert in_window >= 10
    assert bench.num_reads == in_window


def test_what_was_used_before_the_lead_and_after_it_does_not_enter() -> None:
    bench = Slow(FakeGpu(power=60.0)).open().until(3.0)
    bench.nvml.set_power(600.0)
    bench.clock.advance(0.25)
    bench.block(1.0)
    bench.nvml.set_power(60.0)
    assert bench.joules() == [pytest.approx(600.0, rel=0.005)]


def test_the_interval_of_quiet_windows_holds_the_truth_in_95_percent_of_random_cases() -> None:
    draw, held, errors = random.Random(5), 0, list[float]()
    for seed in range(25):
        level, phase = draw.uniform(100, 650), draw.uniform(0, 6)

        def power(second: float, level: float = level, phase: float = phase) -> float:
            return level * (1 + 0.05 * math.sin(2 * math.pi * second / 2.3 + phase) + 0.04 * math.sin(40 * second))

        gpu = FakeGpu(power=power, jitter=0.01, seed=seed, phase_s=draw.uniform(0, 0.1))
        bench = Slow(gpu).open()
        for _ in range(12):
            bench.block(draw.uniform(0.9, 2.5))
        for window, truth in zip(bench.meter.collect(), bench.truths, strict=True):
            assert window.reason == ""
            errors.append(window.values["energy_j"] / truth - 1)
            held += abs(window.values["energy_j"] - truth) <= 1.96 * window.uncertainties["energy_j"]
    assert held / len(errors) >= 0.95
    assert max(map(abs, errors)) < 0.015


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"lost_at_s": 5.5, "back_at_s": 6.0}, "GPU is lost"),
        ({"reset_at_s": 5.5}, "went backwards"),
        ({"stuck_at_s": 5.5}, "was not seen to move"),
    ],
)
def test_a_fault_beside_a_quiet_window_voids_it(fault: dict[str, float], said: str) -> None:
    bench = Slow(FakeGpu(**fault)).open()  # type: ignore[arg-type]
    bench.until(4.9)
    bench.lead(before=True)
    bench.meter.start()
    bench.until(5.8)
    bench.meter.stop()
    bench.lead(before=False)
    (window,) = bench.meter.collect()
    assert said in window.reason
    assert not window.values


def test_a_window_with_a_lead_before_it_but_none_after_waits_for_the_increment() -> None:
    bench = Slow(FakeGpu(power=400.0)).open()
    bench.lead(before=True)
    bench.window(1.0)
    assert bench.joules() == [pytest.approx(400.0, rel=0.005)]
