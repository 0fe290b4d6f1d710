"""Resampled intervals and tests against scipy, closed forms, brute force and simulation."""

from __future__ import annotations

import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from compressbench.core.statistics import t_quantile
from compressbench.measure.paired_units import units_of
from compressbench.measure.repeated_draws import two_level_interval
from compressbench.measure.resampling import (
    Resampled,
    bca_limits,
    bootstrap_means,
    expanded,
    jackknife_means,
    sign_flip_p,
    statistic_difference_interval,
    weighted_mean_interval,
)

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def skewed(count: int, seed: int) -> tuple[Floats, Floats]:
    """Differences in nats per token that a few windows dominate, and the tokens of the windows."""
    draw = np.random.default_rng(seed)
    return draw.lognormal(-4, 1, count) - 0.01, draw.integers(20, 512, count).astype(np.float64)


def weighted_mean(differences: Floats, weights: Floats, axis: int = -1) -> Floats:
    return np.asarray(np.sum(weights * differences, axis=axis) / np.sum(weights, axis=axis))


@pytest.mark.parametrize(("count", "seed"), [(30, 0), (250, 1), (250, 2)])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_bca_limits_of_the_same_resamples_are_scipys(count: int, seed: int, confidence: float) -> None:
    differences, weights = skewed(count, seed)
    units = units_of(differences, weights)
    means = bootstrap_means(units, 999, seed)
    # scipy takes resamples that were drawn before and adds none: what is left to differ are bias and acceleration
    drawn = SimpleNamespace(bootstrap_distribution=means)
    expected = stats.bootstrap(
        (differences, weights),
        weighted_mean,
        n_resamples=0,
        bootstrap_result=drawn,
        paired=True,
        method="BCa",
        confidence_level=confidence,
    ).confidence_interval
    assert bca_limits(units.mean, means, jackknife_means(units), confidence) == pytest.approx(expected, rel=1e-9)


def test_the_interval_of_many_weighted_differences_is_scipys_within_monte_carlo_error() -> None:
    differences, weights = skewed(1100, 5)
    expected = stats.bootstrap(
        (differences, weights),
        weighted_mean,
        n_resamples=9999,
        paired=True,
        batch=500,
        method="BCa",
        rng=np.random.default_rng(1),
    )
    found = weighted_mean_interval(differences.tolist(), weights.tolist())
    assert found.value == pytest.approx(float(weighted_mean(differences, weights)))
    assert found.standard_error == pytest.approx(expected.standard_error, rel=0.03)
    for ours, theirs in zip((found.low, found.high), expected.confidence_interval, strict=True):
        assert ours == pytest.approx(theirs, abs=0.12 * found.standard_error)
    assert (found.num_units, found.num_resamples, found.method) == (1100, 9999, "BCa bootstrap")


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    differences, weights = skewed(220, 6)
    first = weighted_mean_interval(differences, weights, seed=3, num_resamples=500)
    assert weighted_mean_interval(differences, weights, seed=3, num_resamples=500) == first
    assert weighted_mean_interval(differences, weights, seed=4, num_resamples=500).low != first.low


@pytest.mark.parametrize("count", [12, 60])
def test_few_units_have_the_studentized_interval(count: int) -> None:
    differences, weights = skewed(count, 7)
    found = weighted_mean_interval(differences, weights, seed=1)
    assert found.method == "studentized bootstrap"
    # by the book, with numbers of our own: t* = (mean* - mean) / error*, and the quantiles change sides
    draw = np.random.default_rng(50)
    drawn = draw.integers(0, count, (20_000, count))
    mean = float(weighted_mean(differences, weights))

    def error_of(some: Floats, their: Floats, its_mean: Floats) -> Floats:
        residuals = their * (some - its_mean[..., None])
        return np.asarray(np.sqrt(np.sum(residuals**2, axis=-1) * count / (count - 1)) / their.sum(axis=-1))

    means = weighted_mean(differences[drawn], weights[drawn])
    ratios = (means - mean) / error_of(differences[drawn], weights[drawn], means)
    error = float(error_of(differences, weights, np.array(mean)))
    high, low = mean - np.quantile(ratios, [0.025, 0.975]) * error
    assert found.low == pytest.approx(low, abs=0.2 * error)
    # the long tail is where Monte Carlo error is
    assert found.high == pytest.approx(high, rel=0.15)


def test_few_items_of_which_hardly_any_changed_have_a_finite_interval() -> None:
    found = weighted_mean_interval([0.0] * 48 + [1.0, -1.0])
    assert found.method == "BCa bootstrap, expanded"
    assert -0.2 < found.low < 0 < found.high < 0.2
    lopsided = weighted_mean_interval([0.0] * 9 + [1.0])
    assert 0 <= lopsided.low < 0.1 < lopsided.high < 1


