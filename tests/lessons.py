"""What tests of training share: small teachers and students, batches, and runs that are interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from compressbench.core.protocols import Batch
from compressbench.methods.distillation.training import Training
from compressbench.methods.maths.distance import distillation_loss
from compressbench.models.handle import ModelHandle, Supplies

Asked = list[tuple[int, int | None, int]]


def sharpened(handle: ModelHandle, factor: float = 4.0) -> ModelHandle:
    """Larger weights, so that the logits differ from text to text."""
    with torch.no_grad():
        for parameter in handle.model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(factor)
    return handle


def perturbed(handle: ModelHandle, noise: float = 0.1) -> ModelHandle:
    student = handle.copy()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    return student


def without_dropout(handle: ModelHandle) -> ModelHandle:
    for module in handle.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    handle.model.config.attention_probs_dropout_prob = 0.0
    return handle


def sentences(count: int = 4, rows: int = 8, length: int = 6) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 19, (count, rows, length), generator=generator)
    labels = torch.randint(0, 3, (count, rows), generator=generator)
    return [
        {"input_ids": i, "attention_mask": torch.ones_like(i), "labels": j} for i, j in zip(ids, labels, strict=True)
    ]


def windows(count: int = 3, rows: int = 4, length: int = 8) -> list[Batch]:
    ids = torch.randint(4, 19, (count, rows, length), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": part, "attention_mask": torch.ones_like(part), "labels": part} for part in ids]


def padded(batches: Sequence[Batch], token: int, more: int = 3) -> list[Batch]:
    """The same texts with `more` masked positions at their ends, where `token` stands."""
    return [
        {
            "input_ids": torch.nn.functional.pad(batch["input_ids"], (0, more), value=token),
            "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (0, more)),
            "labels": batch["labels"]
            if batch["labels"].dim() == 1
            else torch.nn.functional.pad(batch["labels"], (0, more), value=-100),
        }
        for batch in batches
    ]


def supplied(
    student: ModelHandle, teacher: ModelHandle | None, batches: list[Batch], seed: int = 0, asked: Asked | None = None
) -> ModelHandle:
    """A copy of the student that is given a teacher and training data."""

    def source(batch_size: int, max_samples: int | None, source_seed: int) -> list[Batch]:
        if asked is not None:
            asked.append((batch_size, max_samples, source_seed))
        return batches

    lend = None if teacher is None else lambda: teacher
    return student.copy(Supplies(teacher=lend, training_batches=source, seed=seed))


def inputs_of(batch: Batch) -> dict[str, Any]:
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


def distance(student: ModelHandle, teacher: ModelHandle, batches: list[Batch], temperature: float = 2.0) -> float:
    """Mean distillation loss over the batches, without dropout."""
    total = 0.0
    for batch in batches:
        inputs = inputs_of(batch)
        with torch.inference_mode():
            one, other = student.model.eval()(**inputs).logits, teacher.model(**inputs).logits
        classes = one.shape[-1]
        total += float(distillation_loss(one.reshape(-1, classes), other.reshape(-1, classes), temperature))
    return total / len(batches)


def weights(handle: ModelHandle) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in handle.model.state_dict().items()}


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


class PowerCutError(Exception):
    """Ends a run in the middle."""


class Listener:
    """Remembers what progress it was told, and cuts the power after so many calls."""

    def __init__(self, cut_after: int | None = None) -> None:
        self.bars: list[tuple[str, float]] = []
        self.amounts: list[float] = []
        self._cut_after = cut_after

    @contextmanager
    def bar(self, description: str, total: float) -> Iterator[Any]:
        self.bars.append((description, total))
        yield self

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.amounts.append(amount)
        if self._cut_after is not None and len(self.amounts) >= self._cut_after:
            raise PowerCutError

    def say(self, line: str) -> None:
        raise AssertionError(line)


def listened(handle: ModelHandle, listener: Listener, checkpoints: Path | None = None) -> ModelHandle:
    """A copy of the handle with that progress and a folder for checkpoints."""
    return handle.copy(replace(handle.supplies, progress=listener, checkpoints=checkpoints))


def resumed(step: Training, handle: ModelHandle, folder: Path, cut_after: int) -> ModelHandle:
    """What the step gives when it is interrupted after `cut_after` steps and done again from the start."""
    apply: Any = step
    try:
        apply.apply(listened(handle, Listener(cut_after), folder))
    except PowerCutError:
        assert [path.name for path in folder.iterdir()] == ["training.safetensors"]
        torch.manual_seed(12345)  # another process has another random state
        done: ModelHandle = apply.apply(listened(handle, Listener(), folder))
        assert list(folder.iterdir()) == [], "a checkpoint is deleted when it is no longer needed"
        return done
    raise AssertionError("the run was not interrupted")
