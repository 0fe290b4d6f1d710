"""How the calls of a run's cells are timed, the same for all of them, and how what they answered is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from compressbench.core.progress import Progress
from compressbench.core.protocols import Batch, Session
from compressbench.core.registry import Resolved
from compressbench.measure.blocks import Tools
from compressbench.measure.instruments import Opened
from compressbench.measure.outputs import Answers, columns_of, summarize, table_of
from compressbench.measure.quality import Question
from compressbench.measure.scenario import Contest, Measured
from compressbench.measure.schedule import Schedule
from compressbench.measure.sweep import is_out_of_memory
from compressbench.measure.threads import with_threads
from compressbench.measure.watching import watching
from compressbench.recipe.schema import Recipe, Workload
from compressbench.records.limits import Limits, Work
from compressbench.records.measurement import Arm, Measurement
from compressbench.records.record import Role

if TYPE_CHECKING:
    from compressbench.models.handle import ModelHandle


@runtime_checkable
class HasTargets(Protocol):
    """A task that knows right answers to its workload, so that what timed calls answer can be scored."""

    def workload_targets(
        self, handle: Any, samples: Any, batch_size: int, sequence_length: int
    ) -> list[list[int]] | None:
        """Per batch of `workload_batches` the right label or token id of every output position; -100: none is known."""
        ...


WriteColumns = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True)
class Timing:
    """`inputs_of` and `targets_of` make the inputs and their right answers for a batch size; `limits` are the device's."""

    workload: Workload
    schedule: Schedule
    seed: int
    device: str
    inputs_of: Callable[[int], list[Batch]]
    targets_of: Callable[[int], list[list[int]] | None]
    limits: Limits

    @classmethod
    def of(cls, recipe: Recipe, schedule: Schedule, question: Question, model: ModelHandle, num_threads: int) -> Timing:
        """Make the workload's inputs from the first task's samples, and measure what the device can do (2 s)."""
        from compressbench.measure.device_limits import measure_limits
        from compressbench.tasks.batching import require_positions

        task, samples, workload = question.task.value, question.samples, recipe.workload
        length, generates = workload.sequence_length, workload.output_tokens is not None

        @cache
        def inputs_of(batch_size: int) -> list[Batch]:
            made: list[Batch] = task.workload_batches(model, samples, batch_size, length)
            return made

        @cache
        def targets_of(batch_size: int) -> list[list[int]] | None:
            if generates or not isinstance(task, HasTargets):
                return None
            return task.workload_targets(model, samples, batch_size, length)

        if workload.output_tokens is not None:
            # on CUDA, a position beyond the table would poison the process
            require_positions(model, length + workload.output_tokens - 1, "Lower workload.output_tokens.")
        inputs_of(workload.batch_size)  # wrong inputs are an error before anything is measured
        limits = measure_limits(model.device, num_threads)
        return cls(workload, schedule, recipe.seed, model.device, inputs_of, targets_of, limits)

    @property
    def is_apart(self) -> bool:
        """Whether the recipe wants every block in a process of its own."""
        return self.workload.isolation == "processes"

    def may_be_apart(self, error: Exception) -> bool:
        """Whether a comparison that failed so should be tried in processes: memory ran out, and nobody forbids it."""
        return self.workload.isolation == "auto" and is_out_of_memory(error)

    @property
    def inputs(self) -> list[Batch]:
        """At the recipe's batch size."""
        return self.inputs_of(self.workload.batch_size)

    def batch_of(self, measured: Measured | None, arm: Role) -> Batch:
        """One input at the shapes that were timed: after a sweep, at the arm's best batch size."""
        if measured is None:
            return self.inputs[0]
        return self.inputs_of(_size_of(measured, arm))[0]

    def compare(self, arms: Mapping[Arm, tuple[Session, Resolved]], meters: Opened, progress: Progress) -> Measured:
        """Baseline and candidate, each with the runtime that it runs in."""
        import torch

        def session_of(arm: Arm, num_threads: int) -> Session:
            return with_threads(*arms[arm], num_threads)

        sessions = {arm: session for arm, (session, _) in arms.items()}
        contest = Contest(sessions, self.inputs_of, self.workload, self.seed, session_of)
        num_threads = torch.get_num_threads()
        try:
            with watching(self.device, [runtime.value for _, runtime in arms.values()]) as watcher:
                return contest.run(self.schedule, Tools(meters.instruments, watcher), progress)
        finally:
            torch.set_num_threads(num_threads)

    def with_outputs(self, measured: Measured, arm: Role, write: WriteColumns) -> Measurement:
        """The measurement with what the timed calls of an arm answered; `write` keeps the table and gives its file."""
        if arm not in measured.answers:
            return measured.measurement
        table: Answers = table_of(measured.answers[arm])
        targets = self.targets_of(_size_of(measured, arm))
        outputs = summarize(measured.answers[arm], targets, write(columns_of(table)))
        return measured.measurement.model_copy(update={"outputs": {arm: outputs}})

    def work(self, handle: ModelHandle, batch: Batch) -> Work:
        from compressbench.models.work import count_work

        return count_work(handle.model, batch, self.workload.output_tokens)


def _size_of(measured: Measured, arm: Role) -> int:
    return measured.measurement.batch_sizes.get(arm, measured.measurement.batch_size)
