"""Models as graphs that an exporter can follow: inputs by name, masks from plain operators, a key-value cache as tensors.

transformers builds masks and caches with code that converters stumble over (aten::diff, vmap, caches as objects). Here a
model is called without any of it: its attention is a function of ours, which knows the padding from the graph's own
input and the cache from the graph's inputs and outputs. An engine gives the operator (`Attend`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from compressbench.core.errors import UnsupportedError

_NAME = "compressbench_export"


class Attention(NamedTuple):
    """One call of attention: queries (batch x heads x length x size), keys and values (batch x key heads x new x size).

    `padding` (batch x keys, bool) is True at what may be read, None: everything. `bias` (batch or 1 x heads or 1 x length x
    keys) is added to the scores; it holds windows and a model's own biases, not padding and not causality. `past` are keys
    and values of earlier tokens, None where there is no cache.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    is_causal: bool
    padding: Tensor | None
    bias: Tensor | None
    past: tuple[Tensor, Tensor] | None


class Attend(Protocol):
    def __call__(self, call: Attention) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """What attention gives (batch x length x heads x size), and the keys and values of past and present."""
        ...


class _Traced:
    """What one pass knows beyond the model's own arguments."""

    def __init__(self, attend: Attend) -> None:
        self._attend = attend
        self.begin(None, None)

    def begin(self, padding: Tensor | None, past: Sequence[Tensor] | None) -> None:
        self._padding, self._past = padding, past
        self.present: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
        scaling: float | None = None, sliding_window: int | None = None, **others: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        for name in ("softcap", "s_aux", "head_mask"):
            if others.get(name) is not None:
                raise UnsupportedError(f"attention with {name} can't be exported", got=type(module).__name__)
        is_causal = bool(others.get("is_causal", getattr(module, "is_causal", False)))
        past, layer = None, int(getattr(module, "layer_idx", 0) or 0)
        if self._past is not None:
            past = (self._past[2 * layer], self._past[2 * layer + 1])
        bias = attention_mask
        if sliding_window is not None:
            num_keys = key.shape[2] if self._padding is None else self._padding.shape[1]
            bias = _window(query, num_keys, sliding_window, is_causal)
        call = Attention(
            query, key, value, float(scaling or query.shape[-1] ** -0.5), is_causal, self._padding, bias, past
        )
        found, present = self._attend(call)
        if present is not None:
            self.present[layer] = present
        return found, None


def _window(query: Tensor, num_keys: int, size: int, is_causal: bool) -> Tensor:
    """A bias (1 x 1 x length x keys) that shuts out keys `size` or more before a query; an encoder's, on both sides."""
    length, device = query.shape[2], query.device
    keys = torch.arange(num_keys, device=device)
    queries = torch.arange(length, device=device) + (num_keys - length)  # the last of the keys' places
    distance = queries[:, None] - keys[None, :]
    is_far = distance >= size if is_causal else distance.abs() > size
    return torch.where(is_far, torch.finfo(query.dtype).min, 0.0).to(query.dtype)[None, None]


@contextmanager
def _attention_by(model: Any, traced: _Traced) -> Iterator[None]:
    """The model's attention is `traced`. No masks are built for an implementation that transformers has no masks for."""
    before = model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(_NAME, traced)
    try:
        model.set_attn_implementation(_NAME)
        yield
    finally:
        model.set_attn_implementation(before)
        ALL_ATTENTION_FUNCTIONS._global_mapping.pop(_NAME, None)


class EncoderGraph(nn.Module):
    """Logits (batch x labels), or last hidden states (batch x length x hidden) of a model without a head.

    It is called with the tensors of `names`, in that order: input_ids and attention_mask (int64, batch x length), or
    pixel_values (float, batch x channels x height x width).
    """

    def __init__(self, model: Any, names: Sequence[str], attend: Attend) -> None:
        super().__init__()
        self.model, self.names, self._traced = model, tuple(names), _Traced(attend)

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip(self.names, inputs, strict=True))
        mask = given.get("attention_mask")
        self._traced.begin(None if mask is None else mask.to(torch.bool), None)
        with _attention_by(self.model, self._traced):
            found = self.model(**given)
        return found.logits if hasattr(found, "logits") else found.last_hidden_state  # type: ignore[no-any-return]


class CacheShape(NamedTuple):
    """Of a decoder's key-value cache: every layer has keys and values of batch x heads x positions x size."""

    num_layers: int
    num_heads: int
    head_size: int

    def num_bytes(self, rows: int, positions: int, element_size: int) -> int:
        return 2 * self.num_layers * self.num_heads * self.head_size * rows * positions * element_size


def cache_shape(config: Any) -> CacheShape:
    """Raises UnsupportedError if the configuration doesn't say it."""
    layers, heads = getattr(config, "num_hidden_layers", None), getattr(config, "num_attention_heads", None)
    if not layers or not heads:
        raise UnsupportedError("the shape of the key-value cache isn't known", got=type(config).__name__)
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    return CacheShape(layers, key_heads, getattr(config, "head_dim", None) or config.hidden_size // heads)


class DecoderGraph(nn.Module):
    """Prefill and decoding in one graph: logits (batch x kept x vocabulary) and the keys and values of all positions.

    `input_ids` and `position_ids` are batch x length (int64), `attention_mask` is batch x (past + length), `kept` are the
    places of the input (int64) whose logits are wanted, and `past` keys and values by layer (batch x heads x past x size).
    """

    def __init__(self, model: Any, attend: Attend) -> None:
        super().__init__()
        self.model, self._traced = model, _Traced(attend)
        self.shape = cache_shape(model.config)

    @property
    def cache_names(self) -> list[str]:
        return [f"{layer}.{part}" for layer in range(self.shape.num_layers) for part in ("key", "value")]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, kept: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        self._traced.begin(attention_mask.to(torch.bool), past)
        with _attention_by(self.model, self._traced):
            found = self.model(input_ids=input_ids, position_ids=position_ids, use_cache=False, logits_to_keep=kept)
        present = [each for layer in range(self.shape.num_layers) for each in self._traced.present[layer]]
        return (found.logits, *present)


def positions_of(mask: Tensor) -> Tensor:
    """Of left-padded prompts (batch x length), as transformers numbers them: the first token is 0, padding too."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
