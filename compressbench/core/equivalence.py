"""What paired data show of a margin, and what remains of it when many candidates are asked.

Every p-value comes from a difference (candidate minus baseline) and its standard error: for right and wrong answers
those of `paired_proportion_error`, for other scores the mean of the differences and its standard error. Without degrees
of freedom the normal distribution is used, with them Student's t. A standard error of zero is believed: then a
difference inside the margin has p = 0. Pure Python, as tables are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from compressbench.core.statistics import normal_upper_tail, t_upper_tail

Direction = Literal["higher", "lower"]
# one number m stands for -m to m
Margin = float | tuple[float, float]


def tost_p(difference: float, standard_error: float, margin: Margin, degrees_of_freedom: float | None = None) -> float:
    """Of equivalence: the larger p-value of the two one-sided tests (Schuirmann 1987).

    Below alpha exactly if the interval of confidence 1 - 2 alpha lies inside the margin. Raises ValueError for a margin
    without zero inside, or a standard error below zero.
    """
    low, high = _bounds(margin)
    above_low = _upper_tail(difference - low, standard_error, degrees_of_freedom)
    below_high = _upper_tail(high - difference, standard_error, degrees_of_freedom)
    return max(above_low, below_high)


def non_inferiority_p(
    difference: float,
    standard_error: float,
    margin: float,
    direction: Direction,
    degrees_of_freedom: float | None = None,
) -> float:
    """One-sided, of "worse by less than the margin"; `direction` says which values of the metric are better.

    Raises ValueError for a margin that is not above zero, or a standard error below zero.
    """
    _bounds(margin)
    gain = difference if direction == "higher" else -difference
    return _upper_tail(gain + margin, standard_error, degrees_of_freedom)


def mean_difference_p(difference: float, standard_error: float, degrees_of_freedom: float | None) -> float:
    """Two-sided, of "no difference": the paired t-test, if the error is that of a mean of n values and n - 1 is given."""
    if difference == 0:
        return 1.0
    return min(1.0, 2 * _upper_tail(abs(difference), standard_error, degrees_of_freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given (Holm 1979). Keeps the chance of any false claim in the family at alpha."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(_ascending(p_values)):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given (Benjamini & Hochberg 1995).

    Keeps the expected share of false claims among the claims at alpha, which is enough to explore and not to decide.
    """
    adjusted, smallest = [0.0] * len(p_values), 1.0
    for rank, index in reversed(list(enumerate(_ascending(p_values), start=1))):
        smallest = min(smallest, p_values[index] * len(p_values) / rank)
        adjusted[index] = smallest
    return adjusted


def _ascending(p_values: Sequence[float]) -> list[int]:
    wrong = [value for value in p_values if not 0 <= value <= 1]
    if wrong:
        raise ValueError(f"a p-value lies between 0 and 1 (got {wrong[0]})")
    return sorted(range(len(p_values)), key=p_values.__getitem__)


def _bounds(margin: Margin) -> tuple[float, float]:
    low, high = margin if isinstance(margin, tuple) else (-margin, margin)
    if not low < 0 < high:
        raise ValueError(f"a margin reaches from below zero to above it (got {low} to {high})")
    return low, high


def _upper_tail(distance: float, standard_error: float, degrees_of_freedom: float | None) -> float:
    """P of an estimate at least this far beyond the bound, if the truth were at the bound."""
    if not standard_error >= 0:
        raise ValueError(f"a standard error is at least zero (got {standard_error})")
    if not math.isfinite(distance):
        raise ValueError(f"a difference is a finite number (got {distance} from a bound)")
    if standard_error == 0:
        return 0.0 if distance > 0 else 1.0
    statistic = distance / standard_error
    if degrees_of_freedom is None:
        return normal_upper_tail(statistic)
    return t_upper_tail(statistic, degrees_of_freedom)
