"""Do the paired statistics of quality claim as rarely, find as often and cover as often as they promise?

    OMP_NUM_THREADS=1 python benchmarks/quality_statistics.py

Prints one Markdown table. All data are simulated, so that the truth is known: (a) a model against itself, exact McNemar;
(b) power of the two one-sided tests at the planned number of samples, without any true difference, and at the number that
the formula with z(1 - beta) plans; their size where the truth lies on the margin; (c) coverage of every interval; (d) the
chance of any false claim among 20 candidates. One standard error of 5 % of 1,000 is 0.7 points, of 95 % of 2,000 is 0.5.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from compressbench.core.equivalence import holm, tost_p
from compressbench.core.sample_size import samples_for_equivalence
from compressbench.core.statistics import (
    mcnemar_p,
    normal_quantile,
    paired_proportion_error,
    paired_proportion_interval,
)
from compressbench.measure.paired_units import units_of
from compressbench.measure.repeated_draws import two_level_interval
from compressbench.measure.resampling import (
    MIN_BCA_UNITS,
    Resampled,
    bca_limits,
    bootstrap_means,
    jackknife_means,
    statistic_difference_interval,
    weighted_mean_interval,
)

DRAW = np.random.default_rng(5)
Row = tuple[str, str, str, str]
mcnemar = lru_cache(maxsize=None)(mcnemar_p)


def flips_of(count: int, harm: float, benefit: float, num_trials: int) -> list[tuple[int, int]]:
    """Harmful and beneficial flips of so many trials."""
    drawn = DRAW.multinomial(count, [harm, benefit, 1 - harm - benefit], num_trials)
    return [(b, c) for b, c, _ in drawn.tolist()]


def percent(hits: float, num_trials: int) -> str:
    return f"{100 * hits / num_trials:.1f} %"


def false_positives() -> Iterator[Row]:
    for count in (100, 277, 1000, 3080, 14_042):
        for churn in (0.02, 0.05, 0.15):
            claims = sum(mcnemar(*each) < 0.05 for each in flips_of(count, churn / 2, churn / 2, 1000))
            yield "A/A: McNemar claims", f"n = {count:,}, churn {churn:.0%}", percent(claims, 1000), "at most 6.4 %"


def passes(count: int, churn: float, margin: float, difference: float, num_trials: int) -> str:
    flips = flips_of(count, (churn - difference) / 2, (churn + difference) / 2, num_trials)
    return percent(sum(tost_p(*paired_proportion_error(*each, count), margin) < 0.05 for each in flips), num_trials)


def powers() -> Iterator[Row]:
    for margin in (0.005, 0.01):
        for churn in (0.02, 0.05, 0.10):
            count = samples_for_equivalence(margin, churn)
            fewer = math.ceil((normal_quantile(0.95) + normal_quantile(0.8)) ** 2 * churn / margin**2)
            words = f"margin {100 * margin:g} points, churn {churn:.0%}, n = "
            yield "TOST: power", f"{words}{count:,}", passes(count, churn, margin, 0.0, 40_000), "80 +- 2 %"
            yield "with z(1 - beta)", f"{words}{fewer:,}", passes(fewer, churn, margin, 0.0, 40_000), "about 60 %"
            yield "TOST: size on the margin", f"{words}{count:,}", passes(count, churn, margin, margin, 40_000), "5 %"


def proportions() -> Iterator[Row]:
    for count in (50, 200, 1000, 10_000):
        for churn, difference in ((0.02, 0.0), (0.05, 0.0), (0.09, -0.03)):
            flips = flips_of(count, (churn - difference) / 2, (churn + difference) / 2, 40_000)
            found = [paired_proportion_interval(*each, count) for each in flips]
            hits = sum(each.low <= difference <= each.high for each in found)
            case = f"n = {count:,}, churn {churn:.0%}, difference {100 * difference:g} points"
            yield "accuracy (Agresti-Min)", case, percent(hits, 40_000), "95 +- 1.5 %"


def nats(count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Nats per token by windows of unequal length: a lognormal loss, and noise of either sign; the true mean."""
    differences = 0.02 * DRAW.lognormal(0, 0.8, count) + DRAW.normal(0, 0.01, count)
    return differences, DRAW.integers(20, 512, count).astype(float), 0.02 * math.exp(0.32)


