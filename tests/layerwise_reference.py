"""Small layers with correlated inputs, and GPTQ and SparseGPT the slow way, for the tests of layer-wise methods.

The reference is Optimal Brain Surgeon for one column at a time as in its derivation: at every step the Hessian of the
columns that are left is inverted from scratch (O(n⁴) in all), nothing is blocked, and no factor is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from compressbench.methods.maths.inverse_hessian import Hessian


class Layer(NamedTuple):
    """Weight (out x in), inputs (n x in) and as many of the same distribution that no method has seen; float64."""

    weight: torch.Tensor
    inputs: torch.Tensor
    unseen: torch.Tensor

    def hessian(self, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """2/n XᵀX, made anew for every call, since methods take its memory."""
        accumulator = Hessian(self.inputs.shape[1], dtype)
        accumulator.add(self.inputs)
        return accumulator.take()


def correlated_layer(
    seed: int, shape: tuple[int, int] = (32, 96), num_inputs: int = 512, decay: float = 0.75, spread: float = 0.0
) -> Layer:
    """Gaussian weights (out x in), and inputs X = Z A: Gaussian Z, and A with singular values k**-decay in a random basis.

    The inputs of a network's layers have such falling spectra, and that is what GPTQ lives on. With `spread` the columns
    of A also get log-normal sizes, as activations have: what Wanda sees and magnitude doesn't.
    """
    generator = torch.Generator().manual_seed(seed)

    def gaussian(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    size = shape[1]
    basis = torch.linalg.qr(gaussian(size, size))[0]
    spectrum = torch.arange(1, size + 1, dtype=torch.float64) ** -decay
    mixing = spectrum[:, None] * basis * torch.exp(spread * gaussian(size))
    return Layer(gaussian(*shape), gaussian(num_inputs, size) @ mixing, gaussian(num_inputs, size) @ mixing)


def output_error(layer: Layer, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> float:
    """‖X (W - Ŵ)ᵀ‖² / ‖X Wᵀ‖², X being the layer's inputs unless given."""
    inputs = layer.inputs if inputs is None else inputs
    return float((inputs @ (layer.weight - weight).t()).square().sum() / (inputs @ layer.weight.t()).square().sum())


def quadratic_loss(change: torch.Tensor, hessian: torch.Tensor, damp: float) -> float:
    """½ tr(ΔW (H + damp I) ΔWᵀ)."""
    damped = hessian + damp * torch.eye(len(hessian), dtype=hessian.dtype)
    return float(torch.trace(change @ damped @ change.t())) / 2


def one_column_at_a_time(
    weight: torch.Tensor, damped: torch.Tensor, settle: Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, float]:
    """The weight with every column settled, from the first to the last, and the loss that it cost.

    `settle(i, current, inverse)` gives column i's final value, from the weight as it is by then (out x in) and the inverse
    of the damped Hessian of columns i, i + 1, ... .
    """
    current, loss = weight.clone(), 0.0
    for index in range(weight.shape[1]):
        inverse = torch.linalg.inv(damped[index:, index:])
        value = settle(index, current, inverse)
        error = current[:, index] - value
        loss += float(error.square().sum() / (2 * inverse[0, 0]))
        current[:, index:] -= torch.outer(error / inverse[0, 0], inverse[0])
        current[:, index] = value
    return current, loss


def pivots(damped: torch.Tensor) -> torch.Tensor:
    """The first diagonal element of every such inverse: d² of the papers."""
    return torch.stack([torch.linalg.inv(damped[index:, index:])[0, 0] for index in range(len(damped))])