@pytest.mark.parametrize("value", [0.0, 0.3, -2.7e-9])
@pytest.mark.parametrize("count", [2, 50, 400])
def test_equal_differences_have_an_interval_without_width(value: float, count: int) -> None:
    found = weighted_mean_interval([value] * count, np.random.default_rng(0).uniform(0.1, 9, count))
    assert found.low == found.high == found.value == pytest.approx(value)
    assert found.standard_error == 0
    assert found.method == "all differences equal"


def test_items_of_a_cluster_count_as_one_and_those_without_a_label_for_themselves() -> None:
    differences = [1.0, 3.0, 5.0, 7.0, 9.0]
    units = units_of(differences, [1, 2, 1, 1, 0.5], ["b", "", "b", "", "a"])
    assert units.totals.tolist() == [6.0, 6.0, 7.0, 4.5]
    assert units.weights.tolist() == [2.0, 2.0, 1.0, 0.5]
    assert weighted_mean_interval(differences, None, ["b", "", "b", "", "a"], num_resamples=99).num_units == 4
    assert units_of(differences).totals.tolist() == differences


def test_clusters_that_are_copies_of_one_item_have_the_interval_of_the_items() -> None:
    differences, weights = skewed(300, 8)
    single = weighted_mean_interval(differences, weights, num_resamples=999)
    labels = [f"passage {index}" for index in range(300)] * 3
    tripled = weighted_mean_interval(np.tile(differences, 3), np.tile(weights, 3), labels, num_resamples=999)
    assert tripled[:4] == pytest.approx(single[:4])
    assert (tripled.num_units, tripled.method) == (300, single.method)


def test_items_without_weight_are_no_items() -> None:
    differences, weights = skewed(40, 9)
    padded = weighted_mean_interval([*differences, 1e6, -1e6], [*weights, 0, 0])
    assert padded == weighted_mean_interval(differences, weights)


