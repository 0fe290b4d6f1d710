"""What classifiers of anything share: that the model's labels are the data's, and which label is the likeliest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressbench.core.errors import ModelError, NotFiniteError
from compressbench.data.samples import Samples
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch


def check_labels(handle: ModelHandle, samples: Samples, num_labels: int) -> None:
    """Raise ModelError if the model has another number of labels than the data, or the same names in another order."""
    found = int(handle.model.config.num_labels)
    if found != num_labels:
        raise ModelError(
            f"the model's head has {found} labels and {samples.source} has {num_labels}",
            where=handle.source.id,
            do="Use a model that was trained on this data, or the data that the model was trained on.",
        )
    ours, theirs = samples.label_names or (), tuple((handle.model.config.id2label or {}).values())
    if ours != theirs and sorted(ours) == sorted(map(str, theirs)):
        first = next(index for index, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        raise ModelError(
            "the model's labels are those of the data in another order",
            where=handle.source.id,
            got=f"label {first} is '{theirs[first]}' in the model and '{ours[first]}' in the data",
            do="Give the data with the model's label order.",
        )


def require_finite(logits: torch.Tensor) -> None:
    """Raise NotFiniteError for logits that are no numbers."""
    if not bool(logits.isfinite().all()):
        raise NotFiniteError(
            "the model gave logits that are not finite", do="A method or data type overflowed; try bfloat16."
        )


def likeliest(logits: torch.Tensor) -> list[tuple[int, float]]:
    """The likeliest label of each row and its probability. Raises NotFiniteError for logits that are no numbers."""
    require_finite(logits)
    probabilities, labels = logits.float().softmax(dim=-1).max(dim=-1)
    return [(int(label), min(float(p), 1.0)) for label, p in zip(labels, probabilities, strict=True)]
