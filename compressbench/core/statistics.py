"""Statistics of paired comparisons. Pure functions; every interval is two-sided at 95 % unless said otherwise.

Neither numpy nor scipy is imported: a table from records answers within a second from a cold start, and importing them
would take half of it.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

_Z95 = 1.959963984540054


class Interval(NamedTuple):
    value: float
    low: float
    high: float


class PairedProportions(NamedTuple):
    """Of the difference of two paired proportions: where its distribution is centred, and the standard error."""

    centre: float
    standard_error: float


def normal_quantile(probability: float) -> float:
    """Of the standard normal distribution, 0 < probability < 1 (Wichura 1988)."""
    return NormalDist().inv_cdf(probability)


def normal_upper_tail(z: float) -> float:
    """P(Z > z), to the last bits however far out."""
    return math.erfc(z / math.sqrt(2)) / 2


@lru_cache(maxsize=4096)
def t_quantile(probability: float, degrees_of_freedom: float) -> float:
    """Quantile of Student's t, by bisection of its distribution function to the last bits."""
    if probability < 0.5:
        return -t_quantile(1 - probability, degrees_of_freedom)
    low, high = 0.0, 1.0
    while _t_upper_tail(high, degrees_of_freedom) > 1 - probability:
        low, high = high, 2 * high
    while high - low > 1e-14 * high:
        middle = (low + high) / 2
        if _t_upper_tail(middle, degrees_of_freedom) > 1 - probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def t_upper_tail(t: float, degrees_of_freedom: float) -> float:
    """P(T > t) of Student's t."""
    return 1 - _t_upper_tail(-t, degrees_of_freedom) if t < 0 else _t_upper_tail(t, degrees_of_freedom)


def _t_upper_tail(t: float, degrees_of_freedom: float) -> float:
    """P(T > t) for t >= 0: half the regularized incomplete beta function (Abramowitz & Stegun 26.7.1)."""
    squared = t * t
    if math.isinf(squared):
        return 0.0
    # far out the tail itself is computed, because a difference from a half would lose its digits
    if squared > min(degrees_of_freedom, 3):
        return _incomplete_beta(degrees_of_freedom / 2, 0.5, degrees_of_freedom / (degrees_of_freedom + squared)) / 2
    return 0.5 - _incomplete_beta(0.5, degrees_of_freedom / 2, squared / (degrees_of_freedom + squared)) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b) by its continued fraction (Abramowitz & Stegun 26.5.8), evaluated as Lentz does."""
    if x <= 0:
        return 0.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    fraction = numerator = 1.0
    denominator = 0.0
    for index in range(10_000):
        half = index // 2
        if index == 0:
            term = 1.0
        elif index % 2 == 0:
            term = half * (b - half) * x / ((a + index - 1) * (a + index))
        else:
            term = -(a + half) * (a + b + half) * x / ((a + index - 1) * (a + index))
        denominator = 1 / ((1 + term * denominator) or 1e-300)
        numerator = (1 + term / numerator) or 1e-300
        fraction *= numerator * denominator
        if abs(numerator * denominator - 1) < 1e-15:
            break
    return math.exp(log_front) / a * (fraction - 1)


def _lower_binomial_probabilities(count: int, probability: float, negligible: float = 1e-22) -> tuple[int, list[float]]:
    """P(Binomial = k) from the first k where it is not negligible to the mode, and that k; 0 < probability < 1.

    From the mode downwards, so that the time goes with the standard deviation and not with the count.
    """
    k = min(count, int((count + 1) * probability))
    odds = probability / (1 - probability)
    log_ways = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
    found = [math.exp(log_ways + k * math.log(probability) + (count - k) * math.log1p(-probability))]
    while k > 0 and found[-1] > negligible:
        found.append(found[-1] * k / ((count - k + 1) * odds))
        k -= 1
    return k, found[::-1]


@lru_cache(maxsize=4096)
def largest_within(count: int, probability: float, tail: float) -> int:
    """The largest k with P(Binomial <= k) <= tail, -1 if there is none; the tail is at most a quarter."""
    first, probabilities = _lower_binomial_probabilities(count, probability)
    return first - 1 + bisect.bisect_right(list(itertools.accumulate(probabilities)), tail)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's interval of a mean. Raises ValueError below two values."""
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 values (got {len(values)})")
    mean = math.fsum(values) / len(values)
    square = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean_interval_from(mean, math.sqrt(square), len(values), confidence)