def test_what_can_not_be_resampled_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 items or clusters"):
        weighted_mean_interval([1.0, 2.0], clusters=["one", "one"])
    with pytest.raises(ValueError, match="at least 2 items or clusters"):
        sign_flip_p([1.0, 2.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="one weight per difference"):
        weighted_mean_interval([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="one cluster label per item"):
        weighted_mean_interval([1.0, 2.0], clusters=["one"])
    with pytest.raises(ValueError, match="finite numbers"):
        weighted_mean_interval([1.0, math.nan])
    with pytest.raises(ValueError, match="not below zero"):
        weighted_mean_interval([1.0, 2.0], [1.0, -1.0])


def spearman_difference(baseline: Floats, candidate: Floats, gold: Floats):  # type: ignore[no-untyped-def]
    def difference_of(indices: Indices) -> float:
        return spearman(candidate[indices], gold[indices]) - spearman(baseline[indices], gold[indices])

    return difference_of


def spearman(some: Floats, other: Floats) -> float:
    return float(np.corrcoef(stats.rankdata(some), stats.rankdata(other))[0, 1])


def graded_pairs(count: int, seed: int) -> tuple[Floats, Floats, Floats]:
    draw = np.random.default_rng(seed)
    gold = draw.integers(0, 26, count) / 5
    baseline = gold + draw.normal(0, 1, count)
    return baseline, baseline + draw.normal(0, 0.7, count), gold


def test_the_interval_of_a_difference_of_correlations_is_scipys_bca() -> None:
    arms = graded_pairs(150, 3)

    def difference(baseline: Floats, candidate: Floats, gold: Floats) -> float:
        return spearman(candidate, gold) - spearman(baseline, gold)

    confidence = expanded(0.95, 150)
    assert 0.95 < confidence < 0.955
    expected = stats.bootstrap(
        arms,
        difference,
        n_resamples=1999,
        paired=True,
        vectorized=False,
        confidence_level=confidence,
        method="BCa",
        rng=1,
    )
    found = statistic_difference_interval(spearman_difference(*arms), 150, seed=2)
    assert found.value == pytest.approx(difference(*arms))
    assert found.standard_error == pytest.approx(expected.standard_error, rel=0.06)
    for ours, theirs in zip((found.low, found.high), expected.confidence_interval, strict=True):
        assert ours == pytest.approx(theirs, abs=0.25 * found.standard_error)
    assert (found.num_units, found.num_resamples) == (150, 1999)


def test_a_statistic_that_is_a_mean_has_the_interval_of_a_mean() -> None:
    differences, _ = skewed(1300, 4)
    mean = weighted_mean_interval(differences, num_resamples=1999, seed=5)
    # the same draws; 500 groups in place of 1,300 items move the acceleration, and with it the limits, a little
    found = statistic_difference_interval(lambda indices: float(differences[indices].mean()), 1300, seed=5)
    assert found[:4] == pytest.approx(mean[:4], abs=0.15 * mean.standard_error)
    assert found.standard_error == pytest.approx(mean.standard_error)


def test_a_statistic_over_clusters_takes_whole_clusters() -> None:
    labels = ["", "x", "y", "x", "", "y", "y"]
    seen = set()

    def difference_of(indices: Indices) -> float:
        counts = np.bincount(indices, minlength=7)
        assert counts[1] == counts[3]
        assert counts[2] == counts[5] == counts[6]
        seen.add(int(counts.sum()))
        return float(np.mean(indices))

    found = statistic_difference_interval(difference_of, 7, labels, num_resamples=200)
    assert found.num_units == 4
    assert {4, 7, 10} <= seen


def test_resamples_without_a_value_are_left_out_if_few_and_an_error_if_many() -> None:
    differences, _ = skewed(300, 4)
    calls = iter(range(10_000))

    def sometimes(share: int):  # type: ignore[no-untyped-def]
        def difference_of(indices: Indices) -> float:
            is_resample = len(np.unique(indices)) < 299
            return math.nan if is_resample and next(calls) % share == 0 else float(differences[indices].mean())

        return difference_of

    assert statistic_difference_interval(sometimes(200), 300, num_resamples=400).num_resamples == 398
    with pytest.raises(ValueError, match="no finite value in 20 of 400"):
        statistic_difference_interval(sometimes(20), 300, num_resamples=400)
    with pytest.raises(ValueError, match="for all items"):
        statistic_difference_interval(lambda _: math.nan, 300)
    with pytest.raises(ValueError, match="at least 2 items"):
        statistic_difference_interval(lambda _: 1.0, 1)


def test_a_statistic_that_never_moves_has_an_interval_without_width() -> None:
    found = statistic_difference_interval(lambda _: 0.25, 40, num_resamples=99)
    assert found[:4] == (0.25, 0.25, 0.25, 0.0)


@pytest.mark.parametrize("count", [2, 5, 9, 12])
def test_few_units_are_exchanged_in_every_way(count: int) -> None:
    differences = np.random.default_rng(count).normal(0.3, 1, count)
    weights = np.random.default_rng(1).uniform(0.5, 2, count)
    sums = [abs(float(np.sum(weights * differences * signs))) for signs in product([-1, 1], repeat=count)]
    observed = abs(float(np.sum(weights * differences)))
    assert sign_flip_p(differences, weights) == np.mean([each >= observed - 1e-9 for each in sums])
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=math.inf)
    assert sign_flip_p(differences) == pytest.approx(expected.pvalue, rel=1e-12)


def test_many_units_are_exchanged_at_random_as_scipy_does() -> None:
    differences = np.random.default_rng(3).normal(0.35, 1, 70)
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=19_999, rng=4)
    assert 0.02 < expected.pvalue < 0.2
    assert sign_flip_p(differences, num_permutations=19_999) == pytest.approx(expected.pvalue, abs=0.01)
    assert sign_flip_p(differences + 3, num_permutations=999) == 1 / 1000


def test_right_and_wrong_answers_exchanged_are_mcnemars_exact_test() -> None:
    flips = [-1.0] * 3 + [1.0] * 8
    assert sign_flip_p(flips + [0.0] * 300) == pytest.approx(stats.binomtest(3, 11).pvalue)
    assert sign_flip_p([0.0] * 20) == 1.0


def test_a_cluster_is_exchanged_as_a_whole() -> None:
    differences = [0.3, -0.1, 0.5, 0.2, 0.9, 0.4]
    labels = ["a", "a", "b", "b", "", ""]
    assert sign_flip_p(differences, None, labels) == sign_flip_p([0.2, 0.7, 0.9, 0.4]) == 2 / 16


