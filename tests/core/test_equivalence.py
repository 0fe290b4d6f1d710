"""Tests of margins and families of tests, against statsmodels, scipy and simulation."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportions_ztest
from statsmodels.stats.weightstats import ttost_paired

from compressbench.core.equivalence import (
    Margin,
    benjamini_hochberg,
    holm,
    mean_difference_p,
    non_inferiority_p,
    tost_p,
)
from compressbench.core.sample_size import samples_for_equivalence
from compressbench.core.statistics import (
    Interval,
    mcnemar_p,
    mean_interval_from,
    normal_quantile,
    normal_upper_tail,
    paired_proportion_error,
    paired_proportion_interval,
    t_upper_tail,
)

P_VALUES = st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.01, 0.04, 0.2, 0.2, 1.0]) | st.floats(0, 1), max_size=25)


def pairs(seed: int, count: int = 40, shift: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Baseline and candidate of `count` items that are alike within an item."""
    draw = np.random.default_rng(seed)
    baseline = draw.normal(5, 2, count)
    return baseline, baseline + draw.normal(shift, 0.5, count)


def mean_and_error(baseline: np.ndarray, candidate: np.ndarray) -> tuple[float, float]:
    return float(np.mean(candidate - baseline)), float(stats.sem(candidate - baseline))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("margin", [0.05, 0.3, (-0.1, 0.4), (-1.0, 0.2)])
def test_equivalence_of_raw_pairs_is_statsmodels(seed: int, margin: Margin) -> None:
    baseline, candidate = pairs(seed)
    low, high = margin if isinstance(margin, tuple) else (-margin, margin)
    expected = ttost_paired(candidate, baseline, low, high)[0]
    found = tost_p(*mean_and_error(baseline, candidate), margin, len(baseline) - 1)
    assert found == pytest.approx(expected, rel=1e-9)


@given(st.floats(-2, 2), st.floats(0.01, 1), st.floats(0.1, 1), st.sampled_from([0.01, 0.05, 0.1]))
@settings(max_examples=100, deadline=None)
def test_equivalence_passes_exactly_if_the_interval_lies_inside_the_margin(
    difference: float, sd: float, margin: float, alpha: float
) -> None:
    interval = mean_interval_from(difference, sd, 25, confidence=1 - 2 * alpha)
    is_inside = -margin < interval.low and interval.high < margin
    is_close = min(abs(interval.low + margin), abs(interval.high - margin)) < 1e-9
    assert is_close or (tost_p(difference, sd / 5, margin, 24) < alpha) == is_inside


@pytest.mark.parametrize("seed", range(4))
def test_non_inferiority_is_the_one_sided_t_test_against_the_margin(seed: int) -> None:
    baseline, candidate = pairs(seed)
    difference, error = mean_and_error(baseline, candidate)
    for margin in (0.02, 0.3):
        higher = stats.ttest_1samp(candidate - baseline, -margin, alternative="greater").pvalue
        lower = stats.ttest_1samp(candidate - baseline, margin, alternative="less").pvalue
        assert non_inferiority_p(difference, error, margin, "higher", len(baseline) - 1) == pytest.approx(higher)
        assert non_inferiority_p(difference, error, margin, "lower", len(baseline) - 1) == pytest.approx(lower)


def test_a_gain_is_no_inferiority_and_no_equivalence() -> None:
    assert non_inferiority_p(0.04, 0.005, 0.01, "higher") < 1e-9
    assert non_inferiority_p(0.04, 0.005, 0.01, "lower") > 1 - 1e-6
    assert tost_p(0.04, 0.005, 0.01) > 1 - 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_a_mean_difference_has_the_p_value_of_scipys_paired_t_test(seed: int) -> None:
    baseline, candidate = pairs(seed, count=12, shift=0.3)
    expected = stats.ttest_rel(candidate, baseline).pvalue
    assert mean_difference_p(*mean_and_error(baseline, candidate), 11) == pytest.approx(expected, rel=1e-9)


