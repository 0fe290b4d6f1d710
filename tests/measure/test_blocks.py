"""The measuring loop on a clock that is set by hand: every nanosecond is known."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from compressbench.core.errors import MeterError
from compressbench.core.progress import SilentProgress
from compressbench.core.protocols import Batch, Provenance, Session, Window
from compressbench.core.statistics import median
from compressbench.measure.blocks import CallersOfArm, Tools, compare, harness_overhead_ns
from compressbench.measure.calls import CallDetails, caller, time_calls
from compressbench.measure.schedule import Schedule
from compressbench.measure.steady_state import WarmUpRule
from compressbench.records.crosscheck import disagreement
from compressbench.records.evidence import Evidence
from compressbench.records.measurement import Arm, Block, Measurement, Tier
from compressbench.report.paired import paired_ratio
from compressbench.testing import BrokenInstrument, FakeClock, FakeSession, ReplayInstrument

INPUTS: list[Batch] = [{"input_ids": [[index]]} for index in range(3)]
SHAPE = {"batch_size": 1, "num_inputs": 3}
QUICK = WarmUpRule(min_calls=10, min_s=0.0, max_s=10.0)


def callers(clock: FakeClock, **sessions: Any) -> dict[Arm, CallersOfArm]:
    """Of baseline and candidate; the control is the baseline's session again."""
    arms = {**sessions, "control": sessions["baseline"]}

    def of(session: Session) -> CallersOfArm:
        return CallersOfArm.of(lambda: caller(session, INPUTS, None, clock))

    return {arm: of(session) for arm, session in arms.items()}  # type: ignore[misc]


def run(
    baseline_s: float | Callable[[int], float] = 0.010,
    candidate_s: float | Callable[[int], float] = 0.010,
    *,
    rounds: int = 2,
    block_s: float = 0.05,
    instruments: Mapping[str, Any] | None = None,
    clock: FakeClock | None = None,
    watcher: Any = None,
    idle_s: float = 0.0,
    tier: Tier = "smoke",
) -> tuple[Measurement, dict[str, str], dict[str, FakeSession]]:
    clock = clock or FakeClock()
    arms = {"baseline": session(clock, baseline_s), "candidate": session(clock, candidate_s)}
    schedule = Schedule(rounds, block_s, warm_up=QUICK, idle_s=idle_s, tier=tier)
    tools = Tools(instruments or {}, watcher, clock, clock.sleep)
    found = compare(callers(clock, **arms), SHAPE, schedule, tools, SilentProgress())
    return found.measurement, found.failed, arms


def session(clock: FakeClock, seconds: float | Callable[[int], float]) -> FakeSession:
    return FakeSession(clock, seconds if callable(seconds) else [seconds])


def latency(block: Block) -> float:
    return median(block.latencies_ns) / 1e9


def test_rounds_are_mirrored_and_take_turns_in_who_begins() -> None:
    found, _, _ = run(rounds=4)
    letters = "".join({"baseline": "A", "candidate": "B", "control": "C"}[block.arm] for block in found.blocks)
    assert letters == "ABCCBA" + "BCAACB" + "CABBAC" + "ABCCBA"
    assert [(block.round, block.position) for block in found.blocks] == [(r, p) for r in range(4) for p in range(6)]
    assert (found.protocol, found.num_planned_rounds) == (2, 4)


def test_latencies_are_exact_to_the_nanosecond() -> None:
    durations = [0.000_000_001 * (10_000_000 + 7 * index) for index in range(11)]
    found, _, arms = run(0.010, lambda index: durations[index % 11], rounds=1)
    seen = [each for block in found.blocks if block.arm == "candidate" for each in block.latencies_ns]
    first = found.warm_up["candidate"].num_calls
    assert seen == [10_000_000 + 7 * ((first + index) % 11) for index in range(len(seen))]
    assert arms["candidate"].num_calls == first + len(seen)


def test_a_block_has_as_many_calls_as_fill_it() -> None:
    found, _, _ = run(0.010, 0.004, block_s=0.05)
    assert found.calls_per_block == {"baseline": 5, "candidate": 12, "control": 5}
    assert {len(block.latencies_ns) for block in found.blocks if block.arm == "candidate"} == {12}
    slow, _, _ = run(0.2, block_s=0.05)
    assert slow.calls_per_block["baseline"] == 1


def test_an_instrument_that_needs_a_longer_window_gets_it() -> None:
    meter = ReplayInstrument([{"energy_j": 1.0}])
    meter.min_window_s = 0.5
    found, _, _ = run(0.010, 0.010, block_s=0.05, instruments={"energy": meter})
    assert found.calls_per_block == {"baseline": 50, "candidate": 50, "control": 50}


