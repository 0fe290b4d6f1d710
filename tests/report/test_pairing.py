"""Scores of two records, sample by sample: against other libraries, and closed where samples don't match."""

from __future__ import annotations

import math
import random
from pathlib import Path

import compare_parts as parts
import numpy as np
import pytest
import record_builder as build
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from compressbench.core.questions import SampleRow
from compressbench.records.sample_rows import read_samples
from compressbench.records.score import Paired, Resampled
from compressbench.records.store import read_record
from compressbench.report.catalog import open_catalog
from compressbench.report.compare import compare_records
from compressbench.report.pairing import mirrored, paired


def binary(scores: list[float]) -> tuple[list[SampleRow], float]:
    return parts.rows(scores), sum(scores) / len(scores)


def test_right_and_wrong_answers_are_judged_by_mcnemar(tmp_path: Path) -> None:
    base, one, two = parts.answers_of(1), parts.answers_of(2, right=0.85), parts.answers_of(3, right=0.72)
    paths = parts.written(tmp_path, {"baseline": base, "one": one, "two": two})
    catalog = open_catalog([tmp_path])
    at = {catalog.path(place).name: place for place in range(len(catalog))}
    found = compare_records(catalog, at[paths["one"].name], [at[paths["two"].name]]).candidates[0].compared["accuracy"]
    table = np.array([[sum(a == x and b == y for a, b in zip(one, two, strict=True)) for y in (1, 0)] for x in (1, 0)])
    assert found.verdict is not None
    assert found.how == "paired by sample"
    assert found.verdict.p_value == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-9)
    assert (found.verdict.num_harmful, found.verdict.num_beneficial) == (table[0, 1], table[1, 0])
    assert found.verdict.difference == pytest.approx(np.mean(two) - np.mean(one))


