"""What may be said of a candidate's scores: differences, equivalences, and what the samples are too few for.

A claim is made of one score; a verdict of all claims of a run together, because twenty candidates without any difference
would else give one "winner" in two of three runs (Holm 1979).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from compressbench.core.equivalence import holm, mean_difference_p, tost_p
from compressbench.core.sample_size import (
    samples_for_equivalence,
    samples_for_mean_equivalence,
    samples_to_detect,
    samples_to_detect_mean,
    smallest_detectable_difference,
    smallest_detectable_mean,
)
from compressbench.core.statistics import (
    Interval,
    mcnemar_p,
    mean_interval_from,
    paired_proportion_error,
    paired_proportion_interval,
)
from compressbench.records.score import Paired, Score
from compressbench.report.verdict import Verdict

ALPHA = 0.05
FOUND_BY_CHANCE = "significant alone, but not among all differences of the run, where chance alone gives some"
Key = TypeVar("Key")


class Claim(NamedTuple):
    """A difference from the baseline on the scale where it is symmetric: the metric's own, or nats.

    `spread` is the standard deviation of the differences of single samples, as far as the metric has one; `churn` the
    share of samples that changed, of proportions. `margin` and `floor` are on the same scale; `p_equivalent` is there
    where a margin was declared.
    """

    score: Score
    difference: Interval
    num_samples: int
    spread: float
    churn: float | None
    p_different: float
    margin: float | None
    p_equivalent: float | None
    floor: float | None


def claim_of(score: Score, floor: Score | None) -> Claim | str:
    """The claim of one score, or why there is none. `floor` is the baseline's score of the same task."""
    if score.paired is None:
        return "the samples can't be paired with the baseline's"
    if not score.is_binary and score.paired.num_samples < 2:
        return "one sample only"
    paired, margin = score.paired, _margin(score)
    noise = None if floor is None or floor.floor is None else _floor(score, floor.floor.paired)
    if score.is_binary and paired.resampled is None and score.over_draws is None:
        return _of_proportions(score, paired, margin, noise)
    return _of_means(score, paired, margin, noise)


def _of_proportions(score: Score, paired: Paired, margin: float | None, noise: float | None) -> Claim:
    lost, won, count = paired.num_harmful, paired.num_beneficial, paired.num_samples
    if score.direction == "lower":
        lost, won = won, lost
    centre, error = paired_proportion_error(lost, won, count)
    return Claim(
        score,
        paired_proportion_interval(lost, won, count),
        count,
        error * math.sqrt(count),
        paired.churn,
        mcnemar_p(lost, won),
        margin,
        None if margin is None else tost_p(centre, error, margin),
        noise,
    )


def _of_means(score: Score, paired: Paired, margin: float | None, noise: float | None) -> Claim:
    found = score.over_draws or paired.resampled
    count = paired.num_samples
    if found is None:  # records before schema 4
        difference = mean_interval_from(paired.mean_difference, paired.sd_difference, count)
        error, degrees, p_value = paired.sd_difference / math.sqrt(count), count - 1, None
    else:
        difference = Interval(found.difference, found.low, found.high)
        error, degrees, p_value = found.standard_error, max(1, found.num_units - 1), found.p_value
    if p_value is None:
        p_value = mean_difference_p(difference.value, error, degrees)
    p_equivalent = None if margin is None else tost_p(difference.value, error, margin, degrees)
    # what clusters and draws do to the error is in the spread, and not in the churn
    return Claim(score, difference, count, error * math.sqrt(count), None, p_value, margin, p_equivalent, noise)


def _margin(score: Score) -> float | None:
    """On the scale of the claim; a margin of a perplexity is a fraction of the baseline's."""
    return score.margin if score.margin is None or not score.is_log else math.log1p(score.margin)


def _floor(score: Score, paired: Paired) -> float:
    """The larger of what a baseline lost and won against itself, as a share; of other metrics the size of its change."""
    if score.is_binary:
        return max(paired.num_harmful, paired.num_beneficial) / paired.num_samples
    return abs(paired.mean_difference if paired.resampled is None else paired.resampled.difference)


def verdicts(claims: Mapping[Key, Claim]) -> dict[Key, Verdict]:
    """One verdict per claim; all of them are one family."""
    different = dict(zip(claims, holm([claim.p_different for claim in claims.values()]), strict=True))
    asked = {key: claim.p_equivalent for key, claim in claims.items() if claim.p_equivalent is not None}
    equivalent = dict(zip(asked, holm(list(asked.values())), strict=True))
    return {key: _verdict(claim, different[key], equivalent.get(key)) for key, claim in claims.items()}


