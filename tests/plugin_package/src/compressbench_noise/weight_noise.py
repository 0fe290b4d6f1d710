"""`weight-noise`: how much does a model mind small changes of its weights? A control for quantization error.

It inherits nothing from compressbench but the checked base of its options, and imports torch only when it works.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from compressbench.core.protocols import Facts
from compressbench.core.spec import Spec


class WeightNoise(Spec):
    """Gaussian noise on every linear weight, relative to the standard deviation of its matrix."""

    facts: ClassVar[Facts] = Facts(accepts=frozenset({"float32"}), is_random=True)

    relative_sd: float = Field(0.05, ge=0, le=10)

    def weights_after(self, weights: str) -> str:
        return weights

    def check_model(self, config: Mapping[str, Any]) -> None:
        pass

    def apply(self, handle: Any) -> Any:
        import torch

        generator = torch.Generator().manual_seed(handle.supplies.seed)
        num_modules = 0
        with torch.no_grad():
            for module in handle.model.modules():
                if isinstance(module, torch.nn.Linear):
                    noise = torch.randn(module.weight.shape, generator=generator)
                    module.weight.add_(noise * module.weight.std() * self.relative_sd)
                    num_modules += 1
        return handle.with_model(handle.model, num_modules=num_modules)
