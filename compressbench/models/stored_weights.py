"""The modules that hold a model's weights, whoever wrote them, and the plain tensors that each of them stores.

A module that says what it stores (`stored_tensors`) is believed; of any other, what its state_dict has is counted: packed
parameters of other libraries, tensor subclasses (taken apart with __tensor_flatten__), quantized and sparse tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers.pytorch_utils import Conv1D

# what belongs to quantized weights without being one of them; only as long as it is far smaller than they are
_OVERHEAD = re.compile(
    r"scale|zero|absmax|quant_map|quant_state|nested|codebook|group_of|g_idx|scb|weight_format", re.IGNORECASE
)
_PACKED_INTO = (torch.uint8, torch.int8, torch.int16, torch.int32)
_LARGEST_OVERHEAD = 1 / 8
_LARGEST_CODEBOOK = 256


@dataclass(frozen=True)
class Holder:
    """A module with weights of its own. `is_whole`: everything below it belongs to it, too."""

    name: str
    module: nn.Module
    is_whole: bool

    @cached_property
    def features(self) -> tuple[int, int] | None:
        """(out, in) where the module says so and doesn't leave the weights to others inside it."""
        if self.is_container:
            return None
        sizes = getattr(self.module, "out_features", None), getattr(self.module, "in_features", None)
        return (sizes[0], sizes[1]) if isinstance(sizes[0], int) and isinstance(sizes[1], int) else None

    @property
    def kind(self) -> str:
        """The kind of a stored layer, otherwise the class."""
        kind = getattr(self.module, "kind", None)
        return kind if self.says_what_it_stores and isinstance(kind, str) else type(self.module).__name__

    @property
    def is_container(self) -> bool:
        """A stored layer whose weights are in modules inside it."""
        return bool(getattr(self.module, "is_container", False))

    @property
    def says_what_it_stores(self) -> bool:
        return callable(getattr(self.module, "stored_tensors", None)) and not self.is_container

    def keeps_floats(self, num_weights: int) -> bool:
        """Whether it holds a full-precision copy, registered or not, stored or not."""
        inside = [*self.module.parameters(), *self.module.buffers(), *vars(self.module).values()]
        tensors = [each for each in inside if isinstance(each, torch.Tensor) and not _is_wrapper(each)]
        return any(
            each.is_floating_point() and each.element_size() > 1 and each.numel() >= num_weights for each in tensors
        )

    @property
    def is_linear(self) -> bool:
        """Whether a call of it multiplies matrices; an embedding looks rows up."""
        return (self.features is not None or isinstance(self.module, Conv1D)) and not hasattr(
            self.module, "num_embeddings"
        )

    def named(self) -> dict[str, object]:
        """What the module stores as it gives it: tensors of any kind, tuples of them, and other things."""
        if self.says_what_it_stores:
            return dict(self.module.stored_tensors())  # type: ignore[operator]
        if self.is_whole:
            return dict(self.module.state_dict(keep_vars=True))
        hidden = self.module._non_persistent_buffers_set
        own = [*self.module.named_parameters(recurse=False), *self.module.named_buffers(recurse=False)]
        return {name: tensor for name, tensor in own if name not in hidden}

    def weights(self) -> tuple[list[torch.Tensor], str]:
        """The dequantized weights, matrices as out x in, biases apart; or none and the reason."""
        if callable(getattr(self.module, "dequantized", None)):
            return [self.module.dequantized()], ""  # type: ignore[operator]
        found = [_dequantized(tensor) for tensor in logical_weights(self.named())]
        readable = [tensor.t() if isinstance(self.module, Conv1D) else tensor for tensor in found if tensor is not None]
        if not found or len(readable) < len(found):
            return [], f"the weights of a {self.kind} can't be dequantized from outside"
        return readable, ""


def weight_holders(model: nn.Module) -> Iterator[Holder]:
    """Every module that may store something, each once, parents before children."""
    yield from _walk("", model, set())


def _walk(name: str, module: nn.Module, seen: set[int]) -> Iterator[Holder]:
    if id(module) in seen:
        return
    seen.add(id(module))
    holder = Holder(name, module, False)
    children = list(module.named_children())
    if holder.says_what_it_stores or holder.features or not children:
        yield Holder(name, module, True)
        return
    yield holder
    for child, below in children:
        yield from _walk(f"{name}.{child}" if name else child, below, seen)


def plain(named: Mapping[str, object]) -> tuple[dict[str, torch.Tensor], str]:
    """Everything stored as plain tensors by name, and why it is not everything; "" if it is."""
    found: dict[str, torch.Tensor] = {}
    unknown = ""
    for name, value in named.items():
        parts = _parts(value)
        if parts is not None:
            inner, reason = plain({f"{name}.{part}": each for part, each in parts.items()})
            found, unknown = {**found, **inner}, unknown or reason
        elif isinstance(value, torch.Tensor):
            if _has_storage(value):
                found[name] = value.detach()
            else:
                unknown = unknown or f"{name} has no storage that can be read"
    return found, unknown


