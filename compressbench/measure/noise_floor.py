"""How much a baseline differs from itself when it is asked again, in another batch size and order."""

from __future__ import annotations

from typing import Any

from compressbench.core.progress import Progress
from compressbench.core.protocols import Session
from compressbench.core.watching import Unwatched
from compressbench.measure.paired_rows import pair
from compressbench.measure.quality import Answers, Question, ask
from compressbench.records.score import Floor

MAX_SAMPLES = 1000
_SEED = 1


def noise_floor(
    question: Question, answers: Answers, session: Session, handle: Any, progress: Progress
) -> Floor | None:
    """The same samples, at most 1,000 of them, asked again; None where nothing can be paired."""
    again, how = _asked_differently(question)
    found = ask(again, session, handle, progress, Unwatched())
    ids = {row.id for row in found.rows}
    before = [row for row in answers.rows if row.id in ids]
    if not before or len(before) != len(found.rows):
        return None
    return Floor(how=how, paired=pair(question.task.value, before, found.rows, _SEED))


def _asked_differently(question: Question) -> tuple[Question, str]:
    """Half the batch size, fewer samples, and a shuffled order, as far as the task has them."""
    task = question.task.value
    options, how = type(task).model_fields if hasattr(type(task), "model_fields") else {}, []
    changed: dict[str, Any] = {}
    if "batch_size" in options and task.batch_size is not None:
        changed["batch_size"] = max(1, task.batch_size // 2) if task.batch_size > 1 else 2
        how.append(f"batch size {changed['batch_size']}")
    if "limit" in options and _count(question.samples) > MAX_SAMPLES:
        changed["limit"] = min(task.limit or MAX_SAMPLES, MAX_SAMPLES)
    other = task.model_copy(update=changed) if changed else task
    samples = other.load() if "limit" in changed else question.samples
    if hasattr(samples, "shuffled"):
        samples = samples.shuffled(_SEED)
        how.append("shuffled")
    again = question._replace(task=question.task._replace(value=other), samples=samples)
    return again, ", ".join(how) or "the same once more"


def _count(samples: Any) -> int:
    """How many samples there are, as far as they can be counted before they are evaluated; a text counts as many."""
    return len(samples) if hasattr(samples, "__len__") else MAX_SAMPLES + 1
