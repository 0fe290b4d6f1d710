"""Low-rank adapters beside linear modules, to train few parameters and merge them in the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Adapter:
    """W + (alpha / rank) B A beside a linear module (nn.Linear or GPT-2's Conv1D); Hu et al. 2021, arXiv:2106.09685.

    `a` is rank x in, uniform in ±1/√in; `b` is out x rank and starts at zero, so that at first nothing changes. `kept`
    (out x in) is False where the weight is pruned, None if nothing is: what the adapter adds is masked there, in training
    and when merged, so that the sparse model is the one that is trained.
    """

    module: nn.Linear
    a: nn.Parameter
    b: nn.Parameter
    scale: float
    kept: torch.Tensor | None

    @classmethod
    def beside(cls, module: nn.Linear, rank: int, alpha: float) -> Adapter:
        """An adapter drawn from the process's random state; its parameters are float32."""
        import torch

        from compressbench.models.parts import matrix

        weight = matrix(module)
        rows, columns = weight.shape
        drawn = (torch.rand(rank, columns) * 2 - 1) / columns**0.5
        a = torch.nn.Parameter(drawn.to(weight.device))
        b = torch.nn.Parameter(torch.zeros(rows, rank, device=weight.device))
        kept = weight != 0
        return cls(module, a, b, alpha / rank, None if bool(kept.all()) else kept)

    def delta(self) -> torch.Tensor:
        """What is added to the weight (out x in)."""
        change = self.scale * (self.b @ self.a)
        return change if self.kept is None else change * self.kept

    def hook(self, module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        """The module's output with the adapter's added, in the output's type."""
        from torch.nn import functional

        x = inputs[0].to(self.a.dtype)
        if self.kept is None:
            added = functional.linear(functional.linear(x, self.a), self.b) * self.scale
        else:
            added = functional.linear(x, self.delta())
        return output + added.to(output.dtype)

    def merge(self) -> None:
        """Add to the module's weight for good."""
        import torch

        from compressbench.models.parts import matrix

        with torch.no_grad():
            weight = matrix(self.module)
            weight.add_(self.delta().to(weight.dtype))


@contextmanager
def attached(adapters: Mapping[str, Adapter]) -> Iterator[None]:
    """The modules compute with their adapters for as long as the block lasts; their own weights stay as they are."""
    hooks = [adapter.module.register_forward_hook(adapter.hook) for adapter in adapters.values()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def parameters_of(adapters: Mapping[str, Adapter]) -> dict[str, torch.nn.Parameter]:
    """What is to be trained, by name."""
    return {f"{name}.{key}": getattr(each, key) for name, each in adapters.items() for key in ("a", "b")}
