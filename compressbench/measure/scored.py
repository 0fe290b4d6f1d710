"""The quality of a run's models: every question asked of each, the baseline's answers kept for the candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from compressbench.core.progress import Progress
from compressbench.core.protocols import Session
from compressbench.core.registry import Resolved
from compressbench.core.watching import Unwatched
from compressbench.measure.draws import Drawn, over_draws
from compressbench.measure.fidelity import Compared, Remembered
from compressbench.measure.noise_floor import noise_floor
from compressbench.measure.plausibility import mismatch
from compressbench.measure.quality import Answers, Question, Scoring, ask, needs_value
from compressbench.records.score import Score
from compressbench.records.store import RecordStore


@dataclass
class Quality:
    """Asks in the order of the run: the baseline first, whose answers every candidate is compared with."""

    questions: Sequence[Question]
    store: RecordStore
    seed: int
    progress: Progress
    has_floor: bool = True
    _baseline: dict[str, Answers] = field(default_factory=dict)
    _first: dict[str, Answers] = field(default_factory=dict)
    _drawn: dict[str, list[Drawn]] = field(default_factory=dict)

    def scores(self, session: Session, handle: Any, stem: str) -> tuple[Score, ...]:
        """One score per question. The first model asked is the baseline; CellError if it has no result."""
        is_baseline = not self._baseline
        self._first, self._drawn = {}, {}
        scoring = Scoring(self.store, stem, self.seed)
        return tuple(
            self._of_baseline(question, session, handle, scoring)
            if is_baseline
            else self._of_candidate(question, session, handle, scoring)
            for question in self.questions
        )

    def _of_baseline(self, question: Question, session: Session, handle: Any, scoring: Scoring) -> Score:
        answers = ask(question, session, handle, self.progress, Remembered())
        found = scoring.score(question, answers, None)
        needs_value(found)
        self._baseline[question.label] = answers
        if not self.has_floor:
            return found
        return found.model_copy(update={"floor": noise_floor(question, answers, session, handle, self.progress)})

    def _of_candidate(self, question: Question, session: Session, handle: Any, scoring: Scoring) -> Score:
        baseline = self._baseline[question.label]
        watch = Compared(baseline.watch) if isinstance(baseline.watch, Remembered) else Unwatched()
        answers = ask(question, session, handle, self.progress, watch)
        self._first[question.label] = answers
        return scoring.score(question, answers, baseline)

    def draw(self, session: Session, handle: Any, stem: str, number: int) -> None:
        """The same candidate with another seed: its rows are written and kept until `over_draws`."""
        for question in self.questions:
            answers = ask(question, session, handle, self.progress, Unwatched())
            baseline = self._baseline[question.label].rows
            if answers.rows and not mismatch(baseline, answers.rows):
                file, sha256 = self.store.write_samples(stem, f"{question.label}.draw-{number + 1}", answers.rows)
                drawn = Drawn(self.seed + number, answers.rows, file, sha256)
                self._drawn.setdefault(question.label, []).append(drawn)

    def over_draws(self, scores: Sequence[Score]) -> tuple[Score, ...]:
        """The scores of the first draw with what the others say of them."""
        return tuple(self._over(question, found) for question, found in zip(self.questions, scores, strict=True))

    def _over(self, question: Question, found: Score) -> Score:
        others = self._drawn.get(question.label, [])
        if found.paired is None or not others:
            return found
        first = Drawn(self.seed, self._first[question.label].rows, found.samples_file, found.samples_sha256)
        return over_draws(question.task.value, found, self._baseline[question.label].rows, [first, *others], self.seed)


def draws_anything(steps: Sequence[Resolved]) -> bool:
    """Whether the seed can change what the steps make: they calibrate, train, or come from somebody else."""
    return any(
        step.value.facts.needs_calibration or step.value.facts.needs_training_data or step.value.facts.is_random
        for step in steps
    )
