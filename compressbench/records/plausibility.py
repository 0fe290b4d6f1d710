"""Scores that can't be true, whoever wrote them: flagged as they were made, out of bounds, or at odds with each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from compressbench.records.score import Fidelity, Paired, Score

# a perplexity is exp of at most this many nats: more can't be told from infinite
_LARGEST_NATS = 700.0
_ROUNDING = 1e-6
# metrics that a harness reports beside the headline one and that are proportions under every name it gives them
_PROPORTIONS = ("acc", "exact_match", "pass@")


def implausible(scores: Sequence[Score]) -> tuple[str, ...]:
    """The reasons why a record can't be ranked, each with its task's name; none for a sound one."""
    own = (f"{score.label or score.task}: {reason}" for score in scores for reason in _of_one(score))
    return (*_flagged(scores), *own, *_contradicting(scores))


def _flagged(scores: Sequence[Score]) -> Iterator[str]:
    for score in scores:
        yield from (f"{score.label or score.task}: {reason}" for reason in score.implausible)


def _of_one(score: Score) -> Iterator[str]:
    yield from _out_of_bounds(score)
    if score.num_truncated > score.num_samples:
        yield f"{score.num_truncated} of {score.num_samples} inputs were cut off"
    for paired, count in _pairs_of(score):
        yield from _of_pair(paired, count, is_binary=score.is_binary, is_log=score.is_log)
    if score.fidelity is not None:
        yield from _of_fidelity(score.fidelity)


def _out_of_bounds(score: Score) -> Iterator[str]:
    values = [score.value, *(part.value for part in score.strata.values()), *(draw.value for draw in score.draws)]
    for value in values:
        if value is None:
            continue
        if score.is_binary and not 0 <= value <= 1:
            yield f"a proportion of {value:g}"
        if score.is_log and value < 1:
            yield f"a {score.metric} of {value:g} is below 1"
    if score.value is not None and score.num_samples == 0:
        yield "a value from no samples"
    for name, found in score.reported.items():
        if name.startswith(_PROPORTIONS) and not isinstance(found, str) and not 0 <= found <= 1:
            yield f"a proportion of {found:g} is reported"
    if any(part.num_samples > score.num_samples for part in score.strata.values()):
        yield "a stratum has more samples than the task"


def _pairs_of(score: Score) -> Iterator[tuple[Paired | None, int]]:
    yield score.paired, score.num_samples
    yield from ((part.paired, part.num_samples) for part in score.strata.values())
    yield from ((draw.paired, score.num_samples) for draw in score.draws)
    if score.floor is not None:
        # of the baseline, which may have answered another number of samples a second time
        yield score.floor.paired, score.floor.paired.num_samples


def _of_pair(paired: Paired | None, num_samples: int, *, is_binary: bool, is_log: bool) -> Iterator[str]:
    """Counts and means that no rows can have given."""
    if paired is None:
        return
    count, changed = paired.num_samples, paired.num_harmful + paired.num_beneficial
    if count > num_samples:
        yield f"{count} samples are paired, and there are {num_samples}"
    if changed > count:
        yield f"{changed} of {count} samples changed"
    found = paired.resampled
    if found is not None and not found.low <= found.high:
        yield f"an interval from {found.low:g} to {found.high:g}"
    if is_log and max(abs(paired.mean_difference), 0 if found is None else abs(found.difference)) > _LARGEST_NATS:
        yield "a difference that can't be told from infinite"
    if not is_binary:
        return
    if abs(paired.mean_difference) > 1 + _ROUNDING:
        yield f"a difference of proportions of {paired.mean_difference:g}"
    # of clusters the rows may have weights
    counted = abs(paired.num_beneficial - paired.num_harmful) / count
    if found is None and changed <= count and abs(abs(paired.mean_difference) - counted) > _ROUNDING:
        yield f"the samples that changed give a difference of {counted:g}, and it says {paired.mean_difference:g}"


def _of_fidelity(found: Fidelity) -> Iterator[str]:
    for name in ("kl_mean", "kl_median", "kl_p99", "kl_max"):
        value = getattr(found, name)
        if value is not None and value < -_ROUNDING:
            yield f"{name} of {value:g} is below 0"
    for name in ("cosine_mean", "cosine_min"):
        value = getattr(found, name)
        if value is not None and abs(value) > 1 + _ROUNDING:
            yield f"{name} of {value:g} is no cosine"
    if found.length_ratio is not None and found.length_ratio < 0:
        yield f"length_ratio of {found.length_ratio:g} is below 0"


def _contradicting(scores: Sequence[Score]) -> Iterator[str]:
    """A model that is always right on one task, and infinitely surprised by another."""
    perfect = [s for s in scores if s.is_binary and s.value == 1.0]
    lost = [s for s in scores if s.is_log and (s.value is None or s.value >= math.exp(_LARGEST_NATS))]
    for score in lost:
        if score.value is not None:
            yield f"{score.label or score.task}: the {score.metric} is infinite"
    if perfect and lost:
        names = [each.label or each.task for each in (perfect[0], lost[0])]
        yield f"{names[0]} is answered perfectly by a model whose {lost[0].metric} on {names[1]} is infinite or no number"
