"""Answers to the tasks' questions, per sample, and paired with the baseline's."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from compressbench.core.errors import CellError, NotFiniteError
from compressbench.core.progress import Progress
from compressbench.core.protocols import Session
from compressbench.core.questions import Reports, SampleRow, Task, Watch
from compressbench.core.registry import Resolved
from compressbench.measure.calibration_error import expected_calibration_error
from compressbench.measure.fidelity import Compared, Remembered
from compressbench.measure.paired_rows import pair
from compressbench.measure.plausibility import mismatch, oddities
from compressbench.records.score import Fidelity, Paired, Score, Stratum
from compressbench.records.store import RecordStore

MAX_OUTPUTS_BYTES = 64 * 2**20


class Question(NamedTuple):
    """A task with its samples, how its record files are called, and what turns its texts into tokens."""

    task: Resolved
    samples: Any
    label: str
    tokenizer_id: str

    @property
    def protocol_id(self) -> str:
        """The task's own, and the tokenizer: perplexities under two tokenizers are two different questions."""
        return f"{self.task.value.protocol_id},tokenizer={self.tokenizer_id}"


@dataclass(frozen=True)
class Answers:
    """One model's rows, and what a watch saw. Without rows `not_finite` may say that the answers were no numbers."""

    rows: list[SampleRow]
    seconds: float
    watch: Watch
    not_finite: str = ""


def ask(question: Question, session: Session, handle: Any, progress: Progress, watch: Watch) -> Answers:
    """Every sample of the question, once."""
    begun = time.perf_counter()
    try:
        rows = question.task.value.evaluate(session, handle, question.samples, progress, watch)
    except NotFiniteError as error:
        return Answers([], time.perf_counter() - begun, watch, str(error))
    return Answers(rows, time.perf_counter() - begun, watch)


@dataclass(frozen=True)
class Scoring:
    """Where results are written, and the seed of what is resampled."""

    store: RecordStore
    stem: str
    seed: int

    def score(self, question: Question, answers: Answers, baseline: Answers | None) -> Score:
        """The task's result for a record; its rows are written beside it."""
        task, samples, rows = question.task.value, question.samples, answers.rows
        other = mismatch(baseline.rows, rows) if baseline is not None and rows else ""
        can_be_paired = bool(rows) and not other and not _doubled(rows)
        before = baseline.rows if baseline is not None and can_be_paired else None
        file, sha256 = self.store.write_samples(self.stem, question.label, rows)
        outputs = self._write_outputs(question.label, answers.watch) if baseline is None else {}
        return Score(
            task=question.task.registered_name,
            label=question.label,
            version=task.version,
            protocol_id=question.protocol_id,
            options=question.task.options,
            data=samples.source,
            split=samples.split,
            data_revision=samples.revision,
            metric=task.metric,
            direction=task.direction,
            is_binary=task.is_binary,
            scale="log" if task.is_log else "linear",
            margin=task.margin,
            stratum=task.stratum,
            value=task.summarize(rows) if rows else None,
            num_samples=len(rows),
            samples_file=file,
            samples_sha256=sha256,
            seconds=answers.seconds,
            num_truncated=sum(row.is_truncated for row in rows),
            implausible=(*_oddities(task, answers), *([other] if other else [])),
            calibration_error=expected_calibration_error(rows) if task.is_binary else None,
            reported=_reported(task, rows),
            paired=None if before is None else pair(task, before, rows, self.seed),
            strata=_strata(task, rows, before, self.seed),
            fidelity=None if before is None else _fidelity(answers.watch, before, rows),
            **outputs,
        )

    def _write_outputs(self, label: str, watch: Watch) -> dict[str, str]:
        """The baseline's likeliest classes, unless they are too many to keep."""
        columns = watch.columns() if isinstance(watch, Remembered) else {}
        if not columns or columns["classes"].nbytes > MAX_OUTPUTS_BYTES:
            return {}
        file, sha256 = self.store.write_columns(self.stem, f"{label}.outputs", columns)
        return {"outputs_file": file, "outputs_sha256": sha256}


def needs_value(score: Score) -> None:
    """Raise CellError if there is nothing that a candidate could be compared with."""
    if score.value is None:
        raise CellError(f"the task '{score.label}' has no result: {'; '.join(score.implausible)}")


def _oddities(task: Task, answers: Answers) -> tuple[str, ...]:
    return (answers.not_finite,) if answers.not_finite else oddities(answers.rows, is_binary=task.is_binary)


def _doubled(rows: Sequence[SampleRow]) -> bool:
    return len({row.id for row in rows}) < len(rows)


def _fidelity(watch: Watch, before: Sequence[SampleRow], after: Sequence[SampleRow]) -> Fidelity | None:
    return watch.summary(before, after) if isinstance(watch, Compared) else None


def _reported(task: Task, rows: Sequence[SampleRow]) -> Mapping[str, float | int | str]:
    """The task's other metrics: as it says itself, else their means over the rows that have them."""
    if isinstance(task, Reports):
        return task.reported(rows) if rows else {}
    names = dict.fromkeys(name for row in rows for name in row.also)
    values = {name: [row.also[name] for row in rows if name in row.also] for name in names}
    return {name: sum(found) / len(found) for name, found in values.items()}


def _strata(task: Task, rows: Sequence[SampleRow], before: Sequence[SampleRow] | None, seed: int) -> dict[str, Stratum]:
    """By capability, where the samples themselves say theirs."""
    theirs = {row.id: row for row in before or ()}
    names = sorted({row.stratum for row in rows if row.stratum})
    found = {}
    for name in names:
        part = [row for row in rows if row.stratum == name]
        paired: Paired | None = pair(task, [theirs[row.id] for row in part], part, seed) if theirs else None
        found[name] = Stratum(num_samples=len(part), value=task.summarize(part), paired=paired)
    return found
