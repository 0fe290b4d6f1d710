"""`torchao`: any of torchao's quantization configurations, by the name of its class."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, JsonValue

from compressbench.core.errors import UnsupportedError
from compressbench.core.names import did_you_mean
from compressbench.core.protocols import Facts
from compressbench.methods.step import LinearStep, quantized_claim
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from torch import nn

_MODULES = (
    "quantization",
    "prototype.quantization",
    "prototype.quantization.int4",
    "prototype.mx_formats",
    "sparsity.sparse_api",
)
_KERNELS = {
    "Int8DynamicActivationInt8WeightConfig": ("_int_mm", "scaled_int8"),
    "Float8DynamicActivationFloat8WeightConfig": ("_scaled_mm",),
    "PrototypeInt4WeightOnlyConfig": ("_weight_int4pack_mm",),
}


class TorchAo(LinearStep):
    """torchao's quantize_ with `config` on the chosen modules; `options` are the arguments of that class.

    In options, "torch.int4" is a type, "MappingType.ASYMMETRIC" a member of one of torchao's enumerations, and
    {PerGroup: {group_size: 32}} an object of one of its classes. Settings of the compiler for the whole process are left
    alone (set_inductor_config is false unless given). The bits that are claimed are those of the configuration's name
    or its weight_dtype: Intx configurations promise fewer bits than the int8 that they store, and an audit says so.
    """

    facts: ClassVar[Facts] = Facts(requires=("torchao",), paper="arXiv:2507.16099")

    config: str = Field(description="class name, such as Int8WeightOnlyConfig")
    options: dict[str, JsonValue] = Field({}, description="its arguments")

    def weights_after(self, weights: str) -> str:
        return "packed"

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.models.parts import Choice, replace_module

        choice, config = self.choose(handle), self._config()
        layers, reasons = {}, {}
        for name, module in choice.modules.items():
            layer = _layer(module, config)
            if isinstance(layer, str):
                reasons[name] = layer
            else:
                layers[name] = layer
        if not layers:
            raise UnsupportedError(
                f"torchao's {self.config} can't be applied to any module", got="; ".join(sorted(set(reasons.values())))
            )
        for name, layer in layers.items():
            replace_module(handle.model, name, layer)
        done = Choice(layers, {**choice.left_out, **reasons})
        claim = quantized_claim("torchao", done, 0, kernels=_KERNELS.get(self.config, ()))
        claim = claim.model_copy(update={"bits": _bits(self.config, config)})
        return handle.with_model(handle.model, weights="packed", claim=claim, num_modules=len(layers))

    def _config(self) -> Any:
        """Raises UnsupportedError if torchao has no such class, or the class doesn't take the options."""
        from compressbench.models.torchao_linear import torchao

        base = torchao("core.config").AOBaseConfig
        known: dict[str, Any] = {}
        for module in _MODULES:
            if importlib.util.find_spec(f"torchao.{module}") is not None:
                names = vars(torchao(module))
                known = {name: each for name, each in names.items() if _is_config(each, base)} | known
        if self.config not in known:
            raise UnsupportedError(f"torchao has no '{self.config}'", do=did_you_mean(self.config, known))
        kind = known[self.config]
        quiet = {"set_inductor_config": False} if "set_inductor_config" in inspect.signature(kind).parameters else {}
        try:
            return kind(**{**quiet, **{name: _argument(value) for name, value in self.options.items()}})
        except (TypeError, ValueError, AssertionError, KeyError) as error:
            raise UnsupportedError(f"torchao's {self.config} doesn't take these options", got=str(error)) from error


def _is_config(value: Any, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base) and value is not base


def _argument(value: JsonValue) -> Any:
    """A value of a recipe as torchao's classes want it."""
    import torch

    from compressbench.models.torchao_linear import torchao

    if isinstance(value, str) and value.startswith("torch."):
        return getattr(torch, value.removeprefix("torch."), value)
    if isinstance(value, str) and "." in value:
        kind, _, member = value.partition(".")
        return _named(torchao(), kind)[member]
    if isinstance(value, Mapping) and len(value) == 1:
        ((kind, fields),) = value.items()
        if not isinstance(fields, Mapping):
            raise ValueError(f"{kind} needs a mapping of its arguments")
        return _named(torchao(), kind)(**{name: _argument(each) for name, each in fields.items()})
    if isinstance(value, list):
        return [_argument(each) for each in value]
    return value


def _named(module: Any, name: str) -> Any:
    found = getattr(module, name, None)
    if not isinstance(found, type):
        raise ValueError(f"torchao.quantization has no {name}")
    return found


def _layer(module: nn.Module, config: Any) -> Any:
    """The module quantized and tried once, or the reason why torchao can't."""
    import torch
    from torch import nn
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    from compressbench.models.parts import bias_of, matrix
    from compressbench.models.torchao_linear import TorchaoLinear, torchao

    weight, bias = matrix(module), bias_of(module)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format), requires_grad=False)
    wrapped: Any = nn.Sequential(linear).eval()
    try:
        torchao().quantize_(wrapped, config)
        packed: Any = getattr(wrapped[0], "weight", None)
        if type(wrapped[0]) is not nn.Linear or not is_traceable_wrapper_subclass(packed):
            return "torchao left its weight as it was"
        layer = TorchaoLinear(wrapped[0].weight, bias)
        layer.layout()
        with torch.no_grad():
            layer(torch.zeros(1, layer.in_features, dtype=weight.dtype, device=weight.device))
    except (
        ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError,
        UnsupportedError,
    ) as error:  # fmt: skip
        return " ".join(str(error).split())[:200] or type(error).__name__
    return layer


def _bits(name: str, config: Any) -> float | None:
    """What the configuration promises: from its weight_dtype (torch.int4), else its name (Int4WeightOnlyConfig)."""
    dtype = getattr(config, "weight_dtype", None)
    found = re.search(r"\d+", str(dtype)) if dtype else re.search(r"(\d+)Weight", name)
    return float(found[0] if dtype else found[1]) if found else None
