"""Scores of units of work: their laws, partial totals, and ratios to the baseline."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressbench.core.statistics import Interval
from compressbench.lifecycle.amounts import Amount, absent, exact, product
from compressbench.lifecycle.carbon import NO_END_OF_LIFE, Score, Terms, Work, score, total_ratio
from compressbench.lifecycle.cost import prices
from compressbench.lifecycle.embodied import Hardware, Held, held, life
from compressbench.lifecycle.facility import facility
from compressbench.lifecycle.grid import grid_intensity

positive = st.floats(1e-6, 1e6)
HELD = held(Hardware("x", False, 1), kg=900, share=0.01)
UNKNOWN = held(Hardware("Example CPU", False, 1))


def terms(grams: float | None = 381.0, pue: float | None = 1.2, end_of_life: float | None = None) -> Terms:
    gone = absent("kg", NO_END_OF_LIFE) if end_of_life is None else exact(end_of_life, "kg", "given", "x")
    return Terms(
        grid_intensity(g_per_kwh=grams), facility(pue=pue), life(4, 0.5), prices(None, None, ""), gone
    )  # fmt: skip


def work(joules: float, seconds: float, kind: str = "measured") -> Work:
    meter = Amount(value=joules, low=0.9 * joules, high=1.1 * joules, unit="J", kinds=(kind,), source="a meter")
    return Work(meter, exact(seconds, "s", "measured", "a clock"))


def value(of: Amount) -> float:
    assert of.value is not None
    return of.value


@settings(max_examples=100, deadline=None)
@given(positive, positive, st.floats(0.1, 100))
def test_operational_carbon_grows_as_energy_does_and_embodied_as_time(joules: float, seconds: float, k: float) -> None:
    one, more = (score(work(j, s), HELD, terms()) for j, s in ((joules, seconds), (k * joules, k * seconds)))
    assert value(more.operational) == pytest.approx(k * value(one.operational))
    assert value(more.embodied) == pytest.approx(k * value(one.embodied))
    other = score(work(k * joules, seconds), HELD, terms())
    assert value(other.embodied) == value(one.embodied)


@settings(max_examples=100, deadline=None)
@given(positive, positive, st.floats(1, 3), st.floats(1, 3))
def test_a_larger_pue_never_emits_less_and_bounds_hold_their_values(j: float, s: float, a: float, b: float) -> None:
    less, more = (score(work(j, s), HELD, terms(pue=pue)) for pue in sorted((a, b)))
    assert value(less.total) <= value(more.total)
    for each in (less.operational, less.embodied, less.total):
        assert each.low is not None
        assert each.high is not None
        assert each.low <= value(each) <= each.high


def test_masses_are_grams() -> None:
    # a kilowatt-hour at 381 g/kWh without a building
    found = score(work(3.6e6, 1e-9), HELD, terms(pue=1.0))
    assert value(found.operational) == pytest.approx(381)
    # 9 kg over 4 years of which half is work
    year = score(work(1e-9, 4 * 365 * 86400 / 2), HELD, terms())
    assert value(year.embodied) == pytest.approx(9000)


def test_the_total_is_the_sum_and_holds_the_end_of_life_only_where_it_is_given() -> None:
    found, with_end = (score(work(100, 10), HELD, terms(end_of_life=each)) for each in (None, 2.0))
    assert value(found.total) == pytest.approx(value(found.operational) + value(found.embodied))
    assert found.end_of_life.reason == NO_END_OF_LIFE
    assert value(with_end.end_of_life) == pytest.approx(2000 / (4 * 365 * 86400 * 0.5) * 10)
    assert value(with_end.total) == pytest.approx(value(found.total) + value(with_end.end_of_life))


def test_without_the_embodied_part_the_total_is_partial_and_not_smaller() -> None:
    found = score(work(100, 10), UNKNOWN, terms())
    assert found.total.value is None
    assert found.is_partial
    assert found.missing == ("embodied",)
    assert "partial: embodied is missing" in found.total.reason
    assert found.partial_total is not None
    assert found.partial_total.value == found.operational.value


def test_without_any_part_there_is_nothing_at_all() -> None:
    nothing = Work(absent("J", "no meter"), absent("s", "no clock"))
    found = score(nothing, HELD, terms())
    assert (found.total.value, found.partial_total, found.missing) == (None, None, ("operational", "embodied"))
    assert "no meter" in found.total.reason


@pytest.mark.parametrize("kind", ["estimated", "measured"])
def test_estimated_energy_stays_estimated_in_all_that_is_derived_from_it(kind: str) -> None:
    found = score(work(100, 10, kind), HELD, terms())
    assert kind in found.operational.kinds
    assert kind in found.total.kinds
    assert ("estimated" in found.total.kinds) == (kind == "estimated")


def test_an_assumed_grid_is_a_label_of_all_that_follows() -> None:
    found = score(work(100, 10), HELD, terms(grams=None))
    assert "assumed" in found.operational.kinds
    assert found.operational.low == pytest.approx(90 * 1.2 / 3.6e6 * 30)
    assert found.operational.high == pytest.approx(110 * 1.2 / 3.6e6 * 715)


def test_the_ratio_of_totals_is_the_one_of_the_numbers_where_all_is_exact() -> None:
    base = score(_exact_work(100, 10), HELD, terms())
    ours = score(_exact_work(60, 8), HELD, terms())
    found = total_ratio(base, Interval(0.6, 0.6, 0.6), Interval(0.8, 0.8, 0.8))
    assert found.value == pytest.approx(value(ours.total) / value(base.total))
    assert found.low == pytest.approx(found.value)
    assert found.high == pytest.approx(found.value)


def _exact_work(joules: float, seconds: float) -> Work:
    return Work(exact(joules, "J", "measured", "a meter"), exact(seconds, "s", "measured", "a clock"))


def test_the_ratio_of_totals_holds_every_ratio_that_its_inputs_allow() -> None:
    random_ = random.Random(7)
    energy, seconds = Interval(0.6, 0.5, 0.7), Interval(0.9, 0.85, 0.95)
    made = Amount(value=9.0, low=4.0, high=30.0, unit="kg", kinds=("modelled",), source="x")
    base = score(work(100, 10), Held(made, {}), terms(grams=None))
    found = total_ratio(base, energy, seconds)
    assert found.low is not None
    assert found.high is not None
    for _ in range(2000):
        joules, kg, grams = random_.uniform(90, 110), random_.uniform(4, 30), random_.uniform(30, 715)
        running, held_g = joules * 1.2 / 3.6e6 * grams, kg * 1000 / (4 * 365 * 86400 * 0.5) * 10
        ours = running * random_.uniform(0.5, 0.7) + held_g * random_.uniform(0.85, 0.95)
        assert found.low <= ours / (running + held_g) <= found.high


def test_a_part_without_bounds_allows_every_weight_between_energy_and_time() -> None:
    bare = Amount(value=100.0, unit="J", kinds=("estimated",), source="x", reason="it has no interval")
    base = score(Work(bare, exact(10, "s", "measured", "x")), HELD, terms())
    found = total_ratio(base, Interval(0.6, 0.5, 0.7), Interval(0.9, 0.85, 0.95))
    assert (found.low, found.high) == (0.5, 0.95)


def test_what_was_not_paired_or_is_partial_has_no_ratio() -> None:
    base = score(work(100, 10), HELD, terms())
    assert total_ratio(base, "its energy was not paired", Interval(1, 1, 1)).reason == "its energy was not paired"
    partial = score(work(100, 10), UNKNOWN, terms())
    assert "partial" in total_ratio(partial, Interval(1, 1, 1), Interval(1, 1, 1)).reason


def test_a_score_of_no_carbon_has_no_ratio() -> None:
    none = product("gCO2e", [exact(0.0, "", "given", "x")])
    found = total_ratio(
        Score(operational=none, embodied=none, end_of_life=absent("g", "x"), total=none),
        Interval(1, 1, 1),
        Interval(1, 1, 1),
    )
    assert found.value is None
