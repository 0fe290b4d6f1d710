"""A log that has lost its meter, or says what can't be, gives no number; one that is coarse gives one all the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from pydantic import ValidationError

from compressbench.meters.energy_csv import EnergyCsv
from compressbench.meters.logged_energy import Samples, energy, why_void

RESOLUTION_W = 0.001


def log_of(value: Callable[[int], float], *, is_counter: bool = False, resolution: float = RESOLUTION_W) -> Samples:
    """A hundred samples, one a second, rounded as the log writes them."""
    values = [round(round(value(second) / resolution) * resolution, 6) for second in range(100)]
    return Samples(range(100), values, is_counter, [], 1.0, resolution, 0.0, 1e5)


def noisy(watts: Callable[[int], float] = lambda second: 100.0, spread: float = 0.5, seed: int = 0) -> Sequence[float]:
    rng = random.Random(seed)
    return [watts(second) + rng.gauss(0.0, spread) for second in range(100)]


def sums(watts: Sequence[float]) -> Sequence[float]:
    return [sum(watts[:second]) for second in range(len(watts) + 1)]


@pytest.mark.parametrize("since", [25, 41, 55, 70])
@pytest.mark.parametrize("num_still", [12, 40])
def test_power_that_stands_still_though_it_moved_before_voids_the_window(since: int, num_still: int) -> None:
    """Also where that began before the window, or ends after it."""
    watts = noisy(lambda second: 100.0 if second < 45 else 300.0)
    log = log_of(lambda second: watts[since] if since <= second < since + num_still else watts[second])
    reason = why_void(log, 30.5, 73.5)
    assert (
        reason
        == f"the log stands still for {min(num_still, 100 - since) - 1} s, at {round(watts[since], 3)}, and it moved before"
    )


@pytest.mark.parametrize("since", [15, 80])
def test_power_that_stood_still_outside_of_the_window_does_not_void_it(since: int) -> None:
    watts = noisy()
    log = log_of(lambda second: watts[since] if since <= second < since + 12 else watts[second])
    assert why_void(log, 30.5, 73.5) == ""


def test_that_it_stood_still_once_is_no_excuse_to_do_so_again() -> None:
    watts = noisy()
    log = log_of(lambda second: watts[second // 20 * 20] if 20 <= second < 33 or 60 <= second < 75 else watts[second])
    assert why_void(log, 40.5, 58.5) == ""
    assert "stands still for 14 s" in why_void(log, 50.5, 80.5)


def test_power_that_repeats_itself_ten_times_is_believed() -> None:
    watts = noisy()
    log = log_of(lambda second: watts[40] if 40 <= second <= 50 else watts[second])
    assert why_void(log, 30.5, 73.5) == ""


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("watts", [100.0, 100.25, 100.5])
@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3, 1.0])
def test_a_coarse_analyser_at_a_steady_load_is_believed(seed: int, watts: float, spread: float) -> None:
    values = noisy(lambda second: watts if second > 20 else watts / 2, spread, seed)
    log = log_of(lambda second: values[second], resolution=1.0)
    assert why_void(log, 30.5, 73.5) == ""
    joules, uncertainty_j = energy(log, 30.5, 73.5)
    assert joules == pytest.approx(43 * watts, rel=0.006)
    assert uncertainty_j < 43


def test_constant_power_that_never_moved_is_believed() -> None:
    assert why_void(log_of(lambda second: 123.456), 30.5, 73.5) == ""


@pytest.mark.parametrize(("num_zeros", "is_void"), [(1, False), (2, True), (30, True)])
def test_zeros_in_a_row_void_the_window(num_zeros: int, is_void: bool) -> None:
    watts = noisy()
    log = log_of(lambda second: 0.0 if 50 <= second < 50 + num_zeros else watts[second])
    reason = f"the log has {min(num_zeros, 25)} samples of 0 W in a row in the window" if is_void else ""
    assert why_void(log, 30.5, 73.5) == reason


@pytest.mark.parametrize("num_still", [3, 20, 60])
@pytest.mark.parametrize("loses", [True, False])
def test_a_counter_that_stands_still_for_more_than_three_periods_voids_the_window(num_still: int, loses: bool) -> None:
    joules = sums(noisy())

    def shown(second: int) -> float:
        if second < 40:
            return joules[second]
        if second < 41 + num_still:
            return joules[40]
        return joules[second - num_still] if loses else joules[second]

    reason = why_void(log_of(shown, is_counter=True), 30.5, 73.5)
    if num_still == 3:
        assert reason == ""
    else:
        assert reason == f"the log stands still for {min(num_still, 59)} s, at {joules[40]:.6g}, and it moved before"


@pytest.mark.parametrize("resolution_j", [36.0, 360.0, 3600.0])
def test_a_coarse_counter_is_believed(resolution_j: float) -> None:
    joules = sums(noisy(lambda second: 100.0 if second < 45 else 10.0))
    log = log_of(lambda second: joules[second], is_counter=True, resolution=resolution_j)
    assert why_void(log, 10.5, 90.5) == ""


def test_a_counter_that_jumps_voids_the_window() -> None:
    joules = sums(noisy())
    log = log_of(lambda second: joules[second] + (5e7 if second > 50 else 0), is_counter=True)
    assert why_void(log, 30.5, 73.5) == "the log has 5.00001e+07 W in the window, more than max_w, 100000 W"
    assert why_void(log, 55.5, 73.5) == ""


def test_a_sample_beyond_what_the_device_can_draw_voids_the_window() -> None:
    watts = noisy()
    log = log_of(lambda second: 1e9 if second == 50 else watts[second])
    assert why_void(log, 30.5, 73.5) == "the log has 1e+09 W in the window, more than max_w, 100000 W"
    assert why_void(log._replace(max_w=99.0), 55.5, 73.5).endswith("more than max_w, 99 W")
    assert why_void(log, 55.5, 73.5) == ""


def test_what_the_device_can_draw_can_be_given() -> None:
    given = {"path": "log.csv", "boundary": "wall", "source": "PDU", "relative_uncertainty": 0.02, "power_column": "p"}
    assert EnergyCsv(**given).max_w == 1e5
    assert EnergyCsv(**given, max_w=2500.0).max_w == 2500.0
    with pytest.raises(ValidationError, match="max_w"):
        EnergyCsv(**given, max_w=0.0)
