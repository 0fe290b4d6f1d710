"""`depth-pruning`: whole transformer layers are removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from compressbench.core.calibration import Calibration
from compressbench.core.errors import CellError, UnsupportedError
from compressbench.core.protocols import Batch, Claim, Facts
from compressbench.methods.step import Step
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

_ONE_ENTRY_PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")
_NUM_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""How configurations spell the number of layers (GPT-2's n_layer, DistilBERT's n_layers)."""


class DepthPruning(Step):
    """A shallower model of the same width (ShortGPT; DistilBERT starts its student so), saved and loaded as usual.

    Give `num_layers`, how many layers stay: `importance: spread` keeps them evenly spread with the first and the last
    among them; `block-influence` removes the layers that turn hidden states least, by 1 - mean cosine of a token before
    and after, measured once, on the whole model. Or give `keep`, the indices that stay, from 0.
    Follow it with distillation: without training again, accuracy falls.
    """

    facts: ClassVar[Facts] = Facts(paper="arXiv:2403.03853")

    num_layers: int | None = Field(None, ge=1, description="how many layers stay")
    keep: tuple[int, ...] | None = Field(None, min_length=1, description="indices of the layers that stay, from 0")
    importance: Literal["spread", "block-influence"] = Field("spread", description="how num_layers layers are chosen")
    calibration: Calibration = Field(Calibration(), description="samples that block-influence is measured on")

    @model_validator(mode="after")
    def _has_one_amount(self) -> DepthPruning:
        if (self.num_layers is None) == (self.keep is None):
            raise ValueError("give either num_layers or keep")
        if self.keep is not None and (sorted(set(self.keep)) != list(self.keep) or self.keep[0] < 0):
            raise ValueError("keep must be rising indices from 0, each once")
        if self.keep is not None and self.importance != "spread":
            raise ValueError(f"importance: {self.importance} chooses the layers itself: give num_layers, not keep")
        if self.importance == "spread" and self.calibration != Calibration():
            raise ValueError("calibration belongs to importance: block-influence")
        return self

    def check_model(self, config: Mapping[str, Any]) -> None:
        if config.get("is_encoder_decoder"):
            raise UnsupportedError("an encoder-decoder has two stacks of layers; depth is pruned in models with one")
        if config.get("scale_attn_by_inverse_layer_idx"):
            raise UnsupportedError(
                "attention is scaled by a layer's index, so that a layer computes something else in another place",
                got="scale_attn_by_inverse_layer_idx",
                do="Prune its width.",
            )
        if isinstance(config.get("depths"), list):
            raise UnsupportedError("a hierarchical model's layers have different widths, and none can be left out")
        if config.get("num_hidden_groups") is not None:
            raise UnsupportedError("the layers share their weights, so that leaving some out removes nothing")
        present = next((config[key] for key in _NUM_LAYERS if isinstance(config.get(key), int)), None)
        if present is not None:
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
        """Indices that stay of `present` layers if nothing is measured: those of `keep`, or evenly spread ones."""
        if self.keep is not None:
            return self.keep
        assert self.num_layers is not None  # noqa: S101 -- the validator saw to it
        if self.num_layers == 1:
            return (0,)
        step = (present - 1) / (self.num_layers - 1)
        return tuple(int(index * step + 0.5) for index in range(self.num_layers))

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from torch import nn

        from compressbench.models.parts import layer_stack, require_described

        self.check_model(handle.config)
        owner, name, layers = layer_stack(handle.model)
        present = len(layers)
        self._check_amount(present)  # config.json may not say the number
        notes: dict[str, Any] = {}
        if self.importance == "spread":
            kept = self.layers_to_keep(present)
        else:
            influence = self._block_influence(handle, layers)
            kept = most_influential(influence, self.num_layers or present)
            notes["block_influence"] = ",".join(f"{value:.6g}" for value in influence)
        staying = nn.ModuleList([layers[index] for index in kept])
        setattr(owner, name, staying)
        _renumber(handle.model, staying, kept)
        require_described(handle.model, "these layers")
        stack = next(path for path, module in handle.model.named_modules() if module is staying)
        claim = Claim(step="depth-pruning", is_smaller=len(kept) < present, modules=(stack,))
        return handle.with_model(handle.model, claim=claim, kept_layers=",".join(map(str, kept)), **notes)

    def _block_influence(self, handle: ModelHandle, layers: nn.ModuleList) -> list[float]:
        if handle.supplies.calibration is None:
            raise UnsupportedError(
                "importance: block-influence needs calibration samples, and was given none",
                do="Use importance: spread, or name the layers with keep.",
            )
        batches = handle.supplies.calibration(self.calibration).batches
        with handle.supplies.progress.bar("block influence", len(batches)) as bar:
            meter = _InfluenceMeter(layers)
            for batch in batches:
                meter.read(handle, batch)
                bar.advance()
        if not meter.num_tokens:
            raise CellError("the calibration samples hold no token")
        return [total / meter.num_tokens for total in meter.totals]


class _InfluenceMeter:
    """Sums over tokens, by layer, of 1 - cos(hidden state before, hidden state after); padding is left out.

    Read at the layers themselves: the last of a model's `hidden_states` is taken behind the final norm.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        self.totals, self.num_tokens, self._layers = [0.0] * len(layers), 0, layers

    def read(self, handle: ModelHandle, batch: Batch) -> None:
        import torch

        inputs = {name: tensor.to(handle.device) for name, tensor in batch.items() if name != "labels"}
        mask = inputs.get("attention_mask")
        is_token = None if mask is None else mask.bool()
        hooks = [
            layer.register_forward_hook(self._hook(index, is_token), with_kwargs=True)
            for index, layer in enumerate(self._layers)
        ]
        try:
            with torch.no_grad():
                handle.model.eval()(**inputs)
        finally:
            for hook in hooks:
                hook.remove()

    def _hook(self, index: int, is_token: torch.Tensor | None) -> Any:
        def add(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            turned = influence_of_tokens(before, after)
            counted = turned.flatten() if is_token is None else turned[is_token]
            self.totals[index] += float(counted.sum())
            self.num_tokens += counted.numel() if index == 0 else 0

        return add


def influence_of_tokens(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """1 - cosine of hidden states (... x hidden), float64 without the last dimension: 0 if only the length changed.

    Men et al. 2024 (ShortGPT), arXiv:2403.03853, before the mean over tokens.
    """
    import torch

    return 1 - torch.nn.functional.cosine_similarity(before.double(), after.double(), dim=-1)


def most_influential(influence: Sequence[float], num_layers: int) -> tuple[int, ...]:
    """Rising indices of the `num_layers` largest values; of equal ones the later stays. Smaller choices are nested."""
    order = sorted(range(len(influence)), key=lambda index: (influence[index], index))
    return tuple(sorted(order[len(influence) - num_layers :]))


def _renumber(model: PreTrainedModel, layers: nn.ModuleList, kept: tuple[int, ...]) -> None:
    """The configuration and the layers' own indices must follow, or the key-value cache is read at the wrong layer."""
    config = model.config
    for key in _ONE_ENTRY_PER_LAYER:
        if getattr(config, key, None):
            setattr(config, key, [getattr(config, key)[index] for index in kept])
    config.num_hidden_layers = len(kept)
    for index, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", index)  # noqa: B010 -- modules are typed to hold tensors only