def _parts(value: object) -> Mapping[str, object] | None:
    """What a composite consists of; None for a plain tensor and for what is no tensor."""
    if isinstance(value, (tuple, list)):
        is_packed = len(value) == 2 and isinstance(value[0], torch.Tensor) and value[0].is_quantized
        return dict(zip(("weight", "bias") if is_packed else map(str, range(len(value))), value, strict=True))
    if isinstance(value, Mapping):
        return {str(key): each for key, each in value.items()}
    if not isinstance(value, torch.Tensor):
        return None
    if _is_wrapper(value):
        return {name: getattr(value, name) for name in value.__tensor_flatten__()[0]}  # type: ignore[attr-defined]
    if value.is_quantized:
        return {"codes": value.int_repr(), **_scales(value)}
    if value.layout in (torch.sparse_csr, torch.sparse_bsr):
        return {"values": value.values(), "columns": value.col_indices(), "rows": value.crow_indices()}
    if value.layout is torch.sparse_coo:
        return {"values": value._values(), "indices": value._indices()}
    return None


def _is_wrapper(tensor: torch.Tensor) -> bool:
    """Whether it is a subclass that keeps other tensors in place of a storage of its own."""
    return is_traceable_wrapper_subclass(tensor)


def _scales(value: torch.Tensor) -> dict[str, torch.Tensor]:
    if value.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric):
        return {"scale": value.q_per_channel_scales(), "zero": value.q_per_channel_zero_points()}
    return {"scale": torch.tensor(value.q_scale())}


def _has_storage(tensor: torch.Tensor) -> bool:
    try:
        return not tensor.numel() or tensor.untyped_storage().data_ptr() != 0
    except RuntimeError:
        return False  # how subclasses without a storage answer


def is_bias(name: str) -> bool:
    return name.endswith("bias")


def is_overhead(name: str, tensor: torch.Tensor, num_weights: int) -> bool:
    """Scales, zero points, codebooks and the like: by their name, and by being far fewer than the weights."""
    return bool(_OVERHEAD.search(name)) and tensor.numel() <= max(_LARGEST_CODEBOOK, num_weights * _LARGEST_OVERHEAD)


def count_logical(holder: Holder, named: Mapping[str, object]) -> tuple[int | None, str]:
    """How many weights the module stands for, biases apart; None with the reason if nothing tells."""
    said = getattr(holder.module, "num_weights", None)
    if holder.says_what_it_stores and isinstance(said, int):
        return said, ""
    weights = logical_weights(named)
    if weights and not (holder.features and all(not tensor.is_floating_point() for tensor in weights)):
        if all(tensor.is_floating_point() or _is_one_per_element(tensor) for tensor in weights):
            return sum(tensor.numel() for tensor in weights), ""
        return None, f"a {holder.kind} packs its weights into {weights[0].dtype} and doesn't say how many they are"
    return (holder.features[0] * holder.features[1], "") if holder.features else (0, "")


def logical_weights(named: Mapping[str, object]) -> list[torch.Tensor]:
    """The tensors that are the weights, subclasses whole: floating ones where there are any, otherwise integer codes."""
    tensors = [each for name, value in named.items() if not is_bias(name) for each in _tensors(name, value)]
    largest = max((tensor.numel() for _, tensor in tensors), default=0)
    own = [tensor for name, tensor in tensors if not is_overhead(name, tensor, largest)]
    floating = [tensor for tensor in own if tensor.is_floating_point()]
    return floating or [
        tensor for tensor in own if tensor.is_quantized or (tensor.dtype in _PACKED_INTO and tensor.dim() > 1)
    ]


def _tensors(name: str, value: object) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, (tuple, list)):
        # of torch's packed parameters: the weight, then the bias
        for index, each in enumerate(value):
            if index == 0:
                yield from _tensors(name, each)


def _is_one_per_element(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.int8 or tensor.is_quantized


def _dequantized(tensor: torch.Tensor) -> torch.Tensor | None:
    """Its values as a dense tensor; None if the class doesn't tell how."""
    tensor = tensor.detach()
    if _is_wrapper(tensor) or tensor.is_quantized:
        dequantize = getattr(tensor, "dequantize", None)
        values = dequantize() if callable(dequantize) else None
        return values if isinstance(values, torch.Tensor) else None
    if tensor.layout is not torch.strided:
        return tensor.to_dense()
    if not tensor.is_floating_point() or not _has_storage(tensor):
        return None
    # one-byte floats can't be compared with zero
    return tensor.float() if tensor.element_size() == 1 else tensor


def ties(model: nn.Module) -> list[tuple[str, ...]]:
    """Groups of parameter names that share one tensor."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        has_address = type(parameter) is nn.Parameter and parameter.layout is torch.strided and _has_storage(parameter)
        owners.setdefault(parameter.data_ptr() if has_address else id(parameter), []).append(name)
    return [tuple(names) for names in owners.values() if len(names) > 1]


def registered_pointers(model: nn.Module) -> set[int]:
    """Addresses of all plain tensors that live as long as the model: others may reuse an address once they are freed."""
    tensors: Sequence[torch.Tensor] = [*model.parameters(), *model.buffers()]
    found, _ = plain({str(index): tensor for index, tensor in enumerate(tensors)})
    return {tensor.data_ptr() for tensor in found.values() if tensor.numel()}
