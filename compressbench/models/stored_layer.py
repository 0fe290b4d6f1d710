"""A layer that stands in for a linear module and stores its weights in another form: low-bit codes, factors, int8.

Such a layer can be written to disk and made again from what was written (compressbench.models.artefact): `layout` holds
everything about it that is not a tensor, `stored_tensors` everything that is. Classes are found by their `kind` in
compressbench.core.registry.layers; other packages add theirs through the entry-point group `compressbench.layers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

Layout = Mapping[str, str | int | float | bool | None]


class StoredLayer(nn.Module):
    """`num_weights` counts the weights it stands for (out x in), biases apart.

    One that `is_container` keeps its weights in modules inside it, which may be stored layers themselves: it has a layout
    and no tensors of its own.
    """

    kind: ClassVar[str]
    is_container: ClassVar[bool] = False

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features

    @property
    def num_weights(self) -> int:
        return self.in_features * self.out_features

    def layout(self) -> Layout:
        """Options that `restore` needs besides the tensors; JSON values only."""
        raise NotImplementedError

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        """Plain tensors by name, as they go on disk: together they are all the bytes that the layer needs."""
        raise NotImplementedError

    @classmethod
    def restore(cls, layout: Layout, tensors: Mapping[str, torch.Tensor]) -> Any:
        """The layer again, giving the same outputs bit for bit on the same machine."""
        raise NotImplementedError

    def dequantized(self) -> torch.Tensor:
        """The matrix (out x in, float32) that the layer multiplies with, activations' own rounding left aside."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self.layout().items())
        return f"in_features={self.in_features}, out_features={self.out_features}, {facts}"
