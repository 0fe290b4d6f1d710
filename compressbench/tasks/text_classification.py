"""`text-classification`: which label has a text, or a pair of texts? Metric: accuracy."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from compressbench.core.progress import Progress
from compressbench.core.protocols import Batch, Session
from compressbench.core.questions import SampleRow, Watch
from compressbench.data.samples import Samples, load_samples
from compressbench.data.sources import Form
from compressbench.models.handle import ModelHandle
from compressbench.tasks import batching
from compressbench.tasks.from_data import FromData
from compressbench.tasks.labels import check_labels, likeliest
from compressbench.tasks.leakage import refuse_evaluation_data
from compressbench.tasks.spread import num_workload_batches, spread, workload_samples


class TextClassification(FromData):
    """The arg max over the logits against the label; score 1 if they agree, else 0.

    Version 1: texts truncated to max_length tokens, batched by length. A batch is padded to its longest text; methods
    that quantize activations per batch see that padding, so batch_size is part of the protocol.
    """

    version: ClassVar[int] = 1
    metric: ClassVar[str] = "accuracy"
    direction: ClassVar[Literal["higher", "lower"]] = "higher"
    head: ClassVar[str] = "sequence-classification"
    form: ClassVar[Form] = "samples"
    is_binary: ClassVar[bool] = True

    text_column: str = "text"
    text_pair_column: str | None = None
    label_column: str = "label"
    limit: int | None = Field(None, ge=1, description="evaluate only the first so many samples")
    max_length: int = Field(128, ge=1, le=1_000_000)
    batch_size: int = Field(64, ge=1, le=65536)

    @property
    def protocol_id(self) -> str:
        return f"text-classification/v{self.version}:max_length={self.max_length},batch_size={self.batch_size}"

    def load(self) -> Samples:
        return self._load(self.split, self.limit)

    def check_model(self, handle: ModelHandle, samples: Samples) -> None:
        check_labels(handle, samples, self._num_labels(samples))

    def evaluate(
        self, session: Session, handle: ModelHandle, samples: Samples, progress: Progress, watch: Watch
    ) -> list[SampleRow]:
        encoded = self._encode(handle, samples)
        found: dict[int, tuple[int, float]] = {}
        with progress.bar("evaluate", len(samples)) as bar:
            for indices in batching.batches_by_length([len(row["input_ids"]) for row in encoded], self.batch_size):
                logits = session(batching.pad([encoded[index] for index in indices], handle.tokenizer))
                found |= zip(indices, likeliest(logits), strict=True)
                watch.logits([samples.ids[index] for index in indices], logits)
                bar.advance(len(indices))
        cut = self._cut(handle, samples, encoded)
        return [
            SampleRow(
                id=id_,
                prediction=str(found[index][0]),
                target=str(label),
                score=float(found[index][0] == label),
                confidence=found[index][1],
                is_truncated=index in cut,
            )
            for index, (id_, label) in enumerate(zip(samples.ids, samples.columns["label"], strict=True))
        ]

    def _cut(self, handle: ModelHandle, samples: Samples, encoded: list[dict[str, list[int]]]) -> set[int]:
        """Those of the samples that are longer than max_length tokens."""
        full = [index for index, row in enumerate(encoded) if len(row["input_ids"]) == self.max_length]
        texts, pairs = samples.columns["text"], samples.columns.get("text_pair")
        chosen = [[column[index] for index in full] for column in (texts, pairs) if column is not None]
        ids = handle.tokenizer(*chosen, verbose=False)["input_ids"] if full else []
        return {index for index, row in zip(full, ids, strict=True) if len(row) > self.max_length}

    def estimated_work(self, *, training: bool = False) -> tuple[int, int] | None:
        if self.is_on_hub:
            return None
        samples = self._load(self.train_split, None) if training else self.load()
        return len(samples), sum(min(self.max_length, len(text) // 4 + 3) for text in samples.columns["text"])

    def training_batches(self, handle: ModelHandle, batch_size: int, max_samples: int | None, seed: int) -> list[Batch]:
        import torch

        refuse_evaluation_data(self.data, self.split, self.train_split)
        samples = self._load(self.train_split, max_samples)
        encoded = self._encode(handle, samples)
        labels = samples.columns["label"]
        chosen = batching.shuffled_batches([len(row["input_ids"]) for row in encoded], batch_size, seed)
        return [
            {
                **batching.pad([encoded[index] for index in indices], handle.tokenizer),
                "labels": torch.tensor([labels[index] for index in indices]),
            }
            for indices in chosen
        ]

    def model_inputs(self, handle: ModelHandle, split: str) -> tuple[list[dict[str, Any]], str]:
        samples = self._load(split, None)
        return [dict(row) for row in self._encode(handle, samples)], samples.revision

    def workload_batches(
        self, handle: ModelHandle, samples: Samples, batch_size: int, sequence_length: int
    ) -> list[Batch]:
        count = num_workload_batches(len(samples), batch_size)
        batching.require_positions(handle, sequence_length, "Lower workload.sequence_length.")
        chosen = spread(len(samples), count * batch_size)
        texts, pairs = (
            None if column is None else [column[index] for index in chosen]
            for column in (samples.columns["text"], samples.columns.get("text_pair"))
        )
        options: dict[str, Any] = {"padding": "max_length", "truncation": True, "max_length": sequence_length}
        encoded = handle.tokenizer(texts, pairs, return_tensors="pt", **options)
        split = {name: tensor.split(batch_size) for name, tensor in encoded.items()}
        return [{name: parts[index] for name, parts in split.items()} for index in range(count)]

    def workload_targets(
        self, handle: ModelHandle, samples: Samples, batch_size: int, sequence_length: int
    ) -> list[list[int]]:
        """The label of every text of `workload_batches`. Those are cut at sequence_length, so that what is scored against
        them is the accuracy at the shapes that were timed, and not the task's.
        """
        labels = samples.columns["label"]
        return [[int(labels[index]) for index in each] for each in workload_samples(len(samples), batch_size)]

    def _load(self, split: str, limit: int | None) -> Samples:
        columns = {"text": self.text_column, "label": self.label_column}
        if self.text_pair_column:
            columns["text_pair"] = self.text_pair_column
        return load_samples(
            self.data, split=split, columns=columns, revision=self.revision, config=self.config, limit=limit
        )

    def _encode(self, handle: ModelHandle, samples: Samples) -> list[dict[str, list[int]]]:
        pairs = samples.columns.get("text_pair")
        encoded = batching.encode(handle.tokenizer, samples.columns["text"], pairs, self.max_length)
        batching.require_positions(
            handle, max(len(row["input_ids"]) for row in encoded), "Lower the task's max_length."
        )
        return encoded

    def _num_labels(self, samples: Samples) -> int:
        if samples.label_names:
            return len(samples.label_names)
        whole = samples if self.limit is None else self._load(self.split, None)
        return int(max(whole.columns["label"])) + 1
