"""A candidate's balance in seconds, joules, grams and money: one-off cost, saving, break-even, payback and net saving.

Grams and money are joules and seconds times plain factors that the user gave. Where money is made of both, bounds are added
as they are, because seconds and joules of one call go up and down together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from compressbench.core.statistics import Interval
from compressbench.core.units import JOULES_PER_KWH
from compressbench.lifecycle.breakeven import (
    DAYS_PER_YEAR,
    BreakEven,
    Point,
    break_even,
    curve,
    net_saving,
    payback_days,
)
from compressbench.lifecycle.one_off import OneOff, Part, Quantity, one_off
from compressbench.lifecycle.savings import Pair, Saving, per_correct, saving_of, scaled, total, weakest

Unit = Literal["s", "J", "g", "money"]
Per = Literal["inference", "correct"]
_SECONDS_PER_HOUR = 3600.0


class Factors(NamedTuple):
    """What the user gave: nothing is assumed where it is None."""

    grid_g_per_kwh: float | None = None
    price_per_kwh: float | None = None
    price_per_hour: float | None = None
    requests_per_day: float | None = None
    lifetime_years: float | None = None
    counts_search: bool = True

    def weights(self, unit: Unit) -> dict[Quantity, float]:
        """By which factor seconds and joules make the unit."""
        if unit in ("s", "J"):
            return {"s" if unit == "s" else "J": 1.0}
        if unit == "g":
            return _given({"J": _per_joule(self.grid_g_per_kwh)})
        hour = None if self.price_per_hour is None else self.price_per_hour / _SECONDS_PER_HOUR
        return _given({"s": hour, "J": _per_joule(self.price_per_kwh)})

    def units(self) -> list[Unit]:
        named: tuple[Unit, ...] = ("J", "s", "g", "money")
        return [unit for unit in named if self.weights(unit)]


def _per_joule(per_kwh: float | None) -> float | None:
    return None if per_kwh is None else per_kwh / JOULES_PER_KWH


def _given(weights: dict[Quantity, float | None]) -> dict[Quantity, float]:
    return {name: weight for name, weight in weights.items() if weight is not None}


class Case(NamedTuple):
    """One candidate as its records have it. `fault` is why nothing of it may be the base of a saving, `marks` what has to
    be said beside it. `accuracy` is the share of correct answers, and `is_degraded` whether it was shown to fall.
    """

    candidate: str
    recipe: str
    run_id: str
    parts: tuple[Part, ...]
    seconds: Pair
    joules: Pair
    accuracy: Pair
    fault: str = ""
    is_degraded: bool = False
    marks: tuple[str, ...] = ()

    def pair(self, quantity: Quantity, per: Per) -> Pair:
        pair = self.seconds if quantity == "s" else self.joules
        return per_correct(pair, self.accuracy) if per == "correct" else pair


class Account(NamedTuple):
    """One unit of one candidate. `cost` and `break_even` are with the search if that is asked for, `cost_alone` and `alone`
    without it. `net` is after the lifetime.

    Of correct answers `payback_days` and `net` count those that the baseline gives to the requests.
    """

    unit: Unit
    per: Per
    cost: OneOff
    cost_alone: OneOff
    saving: Saving
    break_even: BreakEven
    alone: BreakEven
    kind: str
    payback_days: Interval | None = None
    net: Interval | None = None
    curve: tuple[Point, ...] = ()


def accounts(case: Case, factors: Factors, per: Per) -> list[Account]:
    return [account(case, factors, unit, per) for unit in factors.units()]


def account(case: Case, factors: Factors, unit: Unit, per: Per) -> Account:
    weights = factors.weights(unit)
    cost, alone = (_cost(case.parts, weights, with_search=each) for each in (factors.counts_search, False))
    saving = Saving(None, reason=case.fault) if case.fault else _saving(case, weights, per)
    kind = weakest([cost.kind, saving.kind, *(["assumed"] if unit in ("g", "money") else [])])
    found = Account(unit, per, cost, alone, saving, _even(cost, saving), _even(alone, saving), kind)
    if cost.value is None or saving.value is None:
        return found
    found = found._replace(curve=curve(cost.value, saving.value))
    if factors.requests_per_day is None:
        return found
    daily = factors.requests_per_day * _answers(case, per)
    found = found._replace(payback_days=payback_days(found.break_even, daily))
    if factors.lifetime_years is None:
        return found
    requests = daily * DAYS_PER_YEAR * factors.lifetime_years
    return found._replace(net=net_saving(requests, cost.value, saving.value))


def _answers(case: Case, per: Per) -> float:
    """How many units of work a request is with the baseline."""
    base = case.accuracy.base
    return base.value if per == "correct" and base is not None else 1.0


def _cost(parts: Sequence[Part], weights: dict[Quantity, float], *, with_search: bool) -> OneOff:
    found = {name: one_off(parts, name, with_search=with_search) for name in weights}
    missing = tuple(dict.fromkeys(line for each in found.values() for line in each.missing))
    lacking = next((each.reason for each in found.values() if each.value is None), None)
    if lacking is not None:
        return OneOff(None, missing=missing, reason=lacking)
    values = total(scaled(each.value, weights[name]) for name, each in found.items() if each.value is not None)
    return OneOff(values, weakest(each.kind for each in found.values()), missing)


def _saving(case: Case, weights: dict[Quantity, float], per: Per) -> Saving:
    found = {name: saving_of(case.pair(name, per)) for name in weights}
    lacking = next((each.reason for each in found.values() if each.value is None), None)
    if lacking is not None:
        return Saving(None, reason=lacking)
    values = total(scaled(each.value, weights[name]) for name, each in found.items() if each.value is not None)
    is_within_noise = any(each.is_within_noise for each in found.values())
    return Saving(values, weakest(each.kind for each in found.values()), is_within_noise=is_within_noise)


def _even(cost: OneOff, saving: Saving) -> BreakEven:
    """A partial cost is a lower bound, so that its break-even is one, too; the account's `missing` says so."""
    if saving.value is None:
        return BreakEven("undetermined", reason=saving.reason)
    if saving.value.high <= 0:
        return BreakEven("never", reason="it saves nothing")
    if cost.value is None:
        return BreakEven("undetermined", reason=f"what it cost is not known: {cost.reason}")
    try:
        found = break_even(cost.value, saving.value)
    except ValueError as error:
        return BreakEven("undetermined", reason=str(error))
    if saving.is_within_noise:
        return found._replace(reason="the baseline differs from itself by as much")
    return found


def all_accounts(cases: Sequence[Case], factors: Factors, per: Per) -> Iterator[tuple[Case, list[Account]]]:
    """Per inference or per correct answer; of a degraded candidate both, because its saving buys less."""
    for case in cases:
        found = accounts(case, factors, per)
        if case.is_degraded and per == "inference" and not case.fault:
            found += accounts(case, factors, "correct")
        yield case, found