def mean_interval_from(mean: float, sd: float, count: int, confidence: float = 0.95) -> Interval:
    """The same from the mean, the sample standard deviation (n - 1) and the number of values."""
    half = t_quantile(0.5 + confidence / 2, count - 1) * sd / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def log_ratio_interval(baseline: Sequence[float], candidate: Sequence[float]) -> Interval:
    """Geometric mean of candidate / baseline over pairs, by Student's interval on the log ratios.

    Both are positive and of equal length (at least 2), e.g. medians of neighbouring blocks.
    """
    logs = [math.log(ours) - math.log(theirs) for theirs, ours in zip(baseline, candidate, strict=True)]
    value, low, high = mean_interval(logs)
    return Interval(math.exp(value), math.exp(low), math.exp(high))


def median(values: Sequence[float]) -> float:
    """Raises ValueError for no values."""
    if not values:
        raise ValueError("no median of no values")
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def quantile_type_8(ordered: Sequence[float], probability: float) -> float:
    """Hyndman & Fan 1996, type 8 (median-unbiased whatever the distribution), of sorted values, at least one."""
    position = probability * (len(ordered) + 1 / 3) + 1 / 3
    below = min(max(math.floor(position), 1), len(ordered))
    above = min(below + 1, len(ordered))
    share = min(max(position - below, 0.0), 1.0)
    return ordered[below - 1] + share * (ordered[above - 1] - ordered[below - 1])


@lru_cache(maxsize=4096)
def quantile_ranks(count: int, probability: float, confidence: float = 0.95) -> tuple[int, int] | None:
    """1-based ranks (low, high) of the order statistics that bound the quantile, each tail at most half of what is left.

    P(X_(low) > q) = P(Binomial <= low - 1) and P(X_(high) < q) = P(Binomial >= high).
    """
    tail = (1 - confidence) / 2
    if count < 1 or (1 - probability) ** count > tail or probability**count > tail:
        return None
    low = largest_within(count, probability, tail) + 1
    high = count - largest_within(count, 1 - probability, tail)
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
    upto = min(num_harmful, num_beneficial) + 1
    if discordant <= 1000:
        return min(1.0, 2 * sum(math.comb(discordant, k) for k in range(upto)) / (1 << discordant))
    first, probabilities = _lower_binomial_probabilities(discordant, 0.5, negligible=0.0)
    return min(1.0, 2 * math.fsum(probabilities[: max(0, upto - first)]))


def paired_proportion_error(num_harmful: int, num_beneficial: int, count: int) -> PairedProportions:
    """Centre and standard error with half a count added to each of the four cells (Agresti & Min 2005).

    Without it a few items of which none changed would have a standard error of zero, and pass any test of equivalence.
    """
    harmful, beneficial, total = num_harmful + 0.5, num_beneficial + 0.5, count + 2
    centre = (beneficial - harmful) / total
    return PairedProportions(centre, math.sqrt((harmful + beneficial) / total - centre**2) / math.sqrt(total))


def paired_proportion_interval(num_harmful: int, num_beneficial: int, count: int) -> Interval:
    """Difference of two paired proportions, by `paired_proportion_error` and the normal distribution.

    The value is the plain difference; the interval is widened to hold it where the adjustment would not.
    """
    difference = (num_beneficial - num_harmful) / count
    centre, error = paired_proportion_error(num_harmful, num_beneficial, count)
    low, high = centre - _Z95 * error, centre + _Z95 * error
    return Interval(difference, max(-1.0, min(low, difference)), min(1.0, max(high, difference)))


def proportion_interval(proportion: float, count: int) -> Interval:
    """Wilson's score interval of a proportion of `count` independent trials (Wilson 1927)."""
    z = _Z95
    centre = (proportion + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(proportion * (1 - proportion) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return Interval(proportion, min(centre - half, proportion), max(centre + half, proportion))
