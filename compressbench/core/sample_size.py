"""How many samples a claim needs, and the smallest difference that a number of samples can show.

Of right and wrong answers the churn decides: the share of items on which baseline and candidate differ, harmful and
beneficial flips together. Of other scores it is the standard deviation of the differences per sample. All are normal
approximations; a plan for fewer than about 30 samples, or 30 flips, is too optimistic. Pure Python, as tables are.

A churn of zero observed is no churn of zero: (harmful + beneficial + 1) / (count + 2), as in `paired_proportion_error`,
plans with what the data can't exclude.
"""

from __future__ import annotations

import math

from compressbench.core.statistics import normal_quantile


def samples_to_detect(difference: float, churn: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """For a two-sided paired test to see a true difference of accuracy (a fraction, of either sign) with this power.

    (z(1 - alpha / 2) + z(power))^2 (churn - difference^2) / difference^2, rounded up: Wald's test of two paired
    proportions, the large-sample form of McNemar's. The exact test needs a few more. Raises ValueError for a difference of
    zero, or larger than the churn that makes it.
    """
    _check_churn(churn)
    if not 0 < abs(difference) <= churn:
        raise ValueError(f"a difference is not zero and at most the churn of {churn:g} (got {difference:g})")
    return _rounded_up(_detection_square(power, alpha) * (churn - difference**2) / difference**2)


def samples_for_equivalence(margin: float, churn: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """For two one-sided tests at +- margin to pass with this power, if the true difference is zero.

    (z(1 - alpha) + z(1 - beta / 2))^2 churn / margin^2, rounded up, with beta = 1 - power. Half of beta, because both
    tests must pass and either may fail: with z(1 - beta), which a published table uses, the power is 1 - 2 beta = 0.60
    where 0.80 is promised. A true difference that is not zero needs more.
    """
    _check_churn(churn)
    return _rounded_up(_equivalence_square(power, alpha) * churn / _positive("margin", margin) ** 2)


def smallest_detectable_difference(churn: float, count: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The difference for which `samples_to_detect` is `count`; a churn of zero is allowed.

    No difference exceeds its churn. Where even flips that all go one way would be too few to be seen, this is the
    smallest difference at the smallest churn that would suffice, k / (count + k) with k the square of the two quantiles.
    """
    if not 0 <= churn <= 1:
        raise ValueError(f"churn is a share of the items, from 0 to 1 (got {churn:g})")
    square = _detection_square(power, alpha)
    smallest_churn = square / (_positive("count", count) + square)
    return math.sqrt(smallest_churn * max(churn, smallest_churn))


def samples_to_detect_mean(difference: float, sd: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """For a two-sided paired test to see a true mean difference; `sd` is that of the differences per sample.

    The normal approximation and half a squared z(1 - alpha / 2), which a t-test costs (Guenther 1981): to the sample, or
    one off, what the noncentral t distribution says.
    """
    if difference == 0:
        raise ValueError("no number of samples shows a difference of zero")
    extra = normal_quantile(1 - alpha / 2) ** 2 / 2
    return _rounded_up(_detection_square(power, alpha) * (_positive("sd", sd) / difference) ** 2 + extra)


def samples_for_mean_equivalence(margin: float, sd: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """`samples_for_equivalence` of a mean: normal approximation, and half a squared z(1 - alpha) for the t-tests."""
    extra = normal_quantile(1 - alpha) ** 2 / 2
    ratio = _positive("sd", sd) / _positive("margin", margin)
    return _rounded_up(_equivalence_square(power, alpha) * ratio**2 + extra)


def smallest_detectable_mean(sd: float, count: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The mean difference for which `samples_to_detect_mean` is `count`; infinite if that many never suffice."""
    left = _positive("count", count) - normal_quantile(1 - alpha / 2) ** 2 / 2
    return _positive("sd", sd) * math.sqrt(_detection_square(power, alpha) / left) if left > 0 else math.inf


def _detection_square(power: float, alpha: float) -> float:
    _check_chances(power, alpha)
    return (normal_quantile(1 - alpha / 2) + normal_quantile(power)) ** 2


def _equivalence_square(power: float, alpha: float) -> float:
    _check_chances(power, alpha)
    return (normal_quantile(1 - alpha) + normal_quantile(1 - (1 - power) / 2)) ** 2


def _rounded_up(samples: float) -> int:
    """At least 2, the fewest that have a standard error; what rounding added to a whole number costs no sample."""
    return max(2, math.ceil(samples * (1 - 1e-12)))


def _check_churn(churn: float) -> None:
    if not 0 < churn <= 1:
        raise ValueError(f"churn is a share of the items, above 0 and at most 1 (got {churn:g})")


def _check_chances(power: float, alpha: float) -> None:
    if not (0 < alpha < 1 and alpha < power < 1):
        raise ValueError(f"alpha lies between 0 and 1, and power between alpha and 1 (got {alpha:g} and {power:g})")


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"a {name} is above zero and finite (got {value:g})")
    return value
