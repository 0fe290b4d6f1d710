"""What is done beside blocks that no meter may be read in: no joule of it is taken for one of theirs."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from gpu_parts import INPUTS, compared, on_gpu, true_joules
from nvml_bench import Bench

from compressbench.core.progress import SilentProgress
from compressbench.measure.beside import LATE, MAX_LATE, Beside
from compressbench.measure.blocks import CallersOfArm, Tools, compare
from compressbench.measure.calls import caller
from compressbench.measure.instruments import Opened
from compressbench.measure.schedule import Schedule, num_pairs
from compressbench.measure.steady_state import WarmUpRule
from compressbench.measure.working import working
from compressbench.testing import FakeClock, FakeSession, ReplayInstrument
from compressbench.testing.gpu_session import Times
from compressbench.testing.nvml import FakeGpu

SHORT = {"baseline": Times(0.030, 0.020), "candidate": Times(0.050, 0.012)}
LONG = {"baseline": Times(0.15, 0.008), "candidate": Times(0.15, 0.004)}
OF_SECONDS = {"baseline": Times(0.10, 0.025), "candidate": Times(0.10, 0.0125)}
MOSTLY_PREFILL = {"baseline": Times(0.40, 0.010), "candidate": Times(0.40, 0.005)}


@pytest.mark.parametrize(("read_s", "tick_s"), [(3.2e-3, 0.1), (1e-4, 0.1), (1e-4, 0.02)])
@pytest.mark.parametrize(("times", "num_tokens"), [(SHORT, 9), (LONG, 128), (OF_SECONDS, 128), (MOSTLY_PREFILL, 64)])
def test_what_lies_between_a_block_and_the_meters_increments_is_charged_as_prefill_and_decode(
    times: Mapping[str, Times], num_tokens: int, read_s: float, tick_s: float
) -> None:
    """A block begins with a prefill, and the calls after it do. At one power for both, blocks that are not read in are off
    by 2 to 7 %, those that are by up to -4 %, and not the same in both arms.
    """
    run = compared(times, num_tokens, read_s=read_s, rounds=6, gpu=FakeGpu(power=600.0, tick_s=tick_s, jitter=0.01))
    assert not run.found.failed
    errors: dict[str, list[float]] = {}
    held = list[bool]()
    for block in run.found.measurement.blocks:
        assert block.void == {}
        error = block.raw["energy_j"] / true_joules(block) - 1
        errors.setdefault(block.arm, []).append(error)
        held.append(abs(error) <= 1.96 * block.uncertainties["energy_j"] / block.raw["energy_j"])
    for each in errors.values():
        assert abs(statistics.mean(each)) < 0.004
    assert sum(held) >= 0.95 * len(held)


@pytest.mark.parametrize("read_s", [3.2e-3, 1e-4])
def test_a_second_meter_beside_the_first_changes_nothing_of_that(read_s: float) -> None:
    run = compared(LONG, 128, read_s=read_s, is_checked=True)
    assert not run.found.failed
    blocks = run.found.measurement.blocks
    assert any("crosscheck_energy_j" in block.raw for block in blocks)
    for block in blocks:
        assert block.raw["energy_j"] == pytest.approx(true_joules(block), rel=0.01)


def test_a_generation_beside_a_block_is_given_up_when_the_meter_has_moved() -> None:
    bench = Bench(FakeGpu(power=600.0, jitter=0.01), read_s=3.2e-3).open()
    beside = Beside(working({"energy": bench.meter}), bench.clock)
    session = caller(on_gpu(bench, OF_SECONDS["baseline"]), INPUTS, 128, bench.clock)
    lengths = list[float]()
    for _ in range(12):
        for before in (True, False):
            begun_ns = bench.clock()
            spans = beside.lead(session, before=before)
            lengths.append((bench.clock() - begun_ns) / 1e9)
            assert spans.prefill[0][0] == begun_ns
            assert spans.decode[-1][1] == bench.clock()
            if before:
                bench.window(3.3)
    assert max(lengths) < 0.35, "one generation is 3.3 s"


def test_the_energy_of_a_model_that_waits_for_every_reading_is_within_its_interval() -> None:
    """While the counter is read no kernel is launched, and power falls to that of an idle device."""
    bench = Bench(FakeGpu(power=400.0, jitter=0.01), read_s=3.2e-3).open()
    spend = bench.nvml._spend

    def stalled() -> None:
        bench.nvml.set_power(120.0)
        spend()
        bench.nvml.set_power(400.0)

    bench.nvml._spend = stalled  # type: ignore[method-assign]
    beside = Beside(working({"energy": bench.meter}), bench.clock)
    session = caller(FakeSession(bench.clock, [0.002]), INPUTS, None, bench.clock)
    before = bench.nvml.num_reads
    for _ in range(40):
        beside.lead(session, before=True)
        bench.window(1.03)
        beside.lead(session, before=False)
    assert (bench.nvml.num_reads - before) / 40 < 9
    windows = bench.meter.collect()
    errors = [
        (window.values["energy_j"] - truth) / window.uncertainties["energy_j"]
        for window, truth in zip(windows, bench.truths, strict=True)
    ]
    assert sum(abs(error) <= 1.96 for error in errors) >= 38
    ratio = statistics.mean(w.values["energy_j"] / t for w, t in zip(windows, bench.truths, strict=True))
    assert ratio == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("tick_s", "read_s"), [(0.02, 3.2e-3), (0.1, 0.008), (0.1, 0.013), (0.05, 3.2e-3)])
def test_leads_of_any_slow_counter_end_after_a_tick_or_two(tick_s: float, read_s: float) -> None:
    bench = Bench(FakeGpu(power=400.0, tick_s=tick_s, jitter=0.01), read_s=read_s).open()
    assert bench.meter.wants_lead
    beside = Beside(working({"energy": bench.meter}), bench.clock)
    session = caller(FakeSession(bench.clock, [0.004]), INPUTS, None, bench.clock)
    lengths = list[float]()
    for _ in range(12):
        for before in (True, False):
            begun_ns = bench.clock()
            beside.lead(session, before=before)
            lengths.append((bench.clock() - begun_ns) / 1e9)
            if before:
                bench.window(1.0)
    assert max(lengths) < 0.42
    assert statistics.mean(lengths) < 0.15
    for found, truth in zip(bench.joules(), bench.truths, strict=True):
        assert found == pytest.approx(truth, rel=0.015)


class Never(ReplayInstrument):
    """Its counter never moves beside a window."""

    wants_lead = True

    def lead(self, *, before: bool) -> Callable[[], bool]:
        return lambda: False


def test_a_meter_that_is_never_seen_to_move_is_given_up_and_not_waited_for_any_more() -> None:
    clock = FakeClock()
    found = working({"energy": Never([{"energy_j": 1.0}]), "other": ReplayInstrument([{"other_j": 1.0}])})
    beside = Beside(found, clock)
    session = caller(FakeSession(clock, [0.1]), INPUTS, None, clock)
    begun_ns = clock()
    for _ in range(20):
        beside.lead(session, before=True)
    assert found.failed == {"energy": LATE}
    assert list(found.open) == ["other"]
    assert (clock() - begun_ns) / 1e9 < MAX_LATE * 2.2


class Failing(FakeSession):
    """Out of memory in its n-th call."""

    def __init__(self, bench: Bench, after: int) -> None:
        super().__init__(bench.clock, [0.004])
        self._after = after

    def __call__(self, batch: Any) -> Any:
        if self.num_calls >= self._after:
            raise RuntimeError("CUDA out of memory")
        return super().__call__(batch)


@pytest.mark.parametrize("after", [60, 520, 555, 600, 900])
def test_after_a_model_that_fails_nobody_reads_on(after: int) -> None:
    bench = Bench(FakeGpu(power=300.0), read_s=3.2e-3).open()
    sessions = {"baseline": FakeSession(bench.clock, [0.004]), "candidate": Failing(bench, after)}
    sessions["control"] = sessions["baseline"]
    arms = {
        arm: CallersOfArm.of(lambda session=session: caller(session, INPUTS, None, bench.clock))  # type: ignore[misc]
        for arm, session in sessions.items()
    }
    schedule = Schedule(2, 0.25, warm_up=WarmUpRule(min_s=0.2, max_s=1.0))
    tools = Tools({"energy": bench.meter}, None, bench.clock, bench.clock.advance)
    with pytest.raises(RuntimeError, match="out of memory"):
        compare(arms, {"batch_size": 1, "num_inputs": 3}, schedule, tools, SilentProgress())  # type: ignore[arg-type]
    before = bench.nvml.num_reads
    bench.clock.advance(60.0)
    assert bench.nvml.num_reads == before
    # and the next window is read in, as one without a lead is
    bench.truths.clear()
    bench.window(1.0)
    assert bench.joules() == [pytest.approx(300.0, rel=0.01)]
    assert bench.nvml.num_reads - before >= 10


def test_a_generation_ends_at_the_first_token_at_which_it_is_enough() -> None:
    bench = Bench().open()
    call = caller(on_gpu(bench, Times(0.1, 0.01)), INPUTS, 50, bench.clock)
    asked: Iterator[bool] = iter([False, False, True, True])
    begun_ns = bench.clock()
    first_ns = call.until(0, lambda: next(asked))
    assert first_ns == pytest.approx(0.1e9, rel=0.06)
    assert (bench.clock() - begun_ns) / 1e9 == pytest.approx(0.12, rel=0.06)
    assert call.take().num_tokens == ()


def test_as_much_is_read_within_as_fifty_ticks_of_a_generation_take() -> None:
    assert num_pairs(1.0, 1.0, is_generation=True) == 3
    assert num_pairs(1.0, 6.6, is_generation=True) == 1
    assert num_pairs(1.0, 1.0, is_generation=False) == 1


def test_the_announced_time_holds_what_is_done_beside_the_blocks() -> None:
    bench = Bench(FakeGpu(power=400.0, jitter=0.01), read_s=3.2e-3).open()
    opened = Opened({"energy": bench.meter}, {})
    assert opened.lead_tick_s == pytest.approx(0.1, rel=0.02)
    schedule = Schedule(12, 0.75, warm_up=WarmUpRule(min_calls=10, min_s=1.0, max_s=2.0), idle_s=1.0)
    session = FakeSession(bench.clock, [0.004])
    arms = {
        arm: CallersOfArm.of(lambda: caller(session, INPUTS, None, bench.clock))
        for arm in ("baseline", "candidate", "control")
    }
    tools = Tools(opened.instruments, None, bench.clock, bench.clock.advance)
    begun_ns = bench.clock()
    compare(arms, {"batch_size": 1, "num_inputs": 3}, schedule, tools, SilentProgress())  # type: ignore[arg-type]
    took_s = (bench.clock() - begun_ns) / 1e9
    said = schedule.announcement(opened.min_window_s, 2, opened.lead_tick_s)
    assert "blocks of 1.01 s with untimed calls beside them" in said
    (said_s,) = re.findall(r"about (\d+) s for each", said)
    assert float(said_s) == pytest.approx(took_s, rel=0.05)
