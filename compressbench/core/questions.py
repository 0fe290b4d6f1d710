"""The contract of tasks: a question, a row for every item that it asks about, and somebody who watches the answers.

As in `core.protocols`, nobody has to inherit from anything here, and `Any` stands for torch modules and tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import Field

from compressbench.core.progress import Progress
from compressbench.core.protocols import Batch, Session
from compressbench.core.spec import Spec


class SampleRow(Spec):
    """One evaluated item. The task says what `score` is; `weight` is how much the item counts in the metric.

    `also` has the item's scores under the task's other metrics. Items of one `cluster` (a passage, a problem) are drawn
    together when an interval is resampled; "" is an item on its own. `stratum` is the capability that it tests, where that
    isn't the task's. `confidence` is the probability that the model gave its prediction, `num_tokens` how many it produced,
    and `is_truncated` says that the model did not see all of the item.
    """

    id: str
    prediction: str
    target: str
    score: float
    weight: float = Field(1.0, gt=0)
    also: Mapping[str, float] = {}
    cluster: str = ""
    stratum: str = ""
    confidence: float | None = Field(None, ge=0, le=1)
    num_tokens: int | None = Field(None, ge=0)
    is_truncated: bool = False


class Watch(Protocol):
    """Sees what a model answers while a task evaluates it, to compare a candidate with its baseline item by item."""

    def logits(self, ids: Sequence[str], logits: Any) -> None:
        """Logits or log-probabilities of items, (items x classes) or (items x positions x classes), on any device.

        A task shows the same items and positions for every model, in any order and grouping; each item once.
        """
        ...

    def vectors(self, ids: Sequence[str], vectors: Any) -> None:
        """Embeddings of items, (items x dimensions); each item once."""
        ...


class Task(Protocol):
    """A versioned question with one headline metric.

    `is_binary` says that every score is 0 or 1 and the metric their mean, `is_log` that the metric is exp of the weighted
    mean of the scores. A `margin` is the largest difference that doesn't matter, declared before the run, in the metric's
    unit, or as a fraction of the baseline's where `is_log`. `stratum` is the capability that the task tests.
    """

    version: ClassVar[int]
    head: ClassVar[str]

    @property
    def metric(self) -> str: ...

    @property
    def direction(self) -> Literal["higher", "lower"]: ...

    @property
    def is_binary(self) -> bool: ...

    @property
    def is_log(self) -> bool: ...

    @property
    def margin(self) -> float | None: ...

    @property
    def stratum(self) -> str: ...

    @property
    def protocol_id(self) -> str:
        """Everything that changes the number but is not the data: windows, strides, lengths, templates."""
        ...

    def check(self, *, training: bool = False) -> None:
        """Raise DataError if the data isn't there, without reading all of it and without a network. With `training`
        also if there is no training split apart from the evaluation data.
        """
        ...

    def estimated_work(self, *, training: bool = False) -> tuple[int, int] | None:
        """Samples and, roughly, tokens of one pass over the evaluation (or training) split; None if only a network
        knows.
        """
        ...

    def load(self) -> Any:
        """The evaluation samples (compressbench.data.samples.Samples)."""
        ...

    def check_model(self, handle: Any, samples: Any) -> None:
        """Raise ModelError if the model can't answer this question: wrong head, wrong number of labels."""
        ...

    def evaluate(
        self, session: Session, handle: Any, samples: Any, progress: Progress, watch: Watch
    ) -> list[SampleRow]:
        """A row for every sample. Raises NotFiniteError if the model's answer is no number."""
        ...

    def summarize(self, rows: Sequence[SampleRow]) -> float:
        """The metric of these rows, at least one; also of resampled ones, in which a row may stand more than once."""
        ...

    def training_batches(self, handle: Any, batch_size: int, max_samples: int | None, seed: int) -> Sequence[Batch]:
        """Model inputs (with `labels`) from the training split, in an order that `seed` decides; never evaluation data."""
        ...

    def model_inputs(self, handle: Any, split: str) -> tuple[list[dict[str, Any]], str]:
        """Model inputs of every sample of a split, not padded and without labels, and the revision of the data."""
        ...

    def workload_batches(self, handle: Any, samples: Any, batch_size: int, sequence_length: int) -> list[Batch]:
        """At least 64 distinct inputs where the data has them, each exactly batch_size x sequence_length."""
        ...


@runtime_checkable
class Reports(Protocol):
    """A task that says more of its rows than one metric, under names of its own."""

    def reported(self, rows: Sequence[SampleRow]) -> Mapping[str, float | int | str]: ...
