"""Samples that a candidate lost and won against its baseline, side by side, from the rows that both left behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from compressbench.core.errors import RecordError
from compressbench.records.record import Record
from compressbench.records.sample_rows import read_columns
from compressbench.records.score import Score
from compressbench.records.store import read_record
from compressbench.report.beside import baseline_beside

MOST_LOST = 30
MOST_WON = 10
LONGEST_TEXT = 200

Columns = Mapping[str, list[Any]]
"""Per-sample rows by column; `id`, `target`, `prediction` and `score` are always there."""


class Flip(NamedTuple):
    """One sample as both models answered it; tokens are None where nothing was generated."""

    id: str
    target: str
    before: str
    after: str
    score_before: float
    score_after: float
    tokens_before: int | None = None
    tokens_after: int | None = None


class Flips(NamedTuple):
    """All samples that became worse and better, the largest change first."""

    lost: list[Flip]
    won: list[Flip]


def flips(path: Path, record: Record) -> list[dict[str, Any]]:
    """Plain data for each score that was paired: the counts of what was lost and won, and at most 30 and 10 of them.

    Where the rows can't be compared (a file is missing or was changed), `reason` says why and there are no rows.
    """
    return [_of_score(path, record, at, score) for at, score in enumerate(record.scores) if score.paired is not None]


def _of_score(path: Path, record: Record, at: int, score: Score) -> dict[str, Any]:
    paired = score.paired
    assert paired is not None  # noqa: S101 -- the caller asks for paired scores only
    said = {
        "task": score.label or score.task,
        "metric": score.metric,
        "is_binary": score.is_binary,
        "num_lost": paired.num_harmful,
        "num_won": paired.num_beneficial,
        "num_samples": paired.num_samples,
    }
    try:
        found = flips_of(path, record, at)
    except RecordError as error:
        # a page may be published, and where a record stood is nobody's business
        where = f"{Path(error.where).name}: " if error.where else ""
        return {**said, "reason": f"{where}{error.what}" + (f" ({error.got})" if error.got else "")}
    except (ValueError, TypeError, KeyError) as error:
        return {**said, "reason": f"the per-sample rows can't be compared: {type(error).__name__}"}
    lost, won = found.lost[:MOST_LOST], found.won[:MOST_WON]
    return {**said, "lost": [list(_cut(each)) for each in lost], "won": [list(_cut(each)) for each in won]}


def flips_of(path: Path, record: Record, at: int) -> Flips:
    """Of the score in place `at`, every sample that changed. Raises RecordError if a file is missing or was changed."""
    score = record.scores[at]
    file = path.with_name(Path(score.samples_file).name)
    if not score.samples_file or not file.is_file():  # cheap: nothing else is opened
        raise RecordError("the samples are not beside the record", got=f"no file {file.name}")
    before = _baseline_columns(path, record, at)
    return compared(before, read_columns(path, score.samples_file, score.samples_sha256), score.direction)


def compared(before: Columns, after: Columns, direction: str) -> Flips:
    """Rows matched by their ids; one that has no partner is left out."""
    ours = {name: at for at, name in enumerate(after["id"])}
    sign = 1 if direction == "higher" else -1
    changes: list[tuple[float, int, int]] = []
    for at, (name, score) in enumerate(zip(before["id"], before["score"], strict=True)):
        partner = ours.get(name)
        if partner is not None and after["score"][partner] != score:
            changes.append((sign * (after["score"][partner] - score), at, partner))
    changes.sort(key=lambda each: -abs(each[0]))  # stable: equal changes keep the order of the task
    return Flips(
        [_flip(before, after, each) for each in changes if each[0] < 0],
        [_flip(before, after, each) for each in changes if each[0] > 0],
    )


def _flip(before: Columns, after: Columns, change: tuple[float, int, int]) -> Flip:
    _, old, new = change
    texts = (before["id"][old], before["target"][old], before["prediction"][old], after["prediction"][new])
    return Flip(*texts, before["score"][old], after["score"][new], _tokens(before, old), _tokens(after, new))


def _tokens(columns: Columns, at: int) -> int | None:
    found = columns.get("num_tokens")
    return None if found is None else found[at]


def _cut(flip: Flip) -> Iterator[Any]:
    for value in flip:
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            yield f"{value[: LONGEST_TEXT - 1]}…"
        else:
            yield value


def _baseline_columns(path: Path, record: Record, at: int) -> Columns:
    file = baseline_beside(path, record)
    if file is None:
        raise RecordError("the baseline of this run is not beside the record")
    scores = _baseline(file, file.stat().st_mtime_ns).scores
    if at >= len(scores) or scores[at].protocol_id != record.scores[at].protocol_id:
        raise RecordError("the baseline was not asked the same question", where=file.name)
    return _columns(file, scores[at].samples_file, scores[at].samples_sha256)


@lru_cache(maxsize=4)
def _baseline(file: Path, modified_ns: int) -> Record:  # noqa: ARG001 -- a changed file is another one
    """Kept for the other candidates of the run."""
    return read_record(file)


@lru_cache(maxsize=4)
def _columns(file: Path, samples_file: str, sha256: str) -> Columns:
    return read_columns(file, samples_file, sha256)