def test_other_means_have_the_paired_t_interval() -> None:
    before, after = parts.log_likelihoods(1), parts.log_likelihoods(2, around=3.1)
    found = paired(parts.rows(before), parts.rows(after), parts.perplexity(before), parts.perplexity(after))
    assert isinstance(found, Paired)
    assert found.resampled is not None
    expected = stats.ttest_rel(after, before).confidence_interval()
    assert (found.resampled.low, found.resampled.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert found.num_harmful == sum(b < a for b, a in zip(before, after, strict=True)), "a higher perplexity is worse"


def test_weights_and_clusters_are_those_of_a_ratio_estimator() -> None:
    import statsmodels.api as sm

    draw = random.Random(5)
    before, after = parts.log_likelihoods(3), parts.log_likelihoods(4)
    weights = [draw.randint(1, 9) for _ in before]
    clusters = [f"c{at // 4}" for at in range(len(before))]
    sides = [parts.rows(scores, weight=weights, cluster=clusters) for scores in (before, after)]
    means = [np.average(scores, weights=weights) for scores in (before, after)]
    scores = [build.perplexity(math.exp(mean)) for mean in means]
    found = paired(sides[0], sides[1], *scores)
    assert isinstance(found, Paired)
    assert found.resampled is not None
    change = np.subtract(after, before)
    model = sm.WLS(change, np.ones(len(change)), weights=weights)
    fit = model.fit(cov_type="cluster", cov_kwds={"groups": np.arange(len(before)) // 4, "use_correction": False})
    count = len(set(clusters))
    assert found.resampled.difference == pytest.approx(fit.params[0])
    assert found.resampled.standard_error == pytest.approx(fit.bse[0] * math.sqrt(count / (count - 1)), rel=1e-9)
    assert found.resampled.num_units == count


def test_a_proportion_with_clusters_is_not_judged_by_its_flips_alone() -> None:
    before, after = parts.answers_of(1, 40), parts.answers_of(2, 40)
    clusters = [f"c{at // 8}" for at in range(40)]
    sides = [parts.rows(scores, cluster=clusters) for scores in (before, after)]
    found = paired(sides[0], sides[1], build.accuracy(sum(before) / 40), build.accuracy(sum(after) / 40))
    assert isinstance(found, Paired)
    assert found.resampled is not None
    assert found.resampled.num_units == 5


def refused(before: list[SampleRow], after: list[SampleRow], value: float = 1.0) -> str:
    found = paired(before, after, build.accuracy(1.0), build.accuracy(value))
    assert isinstance(found, str)
    return found


def test_samples_that_do_not_match_are_no_smaller_set() -> None:
    whole = parts.rows([1.0, 1.0, 1.0])
    assert "1 samples are there for only one of them (such as 's2')" in refused(whole, whole[:2])
    assert "stand more than once" in refused(whole, [*whole[:2], whole[1]])
    assert "stand more than once" in refused([*whole, whole[1]], whole)
    assert "there are no samples" in refused([], [])
    for what, values in (("target", ["t", "t", "u"]), ("weight", [1.0, 1.0, 2.0]), ("cluster", ["", "", "c"])):
        assert f"sample 's2' has another {what}" in refused(whole, parts.rows([1.0] * 3, **{what: values}))


def test_the_order_of_samples_makes_no_difference() -> None:
    one, two = binary(parts.answers_of(1)), binary(parts.answers_of(2))
    scores = build.accuracy(one[1]), build.accuracy(two[1])
    assert paired(one[0], two[0], *scores) == paired(one[0], two[0][::-1], *scores)


def test_a_metric_that_is_no_mean_of_its_scores_is_not_paired() -> None:
    rows = parts.rows([0.2, 0.4, 0.9])
    found = paired(rows, rows, *[build.accuracy(0.77, metric="spearman", is_binary=False)] * 2)
    assert found == "the metric is no mean of its samples' scores, so that only its task could resample it"


def test_one_sample_is_too_few() -> None:
    rows = parts.rows([3.0])
    assert "too few" in str(paired(rows, rows, *[parts.perplexity([3.0])] * 2))


def test_mirrored_twice_is_the_same() -> None:
    resampled = Resampled(
        difference=0.1, low=0.05, high=0.2, standard_error=0.03, p_value=0.01, method="", seed=0, num_resamples=9,
        num_units=20,
    )  # fmt: skip
    whole = build.counts(3, 8, 20).model_copy(update={"resampled": resampled})
    candidate, baseline = build.accuracy(0.9, paired=whole, margin=0.01), build.accuracy(0.8)
    once = mirrored(candidate, baseline)
    assert once.paired is not None
    assert (once.value, once.paired.num_harmful, once.paired.mean_difference) == (0.8, 8, -whole.mean_difference)
    assert once.paired.resampled is not None
    assert (once.paired.resampled.low, once.paired.resampled.high) == (-0.2, -0.05)
    assert mirrored(once, candidate) == candidate


@pytest.mark.parametrize("candidate", ["gptq-4", "wanda-50", "int8-dynamic"])
def test_recorded_rows_say_what_the_run_said_of_them(candidate: str) -> None:
    """Flips exactly; other bounds within a tenth of the interval of the run's bootstrap."""
    folder = Path(__file__).parents[2] / "results" / "shakespeare-quality"
    paths = [next(folder.glob(f"*.{name}.*.json")) for name in ("baseline", candidate)]
    base, other = (read_record(path) for path in paths)
    for before, after in zip(base.scores, other.scores, strict=True):
        rows = [
            read_samples(path, score.samples_file, score.samples_sha256)
            for path, score in zip(paths, (before, after), strict=True)
        ]
        found, stored = paired(rows[0], rows[1], before, after), after.paired
        assert isinstance(found, Paired)
        assert stored is not None
        assert (found.num_harmful, found.num_beneficial) == (stored.num_harmful, stored.num_beneficial)
        assert found.mean_difference == pytest.approx(stored.mean_difference)
        if stored.resampled is None:
            assert found.resampled is None
        else:
            assert found.resampled is not None
            ours, theirs = found.resampled, stored.resampled
            assert (ours.low, ours.high) == pytest.approx(
                (theirs.low, theirs.high), abs=(theirs.high - theirs.low) / 10
            )
