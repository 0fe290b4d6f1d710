"""`click-prediction`: how likely is a click on what was shown (click-through rate prediction)? Metric: log loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compressbench.core.errors import CellError, DataError, ModelError, UnsupportedError
from compressbench.core.names import did_you_mean
from compressbench.core.progress import Progress
from compressbench.core.protocols import Batch, Session
from compressbench.core.questions import SampleRow, Watch
from compressbench.data.samples import Samples, check_columns, check_limit, column_values, read_rows_table, to_labels
from compressbench.data.sources import Form
from compressbench.models.handle import ModelHandle
from compressbench.tasks.batching import batches_in_order
from compressbench.tasks.from_data import FromData
from compressbench.tasks.labels import require_finite
from compressbench.tasks.leakage import refuse_evaluation_data
from compressbench.tasks.spread import workload_samples

if TYPE_CHECKING:
    import torch


class ClickPrediction(FromData):
    """The mean negative log-likelihood of what happened, in nats: click or no click.

    Version 1: rows in the order of the data; the model's own features say which columns it reads. A sample is an
    impression: its score is -ln of the probability that the model gave to what happened, its prediction the likelier of
    the two (1: a click) with the probability as its confidence. Reported beside it, because papers do (He et al. 2014,
    "Practical lessons from predicting clicks on ads at Facebook"): the area under the ROC curve, ties counted half; the
    normalized entropy, log loss over the entropy of the click rate of these rows (1 for a model that knows only that
    rate); the calibration, clicks predicted over clicks that happened; and the Brier score.
    """

    version: ClassVar[int] = 1
    metric: ClassVar[str] = "log_loss"
    direction: ClassVar[Literal["higher", "lower"]] = "lower"
    head: ClassVar[str] = "click-prediction"
    form: ClassVar[Form] = "samples"

    label_column: str = Field("label", description="the column of clicks: 1, or 0 for none")
    limit: int | None = Field(None, ge=1, description="evaluate only the first so many samples")
    batch_size: int = Field(256, ge=1, le=65536)

    @property
    def protocol_id(self) -> str:
        return f"click-prediction/v{self.version}:nats,batch_size={self.batch_size}"

    def load(self) -> Samples:
        return self._load(self.split, self.limit)

    def check_model(self, handle: ModelHandle, samples: Samples) -> None:
        for name in handle.tokenizer.columns:
            if name not in samples.columns:
                raise ModelError(
                    f"the model reads a column '{name}' that the data has not",
                    where=f"{handle.source.id} on {samples.source}",
                    do=did_you_mean(name, samples.columns),
                )
        _inputs(handle, samples, [0])

    def evaluate(
        self, session: Session, handle: ModelHandle, samples: Samples, progress: Progress, watch: Watch
    ) -> list[SampleRow]:
        rows: list[SampleRow] = []
        with progress.bar("evaluate", len(samples)) as bar:
            for indices in batches_in_order(len(samples), self.batch_size):
                logits = session(_inputs(handle, samples, indices))
                rows += _rows(samples, indices, logits)
                watch.logits([samples.ids[index] for index in indices], logits)
                bar.advance(len(indices))
        return rows

    def reported(self, rows: Sequence[SampleRow]) -> Mapping[str, float | int | str]:
        """What isn't defined on these rows (all of them clicks, or none) isn't there."""
        clicks = [int(row.target) for row in rows]
        odds = [_probability(row) for row in rows]
        found: dict[str, float | int | str] = {
            "click_rate": sum(clicks) / len(clicks),
            "predicted_click_rate": sum(odds) / len(odds),
            "brier": sum((p - click) ** 2 for p, click in zip(odds, clicks, strict=True)) / len(rows),
        }
        if 0 < sum(clicks) < len(clicks):
            found["auc"] = area_under_curve(odds, clicks)
            found["normalized_entropy"] = self.summarize(rows) / _entropy(sum(clicks) / len(clicks))
            found["calibration"] = sum(odds) / sum(clicks)
        return found

    def estimated_work(self, *, training: bool = False) -> tuple[int, int] | None:
        if self.is_on_hub:
            return None
        num_samples = len(self._load(self.train_split, None) if training else self.load())
        return num_samples, num_samples

    def training_batches(self, handle: ModelHandle, batch_size: int, max_samples: int | None, seed: int) -> list[Batch]:
        import torch

        refuse_evaluation_data(self.data, self.split, self.train_split)
        samples = self._load(self.train_split, max_samples)
        inputs = _inputs(handle, samples, range(len(samples)))
        inputs["labels"] = torch.tensor(samples.columns["label"])
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
        return [{name: values[rows] for name, values in inputs.items()} for rows in torch.split(order, batch_size)]

    def model_inputs(self, handle: ModelHandle, split: str) -> tuple[list[dict[str, Any]], str]:
        raise UnsupportedError("calibration samples are drawn as rows of tokens, and impressions have none")

    def workload_batches(
        self, handle: ModelHandle, samples: Samples, batch_size: int, sequence_length: int
    ) -> list[Batch]:
        """Impressions, each as wide as the model's columns, whatever `sequence_length` says."""
        return [_inputs(handle, samples, each) for each in workload_samples(len(samples), batch_size)]

    def workload_targets(
        self, handle: ModelHandle, samples: Samples, batch_size: int, sequence_length: int
    ) -> list[list[int]]:
        """1 for every impression of `workload_batches` that was clicked, else 0."""
        labels = samples.columns["label"]
        return [[int(labels[index]) for index in each] for each in workload_samples(len(samples), batch_size)]

    def _load(self, split: str, limit: int | None) -> Samples:
        if limit is not None:
            check_limit(limit, self.data)
        table, revision = read_rows_table(self.data, split, self.revision, self.config)
        check_columns(table, self.data, {"label": self.label_column})
        if limit is not None:
            table = replace(table, arrow=table.arrow.slice(0, limit))
        columns = {name: column_values(table, self.data, name) for name in table.arrow.column_names}
        where = f"{self.data}, column '{self.label_column}'"
        columns["label"] = _clicks(columns.pop(self.label_column), where)
        return Samples(self.data, split, revision, tuple(map(str, range(table.arrow.num_rows))), columns, None)