def _verdict(claim: Claim, p_different: float, p_equivalent: float | None) -> Verdict:
    word, reason = _word(claim, p_different, p_equivalent)
    paired = claim.score.paired
    return Verdict(
        verdict=word,
        reason=reason,
        p_value=claim.p_different,
        p_adjusted=p_different,
        p_equivalent=p_equivalent,
        margin=claim.score.margin,
        smallest_detectable=_smallest_detectable(claim),
        num_samples_needed=_needed(claim) if word == "inconclusive" else None,
        noise=claim.floor,
        is_log=claim.score.is_log,
        num_harmful=None if paired is None or not claim.score.is_binary else paired.num_harmful,
        num_beneficial=None if paired is None or not claim.score.is_binary else paired.num_beneficial,
        **_bounds(claim),
    )


def _word(claim: Claim, p_different: float, p_equivalent: float | None) -> tuple[str, str]:
    if p_equivalent is not None and p_equivalent < ALPHA:
        differs = "; the difference is real, and smaller than the margin" if p_different < ALPHA else ""
        return "equivalent", f"within the declared margin{differs}" if differs else ""
    if p_different >= ALPHA:
        return "inconclusive", FOUND_BY_CHANCE if claim.p_different < ALPHA else ""
    if claim.floor is not None and abs(claim.difference.value) <= claim.floor:
        return "inconclusive", "not more than the baseline differs from itself in another batch size and order"
    is_better = claim.difference.value > 0 if claim.score.direction == "higher" else claim.difference.value < 0
    return "improved" if is_better else "degraded", ""


def _smallest_detectable(claim: Claim) -> float | None:
    """In the metric's unit, of a log scale as a fraction of the baseline's."""
    if claim.churn is not None:
        # a sample that no model changed is still half a change, so that no churn doesn't look like a perfect instrument
        return smallest_detectable_difference(max(claim.churn, 0.5 / claim.num_samples), claim.num_samples)
    if claim.spread == 0:  # differences without any spread say nothing of how they would spread
        return None
    found = smallest_detectable_mean(claim.spread, claim.num_samples)
    return math.expm1(found) if claim.score.is_log else found


def _needed(claim: Claim) -> int | None:
    """Samples like these that would settle it: as equivalent where the margin leaves room, or else as a difference."""
    if claim.score.over_draws is not None:
        return None  # more samples don't settle what draws differ in
    change = abs(claim.difference.value)
    room = 0.0 if claim.margin is None else claim.margin - change
    if claim.churn is not None:
        churn = max(claim.churn, change, 0.5 / claim.num_samples)
        ways = [samples_for_equivalence(room, churn)] if room > 0 else []
        ways += [samples_to_detect(change, churn)] if change > 0 else []
    elif claim.spread > 0:
        ways = [samples_for_mean_equivalence(room, claim.spread)] if room > 0 else []
        ways += [samples_to_detect_mean(change, claim.spread)] if change > 0 else []
    else:
        ways = []
    return min(ways, default=None)


def _bounds(claim: Claim) -> dict[str, float | None]:
    """The difference in the metric's unit, and the ratio to the baseline."""
    score, change = claim.score, claim.difference
    assert score.value is not None and score.paired is not None  # noqa: S101, PT018 -- a claim has both
    first = change.value if score.over_draws is None else _own_change(score.paired)
    if score.is_log:
        before = score.value / math.exp(first)
        change = Interval(*(before * math.expm1(each) for each in change))
    else:
        before = score.value - first
    return {
        "difference": change.value,
        "difference_low": change.low,
        "difference_high": change.high,
        "ratio": (before + change.value) / before if before else None,
        "low": (before + change.low) / before if before else None,
        "high": (before + change.high) / before if before else None,
    }


def _own_change(paired: Paired) -> float:
    return paired.mean_difference if paired.resampled is None else paired.resampled.difference


def pooled(parts: Iterable[Paired]) -> Paired:
    """Proportions of several sets of samples as one set."""
    found: Sequence[Paired] = list(parts)
    count = sum(each.num_samples for each in found)
    lost, won = (sum(getattr(each, name) for each in found) for name in ("num_harmful", "num_beneficial"))
    mean = (won - lost) / count
    sd = math.sqrt(max(0.0, (won + lost) / count - mean**2) * count / max(1, count - 1))
    return Paired(num_samples=count, num_harmful=lost, num_beneficial=won, mean_difference=mean, sd_difference=sd)
