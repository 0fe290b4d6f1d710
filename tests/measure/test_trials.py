from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from compressbench.measure.trials import Action, Lap, Trial, take_turns
from compressbench.testing import FakeClock


class Machine:
    """Does `rate` units a second, apart from what disturbs it at the time: a factor and the share of the CPU."""

    def __init__(self, disturbance: Callable[[float], tuple[float, float | None]] = lambda _: (1.0, 1.0)) -> None:
        self.clock = FakeClock(0)
        self.disturbance = disturbance
        self.log: list[str] = []

    @property
    def now(self) -> float:
        return self.clock.now_ns / 1e9

    def stopwatch(self, action: Action) -> Lap:
        slower, share = self.disturbance(self.now)
        begun = self.now
        self.clock.advance(action() * slower)
        return Lap(self.now - begun, share)

    def trial(self, name: str, rate: Callable[[int], float], sizes: tuple[int, ...] = (100,)) -> Trial:
        def make(size: int) -> Action:
            def action() -> float:
                self.log.append(f"{name}{size}")
                return size / rate(size)

            return action

        return Trial(sizes, float, make)

    def run(self, *trials: Trial, seconds: float = 1.5) -> None:
        take_turns(trials, seconds, self.stopwatch, lambda: self.now)


def rate_of(trial: Trial) -> Any:
    assert trial.rate is not None
    return trial.rate


def test_the_largest_size_has_the_best_rate_where_small_ones_have_overhead() -> None:
    machine = Machine()
    trial = machine.trial("a", lambda size: 1e5 * size / (size + 100), (100, 200, 400, 800))
    machine.run(trial)
    assert rate_of(trial) == pytest.approx((1e5 * 8 / 9, 1e5 * 8 / 9, 800, True))


def test_a_size_that_would_take_too_long_is_not_tried() -> None:
    machine = Machine()
    trial = machine.trial("a", lambda _: 1000.0, (10, 100, 1000))
    machine.run(trial)
    assert "a1000" not in machine.log  # a second, of 1.5
    assert "a100" in machine.log
    assert machine.now <= 1.5 + 0.1


def test_turns_are_taken_one_after_the_other_and_in_time() -> None:
    machine = Machine()
    trials = [machine.trial(name, lambda _: 1e5) for name in "abc"]
    machine.run(*trials)
    order = [machine.log[0], *(now for last, now in zip(machine.log, machine.log[1:], strict=False) if now != last)]
    assert order == ["a100", "b100", "c100"] * 5
    assert machine.now == pytest.approx(1.5, abs=0.01)
    assert all(0.3 < machine.log.count(f"{name}100") * 1e-3 < 0.7 for name in "abc")


def test_the_best_survives_disturbances_and_the_median_shows_them() -> None:
    generator = random.Random(0)
    machine = Machine(lambda _: (1.0, 1.0) if generator.random() < 0.2 else (generator.uniform(1.5, 30), 0.4))
    trial = machine.trial("a", lambda _: 1e5)
    machine.run(trial)
    assert rate_of(trial).best == pytest.approx(1e5)
    assert rate_of(trial).is_clean
    assert rate_of(trial).median < 0.7e5


def test_what_was_slow_at_first_is_tried_at_larger_sizes_when_it_has_recovered() -> None:
    machine = Machine(lambda now: (20.0, 0.5) if now < 0.7 else (1.0, 1.0))
    trials = [machine.trial(name, lambda size: 1e5 * size / (size + 100), (100, 800)) for name in "ab"]
    machine.run(*trials)
    for trial in trials:
        assert rate_of(trial) == pytest.approx((1e5 * 8 / 9, rate_of(trial).median, 800, True))
        assert trial.is_settled(1.5)


def test_what_stays_disturbed_is_not_settled() -> None:
    machine = Machine(lambda _: (20.0, 0.5))
    trial = machine.trial("a", lambda _: 1e5)
    machine.run(trial)
    assert not rate_of(trial).is_clean
    assert not trial.is_settled(1.5)
    assert rate_of(trial).best == pytest.approx(5e3)
    assert machine.now == pytest.approx(1.5, abs=0.1)


def test_a_larger_size_that_is_left_is_not_settled_either() -> None:
    machine = Machine()
    trial = machine.trial("a", lambda _: 1e5, (100, 200))
    trial.turn(0.0, machine.stopwatch, 1.5)
    assert rate_of(trial).is_clean
    assert not trial.is_settled(1.5)
    trial.turn(0.0, machine.stopwatch, 1.5)
    assert trial.is_settled(1.5)


def test_on_a_device_of_its_own_the_cpu_does_not_count() -> None:
    machine = Machine(lambda _: (1.0, None))
    trial = machine.trial("a", lambda _: 1e5)
    machine.run(trial)
    assert rate_of(trial).is_clean
    assert machine.now == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize("error", [RuntimeError("not\n implemented"), TypeError(""), AttributeError("no int4")])
def test_what_cannot_be_done_is_absent_with_the_reason(error: Exception) -> None:
    def make(_: int) -> Action:
        raise error

    machine = Machine()
    trial = Trial((10, 20), float, make)
    machine.run(trial, machine.trial("b", lambda _: 1e5))
    assert trial.rate is None
    assert trial.is_settled(1.5)
    assert trial.why_not == (" ".join(str(error).split()) or type(error).__name__)
    assert machine.log


def test_a_programming_error_is_not_taken_for_a_missing_feature() -> None:
    def make(_: int) -> Action:
        raise KeyError("slip")

    with pytest.raises(KeyError):
        Machine().run(Trial((10,), float, make))


def test_running_out_of_memory_at_a_large_size_leaves_the_small_one() -> None:
    def make(size: int) -> Action:
        if size > 10:
            raise RuntimeError("out of memory")
        return lambda: 1e-3

    trial = Trial((10, 20), float, make)
    Machine().run(trial)
    assert rate_of(trial) == pytest.approx((1e4, 1e4, 10, True))
    assert trial.why_not == "out of memory"


def test_what_is_hopelessly_slow_is_left_out_after_one_repeat() -> None:
    machine = Machine()
    slow, quick = machine.trial("s", lambda _: 20.0, (100, 200)), machine.trial("q", lambda _: 1e5)
    machine.run(slow, quick)
    assert slow.rate is None
    assert slow.why_not == "too slow: once at size 100 took 5 s of 1.5 s"
    assert machine.log.count("s100") == 1
    assert rate_of(quick).best == pytest.approx(1e5)


def test_what_is_required_is_measured_however_slow_it_is() -> None:
    machine = Machine()
    trial = Trial((100,), float, lambda _: lambda: 5.0, is_required=True)
    machine.run(trial)
    assert rate_of(trial) == pytest.approx((20.0, 20.0, 100, True))
    assert machine.now == pytest.approx(15.0)


def test_a_size_that_came_last_is_still_repeated_three_times() -> None:
    machine = Machine()
    trial = machine.trial("a", lambda size: 1e5 * size / (size + 100), (100, 200))
    for _ in range(2):
        trial.turn(0.0, machine.stopwatch, 1.0)
    assert machine.log == ["a100", "a200"]
    trial.finish(machine.stopwatch)
    assert machine.log == ["a100", "a200", "a200", "a200"]