def test_without_degrees_of_freedom_the_normal_distribution_is_used() -> None:
    assert mean_difference_p(-1.959963984540054, 1, None) == pytest.approx(0.05, rel=1e-12)
    assert tost_p(0.0, 1.0, 1.6448536269514722) == pytest.approx(0.05, rel=1e-12)
    assert tost_p(0.1, 0.3, 0.5, 1e7) == pytest.approx(tost_p(0.1, 0.3, 0.5), rel=1e-5)


def test_without_any_error_only_the_place_of_the_difference_decides() -> None:
    assert mean_difference_p(0.0, 0.0, 9) == 1.0
    assert mean_difference_p(0.1, 0.0, 9) == 0.0
    assert tost_p(0.0, 0.0, 0.1) == 0.0
    assert tost_p(0.1, 0.0, 0.1) == tost_p(-0.2, 0.0, 0.1) == 1.0
    assert non_inferiority_p(-0.1, 0.0, 0.1, "higher") == 1.0


@pytest.mark.parametrize("margin", [0.0, -0.1, (0.1, 0.2), (0.1, -0.1)])
def test_a_margin_without_zero_inside_is_refused(margin: Margin) -> None:
    with pytest.raises(ValueError, match="below zero to above"):
        tost_p(0.0, 0.1, margin)


def test_what_is_no_number_has_no_p_value() -> None:
    with pytest.raises(ValueError, match="at least zero"):
        tost_p(0.0, math.nan, 0.1)
    with pytest.raises(ValueError, match="finite number"):
        mean_difference_p(math.inf, 1.0, 4)
    with pytest.raises(ValueError, match="finite number"):
        non_inferiority_p(math.nan, 1.0, 0.1, "higher")
    with pytest.raises(ValueError, match="below zero to above"):
        non_inferiority_p(0.0, 1.0, -0.1, "higher")


def test_a_few_items_of_which_none_changed_are_not_equivalent() -> None:
    centre, error = paired_proportion_error(0, 0, 20)
    assert centre == 0
    assert error > 0.04
    assert tost_p(centre, error, 0.01) > 0.3
    assert tost_p(*paired_proportion_error(0, 0, 2000), 0.01) < 1e-9


@given(st.integers(0, 60), st.integers(0, 60), st.integers(120, 5000))
@settings(max_examples=50, deadline=None)
def test_the_error_of_paired_proportions_is_that_of_the_table_with_half_a_count_more(b: int, c: int, n: int) -> None:
    differences = np.repeat([-1.0, 1.0, 0.0, 0.0], 1)
    cells = np.array([b, c, n - b - c, 0]) + 0.5
    mean = np.average(differences, weights=cells)
    variance = np.average((differences - mean) ** 2, weights=cells)
    found = paired_proportion_error(b, c, n)
    assert found == pytest.approx((mean, math.sqrt(variance / cells.sum())))
    interval = paired_proportion_interval(b, c, n)
    z = normal_quantile(0.975) * found.standard_error
    plain = Interval((c - b) / n, found.centre - z, found.centre + z)
    assert interval == pytest.approx((plain.value, min(plain[:2]), max(plain.value, plain.high)))


@given(P_VALUES)
@settings(max_examples=40, deadline=None)
def test_adjusted_p_values_are_statsmodels(values: list[float]) -> None:
    for ours, name in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        expected = list(multipletests(values, method=name)[1]) if values else []
        assert ours(values) == pytest.approx(expected, rel=1e-12)


def test_a_p_value_out_of_range_is_refused() -> None:
    for adjust in (holm, benjamini_hochberg):
        for wrong in (-0.1, 1.5, math.nan):
            with pytest.raises(ValueError, match="between 0 and 1"):
                adjust([0.5, wrong])


