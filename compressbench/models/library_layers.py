"""Quantized linear modules of bitsandbytes and torchao, as transformers puts them into a model, made into stored layers."""

from __future__ import annotations

from typing import Any

from torch import nn

from compressbench.core.errors import UnsupportedError
from compressbench.models.parts import replace_module
from compressbench.models.stored_layer import StoredLayer

_BITSANDBYTES = ("Linear4bit", "LinearNF4", "LinearFP4", "Linear8bitLt")
_ON_THE_MODEL = (
    "hf_quantizer", "is_quantized", "quantization_method", "is_loaded_in_4bit", "is_loaded_in_8bit", "hf_device_map",
)  # fmt: skip
_ON_THE_CONFIG = ("quantization_config", "_pre_quantization_dtype")


def adopt_library_layers(model: nn.Module) -> list[str]:
    """Put stored layers of the same outputs in place of the libraries' modules, before the first forward; their names.

    The marks of the quantizer are taken off the model and its configuration where anything was replaced: what they mean
    to save_pretrained and `to` no longer holds. Raises UnsupportedError for a module that the library itself computes
    wrongly or can't compute.
    """
    found = {name: layer for name, module in model.named_modules() if (layer := _stored(name, module)) is not None}
    for name, layer in found.items():
        replace_module(model, name, layer)
    if found:
        for owner, marks in ((model, _ON_THE_MODEL), (model.config, _ON_THE_CONFIG)):
            for mark in marks:
                vars(owner).pop(mark, None)
    return list(found)


def _stored(name: str, module: Any) -> StoredLayer | None:
    """The layer in place of `module`, or None if it is none of the libraries' modules."""
    kind, weight = type(module), getattr(module, "weight", None)
    if kind.__module__.startswith("bitsandbytes.") and kind.__name__ in _BITSANDBYTES:
        from compressbench.models.bnb_linear import Bnb4Linear, BnbInt8Linear

        if not hasattr(weight, "quant_state") and not hasattr(weight, "SCB"):
            raise UnsupportedError(
                "transformers put in a quantized module without quantized weights, because they are tied",
                where=name,
                do="Name the module in llm_int8_skip_modules.",
            )
        is_int8 = kind.__name__ == "Linear8bitLt"
        return BnbInt8Linear.from_library(module, name) if is_int8 else Bnb4Linear.from_library(module, name)
    if kind is nn.Linear and type(weight).__module__.partition(".")[0] == "torchao":
        from compressbench.models.torchao_linear import TorchaoLinear

        return TorchaoLinear(module.weight, module.bias)
    return None