def test_all_arms_get_the_same_inputs_round_and_round() -> None:
    clock = FakeClock()
    seen: dict[str, list[int]] = {"baseline": [], "candidate": [], "control": []}

    class Listening(FakeSession):
        def __init__(self, name: str) -> None:
            super().__init__(clock, [0.01])
            self.name = name

        def __call__(self, batch: Batch) -> Any:
            seen[self.name].append(batch["input_ids"][0][0])
            return super().__call__(batch)

    arms = {name: Listening(name) for name in seen}
    made = {
        name: CallersOfArm.of(lambda arm=arm: caller(arm, INPUTS, None, clock))  # type: ignore[misc]
        for name, arm in arms.items()
    }
    schedule = Schedule(2, 0.05, warm_up=QUICK)
    found = compare(made, SHAPE, schedule, Tools({}, None, clock), SilentProgress()).measurement  # type: ignore[arg-type]
    for name in ("baseline", "candidate", "control"):
        warm = found.warm_up[name].num_calls if name in found.warm_up else 0
        measured = seen[name][warm:]
        assert measured == [index % 3 for index in range(len(measured))]
        assert len(measured) == 4 * 5
    assert (found.num_inputs, found.batch_size) == (3, 1)


class Told:
    """A call, an instrument, a watcher and a clock that write down in which order they are asked."""

    min_window_s = 0.0
    provenances: ClassVar[dict[str, Provenance]] = {
        "energy_j": Provenance(kind="measured", source="told", boundary="x", relative_uncertainty=0.0, tick_s=0.1)
    }

    def __init__(self) -> None:
        self.order: list[str] = []
        self.now = self.num_windows = 0

    def clock(self) -> int:
        self.order.append("clock")
        self.now += 1_000_000
        return self.now

    def __call__(self, index: int) -> None:
        self.order.append("call")

    def until(self, index: int, is_over: Callable[[], bool]) -> None:
        raise AssertionError("no meter here wants a lead")

    def take(self) -> CallDetails:
        self.order.append("take")
        return CallDetails()

    def start(self) -> None:
        self.order.append("start")

    def stop(self) -> None:
        self.order.append("stop")
        self.num_windows += 1

    def collect(self) -> list[Window]:
        self.order.append("collect")
        windows = [Window(seconds=1.0, values={"energy_j": 1.0}, uncertainties={"energy_j": 0.0})] * self.num_windows
        self.num_windows = 0
        return windows

    def before(self) -> None:
        self.order.append("before")

    def after(self) -> None:
        self.order.append("after")

    def evidence(self) -> Evidence:
        return Evidence()

    def close(self) -> None:
        self.order.append("close")


def test_watcher_and_meters_are_read_around_a_block_and_windows_are_collected_after_the_round() -> None:
    told = Told()
    arms: dict[Arm, CallersOfArm] = {arm: CallersOfArm(told, told) for arm in ("baseline", "candidate", "control")}
    tools = Tools({"energy": told}, told, told.clock)
    compare(arms, SHAPE, Schedule(1, 0.003, warm_up=QUICK), tools, SilentProgress())
    _, _, measured = "|".join(told.order).partition("collect|")  # what the warm-up left is forgotten
    rounds, _, _ = measured.partition("|collect")
    blocks = rounds.split("before|start|")[1:]
    one_call = "clock|call|clock|"
    assert len(blocks) == 6
    for block in blocks:
        inside, _, behind = block.partition("clock|stop|")
        assert inside == "clock|" + one_call * inside.count("call|")
        assert inside.count("call|") > 0
        assert behind.strip("|") == "after|take"
    assert "close" not in told.order


class Leading(ReplayInstrument):
    """Wants calls to go on until the third one beside a window; `work` counts those of all sessions."""

    wants_lead = True

    def __init__(self, clock: FakeClock, enough: int = 3) -> None:
        super().__init__([{"energy_j": 1.0}])
        self.clock, self.enough, self.asked = clock, enough, list[tuple[bool, int]]()

    def lead(self, *, before: bool) -> Callable[[], bool]:
        self.asked.append((before, self.clock.now_ns))
        num_asked = 0

        def is_over() -> bool:
            nonlocal num_asked
            num_asked += 1
            return num_asked >= self.enough

        return is_over


def test_work_goes_on_untimed_beside_the_windows_of_a_meter_that_wants_it() -> None:
    plain, _, before = run(rounds=2, instruments={"energy": ReplayInstrument([{"energy_j": 1.0}])})
    clock = FakeClock()
    meter = Leading(clock)
    found, failed, arms = run(rounds=2, instruments={"energy": meter}, clock=clock)
    assert failed == {}
    assert [each for each, _ in meter.asked] == [True, False] * 12
    assert [block.latencies_ns for block in found.blocks] == [block.latencies_ns for block in plain.blocks]
    assert [block.seconds for block in found.blocks] == [block.seconds for block in plain.blocks]
    for name in ("baseline", "candidate"):
        blocks = sum(block.arm == name or (name == "baseline" and block.arm == "control") for block in found.blocks)
        assert arms[name].num_calls == before[name].num_calls + 2 * 3 * blocks