@pytest.mark.parametrize("degrees_of_freedom", [0.7, 1, 2, 2.5, 4, 19, 300.4, 10_000])
def test_upper_tails_are_scipys_however_far_out(degrees_of_freedom: float) -> None:
    for t in (-40.0, -3.0, -0.2, 0.0, 1e-6, 0.5, 1.6, 1.8, 3.0, 7.0, 20.0, 1e200):
        expected = float(stats.t.sf(t, degrees_of_freedom))
        assert t_upper_tail(t, degrees_of_freedom) == pytest.approx(expected, rel=1e-9, abs=1e-300)
        assert normal_upper_tail(t) == pytest.approx(float(stats.norm.sf(t)), rel=1e-9, abs=1e-300)
    for probability in (1e-9, 0.025, 0.5, 0.9):
        assert normal_quantile(probability) == pytest.approx(float(stats.norm.ppf(probability)), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("harmful", "beneficial"), [(5, 15), (0, 3), (8, 8), (40, 61), (0, 0), (700, 610)])
def test_mcnemars_exact_test_is_statsmodels_and_the_binomial_one(harmful: int, beneficial: int) -> None:
    found = mcnemar_p(harmful, beneficial)
    assert found == pytest.approx(mcnemar([[50, harmful], [beneficial, 30]], exact=True).pvalue, rel=1e-9)
    if harmful + beneficial:
        assert found == pytest.approx(stats.binomtest(harmful, harmful + beneficial).pvalue, rel=1e-9)


def test_5_against_15_flips_are_seen_by_the_paired_test_and_by_no_unpaired_one() -> None:
    # 200 items: 165 right and 15 wrong in both arms, so 85 % against 90 %
    baseline = np.repeat([1.0, 0.0, 1.0, 0.0], [165, 15, 5, 15])
    candidate = np.repeat([1.0, 0.0, 0.0, 1.0], [165, 15, 5, 15])
    harmful, beneficial = int(np.sum(baseline > candidate)), int(np.sum(baseline < candidate))
    assert (harmful, beneficial) == (5, 15)
    assert mcnemar_p(harmful, beneficial) == pytest.approx(0.0414, abs=5e-5)
    assert proportions_ztest([baseline.sum(), candidate.sum()], [200, 200])[1] > 0.05
    assert stats.ttest_ind(baseline, candidate, equal_var=False).pvalue > 0.05


@pytest.mark.parametrize(("count", "churn"), [(300, 0.05), (3000, 0.02), (1000, 0.15)])
def test_a_model_against_itself_is_called_different_in_at_most_6_4_percent(count: int, churn: float) -> None:
    draw = np.random.default_rng(17)
    flips = draw.binomial(count, churn, 1000)
    harmful = draw.binomial(flips, 0.5)
    claims = sum(mcnemar_p(int(b), int(n - b)) < 0.05 for b, n in zip(harmful, flips, strict=True))
    assert 5 <= claims <= 64


def passed_equivalence(count: int, churn: float, margin: float, num_trials: int) -> float:
    """The share of trials without any true difference in which `tost_p` of the flips passes at 5 %."""
    draw = np.random.default_rng(23)
    flips = draw.binomial(count, churn, num_trials)
    harmful = draw.binomial(flips, 0.5)
    passed = 0
    for b, n in zip(harmful.tolist(), flips.tolist(), strict=True):
        passed += tost_p(*paired_proportion_error(b, n - b, count), margin) < 0.05
    return passed / num_trials


def test_equivalence_at_the_planned_number_has_the_planned_power_and_the_published_mistake_has_not() -> None:
    margin, churn = 0.005, 0.05
    planned = samples_for_equivalence(margin, churn)
    mistaken = math.ceil((normal_quantile(0.95) + normal_quantile(0.8)) ** 2 * churn / margin**2)
    assert passed_equivalence(planned, churn, margin, 8000) == pytest.approx(0.80, abs=0.02)
    assert passed_equivalence(mistaken, churn, margin, 8000) == pytest.approx(0.60, abs=0.02)


def test_holm_keeps_the_chance_of_any_false_claim_among_20_models_against_themselves() -> None:
    draw = random.Random(4)
    plain = adjusted = 0
    for _ in range(400):
        p_values = [mcnemar_p(b, 60 - b) for b in (sum(draw.random() < 0.5 for _ in range(60)) for _ in range(20))]
        plain += min(p_values) < 0.05
        adjusted += min(holm(p_values)) < 0.05
    assert plain > 100
    assert adjusted <= 28
