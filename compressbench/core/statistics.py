"""Statistics of paired comparisons. Pure functions; every interval is two-sided at 95 % unless said otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import special

_Z95 = 1.959963984540054


class Interval(NamedTuple):
    value: float
    low: float
    high: float


@lru_cache(maxsize=4096)
def t_quantile(probability: float, degrees_of_freedom: int) -> float:
    """Quantile of Student's t."""
    return float(special.stdtrit(degrees_of_freedom, probability))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's interval of a mean. Raises ValueError below two values."""
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 values (got {len(values)})")
    array = np.asarray(values, dtype=float)
    return mean_interval_from(float(array.mean()), float(array.std(ddof=1)), len(values), confidence)


def mean_interval_from(mean: float, sd: float, count: int, confidence: float = 0.95) -> Interval:
    """The same from the mean, the sample standard deviation (n - 1) and the number of values."""
    half = t_quantile(0.5 + confidence / 2, count - 1) * sd / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def log_ratio_interval(baseline: Sequence[float], candidate: Sequence[float]) -> Interval:
    """Geometric mean of candidate / baseline over pairs, by Student's interval on the log ratios.

    Both are positive and of equal length (at least 2), e.g. medians of neighbouring blocks.
    """
    logs = np.log(np.asarray(candidate, dtype=float)) - np.log(np.asarray(baseline, dtype=float))
    value, low, high = mean_interval(logs.tolist())
    return Interval(math.exp(value), math.exp(low), math.exp(high))


def quantile_interval(values: Sequence[float], probability: float, confidence: float = 0.95) -> Interval | None:
    """Quantile (Hyndman & Fan 1996, type 8) with its distribution-free interval from binomial ranks.

    None if there are too few values for a two-sided interval at this confidence (6 for the median, 72 for p95,
    368 for p99 at 95 %). The interval supposes independent values.
    """
    ranks = quantile_ranks(len(values), probability, confidence)
    if ranks is None:
        return None
    array = np.sort(np.asarray(values, dtype=float))
    value = float(np.quantile(array, probability, method="median_unbiased"))
    return Interval(value, min(value, float(array[ranks[0] - 1])), max(value, float(array[ranks[1] - 1])))


@lru_cache(maxsize=4096)
def quantile_ranks(count: int, probability: float, confidence: float = 0.95) -> tuple[int, int] | None:
    """1-based ranks (low, high) of the order statistics that bound the quantile, each tail at most half of what is left.

    P(X_(low) > q) = P(Binomial <= low - 1) and P(X_(high) < q) = P(Binomial >= high).
    """
    tail = (1 - confidence) / 2
    if count < 1 or special.bdtr(0, count, probability) > tail or special.bdtrc(count - 1, count, probability) > tail:
        return None
    ranks = np.arange(count)
    below = special.bdtr(ranks, count, probability)
    low = int(np.searchsorted(below, tail, side="right"))
    high = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    return (low, high) if low >= 1 and high <= count else None


def smallest_count_for(probability: float, confidence: float = 0.95) -> int:
    """How many independent values a two-sided distribution-free interval of this quantile needs."""
    extreme = max(probability, 1 - probability)
    count = math.ceil(math.log((1 - confidence) / 2) / math.log(extreme) - 1e-9)
    while quantile_ranks(count, probability, confidence) is None:
        count += 1
    return count


def mcnemar_p(num_harmful: int, num_beneficial: int) -> float:
    """Exact two-sided McNemar test: P of a split at least this uneven if both directions were equally likely."""
    discordant = num_harmful + num_beneficial
    if discordant == 0:
        return 1.0
    return min(1.0, 2 * float(special.bdtr(min(num_harmful, num_beneficial), discordant, 0.5)))


def paired_proportion_interval(num_harmful: int, num_beneficial: int, count: int) -> Interval:
    """Difference of two paired proportions: Wald with half a count added to each of the four cells (Agresti & Min 2005).

    The value is the plain difference; the interval is widened to hold it where the adjustment would not.
    """
    difference = (num_beneficial - num_harmful) / count
    harmful, beneficial, total = num_harmful + 0.5, num_beneficial + 0.5, count + 2
    centre = (beneficial - harmful) / total
    half = _Z95 * math.sqrt((harmful + beneficial) / total - centre**2) / math.sqrt(total)
    return Interval(difference, max(-1.0, min(centre - half, difference)), min(1.0, max(centre + half, difference)))


def proportion_interval(proportion: float, count: int) -> Interval:
    """Wilson's score interval of a proportion of `count` independent trials (Wilson 1927)."""
    z = _Z95
    centre = (proportion + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(proportion * (1 - proportion) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return Interval(proportion, min(centre - half, proportion), max(centre + half, proportion))