def test_a_meter_that_never_sees_enough_ends_the_lead_after_two_seconds() -> None:
    clock = FakeClock()
    meter = Leading(clock, enough=10**9)
    found, _, _ = run(rounds=1, instruments={"energy": meter}, clock=clock)
    assert len(found.blocks) == 6
    begun, ended = meter.asked[0][1], meter.asked[1][1]
    assert 2.0 <= (ended - begun) / 1e9 - (found.blocks[0].seconds or 0.0) < 2.02


def test_a_meter_that_can_be_read_in_passing_is_asked_nothing() -> None:
    meter = Leading(FakeClock())
    meter.wants_lead = False
    run(rounds=1, instruments={"energy": meter})
    assert meter.asked == []


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
    assert {key for block in found.blocks for key in block.uncertainties} == {"ram_energy_j"}
    assert set(found.provenance) == {"ram_energy_j"}
    assert [call for call in broken.calls if call != "collect"] == ["start", "stop"] * (after + 1)
    assert good.calls == ["collect"] + (["start", "stop"] * 6 + ["collect"]) * 2


def test_a_meter_that_fails_in_a_later_round_takes_its_earlier_values_along() -> None:
    found, failed, _ = run(instruments={"energy": BrokenInstrument(8, {"energy_j": 5.0})}, rounds=2)
    assert failed
    assert all(not block.raw and not block.uncertainties for block in found.blocks)


@pytest.mark.parametrize("window", [MeterError("GPU is lost"), "below resolution"])
def test_what_was_read_of_the_idle_machine_goes_with_what_was_never_read_in_blocks(window: Any) -> None:
    meter = ReplayInstrument([{"energy_j": 3.0}, *[window] * 12, {"energy_j": 3.0}])
    found, _, _ = run(instruments={"energy": meter}, idle_s=1.0)
    assert found.provenance == {}
    assert all(not idle.raw and not idle.uncertainties for idle in found.idle)


def test_a_meter_that_fails_to_start_is_dropped_too() -> None:
    class Dead(ReplayInstrument):
        def start(self) -> None:
            raise MeterError("GPU is lost")

    found, failed, _ = run(instruments={"energy": Dead([{"energy_j": 1.0}])})
    assert failed == {"energy": "GPU is lost"}
    assert all(not block.raw for block in found.blocks)
    assert found.provenance == {}


@pytest.mark.parametrize("method", ["start", "stop", "collect"])
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), AttributeError("no such field"), MemoryError()])
def test_whatever_a_meter_raises_costs_its_numbers_alone(method: str, error: Exception) -> None:
    def fail(*_: Any) -> Any:
        raise error

    odd, good = ReplayInstrument([{"energy_j": 1.0}]), ReplayInstrument([{"ram_energy_j": 2.0}])
    setattr(odd, method, fail)
    found, failed, _ = run(instruments={"energy": odd, "ram": good})
    kind, text = type(error).__name__, str(error)
    assert failed == {"energy": f"{kind}: {text}" if text else kind}
    assert [dict(block.raw) for block in found.blocks] == [{"ram_energy_j": 2.0}] * 12


def test_a_value_of_which_its_meter_does_not_say_how_it_was_read_is_none() -> None:
    meter = ReplayInstrument([{"energy_j": 1.0, "odd_j": 2.0}])
    meter.provenances = {"energy_j": meter.provenances["energy_j"]}
    found, failed, _ = run(instruments={"energy": meter})
    assert failed == {"energy": "the meter 'energy' doesn't say how it reads odd_j"}
    assert all(not block.raw for block in found.blocks)


def test_a_meter_that_loses_a_window_is_broken() -> None:
    class Forgetful(ReplayInstrument):
        def collect(self) -> list[Window]:
            return super().collect()[1:]

    found, failed, _ = run(instruments={"energy": Forgetful([{"energy_j": 1.0}])})
    assert failed == {"energy": "the meter 'energy' gave 5 windows for 6"}
    assert all(not block.raw for block in found.blocks)


def test_a_void_window_has_its_reason_in_its_block_and_no_value() -> None:
    meter = ReplayInstrument([{"energy_j": 2.0}] * 3 + ["counter reset"] + [{"energy_j": 2.0}] * 8)
    found, failed, _ = run(instruments={"energy": meter}, rounds=2)
    assert failed == {}
    assert [block.raw.get("energy_j") for block in found.blocks] == [2.0] * 3 + [None] + [2.0] * 8
    assert [block.void for block in found.blocks if block.void] == [{"energy": "counter reset"}]


