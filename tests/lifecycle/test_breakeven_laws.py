"""Break-even: its laws on 10,000 random cases, on whole accounts, and coverage through paired ratios."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compressbench.core.statistics import Interval
from compressbench.lifecycle.accounts import Case, Factors, Per, account
from compressbench.lifecycle.breakeven import break_even, ratio_of
from compressbench.lifecycle.one_off import Figure, Part
from compressbench.lifecycle.savings import Pair, difference, exact, scaled

_Z95 = 1.959963984540054
PER: tuple[Per, Per] = ("inference", "correct")
MORE = Part("more", Figure(exact(5.0), "measured", "a clock"), Figure(exact(50.0), "measured", "a meter"))


def case_of(rng: np.random.Generator) -> tuple[Interval, Interval]:
    """A cost and a saving of any size, exact or not, with intervals that lean to either side."""
    value = float(10 ** rng.uniform(-6, 9))
    cost = Interval(value, value * float(rng.uniform(0.2, 1)), value * float(rng.uniform(1, 4)))
    saved = float(rng.normal() * 10 ** rng.uniform(-9, 3))
    wide = abs(saved) * float(10 ** rng.uniform(-3, 0.7))
    saving = Interval(saved, saved - wide * float(rng.uniform(0.1, 1)), saved + wide * float(rng.uniform(0.1, 1)))
    return (exact(value) if rng.random() < 0.3 else cost), (exact(saved) if rng.random() < 0.2 else saving)


def test_ten_thousand_cases_keep_the_laws() -> None:
    rng = np.random.default_rng(7)
    outcomes = {"reached": 0, "never": 0, "undetermined": 0}
    for _ in range(10_000):
        cost, saving = case_of(rng)
        found = break_even(cost, saving)
        outcomes[found.outcome] += 1
        expected = "never" if saving.high <= 0 else "undetermined" if saving.low <= 0 else "reached"
        assert found.outcome == expected
        assert (found.requests is not None) == (expected == "reached")
        assert (found.at_least is not None) == (expected == "undetermined")
        # kilowatt-hours or joules: the same number of requests
        other = break_even(scaled(cost, 1 / 3.6e6), scaled(saving, 1 / 3.6e6))
        assert other.outcome == found.outcome
        if found.requests is None:
            continue
        low, high = found.requests.low, found.requests.high
        assert 0 <= low <= found.requests.value <= high
        assert other.requests == pytest.approx(found.requests)
        # up with the cost, down with the saving
        factor = float(rng.uniform(1.001, 3))
        dearer, better = break_even(scaled(cost, factor), saving), break_even(cost, scaled(saving, factor))
        assert dearer.requests is not None
        assert better.requests is not None
        assert all(each > mine for each, mine in zip(dearer.requests, found.requests, strict=True))
        assert all(each < mine for each, mine in zip(better.requests, found.requests, strict=True))
        if cost.low == cost.high:
            assert (low, high) == pytest.approx((cost.value / saving.high, cost.value / saving.low))
    assert min(outcomes.values()) > 500


def full(rng: np.random.Generator) -> Case:
    """A candidate whose joules, seconds and accuracy are all uncertain, and whose search was not free."""
    took = [Figure(spread(rng, float(10 ** rng.uniform(0, 4)), 0.1), "measured", "a meter") for _ in range(4)]
    parts = (Part("compress", took[0], took[1]), Part("other", took[2], took[3], is_search=True))
    pairs = [
        Pair(spread(rng, float(10 ** rng.uniform(-3, 1)), 0.1), spread(rng, float(rng.uniform(0.3, 1.3)), 0.1), 0.0)
        for _ in range(2)
    ]
    accuracy = Pair(spread(rng, 0.8, 0.02), spread(rng, 0.95, 0.05))
    return Case("int8", "example", "1", parts, seconds=pairs[0], joules=pairs[1], accuracy=accuracy)


def spread(rng: np.random.Generator, value: float, wide: float) -> Interval:
    return Interval(
        value, value * (1 - wide * float(rng.uniform(0.1, 1))), value * (1 + wide * float(rng.uniform(0.1, 1)))
    )


def test_of_whole_accounts_the_laws_hold_too() -> None:
    """Through costs, pairs and factors: no unit changes the requests, a search never shortens them, nor does more work."""
    rng = np.random.default_rng(9)
    outcomes: dict[str, int] = {}
    for _ in range(1000):
        found, per = full(rng), PER[int(rng.random() < 0.3)]
        grid = float(10 ** rng.uniform(-3, 3))
        joules, grams = (account(found, Factors(grid_g_per_kwh=grid), unit, per) for unit in ("J", "g"))
        in_kilograms = account(found, Factors(grid_g_per_kwh=grid / 1000), "g", per)
        seconds = account(found, Factors(), "s", per)
        money = account(found, Factors(price_per_hour=grid), "money", per)
        outcomes[joules.break_even.outcome] = outcomes.get(joules.break_even.outcome, 0) + 1
        for one, other in ((joules, grams), (grams, in_kilograms), (seconds, money)):
            assert one.break_even.outcome == other.break_even.outcome
            if one.break_even.requests is not None:
                assert other.break_even.requests == pytest.approx(one.break_even.requests, rel=1e-9)
            if one.break_even.at_least is not None:
                assert other.break_even.at_least == pytest.approx(one.break_even.at_least, rel=1e-9)
        for each in (joules, seconds):
            if each.break_even.requests is not None:
                assert each.alone.requests is not None
                assert all(a <= b for a, b in zip(each.alone.requests, each.break_even.requests, strict=True))
        more = account(found._replace(parts=(*found.parts, MORE)), Factors(), "J", per)
        assert more.break_even.outcome == joules.break_even.outcome
        if joules.break_even.requests is not None:
            assert more.break_even.requests is not None
            assert all(a < b for a, b in zip(joules.break_even.requests, more.break_even.requests, strict=True))
    assert min(outcomes[each] for each in ("reached", "never", "undetermined")) > 50


def test_at_least_grows_with_the_cost_and_shrinks_with_what_might_be_saved() -> None:
    rng = np.random.default_rng(10)
    for _ in range(10_000):
        cost, saving = case_of(rng)
        found = break_even(cost, saving)
        if found.at_least is not None:
            factor = float(rng.uniform(1.001, 3))
            dearer, better = break_even(scaled(cost, factor), saving), break_even(cost, scaled(saving, factor))
            assert dearer.at_least == pytest.approx(factor * found.at_least)
            assert better.at_least == pytest.approx(found.at_least / factor)


def test_a_wider_cost_or_saving_never_narrows_the_interval() -> None:
    rng = np.random.default_rng(8)
    for _ in range(2000):
        cost, saving = case_of(rng)
        if saving.low <= 0:
            continue
        narrow = ratio_of(cost, saving)
        sharper = ratio_of(exact(cost.value), saving)
        assert narrow.low <= sharper.low * (1 + 1e-9)
        assert narrow.high >= sharper.high * (1 - 1e-9)


@pytest.mark.parametrize(
    ("base_error", "ratio", "ratio_error"), [(0.05, 0.6, 0.05), (0.15, 0.4, 0.02), (0.05, 0.9, 0.03)]
)
def test_coverage_through_paired_ratios_is_95_percent(base_error: float, ratio: float, ratio_error: float) -> None:
    """The whole way: an uncertain baseline, a paired ratio and an uncertain cost, all log-normal."""
    rng = np.random.default_rng(12)
    held, count, truth = 0, 4000, 50 / (10 * (1 - ratio))
    for _ in range(count):
        base, share, cost = (
            lognormal(rng, middle, error) for middle, error in ((10.0, base_error), (ratio, ratio_error), (50.0, 0.1))
        )
        found = break_even(cost, difference(base, share))
        if found.requests is not None:
            held += found.requests.low <= truth <= found.requests.high
        else:
            held += found.at_least is not None and found.at_least <= truth
    assert 0.93 <= held / count <= 0.97


def lognormal(rng: np.random.Generator, middle: float, error: float) -> Interval:
    value = middle * math.exp(error * float(rng.normal()))
    return Interval(value, value * math.exp(-_Z95 * error), value * math.exp(_Z95 * error))
