"""A linear layer whose weight is one of torchao's tensor subclasses, taken apart into plain tensors for the disk."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import warnings
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, ClassVar, cast

import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from compressbench.core.errors import MissingDependencyError, ModelError, UnsupportedError
from compressbench.models.stored_layer import Layout, StoredLayer

_MODULE = re.compile(r"torchao(\.\w+)*")
_PLAIN = (str, int, float, bool, type(None))


@cache
def torchao(module: str = "quantization") -> Any:
    """torchao.MODULE, imported quietly: nothing about compiled libraries for other machines, Triton, or its own enums.

    Raises MissingDependencyError.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            return importlib.import_module(f"torchao.{module}")
    except ImportError as error:
        raise MissingDependencyError(
            "torchao can't be imported", got=str(error), do="Install it: pip install torchao."
        ) from error


class TorchaoLinear(StoredLayer):
    """y = x Wᵀ + bias, computed as torchao's tensor subclass W computes it.

    Stored: every plain tensor inside W under its path (weight.qdata, weight.scale), and bias. Layout: what the subclass
    says of itself, as JSON; classes are looked up in torchao only when it is read again. Tensors in the order of one
    processor's kernel ("opaque") are only restored where the CPU has the same capability.
    """

    kind: ClassVar[str] = "torchao"

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(weight.shape[1], weight.shape[0])
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, self.bias)

    def dequantized(self) -> torch.Tensor:
        try:
            return self.weight.detach().dequantize().float()
        except NotImplementedError:
            # an opaque tensor shows itself only in products
            unit = torch.eye(self.in_features, dtype=self.weight.dtype, device=self.weight.device)
            return functional.linear(unit, self.weight.detach()).t().float().contiguous()

    def layout(self) -> Layout:
        weight = _take_apart(self.weight.detach(), "weight", {})
        text = json.dumps(weight, sort_keys=True)
        return {"weight": text, "cpu_capability": _cpu_capability() if "Opaque" in text else None}

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = {}
        _take_apart(self.weight.detach(), "weight", tensors)
        return tensors if self.bias is None else {**tensors, "bias": self.bias.detach()}

    @classmethod
    def restore(cls, layout: Layout, tensors: Mapping[str, torch.Tensor]) -> TorchaoLinear:
        """Raises ModelError if the layout names anything outside torchao, or another processor's order."""
        torchao()
        packed_for = layout["cpu_capability"]
        if packed_for not in (None, _cpu_capability()):
            raise ModelError(
                f"the weights are packed for a CPU with {packed_for}",
                got=f"one with {_cpu_capability()}",
                do="Compress the model on this machine.",
            )
        return cls(_put_together(json.loads(cast(str, layout["weight"])), tensors), tensors.get("bias"))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, weight={type(self.weight).__name__}"


def _cpu_capability() -> str:
    return torch.backends.cpu.get_cpu_capability()


def _take_apart(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` as JSON; its plain tensors go into `tensors`. Raises UnsupportedError for what has no such form."""
    if isinstance(value, torch.Tensor):
        return _take_tensor_apart(value, name, tensors)
    if isinstance(value, Enum):
        return {"enum": _path_of(type(value)), "value": value.name}
    if isinstance(value, torch.dtype | torch.device):
        return {"dtype" if isinstance(value, torch.dtype) else "device": str(value).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {"map": {str(key): _take_apart(each, f"{name}.{key}", tensors) for key, each in value.items()}}
    if dataclasses.is_dataclass(value) or hasattr(value, "_asdict"):
        names = value._fields if hasattr(value, "_asdict") else [field.name for field in dataclasses.fields(value)]
        fields = {field: _take_apart(getattr(value, field), f"{name}.{field}", tensors) for field in names}
        return {"object": _path_of(type(value)), "fields": fields}
    if isinstance(value, list | tuple):
        items = [_take_apart(each, f"{name}.{index}", tensors) for index, each in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    if isinstance(value, _PLAIN):
        return value
    raise UnsupportedError(f"a {type(value).__name__} of torchao can't be stored", where=name)


def _take_tensor_apart(tensor: Any, name: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    if not is_traceable_wrapper_subclass(tensor):
        tensors[name] = tensor.detach().contiguous()
        return {"plain": name}
    parts, context = tensor.__tensor_flatten__()
    return {
        "tensor": _path_of(type(tensor)),
        "parts": {part: _take_apart(getattr(tensor, part), f"{name}.{part}", tensors) for part in parts},
        "context": _take_apart(context, f"{name}.context", tensors),
        "size": list(tensor.shape),
        "stride": list(tensor.stride()),
    }


def _put_together(data: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The inverse of `_take_apart`."""
    if not isinstance(data, dict):
        return data
    if "plain" in data:
        return tensors[data["plain"]]
    if "tensor" in data:
        parts = {name: _put_together(part, tensors) for name, part in data["parts"].items()}
        kind, context = _class_at(data["tensor"]), _put_together(data["context"], tensors)
        return kind.__tensor_unflatten__(parts, context, torch.Size(data["size"]), tuple(data["stride"]))
    if "enum" in data:
        return _class_at(data["enum"])[data["value"]]
    if "object" in data:
        fields = {name: _put_together(each, tensors) for name, each in data["fields"].items()}
        return _class_at(data["object"])(**fields)
    return _put_container_together(data, tensors)


def _put_container_together(data: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> Any:
    if "dtype" in data:
        return getattr(torch, data["dtype"])
    if "device" in data:
        return torch.device(data["device"])
    if "map" in data:
        return {name: _put_together(each, tensors) for name, each in data["map"].items()}
    items = [_put_together(each, tensors) for each in data["list" if "list" in data else "tuple"]]
    return items if "list" in data else tuple(items)


def _path_of(kind: type) -> str:
    path = f"{kind.__module__}:{kind.__qualname__}"
    if _class_at(path) is not kind:
        raise UnsupportedError(f"{path} can't be found again under that name")
    return path


def _class_at(path: str) -> Any:
    """A class of torchao by module:name. Raises ModelError for anything else."""
    module, _, name = path.partition(":")
    if _MODULE.fullmatch(module) and name.isidentifier():
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError:
            found = None
        if isinstance(found, type) and found.__module__.partition(".")[0] == "torchao":
            return found
    raise ModelError("no class of the installed torchao", got=path, do="Use the torchao that wrote it.")