@pytest.mark.parametrize("joules", [0.0, -0.5])
def test_a_window_of_no_joules_is_void_and_in_no_mean(joules: float) -> None:
    meter = ReplayInstrument([{"energy_j": joules, "ram_energy_j": 1.0}, {"energy_j": 10.0, "ram_energy_j": 1.0}])
    found, failed, _ = run(instruments={"energy": meter}, idle_s=1.0)
    assert failed == {}
    # the first window is that of the idle machine
    assert [dict(block.raw) for block in found.blocks] == [{"energy_j": 10.0, "ram_energy_j": 1.0}, {}] * 6
    assert [block.void for block in found.blocks if block.void] == [{"energy": f"below resolution: {joules:g} J"}] * 6
    assert [idle.void for idle in found.idle] == [{"energy": f"below resolution: {joules:g} J"}, {}]


def test_nothing_read_by_the_second_meter_stays_beside_what_the_first_read() -> None:
    both = {"energy_j": 10.0, "crosscheck_energy_j": 0.0}
    found, _, _ = run(instruments={"energy": ReplayInstrument([both])})
    assert [dict(block.raw) for block in found.blocks] == [both] * 12
    assert "the second read 0 J" in disagreement(found)


def test_each_raw_value_keeps_the_provenance_that_its_instrument_gives_it() -> None:
    meter = ReplayInstrument([{"energy_j": 1.0, "ram_energy_j": 2.0}])
    own = Provenance(kind="modelled", source="5 W a module", boundary="memory", uncertainty_reason="a guess")
    meter.provenances = {**meter.provenances, "ram_energy_j": own}
    found, _, _ = run(instruments={"energy": meter})
    assert found.provenance == meter.provenances
    assert [block.raw["energy_j"] for block in found.blocks] == [1.0] * 12


def test_what_is_idle_is_read_before_and_after() -> None:
    clock = FakeClock()
    meter = ReplayInstrument([{"energy_j": 3.0}])
    found, _, _ = run(instruments={"energy": meter}, idle_s=2.0, clock=clock)
    assert [(idle.when, idle.raw) for idle in found.idle] == [
        ("before", {"energy_j": 3.0}),
        ("after", {"energy_j": 3.0}),
    ]
    assert run(idle_s=2.0)[0].idle == ()


class Judged:
    """A watcher that calls the blocks of these rounds disturbed."""

    def __init__(self, disturbed: set[int]) -> None:
        self._disturbed, self._num_blocks = disturbed, 0

    def before(self) -> None:
        pass

    def after(self) -> None:
        self._num_blocks += 1

    def evidence(self) -> Evidence:
        shares = tuple(0.5 if index // 6 in self._disturbed else 0.0 for index in range(self._num_blocks))
        return Evidence(foreign_share=shares, steal_share=(0.0,) * self._num_blocks)


@pytest.mark.parametrize(
    ("disturbed", "num_rounds"), [(set(), 6), ({1}, 7), ({1, 6}, 8), (set(range(100)), 9), ({7}, 6)]
)
def test_disturbed_rounds_are_repeated_up_to_the_tiers_share_and_none_is_left_out(
    disturbed: set[int], num_rounds: int
) -> None:
    found, _, _ = run(rounds=6, tier="standard", watcher=Judged(disturbed))
    assert [block.round for block in found.blocks] == [number for number in range(num_rounds) for _ in range(6)]
    assert found.num_planned_rounds == 6
    short, _, _ = run(rounds=6, tier="smoke", watcher=Judged(disturbed))
    assert len(short.blocks) == 6 * min(num_rounds, 7)
    assert found.evidence is not None
    assert len(found.evidence.foreign_share) == len(found.blocks)
    assert found.rule is not None


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
    schedule = Schedule(10, 0.1, idle_s=3.0)
    before = clock()
    arms = {"baseline": FakeSession(clock, [0.01]), "candidate": FakeSession(clock, [0.01])}
    tools = Tools({"energy": ReplayInstrument([{"energy_j": 1.0}])}, None, clock, clock.sleep)
    compare(callers(clock, **arms), SHAPE, schedule, tools, SilentProgress())
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
    arms = {"baseline": FakeSession(clock, [0.01]), "candidate": FakeSession(clock, [0.01])}
    tools = Tools({}, Judged({0}), clock)
    compare(callers(clock, **arms), SHAPE, Schedule(3, 0.05, warm_up=QUICK), tools, progress)
    assert progress.bars == [["warm up", 2, 2], ["measure", 3, 3]]
