"""Two models on one budget: as many samples of each as the same joules buy, and their answers paired by question."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from compressbench.core.statistics import Interval, mean_interval


class Price(NamedTuple):
    """What a question costs: once, and for every sample. In joules or in seconds."""

    once: float
    per_sample: float

    def of(self, num_samples: int) -> float:
        return self.once + num_samples * self.per_sample

    def scaled(self, factor: float) -> Price:
        return Price(self.once * factor, self.per_sample * factor)


def samples_within(budget: float, price: Price) -> int:
    """The samples that a budget for one question buys, 0 if not one: floor(k e / e') where nothing is paid once."""
    # a budget that was made from a whole number of samples must buy that number, whatever rounding did to it
    return max(0, math.floor((budget - price.once) / price.per_sample * (1 + 1e-12) + 1e-12))


class Budget(NamedTuple):
    """What each side buys for `joules` a question, and their difference, other less reference, paired over questions.

    `num_other` spans what the interval of the ratio of prices allows; `difference` holds the intervals at all of these.
    `reason` says why there is no difference.
    """

    joules: float
    num_reference: int
    num_other: tuple[int, int, int]
    difference: Interval | None
    reason: str = ""


AccuracyOf = Callable[[int], Sequence[float] | None]
"""Each question's probability of a right answer with so many samples, in one order of questions; None beyond what was
sampled."""


def at_equal_joules(
    reference: tuple[Price, AccuracyOf],
    other: tuple[Price, AccuracyOf],
    spread: tuple[float, float],
    ks: Iterable[int],
    confidence: float,
) -> list[Budget]:
    """For each k of the reference what the other buys for the same. `spread` are the factors between which the other's
    price lies (around 1); the other's fewest samples are those at its dearest.
    """
    found = []
    for k in ks:
        joules = reference[0].of(k)
        nearest = samples_within(joules, other[0])
        fewest, most = (samples_within(joules, other[0].scaled(factor)) for factor in (spread[1], spread[0]))
        bought = (nearest, min(fewest, nearest), max(most, nearest))
        ours = reference[1](k)
        if nearest == 0 or ours is None:
            found.append(Budget(joules, k, bought, None, "not one sample can be paid" if ours else "not sampled"))
            continue
        found.append(_budget(joules, k, bought, ours, other[1], confidence))
    return found


def _budget(
    joules: float, k: int, bought: tuple[int, int, int], ours: Sequence[float], theirs: AccuracyOf, confidence: float
) -> Budget:
    values = [theirs(max(1, number)) for number in bought]
    intervals = [paired_difference(ours, each, confidence) for each in values if each is not None]
    if values[0] is None or len(intervals) < len(values):
        return Budget(joules, k, bought, None, f"{max(bought)} samples of the other were not drawn")
    low, high = min(each.low for each in intervals), max(each.high for each in intervals)
    return Budget(joules, k, bought, Interval(intervals[0].value, low, high))


def paired_difference(before: Sequence[float], after: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of after - before over questions with Student's interval. Raises ValueError if their numbers differ."""
    return mean_interval([b - a for a, b in zip(before, after, strict=True)], confidence)


def sign_of(difference: Interval | None) -> int:
    """1 or -1 where the interval excludes 0, else 0."""
    return 0 if difference is None else (difference.low > 0) - (difference.high < 0)


def crossovers(budgets: Sequence[Budget]) -> list[float]:
    """The budgets at which the sign of the difference has changed from what it was at the last one that had a sign."""
    found: list[float] = []
    last = 0.0
    for each in budgets:
        value = each.difference.value if each.difference is not None else 0.0
        if value * last < 0:
            found.append(each.joules)
        last = value or last
    return found


def is_reversed(at_one: Interval | None, budgets: Sequence[Budget]) -> bool:
    """Whether the other side is shown to be better at one sample each, and this one at some equal budget, or vice versa."""
    first = sign_of(at_one)
    return bool(first) and any(sign_of(each.difference) == -first for each in budgets)
