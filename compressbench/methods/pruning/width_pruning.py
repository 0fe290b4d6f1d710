"""`width-pruning`: attention heads and feed-forward neurons are removed, the same number from every layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from compressbench.core.errors import CellError, UnsupportedError
from compressbench.core.protocols import Batch, Claim, Facts
from compressbench.methods.step import Step
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressbench.models.widths import Coupled, Part


class WidthPruning(Step):
    """A narrower model of the same depth (LLM-Pruner; Minitron), saved and loaded as usual.

    A group is a neuron with its rows and its column, or a key-value head with the query heads that read it. The groups
    of least importance go: `magnitude` is the L2 norm of a group's weights; `taylor` the sum of |w * gradient| of the
    model's own loss over training samples (first order, by element). A layer keeps its groups in their order. Follow it
    with distillation: without training again, accuracy falls. Models whose configuration can't say the size of a head
    (BERT, GPT-2, Whisper) lose neurons only.
    """

    facts: ClassVar[Facts] = Facts(paper="arXiv:2305.11627")

    head_ratio: float | None = Field(None, gt=0, lt=1, description="fraction of heads removed, rounded down to groups")
    num_heads: int | None = Field(None, ge=1, description="how many query heads stay in each layer")
    ffn_ratio: float | None = Field(None, gt=0, lt=1, description="fraction of feed-forward neurons removed")
    intermediate_size: int | None = Field(None, ge=1, description="how many neurons stay in each layer")
    round_to: int = Field(8, ge=1, le=4096, description="with ffn_ratio: neurons that stay, rounded up to a multiple")
    importance: Literal["magnitude", "taylor"] = "magnitude"
    num_samples: int = Field(128, ge=1, le=1_000_000, description="training samples that taylor looks at")
    batch_size: int = Field(8, ge=1, le=65_536, description="training samples per pass of taylor")

    @model_validator(mode="after")
    def _has_amounts(self) -> WidthPruning:
        given = (self.head_ratio, self.num_heads, self.ffn_ratio, self.intermediate_size)
        if all(amount is None for amount in given):
            raise ValueError("give head_ratio or num_heads, or ffn_ratio or intermediate_size")
        if None not in given[:2]:
            raise ValueError("give either head_ratio or num_heads")
        if None not in given[2:]:
            raise ValueError("give either ffn_ratio or intermediate_size")
        if self.ffn_ratio is None and self.round_to != 8:
            raise ValueError("round_to belongs to ffn_ratio")
        if self.importance == "magnitude" and (self.num_samples, self.batch_size) != (128, 8):
            raise ValueError("num_samples and batch_size belong to importance: taylor")
        return self

    def num_training_samples(self, available: int) -> float:
        return min(available, self.num_samples) if self.importance == "taylor" else 0.0

    def check_model(self, config: Mapping[str, Any]) -> None:
        if config.get("model_type") is not None:
            self.changes(config)

    def changes(self, config: Mapping[str, Any]) -> dict[str, int]:
        """New values of configuration keys, as far as the configuration says the old ones.

        Raises UnsupportedError if the model can't become so narrow, or if nothing would be removed.
        """
        from compressbench.models.widths import family_of, feed_forward_sizes, head_changes, head_counts

        family_of(config)
        changed: dict[str, int] = {}
        if self.ffn_ratio is not None or self.intermediate_size is not None:
            changed |= {key: self._neurons(key, size) for key, size in feed_forward_sizes(config).items()}
        if self.head_ratio is not None or self.num_heads is not None:
            counts = head_counts(config)
            if counts is not None:
                changed |= head_changes(config, counts, self._groups(counts.groups, counts.per_group))
        return changed

    def _neurons(self, key: str, present: int) -> int:
        if self.intermediate_size is not None:
            return _fewer(self.intermediate_size, present, f"neurons ({key})")
        assert self.ffn_ratio is not None  # noqa: S101 -- changes saw to it
        staying = present - int(self.ffn_ratio * present + 1e-9)
        return _fewer(math.ceil(staying / self.round_to) * self.round_to, present, f"neurons ({key})")

    def _groups(self, present: int, per_group: int) -> int:
        if self.head_ratio is not None:
            return _fewer(present - int(self.head_ratio * present + 1e-9), present, "key-value heads")
        assert self.num_heads is not None  # noqa: S101 -- changes saw to it
        if self.num_heads % per_group:
            raise UnsupportedError(
                f"heads are removed in groups of {per_group}, which share a key-value head",
                got=f"num_heads {self.num_heads}",
                do=f"Set num_heads to a multiple of {per_group}.",
            )
        return _fewer(self.num_heads // per_group, present, "key-value heads")

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.methods.maths.masks import keep_largest
        from compressbench.models.size import count_weights
        from compressbench.models.widths import couplings, cut, describe

        model, config = handle.model, handle.config
        changed = self.changes(config)
        coupled = couplings(model, changed)
        before = count_weights(model).num_parameters
        for group, scores in zip(coupled, self.importances(handle, coupled), strict=True):
            kept = keep_largest(scores, 1 - changed[group.key] / group.num_groups).nonzero().flatten()
            for part in group.parts:
                cut(part, kept)
        describe(model, changed)
        claim = Claim(
            step="width-pruning", is_smaller=True, modules=tuple(part.name for group in coupled for part in group.parts)
        )
        notes: dict[str, Any] = {f"{group.key}_before": group.num_groups for group in coupled} | changed
        notes |= {"num_parameters_before": before, "num_parameters": count_weights(model).num_parameters}
        return handle.with_model(model, claim=claim, **notes)

    def importances(self, handle: ModelHandle, coupled: Sequence[Coupled]) -> list[torch.Tensor]:
        """Of the groups (num_groups, float32) of each of `coupled`.

        Raises UnsupportedError if the importance needs training data and there is none, CellError if the loss is no number.
        """
        if self.importance == "magnitude":
            return [group_sums(group, lambda weight: weight.detach().float().square()).sqrt() for group in coupled]
        gradients = self._gradients(handle, [weight for group in coupled for weight in parameters_of(group)])
        return [
            group_sums(group, lambda weight: (weight.detach().float() * gradients[weight]).abs()) for group in coupled
        ]

    def _gradients(self, handle: ModelHandle, weights: Sequence[nn.Parameter]) -> dict[nn.Parameter, torch.Tensor]:
        """Of the mean loss over all labels, summed in float32, so that the batch size decides nothing."""
        import torch

        batches = handle.supplies.training_batches
        if batches is None:
            raise UnsupportedError(
                "importance: taylor needs training data, and was given none", do="Use importance: magnitude."
            )
        handle.model.eval()
        were_trained = [weight.requires_grad for weight in weights]
        total, sums = 0, [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
        samples = batches(self.batch_size, self.num_samples, handle.supplies.seed)
        for weight in weights:
            weight.requires_grad_(True)
        with handle.supplies.progress.bar("score", len(samples)) as bar, torch.enable_grad():
            for batch in samples:
                labels = _count_labels(batch["labels"], is_shifted=handle.head == "causal-lm")
                for into, gradient in zip(sums, torch.autograd.grad(_loss(handle, batch), weights), strict=True):
                    into.add_(gradient.float(), alpha=labels)
                total += labels
                bar.advance()
        for weight, was_trained in zip(weights, were_trained, strict=True):
            weight.requires_grad_(was_trained)
        if not total:
            raise CellError("the training samples hold no label that a loss could be taken of")
        return {weight: gradient.div_(total) for weight, gradient in zip(weights, sums, strict=True)}


def _fewer(staying: int, present: int, what: str) -> int:
    if not 1 <= staying < present:
        raise UnsupportedError(
            f"a layer has {present} {what}, and {'none would be removed' if staying >= present else 'none would stay'}",
            got=f"{staying} to keep",
            do="Change the ratio, the number to keep, or round_to.",
        )
    return staying


def _loss(handle: ModelHandle, batch: Batch) -> torch.Tensor:
    from compressbench.models.parts import inputs_of

    loss = handle.model(**inputs_of(handle.model, batch)).loss
    if loss is None:
        raise UnsupportedError(f"{type(handle.model).__name__} gives no loss for labels")
    if not math.isfinite(float(loss.detach())):
        raise CellError(f"the loss became {float(loss.detach())}", do="Use importance: magnitude, or another dtype.")
    return loss  # type: ignore[no-any-return]  # of transformers


def _count_labels(labels: torch.Tensor, is_shifted: bool) -> int:
    """How many labels a model's mean loss is over: -100 is padding, and position t of a language model predicts t + 1."""
    if labels.dim() == 1:
        return len(labels)
    return int(((labels[:, 1:] if is_shifted else labels) != -100).sum())


def parameters_of(coupled: Coupled) -> list[nn.Parameter]:
    """The weights, and the biases of outputs, that a group takes with it."""
    biases = [part.module.bias for part in coupled.parts if part.is_output and part.module.bias is not None]
    return [*(part.module.weight for part in coupled.parts), *biases]  # type: ignore[list-item]  # they are parameters


def group_sums(coupled: Coupled, values: Callable[[nn.Parameter], torch.Tensor]) -> torch.Tensor:
    """The sum over all that belongs to each group (num_groups, float32) of `values`, which are shaped like a parameter."""
    import torch

    return torch.stack([_part_sums(part, coupled.num_groups, values) for part in coupled.parts]).sum(dim=0)


def _part_sums(part: Part, num_groups: int, values: Callable[[Any], torch.Tensor]) -> torch.Tensor:
    from compressbench.models.widths import cut_dimension

    sums = values(part.module.weight).sum(dim=1 - cut_dimension(part))
    if part.is_output and part.module.bias is not None:
        sums = sums + values(part.module.bias)
    return sums.view(num_groups, part.block).sum(dim=1)
