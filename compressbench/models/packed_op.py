"""The packed int8 product as an operator of our own, which torch.compile calls as a whole.

Packed weights are objects that dynamo can't trace: it would leave a break in the graph at every layer. The operator gets a
number instead, under which the layer that holds them is known as long as it lives.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import torch

_LAYERS: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_NUMBERS = itertools.count()
_LIBRARY: Any = torch.library.Library("compressbench", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("int8_dynamic(Tensor x, int layer, int out_features) -> Tensor")


def number_of(layer: Any) -> int:
    """A number for a layer with `packed` weights and `reduce_range`."""
    number = next(_NUMBERS)
    _LAYERS[number] = layer
    return number


def _multiply(x: torch.Tensor, layer: int, out_features: int) -> torch.Tensor:  # noqa: ARG001
    found = _LAYERS[layer]
    product: torch.Tensor = torch.ops.quantized.linear_dynamic(x, found.packed, found.reduce_range)
    return product


def _shape(x: torch.Tensor, layer: int, out_features: int) -> torch.Tensor:  # noqa: ARG001
    return x.new_empty((*x.shape[:-1], out_features))


_LIBRARY.impl("int8_dynamic", _multiply, "CPU")
torch.library.register_fake("compressbench::int8_dynamic", _shape)
