"""Dividing a module's input by scales, in the module before it where that is possible.

Which module that is depends on the architecture. Instead of a list of architectures there is an experiment: the scales
are folded into a candidate, the block is run on one batch, and the candidate is taken only if the block still computes
the same. A norm whose output also feeds a residual (BERT's) fails, and so does a linear module behind an activation
function; then the caller keeps the division as an `input_scale` of the layer itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from compressbench.core.protocols import Claim
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressbench.models.blocks import Block

_TOLERANCE = 1e-3
"""Of the largest output: folding in float32 or bfloat16 leaves rounding, a wrong fold changes whole features."""


def absorb(block: Block, group: Sequence[str], scales: torch.Tensor) -> str | None:
    """Multiply the columns of the modules in `group` by scales (in,), and divide by them in a module before.

    That module's full name is returned. None: there is none, and the group still has to divide its input.
    """
    from compressbench.methods.maths.scaling import scale_columns
    from compressbench.models.parts import matrix

    modules = [block.model.get_submodule(name) for name in group]
    before = _output(block)
    for module in modules:
        matrix(module).copy_(scale_columns(matrix(module), scales))
    for name, candidate in _candidates(block, modules, scales):
        saved = {key: tensor.detach().clone() for key, tensor in candidate.named_parameters(recurse=False)}
        _divide(candidate, scales)
        if _is_same(_output(block), before):
            return name
        for key, tensor in candidate.named_parameters(recurse=False):
            tensor.data.copy_(saved[key])
    return None


def with_absorbers(handle: ModelHandle, step: str, absorbers: Sequence[str]) -> ModelHandle:
    """The handle with a claim on the modules that took scales: they changed, and hold as many bits as before."""
    if not absorbers:
        return handle
    claim = Claim(step=f"{step} (absorbed scales)", modules=tuple(dict.fromkeys(absorbers)))
    return handle.with_model(handle.model, claim=claim)


def _candidates(block: Block, modules: Sequence[nn.Module], scales: torch.Tensor) -> Iterator[tuple[str, nn.Module]]:
    """Norms, then linear modules, of this block that run before the group and give as many features, the last first."""
    from compressbench.models.parts import is_linear

    ran: list[nn.Module] = []
    handles = [
        module.register_forward_pre_hook(lambda module, _: ran.append(module)) for module in block.module.modules()
    ]
    try:
        _output(block)
    finally:
        for handle in handles:
            handle.remove()
    earlier = ran[: ran.index(modules[0])]
    names = {module: name for name, module in block.module.named_modules()}
    fitting = [module for module in reversed(earlier) if _num_outputs(module) == len(scales)]
    for module in sorted(fitting, key=is_linear):  # a stable sort: norms first
        if module not in modules:
            yield f"{block.name}.{names[module]}".lstrip("."), module


def _num_outputs(module: nn.Module) -> int | None:
    import torch

    from compressbench.models.parts import is_linear, matrix

    if is_linear(module):
        return len(matrix(module)) if hasattr(module, "weight") else None
    weight = getattr(module, "weight", None)
    return len(weight) if isinstance(weight, torch.Tensor) and weight.dim() == 1 else None


def _divide(module: nn.Module, scales: torch.Tensor) -> None:
    from compressbench.methods.maths.scaling import fold_into_linear, fold_into_norm
    from compressbench.models.parts import bias_of, is_linear, matrix

    weight = matrix(module)
    fold = fold_into_linear if is_linear(module) else fold_into_norm
    bias = bias_of(module) if hasattr(module, "bias") else None
    divided, divided_bias = fold(weight, bias, scales)
    weight.copy_(divided)
    if bias is not None and divided_bias is not None:
        bias.copy_(divided_bias)


def _output(block: Block) -> torch.Tensor:
    return next(block.outputs())


def _is_same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    difference = (found - expected).abs().max()
    return bool(difference <= _TOLERANCE * expected.abs().max())