def draws_of(
    num_draws: int, count: int, sds: tuple[float, float, float], draw: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Mean 0: what a draw does to all items, what all draws do to an item, and what a draw does to an item."""
    of_draws, of_items, of_both = sds
    return (
        of_draws * draw.standard_normal((num_draws, 1))
        + of_items * draw.standard_normal(count)
        + of_both * draw.standard_normal((num_draws, count))
    )


def coverage_of_draws(
    num_draws: int, sds: tuple[float, float, float], count: int = 100, num_trials: int = 400
) -> float:
    draw = np.random.default_rng(12)
    found = [
        two_level_interval(list(draws_of(num_draws, count, sds, draw)), num_resamples=199, seed=trial)
        for trial in range(num_trials)
    ]
    return sum(each.low <= 0 <= each.high for each in found) / num_trials


@pytest.mark.parametrize("num_draws", [2, 4])
def test_over_few_draws_the_interval_covers_where_draws_items_or_both_vary(num_draws: int) -> None:
    assert 0.93 <= coverage_of_draws(num_draws, (1.0, 0.1, 0.1)) <= 0.97
    assert coverage_of_draws(num_draws, (0.0, 1.0, 0.05)) >= 0.92
    assert coverage_of_draws(num_draws, (0.1, 1.0, 1.0)) >= 0.935


def test_the_interval_of_draws_that_only_shift_all_items_is_students() -> None:
    shifts = np.array([0.1, 0.4, 0.2])
    found = two_level_interval([[shift] * 50 for shift in shifts])
    expected = stats.t.interval(0.95, 2, loc=shifts.mean(), scale=stats.sem(shifts))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.standard_error == pytest.approx(stats.sem(shifts))


def test_the_interval_of_draws_that_change_nothing_is_that_of_the_items() -> None:
    differences, weights = skewed(300, 2)
    items = weighted_mean_interval(differences, weights)
    found = two_level_interval([differences, differences], weights)
    assert found[:4] == pytest.approx(items[:4])
    assert "2 draws" in found.method


def test_the_error_over_draws_and_items_is_that_of_the_crossed_analysis_of_variance() -> None:
    values = draws_of(4, 250, (0.05, 1.0, 2.0), np.random.default_rng(6))
    grand, rows, columns = values.mean(), values.mean(axis=1), values.mean(axis=0)
    square_rows = 250 * np.sum((rows - grand) ** 2) / 3
    square_columns = 4 * np.sum((columns - grand) ** 2) / 249
    both = values - rows[:, None] - columns + grand
    square_both = np.sum(both**2) / (3 * 249)
    found = two_level_interval(list(values))
    assert found.standard_error**2 == pytest.approx((square_rows + square_columns - square_both) / 1000, rel=0.05)
    assert found.high - found.value >= t_quantile(0.975, 3) * math.sqrt(square_rows / 1000)


def test_one_draw_says_that_it_says_nothing_of_draws() -> None:
    differences, weights = skewed(1200, 3)
    found = two_level_interval([differences], weights, seed=4, num_resamples=999)
    plain = weighted_mean_interval(differences, weights, seed=4, num_resamples=999)
    assert found == Resampled(*plain[:7], "BCa bootstrap of items; one draw says nothing of other draws")


def test_draws_are_some_and_of_the_same_items() -> None:
    with pytest.raises(ValueError, match=r"got lengths \[\]"):
        two_level_interval([])
    with pytest.raises(ValueError, match=r"got lengths \[2, 3\]"):
        two_level_interval([[1.0, 2.0], [1.0, 2.0, 3.0]])


def coverage(count: int, mean_size: int, is_clustered: bool, num_trials: int = 300) -> float:
    """Of `count` clusters of 1 to 2 `mean_size` - 1 items that share half their variance."""
    draw = np.random.default_rng(31)
    hits = 0
    for trial in range(num_trials):
        sizes = draw.integers(1, 2 * mean_size, count)
        numbers = np.repeat(np.arange(count), sizes)
        differences = draw.standard_normal(count)[numbers] + draw.standard_normal(len(numbers))
        labels = [f"passage {number}" for number in numbers] if is_clustered else None
        found = weighted_mean_interval(differences, clusters=labels, num_resamples=299, seed=trial)
        hits += found.low <= 0 <= found.high
    return hits / num_trials


def test_over_clusters_the_interval_covers_and_without_them_it_does_not() -> None:
    assert coverage(60, 4, is_clustered=True) == pytest.approx(0.95, abs=0.035)
    assert coverage(60, 4, is_clustered=False) < 0.85


@pytest.mark.parametrize("count", [40, 1000])
def test_of_skewed_weighted_differences_the_interval_covers(count: int) -> None:
    truth, hits = math.exp(-4 + 0.5) - 0.01, 0
    for trial in range(400):
        differences, weights = skewed(count, 1000 + trial)
        found = weighted_mean_interval(differences, weights, num_resamples=499, seed=trial)
        hits += found.low <= truth <= found.high
    assert hits / 400 == pytest.approx(0.95, abs=0.04)
