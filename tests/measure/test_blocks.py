"""The measuring loop on a clock that is set by hand: every nanosecond is known."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from compressbench.core.errors import MeterError
from compressbench.core.progress import SilentProgress
from compressbench.core.protocols import Batch, Provenance, Session
from compressbench.core.statistics import median
from compressbench.measure.blocks import Schedule, compare, harness_overhead_ns, time_calls
from compressbench.measure.steady_state import WarmUpRule
from compressbench.records.record import Arm, Block, Measurement
from compressbench.report.against import paired_ratio
from compressbench.testing import BrokenInstrument, FakeClock, FakeSession, ReplayInstrument

INPUTS: list[Batch] = [{"input_ids": [[index]]} for index in range(3)]
QUICK = WarmUpRule(min_calls=10, min_s=0.0, max_s=10.0)


def run(
    baseline_s: float | Callable[[int], float] = 0.010,
    candidate_s: float | Callable[[int], float] = 0.010,
    *,
    rounds: int = 2,
    block_s: float = 0.05,
    instruments: Mapping[str, Any] | None = None,
    clock: FakeClock | None = None,
) -> tuple[Measurement, dict[str, str], dict[Arm, FakeSession]]:
    clock = clock or FakeClock()
    arms: dict[Arm, FakeSession] = {
        "baseline": session(clock, baseline_s),
        "candidate": session(clock, candidate_s),
    }
    sessions: dict[Arm, Session] = dict(arms)
    schedule = Schedule(rounds, block_s, warm_up=QUICK)
    found = compare(sessions, INPUTS, schedule, instruments or {}, SilentProgress(), clock)
    return found.measurement, found.failed, arms


def session(clock: FakeClock, seconds: float | Callable[[int], float]) -> FakeSession:
    return FakeSession(clock, seconds if callable(seconds) else [seconds])


def latency(block: Block) -> float:
    return median(block.latencies_ns) / 1e9


def test_the_order_of_the_arms_is_a_b_b_a_then_b_a_a_b() -> None:
    found, _, _ = run(rounds=3)
    letters = "".join("A" if block.arm == "baseline" else "B" for block in found.blocks)
    assert letters == "ABBA" + "BAAB" + "ABBA"
    assert [(block.round, block.position) for block in found.blocks] == [(r, p) for r in range(3) for p in range(4)]


def test_latencies_are_exact_to_the_nanosecond() -> None:
    durations = [0.000_000_001 * (10_000_000 + 7 * index) for index in range(11)]
    found, _, _ = run(lambda index: durations[index % 11], rounds=1)
    seen = [each for block in found.blocks if block.arm == "baseline" for each in block.latencies_ns]
    first = found.warm_up["baseline"].num_calls
    assert seen == [10_000_000 + 7 * ((first + index) % 11) for index in range(len(seen))]


def test_a_block_has_as_many_calls_as_fill_it() -> None:
    found, _, _ = run(0.010, 0.004, block_s=0.05)
    assert found.calls_per_block == {"baseline": 5, "candidate": 12}
    assert {len(block.latencies_ns) for block in found.blocks if block.arm == "candidate"} == {12}
    slow, _, _ = run(0.2, block_s=0.05)
    assert slow.calls_per_block["baseline"] == 1


def test_an_instrument_that_needs_a_longer_window_gets_it() -> None:
    meter = ReplayInstrument([{"energy_j": 1.0}])
    meter.min_window_s = 0.5
    found, _, _ = run(0.010, 0.010, block_s=0.05, instruments={"energy": meter})
    assert found.calls_per_block == {"baseline": 50, "candidate": 50}


def test_both_arms_get_the_same_inputs_round_and_round() -> None:
    clock = FakeClock()
    seen: dict[str, list[int]] = {"baseline": [], "candidate": []}

    class Listening(FakeSession):
        def __init__(self, name: str) -> None:
            super().__init__(clock, [0.01])
            self.name = name

        def __call__(self, batch: Batch) -> Any:
            seen[self.name].append(batch["input_ids"][0][0])
            return super().__call__(batch)

    arms: dict[Arm, Session] = {"baseline": Listening("baseline"), "candidate": Listening("candidate")}
    found = compare(arms, INPUTS, Schedule(2, 0.05, warm_up=QUICK), {}, SilentProgress(), clock).measurement
    for name in ("baseline", "candidate"):
        warm = found.warm_up[name].num_calls
        measured = seen[name][warm:]
        assert measured == [index % 3 for index in range(len(measured))]
        assert len(measured) == 4 * 5
    assert (found.num_inputs, found.batch_size) == (3, 1)


def test_tokens_are_generated_when_the_schedule_asks_for_them() -> None:
    clock, asked = FakeClock(), list[int]()

    class Generating(FakeSession):
        def generate(self, batch: Batch, num_tokens: int) -> Any:
            asked.append(num_tokens)
            return super().generate(batch, num_tokens)

    arms: dict[Arm, Session] = {"baseline": Generating(clock, [0.01]), "candidate": Generating(clock, [0.01])}
    compare(arms, INPUTS, Schedule(1, 0.05, 7, QUICK), {}, SilentProgress(), clock)
    assert set(asked) == {7}


class Told:
    """A session, an instrument and a clock that write down in which order they are asked."""

    device, min_window_s = "cpu", 0.0
    provenance = Provenance(kind="measured", source="told")

    def __init__(self) -> None:
        self.order: list[str] = []
        self.now = 0

    def clock(self) -> int:
        self.order.append("clock")
        self.now += 1_000_000
        return self.now

    def __call__(self, batch: Batch) -> None:
        self.order.append("call")

    def generate(self, batch: Batch, num_tokens: int) -> None:
        raise AssertionError("nothing is generated here")

    def synchronize(self) -> None:
        self.order.append("synchronize")

    def start(self) -> None:
        self.order.append("start")

    def stop(self) -> dict[str, float]:
        self.order.append("stop")
        return {"energy_j": 1.0}

    def close(self) -> None:
        self.order.append("close")


def test_meters_are_read_around_the_block_and_the_device_is_synchronised_before_the_clock_stops() -> None:
    told = Told()
    arms: dict[Arm, Session] = {"baseline": told, "candidate": told}
    compare(arms, INPUTS, Schedule(1, 0.003, warm_up=QUICK), {"energy": told}, SilentProgress(), told.clock)
    blocks = "|".join(told.order).split("start|")[1:]
    one_call = "clock|call|synchronize|clock|"
    assert len(blocks) == 4
    for block in blocks:
        inside, _, _ = block.partition("stop")
        assert inside == one_call * (inside.count("call|"))
        assert inside
    assert "close" not in told.order


def test_nothing_stands_between_the_clock_and_the_call() -> None:
    order: list[object] = []
    ticks = iter(range(0, 100, 5))

    def clock() -> int:
        order.append("clock")
        return next(ticks)

    latencies = time_calls(order.append, iter([4, 9]), 2, clock)
    assert order == ["clock", 4, "clock", "clock", 9, "clock"]
    assert latencies == (5, 5)


def test_the_overhead_of_the_harness_is_the_median_of_an_empty_body() -> None:
    times = iter(range(0, 10_000_000, 120))
    assert harness_overhead_ns(lambda: next(times)) == 120


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_meter_that_fails_is_dropped_with_its_reason_and_leaves_no_value_behind(after: int) -> None:
    broken, good = BrokenInstrument(after, {"energy_j": 5.0}), ReplayInstrument([{"ram_energy_j": 1.0}])
    found, failed, _ = run(instruments={"energy": broken, "ram": good})
    assert failed == {"energy": "the instrument was unplugged"}
    assert {key for block in found.blocks for key in block.raw} == {"ram_energy_j"}
    assert set(found.provenance) == {"ram_energy_j"}
    assert broken.calls == ["start", "stop"] * (after + 1)
    assert len(good.calls) == 2 * len(found.blocks)


def test_a_meter_that_fails_to_start_is_dropped_too() -> None:
    class Dead(ReplayInstrument):
        def start(self) -> None:
            raise MeterError("GPU is lost")

    found, failed, _ = run(instruments={"energy": Dead([{"energy_j": 1.0}])})
    assert failed == {"energy": "GPU is lost"}
    assert all(not block.raw for block in found.blocks)
    assert found.provenance == {}


def test_each_raw_value_keeps_the_provenance_that_its_instrument_gives_it() -> None:
    meter = ReplayInstrument([{"energy_j": 1.0, "ram_energy_j": 2.0}])
    own = Provenance(kind="modelled", source="5 W a module")
    meter.provenances = {"ram_energy_j": own}  # type: ignore[attr-defined]
    found, _, _ = run(instruments={"energy": meter})
    assert found.provenance == {"energy_j": meter.provenance, "ram_energy_j": own}
    assert [block.raw["energy_j"] for block in found.blocks] == [1.0] * 8


@pytest.mark.parametrize("was_enabled", [True, False])
def test_garbage_collection_rests_while_measuring_and_is_afterwards_as_before(was_enabled: bool) -> None:
    seen: list[bool] = []

    def look(_: int) -> float:
        seen.append(gc.isenabled())
        return 0.01

    try:
        gc.enable() if was_enabled else gc.disable()
        run(look)
        assert gc.isenabled() == was_enabled
    finally:
        gc.enable()
    assert set(seen) == {False}


def test_garbage_collection_is_restored_when_the_model_raises() -> None:
    def fail(_: int) -> float:
        raise RuntimeError("out of memory")

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="out of memory"):
        run(fail)
    assert gc.isenabled()


def test_a_model_against_itself_has_the_ratio_one() -> None:
    found, _, _ = run(0.010, 0.010, rounds=4)
    assert paired_ratio(found, latency) == (1.0, 1.0, 1.0)


def test_three_percent_slower_is_a_ratio_of_1_03() -> None:
    found, _, _ = run(0.010, 0.0103, rounds=4)
    ratio = paired_ratio(found, latency)
    assert ratio is not None
    assert ratio == pytest.approx((1.03, 1.03, 1.03), rel=1e-9)


def test_a_linear_drift_cancels_where_one_after_the_other_would_lie() -> None:
    clock = FakeClock()
    begun = clock()

    def drifting(_: int) -> float:
        return 0.010 * (1 + 0.05 * (clock() - begun) / 4e9)  # 5 % slower in 4 seconds

    found, _, _ = run(drifting, drifting, rounds=20, block_s=0.05, clock=clock)
    ratio = paired_ratio(found, latency)
    assert ratio is not None
    assert ratio.value == pytest.approx(1, abs=1e-3)
    assert ratio.low <= 1 <= ratio.high
    half = len(found.blocks) // 2
    first, second = (median([latency(block) for block in part]) for part in (found.blocks[:half], found.blocks[half:]))
    assert second / first > 1.02


def test_the_seconds_of_a_schedule_are_those_it_takes() -> None:
    clock = FakeClock()
    schedule = Schedule(10, 0.1)
    before = clock()
    arms: dict[Arm, Session] = {"baseline": FakeSession(clock, [0.01]), "candidate": FakeSession(clock, [0.01])}
    compare(arms, INPUTS, schedule, {}, SilentProgress(), clock)
    assert (clock() - before) / 1e9 == pytest.approx(schedule.seconds, rel=0.1)


class CountingBars(SilentProgress):
    """Remembers each bar as [what, total, how far it came]."""

    def __init__(self) -> None:
        self.bars: list[list[Any]] = []

    @contextmanager
    def bar(self, description: str, total: float) -> Iterator[Any]:
        self.bars.append([description, total, 0])
        yield SimpleNamespace(advance=self._advance)

    def _advance(self, amount: float = 1) -> None:
        self.bars[-1][2] += amount


def test_bars_go_forward_once_per_arm_and_once_per_round() -> None:
    clock, progress = FakeClock(), CountingBars()
    arms: dict[Arm, Session] = {"baseline": FakeSession(clock, [0.01]), "candidate": FakeSession(clock, [0.01])}
    compare(arms, INPUTS, Schedule(3, 0.05, warm_up=QUICK), {}, progress, clock)
    assert progress.bars == [["warm up", 2, 2], ["measure", 3, 3]]