def rare(count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Hardly any change, and a large one in 3 % of items."""
    return DRAW.normal(0, 0.05, count) + (DRAW.random(count) < 0.03) * DRAW.exponential(1, count), np.ones(count), 0.03


def plain_bca(differences: np.ndarray, weights: np.ndarray, num_resamples: int) -> tuple[float, float]:
    units = units_of(differences, weights)
    return bca_limits(units.mean, bootstrap_means(units, num_resamples, 0), jackknife_means(units))


def means() -> Iterator[Row]:
    for name, draw in (("skewed nats", nats), ("3 % large changes", rare)):
        for count in (20, 50, 100, 200, 400, 999, 1000, 4000):
            num_trials = 1500 if count < 400 else 1000
            hits = hits_of_bca = 0
            for trial in range(num_trials):
                differences, weights, truth = draw(count)
                found = weighted_mean_interval(differences, weights, num_resamples=999, seed=trial)
                hits += found.low <= truth <= found.high
                low, high = plain_bca(differences, weights, 999) if count < MIN_BCA_UNITS else found[1:3]
                hits_of_bca += low <= truth <= high
            words = f"{percent(hits, num_trials)} (BCa {percent(hits_of_bca, num_trials)})"
            yield f"mean of {name}", f"n = {count:,}", words, "95 +- 1.5 %"


def in_clusters(count: int) -> tuple[np.ndarray, list[str]]:
    """Clusters of 1 to 9 items that share half of the variance."""
    numbers = np.repeat(np.arange(count), DRAW.integers(1, 10, count))
    return DRAW.standard_normal(count)[numbers] + DRAW.standard_normal(len(numbers)), [str(each) for each in numbers]


def clusters() -> Iterator[Row]:
    for count in (20, 50, 100, 300):
        with_labels, without = 0, 0
        for trial in range(1000):
            differences, labels = in_clusters(count)
            found = weighted_mean_interval(differences, None, labels, num_resamples=999, seed=trial)
            plain = weighted_mean_interval(differences, num_resamples=499, seed=trial)
            with_labels += found.low <= 0 <= found.high
            without += plain.low <= 0 <= plain.high
        words = f"{percent(with_labels, 1000)} (items taken for independent: {percent(without, 1000)})"
        yield "clusters of 5 on average", f"{count} clusters", words, "95 +- 1.5 %"


def correlation(some: np.ndarray, other: np.ndarray) -> float:
    first, second = some - some.mean(), other - other.mean()
    return float(first @ second / math.sqrt((first @ first) * (second @ second)))


def correlation_interval(count: int, seed: int) -> Resampled:
    """Pearson's, because ranking every resample would take minutes."""
    gold = DRAW.standard_normal(count)
    arms = [gold + DRAW.standard_normal(count), gold + DRAW.standard_normal(count)]

    def difference_of(items: np.ndarray) -> float:
        return correlation(arms[1][items], gold[items]) - correlation(arms[0][items], gold[items])

    return statistic_difference_interval(difference_of, count, num_resamples=399, seed=seed)


def correlations() -> Iterator[Row]:
    for count in (30, 100, 300):
        found = [correlation_interval(count, trial) for trial in range(800)]
        hits = sum(each.low <= 0 <= each.high for each in found)
        yield "difference of correlations", f"n = {count}", percent(hits, 800), "95 +- 1.5 %"


def draws() -> Iterator[Row]:
    """Standard deviations of what draws do to all items, of items, and of what single draws do to single items."""
    cases = {"draws": (1.0, 1.0, 1.0), "items": (0.0, 1.0, 0.2), "both": (0.1, 1.0, 1.0), "neither": (0.0, 0.0, 1.0)}
    for num_draws in (2, 3, 5):
        for words, (of_draws, of_items, of_both) in cases.items():
            hits, hits_of_percentile, widths = 0, 0, []
            for trial in range(1000):
                values = of_both * DRAW.standard_normal((num_draws, 100)) + of_items * DRAW.standard_normal(100)
                values += of_draws * DRAW.standard_normal((num_draws, 1))
                found = two_level_interval(list(values), num_resamples=499, seed=trial)
                hits += found.low <= 0 <= found.high
                widths.append((found.high - found.low) / 2)
                low, high = percentile_over_draws(values, 499)
                hits_of_percentile += low <= 0 <= high
            true_error = math.sqrt((of_draws**2 + (of_items**2 * num_draws + of_both**2) / 100) / num_draws)
            reach = np.median(widths) / true_error
            result = f"{percent(hits, 1000)}, half-width {reach:.1f} true errors"
            result += f" (percentiles: {percent(hits_of_percentile, 1000)})"
            yield f"{num_draws} draws, 100 items", f"{words} vary most", result, "95 +- 1.5 % or more"


def percentile_over_draws(values: np.ndarray, num_resamples: int) -> tuple[float, float]:
    """What we do not do: draws and items resampled, and the percentiles taken."""
    num_draws, count = values.shape
    rows = DRAW.multinomial(num_draws, np.full(num_draws, 1 / num_draws), num_resamples) / num_draws
    columns = DRAW.multinomial(count, np.full(count, 1 / count), num_resamples) / count
    low, high = np.quantile(np.einsum("bk,kn,bn->b", rows, values, columns, optimize=True), [0.025, 0.975])
    return float(low), float(high)


def families() -> Iterator[Row]:
    for count, churn in ((1000, 0.05), (14_042, 0.10)):
        plain = adjusted = 0
        for _ in range(2000):
            p_values = [mcnemar(*each) for each in flips_of(count, churn / 2, churn / 2, 20)]
            plain += min(p_values) < 0.05
            adjusted += min(holm(p_values)) < 0.05
        words = f"{percent(adjusted, 2000)} (unadjusted {percent(plain, 2000)})"
        yield "any claim among 20 A/A, Holm", f"n = {count:,}, churn {churn:.0%}", words, "at most 5 %"


PARTS: tuple[Callable[[], Iterator[Row]], ...] = (
    false_positives,
    powers,
    proportions,
    means,
    clusters,
    correlations,
    draws,
    families,
)


def main() -> None:
    begun = time.perf_counter()
    print("| what | of | result | asked |\n|---|---|---|---|")
    for part in PARTS:
        for row in part():
            print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
