"""Software carbon intensity, SCI = (E * I + M) / R (ISO/IEC 21031:2024), of a unit of work and of making a model.

Two scores are kept apart as SCI for AI does: the consumer's (an inference, a token, a right answer) and the provider's
(the compression that made the model). They are never added.
"""

from __future__ import annotations

from typing import NamedTuple

from compressbench.core.spec import Spec
from compressbench.core.statistics import Interval
from compressbench.lifecycle.amounts import Amount, absent, product, total_of
from compressbench.lifecycle.cost import Prices, cost_of
from compressbench.lifecycle.embodied import Held, Life, rate
from compressbench.lifecycle.facility import Facility, facility_kwh, water_litres

GRAMS = "gCO2e"
NO_END_OF_LIFE = "not accounted: --end-of-life-kg is not given"
PAIRED = "neighbouring blocks of candidate and baseline in the same run"


class Work(NamedTuple):
    """Joules that the meter read and seconds that the hardware was held, of one unit of work."""

    joules: Amount
    seconds: Amount


class Terms(NamedTuple):
    """What holds for all rows: the grid (g/kWh), the building, the hardware's life, prices, and kilograms of disposal."""

    grid: Amount
    place: Facility
    life: Life
    prices: Prices
    end_of_life_kg: Amount


class Score(Spec):
    """Grams of one unit. `total` is absent where a part is `missing`; then `partial_total` has what there is of it.

    `end_of_life` is a line of its own, and in the total only where it is given.
    """

    operational: Amount
    embodied: Amount
    end_of_life: Amount
    total: Amount
    partial_total: Amount | None = None
    missing: tuple[str, ...] = ()

    @property
    def is_partial(self) -> bool:
        return self.partial_total is not None


class Ratio(Spec):
    """Candidate / baseline, or why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


def scaled(work: Work, count: float) -> Work:
    """So many units of it."""
    return Work(product(work.joules.unit, [work.joules], count), product(work.seconds.unit, [work.seconds], count))


def score(work: Work, hardware: Held, terms: Terms) -> Score:
    """Gross joules * PUE * grid, and the hardware's footprint by the time that the work holds it."""
    operational = product(GRAMS, [facility_kwh(work.joules, terms.place.pue), terms.grid])
    embodied = product(GRAMS, [rate(hardware.kg, terms.life), work.seconds])
    end_of_life = product(GRAMS, [rate(terms.end_of_life_kg, terms.life), work.seconds])
    parts = {"operational": operational, "embodied": embodied}
    if terms.end_of_life_kg.value is not None:
        parts["end of life"] = end_of_life
    there = [part for part in parts.values() if part.value is not None]
    missing = tuple(name for name, part in parts.items() if part.value is None)
    if not missing:
        return Score(operational=operational, embodied=embodied, end_of_life=end_of_life, total=total_of(GRAMS, there))
    why = "; ".join(f"{name} is missing ({parts[name].reason})" for name in missing)
    return Score(
        operational=operational,
        embodied=embodied,
        end_of_life=end_of_life,
        total=absent(GRAMS, f"partial: {why}"),
        partial_total=total_of(GRAMS, there) if there else None,
        missing=missing,
    )


def water(work: Work, terms: Terms) -> Amount:
    return water_litres(work.joules, terms.place)


def cost(work: Work, terms: Terms) -> Amount:
    return cost_of(work.joules, work.seconds, terms.prices)


def total_ratio(baseline: Score, energy: Interval | str, seconds: Interval | str) -> Ratio:
    """Of two totals, from the paired ratios of energy and time: what both sides share (grid, PUE, hardware) cancels.

    With w the operational share of the baseline's total it is w * energy + (1 - w) * time, and its bounds are over all w
    that the baseline's parts allow (0 to 1 where one has no bounds). Both sides hold the same hardware.
    """
    for each in (energy, seconds):
        if isinstance(each, str):
            return Ratio(value=None, reason=each)
    if baseline.total.value is None or isinstance(energy, str) or isinstance(seconds, str):
        return Ratio(value=None, reason=baseline.total.reason)
    if not baseline.total.value > 0:
        return Ratio(value=None, reason="the baseline's total is 0")
    share, *bounds = _operational_share(baseline)
    value = share * energy.value + (1 - share) * seconds.value
    low = min(w * energy.low + (1 - w) * seconds.low for w in bounds)
    high = max(w * energy.high + (1 - w) * seconds.high for w in bounds)
    return Ratio(value=value, low=min(low, value), high=max(high, value))


def ratio(found: Interval | str) -> Ratio:
    return Ratio(value=None, reason=found) if isinstance(found, str) else Ratio(**found._asdict())


def _operational_share(of: Score) -> tuple[float, float, float]:
    """Its value, low and high; of a total above 0 whose parts are there."""
    running, made = of.operational, total_of(GRAMS, [of.embodied, *_given([of.end_of_life])])
    value = (running.value or 0.0) / ((running.value or 0.0) + (made.value or 0.0))
    if running.low is None or running.high is None or made.low is None or made.high is None:
        return value, 0.0, 1.0
    smallest, largest = running.low + made.high, running.high + made.low
    low = running.low / smallest if smallest > 0 else 0.0
    high = running.high / largest if largest > 0 else 1.0
    return value, min(low, value), max(high, value)


def _given(parts: list[Amount]) -> list[Amount]:
    return [part for part in parts if part.value is not None]
