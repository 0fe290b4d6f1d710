"""Answers to the tasks' questions, per sample, and paired with the baseline's."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from compressbench.core.errors import CellError
from compressbench.core.progress import Progress
from compressbench.core.protocols import Session
from compressbench.core.questions import SampleRow
from compressbench.core.registry import Resolved
from compressbench.core.watching import Unwatched
from compressbench.records.record import Paired, Score
from compressbench.records.store import RecordStore


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


def ask(question: Question, session: Session, handle: Any, progress: Progress) -> tuple[list[SampleRow], float]:
    """The rows of all samples, and the seconds it took. Raises CellError for none, doubled ids or scores that are NaN."""
    begun = time.perf_counter()
    rows = question.task.value.evaluate(session, handle, question.samples, progress, Unwatched())
    if not rows:
        raise CellError(f"the task '{question.label}' evaluated no sample")
    if len({row.id for row in rows}) != len(rows):
        raise CellError(f"the task '{question.label}' gave the same sample id twice")
    return rows, time.perf_counter() - begun


def score(
    question: Question, rows: Sequence[SampleRow], seconds: float, baseline: Sequence[SampleRow] | None,
    store: RecordStore, stem: str,
) -> Score:  # fmt: skip
    """The task's result for a record; its rows are written beside it."""
    task, samples = question.task.value, question.samples
    file, sha256 = store.write_samples(stem, question.label, rows)
    return Score(
        task=question.task.name,
        version=task.version,
        protocol_id=question.protocol_id,
        options=question.task.options,
        data=samples.source,
        split=samples.split,
        data_revision=samples.revision,
        metric=task.metric,
        direction=task.direction,
        is_binary=task.is_binary,
        value=task.summarize(rows),
        num_samples=len(rows),
        samples_file=file,
        samples_sha256=sha256,
        seconds=seconds,
        paired=None if baseline is None else paired(baseline, rows),
    )


def paired(baseline: Sequence[SampleRow], candidate: Sequence[SampleRow]) -> Paired:
    """Differences of the same samples. Raises CellError if the two don't have the same ids, each once."""
    before = {row.id: row for row in baseline}
    if len(before) != len(baseline) or before.keys() != {row.id for row in candidate}:
        raise CellError("baseline and candidate were not evaluated on the same samples")
    differences = [row.score - before[row.id].score for row in candidate]
    weights = [row.weight for row in candidate]
    total = sum(weights)
    mean = sum(d * w for d, w in zip(differences, weights, strict=True)) / total
    square = sum(w * (d - mean) ** 2 for d, w in zip(differences, weights, strict=True)) / total
    count = len(differences)
    return Paired(
        num_samples=count,
        num_harmful=sum(d < 0 for d in differences),
        num_beneficial=sum(d > 0 for d in differences),
        mean_difference=mean,
        sd_difference=math.sqrt(square * count / max(1, count - 1)),
    )
