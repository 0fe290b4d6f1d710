"""What may be said of a score, and what may not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import record_builder as build
from scipy import stats

from compressbench.core.sample_size import samples_for_equivalence, samples_to_detect
from compressbench.core.statistics import mcnemar_p
from compressbench.records.score import Floor, Paired, Resampled, Score
from compressbench.report.score_claims import Claim, claim_of, verdicts
from compressbench.report.verdict import Verdict


def verdict(score: Score, floor: Score | None = None) -> Verdict:
    claim = claim_of(score, floor)
    assert isinstance(claim, Claim)
    return verdicts({0: claim})[0]


@pytest.mark.parametrize(
    ("harmful", "beneficial", "word"), [(5, 15, "improved"), (15, 5, "degraded"), (9, 12, "inconclusive")]
)
def test_a_higher_accuracy_is_the_better_one(harmful: int, beneficial: int, word: str) -> None:
    found = verdict(build.accuracy_after(harmful, beneficial, before=0.8, num_samples=100))
    assert found.verdict == word
    assert found.p_value == mcnemar_p(harmful, beneficial)
    change = (beneficial - harmful) / 100
    assert found.difference == pytest.approx(change)
    assert found.ratio == pytest.approx((0.8 + change) / 0.8)


def test_the_bounds_of_a_ratio_belong_to_those_of_the_difference() -> None:
    found = verdict(build.accuracy_after(5, 15, before=0.8, num_samples=100))
    for ratio, difference in ((found.low, found.difference_low), (found.high, found.difference_high)):
        assert ratio is not None
        assert difference is not None
        assert ratio == pytest.approx(1 + difference / 0.8)


def nats(mean: float, sd: float = 0.1, num_samples: int = 100) -> Paired:
    return Paired(num_samples=num_samples, num_harmful=0, num_beneficial=0, mean_difference=mean, sd_difference=sd)


@pytest.mark.parametrize(("change", "word"), [(-0.05, "improved"), (0.05, "degraded"), (0.01, "inconclusive")])
def test_a_lower_perplexity_is_the_better_one(change: float, word: str) -> None:
    found = verdict(build.perplexity(20 * math.exp(change), paired=nats(change)))
    assert found.verdict == word
    assert found.ratio == pytest.approx(math.exp(change))
    assert found.difference == pytest.approx(20 * math.expm1(change))
    # Student's interval in nats, then its exponent
    half = 1.9842169515086827 * 0.1 / 10
    assert found.low == pytest.approx(math.exp(change - half))
    assert found.high == pytest.approx(math.exp(change + half))


@pytest.mark.parametrize(("direction", "word"), [("higher", "improved"), ("lower", "degraded")])
def test_the_metric_of_a_plug_in_is_a_mean_of_its_scores(direction: str, word: str) -> None:
    score = build.perplexity(0.35, paired=nats(0.05), metric="rouge", direction=direction)
    found = verdict(score)
    assert found.verdict == word
    assert found.difference == pytest.approx(0.05)
    assert found.ratio == pytest.approx(0.35 / 0.30)


def test_one_sample_says_nothing() -> None:
    assert claim_of(build.perplexity(20.0, paired=nats(0.5, num_samples=1), num_samples=1), None) == "one sample only"


def test_a_baseline_of_zero_accuracy_has_no_ratio() -> None:
    found = verdict(build.accuracy_after(0, 20, before=0.0, num_samples=100))
    assert (found.verdict, found.ratio, found.difference) == ("improved", None, 0.2)


def resampled(difference: float, error: float, **changed: Any) -> Resampled:
    fields = {"low": difference - 2 * error, "high": difference + 2 * error, "p_value": 0.5, "num_units": 400}
    return Resampled(
        **{"difference": difference, "standard_error": error, "method": "m", "seed": 0, "num_resamples": 9, **fields},
        **changed,
    )


def test_a_difference_within_the_declared_margin_is_equivalent_and_without_a_margin_never() -> None:
    score = build.accuracy_after(20, 20, num_samples=40_000)
    assert verdict(score).verdict == "inconclusive"
    found = verdict(score.model_copy(update={"margin": 0.005}))
    assert (found.verdict, found.margin) == ("equivalent", 0.005)
    assert found.p_equivalent is not None
    # TOST by the normal distribution, half a count added to each cell
    error = math.sqrt((41 / 40_002) / 40_002)
    assert found.p_equivalent == pytest.approx(stats.norm.sf(0.005 / error), rel=1e-3, abs=1e-300)


def test_no_discordant_sample_among_few_is_not_yet_equivalent() -> None:
    found = verdict(build.accuracy_after(0, 0, num_samples=50).model_copy(update={"margin": 0.005}))
    assert found.verdict == "inconclusive"
    assert found.num_samples_needed == samples_for_equivalence(0.005, 0.5 / 50)


def test_a_real_difference_within_the_margin_is_equivalent_and_says_that_it_is_real() -> None:
    found = verdict(build.accuracy_after(120, 40, num_samples=100_000).model_copy(update={"margin": 0.005}))
    assert found.p_value == mcnemar_p(120, 40)
    assert found.verdict == "equivalent"
    assert "real, and smaller than the margin" in found.reason


def test_an_inconclusive_difference_says_how_many_samples_would_settle_it() -> None:
    found = verdict(build.accuracy_after(10, 12, num_samples=1000))
    assert found.verdict == "inconclusive"
    assert found.num_samples_needed == samples_to_detect(0.002, 0.022)
    with_margin = verdict(build.accuracy_after(10, 12, num_samples=1000).model_copy(update={"margin": 0.005}))
    assert with_margin.num_samples_needed == samples_for_equivalence(0.003, 0.022)
    assert verdict(build.accuracy_after(10, 10, num_samples=1000)).num_samples_needed is None
    # a difference near the margin is shown to be one long before it is shown to be smaller
    near = verdict(build.accuracy_after(28, 20, num_samples=1000).model_copy(update={"margin": 0.0081}))
    assert near.num_samples_needed == samples_to_detect(0.008, 0.048)


def test_the_smallest_detectable_difference_stands_beside_every_difference() -> None:
    found = verdict(build.accuracy_after(350, 352, num_samples=14_042))
    # SCIENCE: MMLU at 5 % churn shows 0.53 points
    assert found.smallest_detectable == pytest.approx(0.0053, abs=0.00005)
    same = verdict(build.accuracy_after(0, 0, num_samples=100))
    assert same.smallest_detectable is not None
    assert same.smallest_detectable > 0.01
    of_perplexity = verdict(build.perplexity(20.2, paired=nats(0.01)))
    assert of_perplexity.smallest_detectable == pytest.approx(math.expm1(2.8016 * 0.1 / 10), rel=0.03)


def test_a_difference_that_the_baseline_shows_against_itself_is_noise() -> None:
    score = build.accuracy_after(15, 3, num_samples=1000)
    assert verdict(score).verdict == "degraded"
    itself = build.accuracy().model_copy(update={"floor": Floor(how="batch size 32", paired=build.counts(13, 2, 1000))})
    found = verdict(score, itself)
    assert (found.verdict, found.noise) == ("inconclusive", 0.013)
    assert "in another batch size and order" in found.reason


def test_twenty_candidates_are_one_family() -> None:
    alone = build.accuracy_after(15, 4, num_samples=1000)
    assert verdict(alone).p_value == pytest.approx(0.0192, abs=1e-4)
    assert verdict(alone).verdict == "degraded"
    others = [build.accuracy_after(5, 5, num_samples=1000)] * 19
    claims = {
        at: claim for at, score in enumerate([alone, *others]) if isinstance(claim := claim_of(score, None), Claim)
    }
    found = verdicts(claims)
    assert found[0].verdict == "inconclusive"
    assert found[0].p_adjusted == pytest.approx(20 * (found[0].p_value or 0))
    assert {each.verdict for each in found.values()} == {"inconclusive"}
    assert "not among all differences of the run" in found[0].reason
    assert found[1].reason == ""


def test_a_resampled_difference_is_judged_by_its_own_interval_and_test() -> None:
    paired = nats(0.03).model_copy(update={"resampled": resampled(0.03, 0.01).model_copy(update={"p_value": 0.004})})
    found = verdict(build.perplexity(20 * math.exp(0.03), paired=paired))
    assert (found.verdict, found.p_value) == ("degraded", 0.004)
    assert found.low == pytest.approx(math.exp(0.01))
    close = found_with_margin(0.001, 0.002, margin=0.01)
    assert close.verdict == "equivalent"
    # the margin of a perplexity is a fraction of it: 1 % is log(1.01) nats
    t = (math.log1p(0.01) - 0.001) / 0.002
    assert close.p_equivalent == pytest.approx(stats.t.sf(t, 399), rel=1e-6)


def found_with_margin(difference: float, error: float, margin: float) -> Verdict:
    paired = nats(difference).model_copy(update={"resampled": resampled(difference, error)})
    return verdict(build.perplexity(20 * math.exp(difference), paired=paired, margin=margin))


def test_draws_are_judged_over_all_of_them_and_not_by_the_first() -> None:
    score = build.accuracy_after(40, 10, num_samples=1000)
    assert verdict(score).verdict == "degraded"
    over = resampled(
        -0.02,
        0.012,
    ).model_copy(update={"num_units": 3})
    found = verdict(score.model_copy(update={"over_draws": over.model_copy(update={"p_value": None})}))
    assert found.verdict == "inconclusive"
    assert found.p_value == pytest.approx(2 * stats.t.sf(0.02 / 0.012, 2))
    assert found.difference == pytest.approx(-0.02)
    assert found.num_samples_needed is None
    # the baseline is what the first draw says that it is
    assert found.ratio == pytest.approx((0.93 - 0.02) / 0.93)


def test_scores_that_do_not_differ_at_all_have_no_spread_to_plan_with() -> None:
    same = nats(0.0, sd=0.0).model_copy(update={"resampled": resampled(0.0, 0.0).model_copy(update={"p_value": 1.0})})
    found = verdict(build.perplexity(20.0, paired=same))
    assert (found.verdict, found.smallest_detectable, found.num_samples_needed) == ("inconclusive", None, None)
    declared = verdict(build.perplexity(20.0, paired=same, margin=0.01))
    assert declared.verdict == "equivalent"


def test_clusters_count_in_what_is_detectable_and_needed() -> None:
    alone = build.accuracy_after(20, 15, num_samples=1000)
    assert alone.paired is not None
    clustered = alone.paired.model_copy(update={"resampled": resampled(-0.005, 0.02)})
    found = verdict(alone.model_copy(update={"paired": clustered}))
    plain = verdict(alone)
    assert plain.smallest_detectable is not None
    assert found.smallest_detectable == pytest.approx(2.8016 * 0.02, rel=0.01)
    assert found.num_samples_needed is not None
    assert plain.num_samples_needed is not None
    assert found.num_samples_needed > 5 * plain.num_samples_needed
