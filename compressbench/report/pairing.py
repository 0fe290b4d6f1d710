"""Scores of two records side by side, whichever runs they are of: differences sample by sample, from the stored rows.

What both models were asked is the same question with the same samples or it isn't paired: a missing, doubled or changed
sample is a reason why nothing is said, never a smaller set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from compressbench.core.errors import RecordError
from compressbench.core.questions import SampleRow
from compressbench.core.statistics import Interval, t_quantile
from compressbench.records.comparability import question_of
from compressbench.records.record import Record
from compressbench.records.sample_rows import read_samples
from compressbench.records.score import Paired, Resampled, Score
from compressbench.report.score_claims import Claim, claim_of

STORED, BY_SAMPLE, THROUGH_BASELINE, COUNTED = "stored", "paired by sample", "through the baseline", "counted"


class Side(NamedTuple):
    """A record with its file, the metrics' names in order of its scores, and the baseline of its run, if it is there."""

    path: Path
    record: Record
    metrics: tuple[str, ...]
    baseline: Record | None
    baseline_id: str

    @property
    def is_baseline(self) -> bool:
        return self.record.role == "baseline"


class Asked(NamedTuple):
    """A claim to be judged, or why there is none, and how it was obtained."""

    how: str
    claim: Claim | str


def is_one_run(ours: Side, theirs: Side) -> bool:
    return (ours.record.run_id, ours.record.recipe.hash) == (theirs.record.run_id, theirs.record.recipe.hash)


def score_claims(reference: Side, other: Side) -> dict[str, Asked]:
    """By metric: `other` against `reference`. Metrics that only one of them has are left out."""
    theirs = dict(zip(reference.metrics, reference.record.scores, strict=False))
    ours = dict(zip(other.metrics, other.record.scores, strict=False))
    places = {name: at for at, name in enumerate(other.metrics)}
    return {name: _claim(reference, other, theirs[name], ours[name], places[name]) for name in ours if name in theirs}


def _claim(reference: Side, other: Side, before: Score, after: Score, at: int) -> Asked:
    if before.value is None or after.value is None:
        return Asked("", "one of them has no value")
    if is_one_run(reference, other) and reference.is_baseline:
        return Asked(STORED, claim_of(after, before))
    if is_one_run(reference, other) and other.is_baseline:
        return Asked(STORED, claim_of(mirrored(before, after), after))
    if question_of(before) != question_of(after):
        return Asked("", "they were not asked the same question")
    if before.over_draws is not None or after.over_draws is not None:
        return _through_baseline(reference, other, before, after)
    try:
        rows = [read_samples(side.path, s.samples_file, s.samples_sha256) for side, s in _zipped(reference, other, at)]
    except RecordError as error:
        return Asked("", f"{error.what}: {error.got}")
    found = paired(rows[0], rows[1], before, after)
    if isinstance(found, str):
        return Asked("", found)
    return Asked(BY_SAMPLE, _with_floors(_of(before, after, found), reference, other, at))


def _zipped(reference: Side, other: Side, at: int) -> list[tuple[Side, Score]]:
    name = other.metrics[at]
    return [(side, side.record.scores[side.metrics.index(name)]) for side in (reference, other)]


def mirrored(candidate: Score, baseline: Score) -> Score:
    """The baseline's score as if the candidate had been the baseline."""
    found = candidate.paired
    turned = None if found is None else Paired(
        num_samples=found.num_samples,
        num_harmful=found.num_beneficial,
        num_beneficial=found.num_harmful,
        mean_difference=-found.mean_difference,
        sd_difference=found.sd_difference,
        resampled=_negated(found.resampled),
    )  # fmt: skip
    over_draws = _negated(candidate.over_draws)
    return baseline.model_copy(update={"paired": turned, "over_draws": over_draws, "margin": candidate.margin})


def _negated(found: Resampled | None) -> Resampled | None:
    if found is None:
        return None
    return found.model_copy(update={"difference": -found.difference, "low": -found.high, "high": -found.low})


def paired(before: Sequence[SampleRow], after: Sequence[SampleRow], theirs: Score, ours: Score) -> Paired | str:
    """What the rows say of `after` less `before`, or why they say nothing.

    Proportions of independent samples need no more than what flipped. Of other means the interval is Student's, of the
    (weighted) mean difference per sample, or per cluster where samples share one (Cochran 1977, ratio estimator).
    """
    pairs = _matched(before, after)
    if isinstance(pairs, str):
        return pairs
    for rows, score in ((before, theirs), (after, ours)):
        if not _is_mean(rows, score):
            return "the metric is no mean of its samples' scores, so that only its task could resample it"
    values = [b.score - a.score for a, b in pairs]
    weights = [a.weight for a, _ in pairs]
    fell, rose = sum(value < 0 for value in values), sum(value > 0 for value in values)
    mean = math.fsum(w * d for w, d in zip(weights, values, strict=True)) / math.fsum(weights)
    square = math.fsum(w * (d - mean) ** 2 for w, d in zip(weights, values, strict=True)) / math.fsum(weights)
    clusters = [a.cluster or f"\0{at}" for at, (a, _) in enumerate(pairs)]
    is_plain = ours.is_binary and len(set(clusters)) == len(clusters) and len(set(weights)) == 1
    resampled = None if is_plain else _student(values, weights, clusters)
    if not is_plain and resampled is None:
        return "there are too few independent samples for an interval"
    return Paired(
        num_samples=len(pairs),
        num_harmful=fell if ours.direction == "higher" else rose,
        num_beneficial=rose if ours.direction == "higher" else fell,
        mean_difference=mean,
        sd_difference=math.sqrt(square * len(pairs) / max(1, len(pairs) - 1)),
        resampled=resampled,
    )


