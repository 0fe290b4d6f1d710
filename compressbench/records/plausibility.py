"""Scores that can't be true, whoever wrote them: flagged as they were made, out of bounds, or at odds with each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from compressbench.records.score import Score

# a perplexity is exp of at most this many nats: more can't be told from infinite
_LARGEST_NATS = 700.0


def implausible(scores: Sequence[Score]) -> tuple[str, ...]:
    """The reasons why a record can't be ranked, each with its task's name; none for a sound one."""
    return (*_flagged(scores), *_out_of_bounds(scores), *_contradicting(scores))


def _flagged(scores: Sequence[Score]) -> Iterator[str]:
    for score in scores:
        yield from (f"{score.label or score.task}: {reason}" for reason in score.implausible)


def _out_of_bounds(scores: Sequence[Score]) -> Iterator[str]:
    for score in scores:
        if score.value is None:
            continue
        if score.is_binary and not 0 <= score.value <= 1:
            yield f"{score.label or score.task}: a proportion of {score.value:g}"
        if score.is_log and score.value < 1:
            yield f"{score.label or score.task}: a {score.metric} of {score.value:g} is below 1"
        if score.num_samples == 0:
            yield f"{score.label or score.task}: a value from no samples"


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
