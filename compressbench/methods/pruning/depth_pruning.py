"""`depth-pruning`: whole transformer layers are removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Facts
from compressbench.methods.step import Step
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class DepthPruning(Step):
    """A shallower model of the same width (ShortGPT; DistilBERT starts its student so), saved and loaded as usual.

    Give `num_layers`, how many layers stay, spread evenly with the first and the last among them; or `keep`, their
    indices from 0. Follow it with distillation: without training again, accuracy falls.
    """

    facts: ClassVar[Facts] = Facts(paper="arXiv:2403.03853")

    num_layers: int | None = Field(None, ge=1, description="how many layers stay")
    keep: tuple[int, ...] | None = Field(None, min_length=1, description="indices of the layers that stay, from 0")

    @model_validator(mode="after")
    def _has_one_amount(self) -> DepthPruning:
        if (self.num_layers is None) == (self.keep is None):
            raise ValueError("give either num_layers or keep")
        if self.keep is not None and (sorted(set(self.keep)) != list(self.keep) or self.keep[0] < 0):
            raise ValueError("keep must be rising indices from 0, each once")
        return self

    def check_model(self, config: Mapping[str, Any]) -> None:
        present = config.get("num_hidden_layers")
        if isinstance(present, int):
            self._check_amount(present)

    def _check_amount(self, present: int) -> None:
        wanted, last = (self.num_layers, None) if self.keep is None else (len(self.keep), self.keep[-1])
        if (wanted is not None and wanted > present) or (last is not None and last >= present):
            raise UnsupportedError(
                f"the model has {present} layers",
                got=f"num_layers {self.num_layers}" if last is None else f"keep up to index {last}",
                do=f"Keep at most {present} layers, with indices up to {present - 1}.",
            )

    def layers_to_keep(self, present: int) -> tuple[int, ...]:
        """Indices that stay of `present` layers."""
        if self.keep is not None:
            return self.keep
        assert self.num_layers is not None  # noqa: S101 -- the validator saw to it
        if self.num_layers == 1:
            return (0,)
        step = (present - 1) / (self.num_layers - 1)
        return tuple(int(index * step + 0.5) for index in range(self.num_layers))

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from torch import nn

        from compressbench.models.parts import layer_stack

        owner, name, layers = layer_stack(handle.model)
        self._check_amount(len(layers))  # not of config.json, which may spell the number otherwise (n_layers)
        kept = self.layers_to_keep(len(layers))
        setattr(owner, name, nn.ModuleList([layers[index] for index in kept]))
        _renumber(handle.model, kept)
        return handle.with_model(handle.model, kept_layers=",".join(map(str, kept)))


def _renumber(model: PreTrainedModel, kept: tuple[int, ...]) -> None:
    """The configuration and the layers' own indices must follow, or the key-value cache is read at the wrong layer."""
    from compressbench.models.parts import layer_stack

    config = model.config
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[index] for index in kept]
    config.num_hidden_layers = len(kept)
    _, _, layers = layer_stack(model)
    for index, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", index)  # noqa: B010 -- modules are typed to hold tensors only