def _matched(before: Sequence[SampleRow], after: Sequence[SampleRow]) -> list[tuple[SampleRow, SampleRow]] | str:
    sides = [{row.id: row for row in rows} for rows in (before, after)]
    for rows, side in zip((before, after), sides, strict=True):
        if len(side) != len(rows):
            return f"{len(rows) - len(side)} samples stand more than once in its rows"
    lacking = sides[0].keys() ^ sides[1].keys()
    if lacking:
        return f"{len(lacking)} samples are there for only one of them (such as '{min(lacking)}')"
    pairs = [(row, sides[1][row.id]) for row in before]
    if not pairs:
        return "there are no samples"
    for what in ("target", "weight", "cluster"):
        odd = next((a.id for a, b in pairs if getattr(a, what) != getattr(b, what)), None)
        if odd is not None:
            return f"sample '{odd}' has another {what} in each"
    return pairs


def _is_mean(rows: Sequence[SampleRow], score: Score) -> bool:
    mean = math.fsum(row.weight * row.score for row in rows) / math.fsum(row.weight for row in rows)
    expected = math.exp(min(mean, 700.0)) if score.is_log else mean
    return score.value is not None and math.isclose(expected, score.value, rel_tol=1e-6, abs_tol=1e-9)


def _student(values: Sequence[float], weights: Sequence[float], clusters: Sequence[str]) -> Resampled | None:
    total = math.fsum(weights)
    mean = math.fsum(w * d for w, d in zip(weights, values, strict=True)) / total
    residuals: dict[str, float] = {}
    for value, weight, cluster in zip(values, weights, clusters, strict=True):
        residuals[cluster] = residuals.get(cluster, 0.0) + weight * (value - mean)
    count = len(residuals)
    if count < 2:
        return None
    error = math.sqrt(math.fsum(each**2 for each in residuals.values()) * count / (count - 1)) / total
    return _resampled(mean, error, count, "Student's interval of the paired differences")


def _resampled(value: float, error: float, count: int, method: str) -> Resampled:
    half = t_quantile(0.975, count - 1) * error
    return Resampled(
        difference=value, low=value - half, high=value + half, standard_error=error, method=method, seed=0,
        num_resamples=0, num_units=count,
    )  # fmt: skip


def _of(before: Score, after: Score, found: Paired) -> Score:
    """Equivalence needs a margin that both declared; the narrower one counts."""
    margins = [each.margin for each in (before, after) if each.margin is not None]
    margin = min(margins) if len(margins) == 2 else None
    return after.model_copy(update={"paired": found, "over_draws": None, "margin": margin})


def _with_floors(score: Score, reference: Side, other: Side, at: int) -> Claim | str:
    """Noise is the larger that either baseline showed against itself."""
    floors = [_baseline_score(side, other.metrics[at]) for side in (reference, other)]
    claims = [claim_of(score, floor) for floor in floors]
    first = claims[0]
    known = [each.floor for each in claims if isinstance(each, Claim) and each.floor is not None]
    return first if isinstance(first, str) else first._replace(floor=max(known, default=None))


def _baseline_score(side: Side, name: str) -> Score | None:
    scores: Mapping[str, Score] = {} if side.baseline is None else dict(
        zip(side.metrics, side.baseline.scores, strict=False)
    )  # fmt: skip
    return scores.get(name)


def _through_baseline(reference: Side, other: Side, before: Score, after: Score) -> Asked:
    """Of candidates that were drawn several times: what they differ in from one baseline, errors added in squares."""
    if reference.baseline_id != other.baseline_id:
        return Asked("", "it was made with several draws, and they share no baseline")
    sides = [_from_baseline(side, score) for side, score in ((reference, before), (other, after))]
    if any(isinstance(each, str) for each in sides):
        return Asked("", next(each for each in sides if isinstance(each, str)))
    (theirs, error), (ours, own_error) = [each for each in sides if not isinstance(each, str)]
    change, count = ours.value - theirs.value, min(_num_units(before), _num_units(after))
    found = _resampled(change, math.hypot(error, own_error), count, "through the baseline, errors added in squares")
    assert before.value is not None  # noqa: S101 -- the caller has asked
    start = before.value
    whole = Paired(
        num_samples=after.num_samples, num_harmful=0, num_beneficial=0, mean_difference=change, sd_difference=0,
        resampled=found,
    )  # fmt: skip
    # the counts of flips are not known, so it is no proportion here
    score = _of(before, after, whole).model_copy(
        update={"is_binary": False, "value": start * math.exp(change) if after.is_log else start + change}
    )
    return Asked(THROUGH_BASELINE, claim_of(score, None))


def _from_baseline(side: Side, score: Score) -> tuple[Interval, float] | str:
    if side.is_baseline:
        return Interval(0.0, 0.0, 0.0), 0.0
    found = claim_of(score, None)
    return found if isinstance(found, str) else (found.difference, found.spread / math.sqrt(found.num_samples))


def _num_units(score: Score) -> int:
    """Of a baseline, which adds no error, as many as there are samples."""
    found = score.over_draws or (score.paired.resampled if score.paired else None)
    return max(2, score.num_samples if found is None else found.num_units)
