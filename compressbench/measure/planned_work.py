"""What every cell of a plan has to do, for a rough estimate of its time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compressbench.core.protocols import Trains
from compressbench.core.registry import Resolved
from compressbench.measure import estimate
from compressbench.measure.schedule import Schedule


@dataclass(frozen=True)
class PlannedWork:
    """`parameters` is None for a model, an entry of `evaluated` for data whose size only a network knows."""

    parameters: int | None
    evaluated: list[tuple[int, int] | None]
    first_task: Any
    schedule: Schedule

    @classmethod
    def of(cls, tasks: tuple[Resolved, ...], config: Mapping[str, Any], schedule: Schedule) -> PlannedWork:
        evaluated = [task.value.estimated_work() for task in tasks]
        return cls(estimate.matmul_parameters(config), evaluated, tasks[0].value, schedule)

    def seconds(self, steps: tuple[Resolved, ...]) -> float | None:
        """None if the size of the model or of the data is only known to a network."""
        if self.parameters is None or None in self.evaluated:
            return None
        tokens = sum(each[1] for each in self.evaluated if each)
        training = sum(self._training_tokens(step.value) for step in steps if isinstance(step.value, Trains))
        return (
            self.schedule.seconds
            + estimate.forward_seconds(self.parameters, tokens)
            + estimate.training_seconds(self.parameters, training)
        )

    def _training_tokens(self, step: Trains) -> float:
        samples, tokens = self.first_task.estimated_work(training=True)
        return step.num_training_samples(samples) * float(tokens / samples)