def area_under_curve(values: Sequence[float], clicks: Sequence[int]) -> float:
    """The chance that a click has a higher value than what wasn't clicked, ties counted half (the Mann-Whitney statistic).

    Both kinds must be there.
    """
    from scipy.stats import rankdata

    ranks, num_clicks = rankdata(values), sum(clicks)
    of_clicks = sum(float(rank) for rank, click in zip(ranks, clicks, strict=True) if click)
    return (of_clicks - num_clicks * (num_clicks + 1) / 2) / (num_clicks * (len(clicks) - num_clicks))


def _probability(row: SampleRow) -> float:
    """Of a click, from the probability of the likelier answer."""
    if row.confidence is None:
        raise CellError("a row of click-prediction has its probability as confidence", where=f"sample {row.id}")
    return row.confidence if row.prediction == "1" else 1 - row.confidence


def _entropy(rate: float) -> float:
    return -rate * math.log(rate) - (1 - rate) * math.log1p(-rate)


def _clicks(values: list[Any], where: str) -> list[int]:
    numbers, names = to_labels([int(value) if isinstance(value, bool) else value for value in values], None, where)
    if names is not None:  # numbered by the alphabet, "no click" would be a click
        raise DataError("a click is 1 or 0", where=where, got=f"names, such as {names[0]!r}"[:80])
    if max(numbers, default=0) > 1:
        raise DataError("a click is 1 or 0", where=where, got=str(max(numbers)))
    return numbers


def _inputs(handle: ModelHandle, samples: Samples, indices: Sequence[int]) -> dict[str, torch.Tensor]:
    chosen = {name: [samples.columns[name][index] for index in indices] for name in handle.tokenizer.columns}
    inputs: dict[str, torch.Tensor] = handle.tokenizer(chosen)
    return inputs


def _rows(samples: Samples, indices: Sequence[int], logits: torch.Tensor) -> list[SampleRow]:
    """Of logits (rows x 2). Raises NotFiniteError for logits that are no numbers."""
    require_finite(logits)
    logs = logits.double().log_softmax(dim=-1).tolist()
    rows = []
    for index, both in zip(indices, logs, strict=True):
        click = int(samples.columns["label"][index])
        likelier = int(both[1] > both[0])
        rows.append(
            SampleRow(
                id=samples.ids[index],
                prediction=str(likelier),
                target=str(click),
                score=-both[click],
                confidence=min(math.exp(both[likelier]), 1.0),
            )
        )
    return rows
