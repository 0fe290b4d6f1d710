"""`transformers`: what from_pretrained makes of a quantization_config, on the model in hand."""

from __future__ import annotations

import importlib
import tempfile
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, JsonValue, field_validator

from compressbench.core.errors import UnsupportedError
from compressbench.core.names import did_you_mean
from compressbench.core.protocols import Claim, Facts
from compressbench.methods.step import Step
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from torch import nn

_REFUSES_WITH = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


class Transformers(Step):
    """`quantization_config` is handed to transformers word for word; what it quantizes, with which library, is its choice.

    The model as it is, pruned or distilled, is written to a temporary folder and loaded again with the configuration, in
    its own type and on its own device. transformers leaves the language model's head alone but quantizes classification
    heads, unless llm_int8_skip_modules or modules_to_not_convert name them. Modules of bitsandbytes and torchao are then
    stored as by `bnb-int8`, `bnb-nf4` and `torchao`. What transformers refuses is unsupported, in its own words: methods
    that only load what another tool has quantized, libraries that aren't installed, devices.
    """

    facts: ClassVar[Facts] = Facts(paper="arXiv:1910.03771")

    quantization_config: dict[str, JsonValue] = Field(
        description="as in config.json, such as {quant_method: bitsandbytes, load_in_4bit: true}"
    )

    @field_validator("quantization_config")
    @classmethod
    def _names_a_method(cls, config: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if not config.keys() & {"quant_method", "load_in_4bit", "load_in_8bit"}:
            raise ValueError("quantization_config needs quant_method, load_in_4bit or load_in_8bit")
        return config

    def weights_after(self, weights: str) -> str:
        return "int8" if self.quantization_config.get("load_in_8bit") else "packed"

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.models.library_layers import adopt_library_layers

        _refuse_unknown_keys(self.quantization_config)
        before = _linears(handle.model)
        model = _load_again(handle, dict(self.quantization_config))
        size = getattr(getattr(model, "hf_quantizer", None), "quantized_element_size", None)
        adopt_library_layers(model)
        after = _linears(model)
        claim = Claim(
            step="transformers",
            modules=tuple(name for name in before if name not in after),
            left_out=dict.fromkeys(after, "transformers left it as it was"),
            bits=None if size is None else 8 * size,
            is_smaller=True,
        )
        if not claim.modules:
            raise UnsupportedError("transformers has quantized nothing", got=str(self.quantization_config))
        return handle.with_model(
            model, weights=self.weights_after(handle.weights), claim=claim, num_modules=len(claim.modules)
        )


def _refuse_unknown_keys(config: dict[str, JsonValue]) -> None:
    """transformers drops keys that it doesn't know without a word."""
    auto = importlib.import_module("transformers.quantizers.auto").AutoQuantizationConfig
    try:
        known = set(auto.from_dict(dict(config)).to_dict())
    except _REFUSES_WITH as error:
        raise _refused(error) from error
    for key in config:
        if key not in known:
            raise UnsupportedError(f"transformers takes no '{key}' in this configuration", do=did_you_mean(key, known))


def _load_again(handle: ModelHandle, config: dict[str, Any]) -> Any:
    """The model written down and loaded with the configuration."""
    from compressbench.models.quiet import quiet

    with tempfile.TemporaryDirectory() as folder, quiet():
        handle.model.save_pretrained(folder)
        try:
            model, found = type(handle.model).from_pretrained(
                folder,
                quantization_config=config,
                dtype=handle.model.dtype,
                device_map={"": handle.device},
                local_files_only=True,
                output_loading_info=True,
            )
        except _REFUSES_WITH as error:
            raise _refused(error) from error
    lost = sorted(found["missing_keys"]) + sorted(str(key) for key in found["mismatched_keys"])
    if lost:
        raise UnsupportedError(
            f"transformers can't load this model again: {type(handle.model).__name__}", got=", ".join(lost[:3])
        )
    return model.eval()


def _linears(model: nn.Module) -> list[str]:
    """Names of the linear modules with plain weights."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return [
        name
        for name, module in model.named_modules()
        if type(module) in (nn.Linear, Conv1D) and type(module.weight) is nn.Parameter
    ]


def _refused(error: BaseException) -> UnsupportedError:
    return UnsupportedError(
        "transformers refuses this quantization_config", got=" ".join(str(error).split())[:300] or type(error).__name__
    )
