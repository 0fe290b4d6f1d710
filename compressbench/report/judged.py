"""The scores of a run's candidates judged together: one family of tests, and the strata, the worst of each first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from compressbench.core.spec import Spec
from compressbench.core.statistics import Interval
from compressbench.records.record import Record
from compressbench.records.score import Paired, Score
from compressbench.report.score_claims import Claim, claim_of, pooled, verdicts
from compressbench.report.verdict import Verdict


class StratumRow(Spec):
    """One capability of a candidate. Proportions of several tasks are pooled; another metric stands on its own.

    `loss` is how much worse the candidate is, with its 95 % interval: in the metric's unit, of a metric on a log scale as a
    fraction of the baseline's.
    """

    name: str
    metric: str
    tasks: tuple[str, ...]
    num_samples: int
    value: float
    verdict: Verdict
    loss: float
    loss_low: float
    loss_high: float


_Place = tuple[int, int]
"""The record's number in its run, and the score's (or stratum's) in the record."""


class Judged(NamedTuple):
    """By index of the record's scores; a score without a claim has a verdict that says why."""

    scores: dict[int, Verdict]
    strata: tuple[StratumRow, ...] = ()


def judge(records: Sequence[Record], baseline: Record | None) -> list[Judged]:
    """Of all records of one run, in their order; the baseline itself has no verdicts."""
    floors = () if baseline is None else baseline.scores
    claims: dict[_Place, Claim] = {}
    refused: dict[_Place, Verdict] = {}
    strata: dict[_Place, tuple[Claim, StratumRow]] = {}
    for number, record in enumerate(records):
        if record.role != "candidate" or record.status != "ok":
            continue
        for at, score in enumerate(record.scores):
            found = claim_of(score, floors[at] if at < len(floors) else None)
            if isinstance(found, str):
                if score.paired is not None or score.implausible:
                    refused[number, at] = Verdict(verdict="inconclusive", reason=found)
            else:
                claims[number, at] = found
        strata |= {(number, at): each for at, each in enumerate(_strata(record.scores))}
    of_scores = verdicts(claims) | refused
    of_strata = verdicts({key: claim for key, (claim, _) in strata.items()})
    rows = {key: row.model_copy(update={"verdict": of_strata[key]}) for key, (_, row) in strata.items()}
    return [_of_record(number, record, of_scores, rows) for number, record in enumerate(records)]


def _of_record(number: int, record: Record, of_scores: dict[_Place, Verdict], rows: dict[_Place, StratumRow]) -> Judged:
    own = {at: of_scores[number, at] for at in range(len(record.scores)) if (number, at) in of_scores}
    strata = [row for key, row in rows.items() if key[0] == number]
    return Judged(own, tuple(sorted(strata, key=lambda row: row.loss, reverse=True)))


def _losses(claim: Claim) -> dict[str, float]:
    change = claim.difference
    if claim.score.is_log:
        change = Interval(*(math.expm1(each) for each in change))
    if claim.score.direction == "lower":
        return {"loss": change.value, "loss_low": change.low, "loss_high": change.high}
    return {"loss": -change.value, "loss_low": -change.high, "loss_high": -change.low}


class _Part(NamedTuple):
    """The samples of one stratum in one task."""

    label: str
    score: Score
    paired: Paired
    num_samples: int
    value: float

    @property
    def can_be_pooled(self) -> bool:
        return self.score.is_binary and self.score.direction == "higher" and self.paired.resampled is None


def _strata(scores: Sequence[Score]) -> list[tuple[Claim, StratumRow]]:
    parts: dict[str, list[_Part]] = {}
    for score in scores:
        for name, part in _parts_of(score):
            parts.setdefault(name, []).append(part)
    found: list[tuple[Claim, StratumRow]] = []
    for name, of_name in parts.items():
        alike = [part for part in of_name if part.can_be_pooled]
        found += [_row(name, "", alike)] if alike else []
        found += [_row(name, part.score.metric, [part]) for part in of_name if not part.can_be_pooled]
    return found


def _parts_of(score: Score) -> list[tuple[str, _Part]]:
    label = score.label or score.task
    inner = [
        (name, _Part(label, score, each.paired, each.num_samples, each.value))
        for name, each in score.strata.items()
        if each.paired is not None
    ]
    if inner or not score.stratum or score.paired is None or score.value is None:
        return inner
    return [(score.stratum, _Part(label, score, score.paired, score.num_samples, score.value))]


def _row(name: str, metric: str, parts: Sequence[_Part]) -> tuple[Claim, StratumRow]:
    count = sum(part.num_samples for part in parts)
    value = sum(part.value * part.num_samples for part in parts) / count
    paired = parts[0].paired if metric else pooled(part.paired for part in parts)
    whole = {"value": value, "paired": paired, "num_samples": count, "over_draws": None, "floor": None}
    claim = claim_of(parts[0].score.model_copy(update=whole), None)
    assert isinstance(claim, Claim)  # noqa: S101 -- parts are paired
    row = StratumRow(
        name=name,
        metric=metric,
        tasks=tuple(part.label for part in parts),
        num_samples=count,
        value=value,
        verdict=Verdict(verdict=""),
        **_losses(claim),
    )
    return claim, row
