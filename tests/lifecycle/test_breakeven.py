"""Break-even: Fieller's interval, coverage with a known truth, accounts, and a case computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compressbench.core.statistics import Interval
from compressbench.lifecycle.accounts import Case, Factors, account, all_accounts
from compressbench.lifecycle.breakeven import break_even, curve, net_saving, payback_days, ratio_of
from compressbench.lifecycle.one_off import Figure, Part, joules_or_estimate, one_off
from compressbench.lifecycle.savings import Pair, difference, exact

_Z95 = 1.959963984540054
MISSING = Figure(None, reason="not recorded")


def fieller(over: float, over_error: float, under: float, under_error: float) -> tuple[float, float]:
    """The roots of (over - N under)^2 = z^2 (over_error^2 + N^2 under_error^2) (Fieller 1954)."""
    a = under**2 - (_Z95 * under_error) ** 2
    b = over * under
    c = over**2 - (_Z95 * over_error) ** 2
    root = math.sqrt(b * b - a * c)
    return (b - root) / a, (b + root) / a


def test_of_normal_estimates_it_is_fiellers_interval() -> None:
    cost = Interval(100.0, 100 - _Z95 * 5, 100 + _Z95 * 5)
    saving = Interval(2.0, 2 - _Z95 * 0.3, 2 + _Z95 * 0.3)
    assert ratio_of(cost, saving)[1:] == pytest.approx(fieller(100, 5, 2, 0.3))


@pytest.mark.parametrize(
    ("cost_error", "saving_error"), [(0.0, 0.2), (0.05, 0.1), (0.1, 0.03), (0.1, 0.25), (0.05, 0.6)]
)
def test_coverage_is_95_percent(cost_error: float, saving_error: float) -> None:
    """Of an undetermined one the answer is `at least`, and it is right if the truth is no less."""
    rng = np.random.default_rng(11)
    held, count = 0, 4000
    for cost, saved in zip(rng.normal(100, 100 * cost_error, count), rng.normal(1, saving_error, count), strict=True):
        wide, far = _Z95 * 100 * cost_error, _Z95 * saving_error
        found = break_even(
            Interval(cost, max(0.0, cost - wide), cost + wide), Interval(saved, saved - far, saved + far)
        )
        if found.requests is not None:
            held += found.requests.low <= 100 <= found.requests.high
        else:
            held += found.at_least is not None and found.at_least <= 100
    assert 0.93 <= held / count <= 0.97


def test_by_hand() -> None:
    """200 J once; 0.5 J with the baseline, 0.4 of it with the candidate: 0.3 J each time."""
    saving = difference(exact(0.5), Interval(0.4, 0.2, 0.5))
    found = break_even(exact(200.0), saving)
    assert found.requests == pytest.approx((200 / 0.3, 500.0, 800.0))
    assert payback_days(found, 100) == pytest.approx((200 / 30, 5.0, 8.0))
    assert net_saving(1000, exact(200.0), saving) == pytest.approx((100, 50, 200))
    assert [point.net.value > 0 for point in curve(exact(200.0), saving)] == [True] * 7
    assert payback_days(break_even(exact(1.0), exact(-1.0)), 100) is None


def test_ends() -> None:
    assert break_even(exact(0.0), exact(1.0)).requests == (0, 0, 0)
    assert break_even(exact(5.0), exact(0.0)).outcome == "never"
    assert break_even(exact(5.0), Interval(1.0, 0.0, 2.0)).at_least == 2.5
    for cost, saving in (
        (exact(-1.0), exact(1.0)),
        (exact(1.0), exact(math.nan)),
        (exact(1.0), Interval(1.0, 2.0, 3.0)),
    ):
        with pytest.raises(ValueError, match="saving"):
            break_even(cost, saving)
    with pytest.raises(ValueError, match="above zero"):
        payback_days(break_even(exact(1.0), exact(1.0)), 0)


def part(
    name: str, seconds: float | None, joules: float | None, kind: str = "measured", *, is_other: bool = False
) -> Part:
    took, used = (MISSING if each is None else Figure(exact(each), kind, "a meter") for each in (seconds, joules))
    return Part(name, took, used, is_search=is_other, is_needed=not is_other)


def test_a_missing_part_is_named_and_never_nothing() -> None:
    parts = (part("compress", 10, 100), part("evaluate", 5, 50, "estimated"), part("other", 20, 200, is_other=True))
    assert one_off(parts, "J", with_search=True)[:2] == ((350, 350, 350), "estimated")
    assert one_off(parts, "J", with_search=False).value == (150, 150, 150)
    partial = one_off((*parts, part("broken", None, None, is_other=True)), "J", with_search=True)
    assert (partial.value, partial.missing) == ((350, 350, 350), ("broken: not recorded",))
    none = one_off((part("compress", 10, None), *parts[1:]), "J", with_search=False)
    assert (none.value, none.reason) == (None, "compress: not recorded")
    assert one_off((), "s", with_search=True).value == (0, 0, 0)


def test_joules_are_estimated_only_with_their_label() -> None:
    seconds, watts = Figure(exact(10.0), "measured", "clock"), Figure(Interval(4, 3, 5), "measured", "mean power of x")
    found = joules_or_estimate(MISSING, seconds, watts)
    assert (found.value, found.kind, found.source) == ((40, 30, 50), "estimated", "its seconds x mean power of x")
    read = Figure(exact(7.0), "measured", "a counter")
    assert joules_or_estimate(read, seconds, watts) is read
    lacking = joules_or_estimate(MISSING, seconds, Figure(None, reason="no meter"))
    assert (lacking.value, lacking.reason) == (None, "not recorded, and nothing to estimate it from: no meter")


def case(**changed: object) -> Case:
    fields: dict[str, object] = {
        "candidate": "int8",
        "recipe": "example",
        "run_id": "1",
        "parts": (part("compress", 36, 3.6e6), part("other", 36, 3.6e6, is_other=True)),
        "seconds": Pair(exact(0.010), exact(0.5)),
        "joules": Pair(exact(2.0), exact(0.5)),
        "accuracy": Pair(exact(0.8), exact(0.4)),
    }
    return Case(**{**fields, **changed})  # type: ignore[arg-type]


def test_grams_and_money_are_plain_factors() -> None:
    factors = Factors(grid_g_per_kwh=400, price_per_kwh=0.3, price_per_hour=2.0, requests_per_day=1e6, lifetime_years=1)
    joules, grams, money = (account(case(), factors, unit, "inference") for unit in ("J", "g", "money"))
    assert joules.cost.value == (7.2e6,) * 3
    assert joules.break_even.requests == pytest.approx((7.2e6,) * 3)
    assert joules.alone.requests == pytest.approx((3.6e6,) * 3)
    assert grams.cost.value == pytest.approx((800,) * 3)
    assert grams.break_even.requests == pytest.approx(joules.break_even.requests)
    assert money.cost.value == pytest.approx((2 * 0.3 + 72 * 2 / 3600,) * 3)
    each = 1 / 3.6e6 * 0.3 + 0.005 * 2 / 3600
    assert money.saving.value == pytest.approx((each,) * 3)
    assert money.break_even.requests == pytest.approx((0.64 / each,) * 3)
    assert joules.payback_days == pytest.approx((7.2,) * 3)
    assert joules.net == pytest.approx((365.25e6 - 7.2e6,) * 3)
    assert (joules.kind, grams.kind, money.kind) == ("measured", "assumed", "assumed")


def test_a_degraded_candidate_stands_beside_itself_per_correct_answer() -> None:
    factors = Factors(requests_per_day=100)
    [(_, found)] = all_accounts([case(is_degraded=True)], factors, "inference")
    assert [(each.per, each.break_even.outcome) for each in found if each.unit == "J"] == [
        ("inference", "reached"),
        ("correct", "never"),
    ]
    [(_, alone)] = all_accounts([case()], factors, "inference")
    assert {each.per for each in alone} == {"inference"}


def test_what_is_unsound_is_no_base_of_a_saving() -> None:
    found = account(case(fault="not steady"), Factors(), "J", "inference")
    assert (found.saving.value, found.break_even.outcome, found.break_even.reason) == (
        None,
        "undetermined",
        "not steady",
    )
    unknown = account(case(parts=(part("compress", 36, None),)), Factors(), "J", "inference")
    assert unknown.break_even.outcome == "undetermined"
    assert "compress: not recorded" in unknown.break_even.reason
    odd = account(case(parts=(part("compress", 36, -5.0),)), Factors(), "J", "inference")
    assert (odd.break_even.outcome, odd.break_even.requests) == ("undetermined", None)
    worse = account(
        case(parts=(part("compress", 36, None),), joules=Pair(exact(2.0), exact(1.5))), Factors(), "J", "inference"
    )
    assert worse.break_even.outcome == "never", "whatever it cost"


def test_without_the_search_everything_is() -> None:
    found = account(case(), Factors(counts_search=False, requests_per_day=1e6), "J", "inference")
    assert found.break_even == found.alone
    assert found.payback_days == pytest.approx((3.6,) * 3)
