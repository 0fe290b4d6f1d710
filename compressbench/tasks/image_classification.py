"""`image-classification`: what does a picture show? Metric: accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compressbench.core.errors import ModelError, UnsupportedError
from compressbench.core.progress import Progress
from compressbench.core.protocols import Batch, Session
from compressbench.core.questions import SampleRow, Watch
from compressbench.data.images import MODES, decode_image, image_bytes, require_pillow
from compressbench.data.samples import Samples, load_samples
from compressbench.data.sources import Form
from compressbench.models.handle import ModelHandle
from compressbench.tasks.batching import batches_in_order
from compressbench.tasks.from_data import FromData
from compressbench.tasks.labels import check_labels, likeliest
from compressbench.tasks.leakage import refuse_evaluation_data
from compressbench.tasks.spread import workload_samples

if TYPE_CHECKING:
    import torch

_TOKENS_PER_IMAGE = 197
"""Of a picture of 224 x 224 in patches of 16, for a rough estimate of time."""


class ImageClassification(FromData):
    """The arg max over the logits against the label; score 1 if they agree, else 0.

    Version 1: a picture's first frame, turned upright, in as many channels as the model has, resized and normalised as
    the model's preprocessor_config.json says (by Pillow, never torchvision). Pictures are decoded batch by batch, in the
    order of the data; methods that quantize activations see a whole batch, so batch_size is part of the protocol.
    """

    version: ClassVar[int] = 1
    metric: ClassVar[str] = "accuracy"
    direction: ClassVar[Literal["higher", "lower"]] = "higher"
    head: ClassVar[str] = "image-classification"
    form: ClassVar[Form] = "samples"
    is_binary: ClassVar[bool] = True

    image_column: str = Field("image", description="the column of encoded pictures, such as the feature Image makes")
    label_column: str = "label"
    limit: int | None = Field(None, ge=1, description="evaluate only the first so many samples")
    batch_size: int = Field(32, ge=1, le=65536)

    @property
    def protocol_id(self) -> str:
        return f"image-classification/v{self.version}:pillow,batch_size={self.batch_size}"

    def check(self, *, training: bool = False) -> None:
        require_pillow()
        super().check(training=training)

    def load(self) -> Samples:
        return self._load(self.split, self.limit)

    def check_model(self, handle: ModelHandle, samples: Samples) -> None:
        check_labels(handle, samples, self._num_labels(samples))
        num_channels = _num_channels(handle)
        if num_channels not in MODES:
            raise ModelError(
                "a picture becomes grey or RGB", where=handle.source.id, got=f"a model of {num_channels} channels"
            )
        _pixels(handle, samples, [0])

    def evaluate(
        self, session: Session, handle: ModelHandle, samples: Samples, progress: Progress, watch: Watch
    ) -> list[SampleRow]:
        rows: list[SampleRow] = []
        with progress.bar("evaluate", len(samples)) as bar:
            for indices in batches_in_order(len(samples), self.batch_size):
                logits = session({"pixel_values": _pixels(handle, samples, indices)})
                rows += _rows(samples, indices, likeliest(logits))
                watch.logits([samples.ids[index] for index in indices], logits)
                bar.advance(len(indices))
        return rows

    def estimated_work(self, *, training: bool = False) -> tuple[int, int] | None:
        if self.is_on_hub:
            return None
        num_samples = len(self._load(self.train_split, None) if training else self.load())
        return num_samples, num_samples * _TOKENS_PER_IMAGE

    def training_batches(
        self, handle: ModelHandle, batch_size: int, max_samples: int | None, seed: int
    ) -> Sequence[Batch]:
        import torch

        refuse_evaluation_data(self.data, self.split, self.train_split)
        samples = self._load(self.train_split, max_samples)
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed)).tolist()
        return _LabelledImages(handle, samples, order, batch_size)

    def model_inputs(self, handle: ModelHandle, split: str) -> tuple[list[dict[str, Any]], str]:
        raise UnsupportedError("calibration samples are drawn as rows of tokens, and pictures have none")

    def workload_batches(
        self, handle: ModelHandle, samples: Samples, batch_size: int, sequence_length: int
    ) -> list[Batch]:
        """Pictures at the size that the model reads, whatever `sequence_length` says."""
        return [{"pixel_values": _pixels(handle, samples, each)} for each in workload_samples(len(samples), batch_size)]

    def workload_targets(
        self, handle: ModelHandle, samples: Samples, batch_size: int, sequence_length: int
    ) -> list[list[int]]:
        """The label of every picture of `workload_batches`."""
        labels = samples.columns["label"]
        return [[int(labels[index]) for index in each] for each in workload_samples(len(samples), batch_size)]

    def _load(self, split: str, limit: int | None) -> Samples:
        columns = {"image": self.image_column, "label": self.label_column}
        samples = load_samples(
            self.data, split=split, columns=columns, revision=self.revision, config=self.config, limit=limit
        )
        where = f"{samples.source}, column '{self.image_column}'"
        samples.columns["image"] = [
            image_bytes(value, f"{where}, row {row}") for row, value in enumerate(samples.columns["image"])
        ]
        return samples

    def _num_labels(self, samples: Samples) -> int:
        if samples.label_names:
            return len(samples.label_names)
        whole = samples if self.limit is None else self._load(self.split, None)
        return int(max(whole.columns["label"])) + 1


@dataclass(frozen=True)
class _LabelledImages(Sequence[Batch]):
    """Batches that are decoded each time they are asked for: pixels of a whole data set would be hundreds of gigabytes."""

    handle: ModelHandle
    samples: Samples
    order: list[int]
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: Any) -> Any:
        import torch

        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        start = range(len(self))[index] * self.batch_size
        chosen = self.order[start : start + self.batch_size]
        labels = [self.samples.columns["label"][at] for at in chosen]
        return {"pixel_values": _pixels(self.handle, self.samples, chosen), "labels": torch.tensor(labels)}


def _pixels(handle: ModelHandle, samples: Samples, indices: Sequence[int]) -> torch.Tensor:
    """Pixels (batch x channels x height x width, float32) of these samples, as the model's own processor makes them."""
    num_channels = _num_channels(handle)
    images = [
        decode_image(samples.columns["image"][index], num_channels, f"{samples.source}, sample {samples.ids[index]}")
        for index in indices
    ]
    pixels: torch.Tensor = handle.tokenizer(images=images, return_tensors="pt")["pixel_values"]
    return pixels


def _num_channels(handle: ModelHandle) -> int:
    return int(getattr(handle.model.config, "num_channels", 3))


def _rows(samples: Samples, indices: Sequence[int], found: Sequence[tuple[int, float]]) -> list[SampleRow]:
    return [
        SampleRow(
            id=samples.ids[index],
            prediction=str(label),
            target=str(samples.columns["label"][index]),
            score=float(label == samples.columns["label"][index]),
            confidence=confidence,
        )
        for index, (label, confidence) in zip(indices, found, strict=True)
    ]
