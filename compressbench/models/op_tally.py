"""Operations and weights of a forward pass, counted while it runs: linear modules by shape, the rest by operator.

A packed layer unpacks its weights and calls whichever kernel there is, so what it runs inside says nothing of what was
asked: its product counts 2 x in x out per row, and its weights are those that it stores. Outside of linear modules each
operator counts for itself. An operator that multiplies and isn't known here makes the count unknown, never smaller.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from transformers.pytorch_utils import Conv1D

from compressbench.models.read_bytes import ReadBytes, plain_tensors
from compressbench.models.stored_weights import Holder, is_bias, plain, registered_pointers, weight_holders

_PRODUCT = re.compile(
    r"(?:^|_)(?:\w*mm|mv|addmv|matmul|linear|conv|convolution|\w*conv[123]d|gem[mv]|v?dot|lstm|gru|rnn|attention|attn"
    r"|einsum|trilinear|fft|transformer)(?:_|$)"
)
_LOOK_UPS = {"aten.embedding": (0, 1), "aten.index_select": (0, 2), "aten.index": (0, 1)} | {
    f"quantized.embedding_bag_{kind}_rowwise_offsets": (0, 1) for kind in ("byte", "4bit", "2bit")
}
_ONE_BYTE = {"uint8": "int8", "qint8": "int8", "quint8": "int8"}


class Parts:
    """Every module of `model` that stores something, weighed once for all its passes.

    A linear module whose weights are in a kernel's own form gives them anew at every look: those have no lasting
    address, and `made_up` has their bytes by name. `hidden` says which module keeps to itself what it stores.
    """

    def __init__(self, model: nn.Module) -> None:
        registered = registered_pointers(model)
        holders = list(weight_holders(model))
        self.linears = {id(holder.module): holder for holder in holders if holder.is_linear}
        self.addressed = dict[int, list[torch.Tensor]]()
        self.made_up = dict[int, dict[str, int]]()
        self.hidden = list[str]()
        for holder in holders:
            tensors, reason = plain(_resident(holder))
            has_address = {name: tensor.data_ptr() in registered for name, tensor in tensors.items()}
            self.addressed[id(holder.module)] = [each for name, each in tensors.items() if has_address[name]]
            self.made_up[id(holder.module)] = {
                f"{holder.name}.{name}": each.nbytes for name, each in tensors.items() if not has_address[name]
            }
            self.hidden += [f"{holder.name}: {reason}"] if reason else []


class Tally:
    """What one forward pass multiplies and reads. `unknown` says what could not be counted."""

    def __init__(self, parts: Parts) -> None:
        self.flops = defaultdict[str, float](float)
        self.unknown = list[str]()
        self.read = ReadBytes(each for tensors in parts.addressed.values() for each in tensors)
        self._parts = parts
        self._inside = 0
        self._dtype = ""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count what runs meanwhile. The modules are as they were afterwards."""
        hooks: list[Any] = []
        try:
            for holder in self._parts.linears.values():
                hooks.append(holder.module.register_forward_pre_hook(self._enter))
                hooks.append(holder.module.register_forward_hook(self._leave, with_kwargs=True, always_call=True))
            # inference mode would hide what operators are made of
            with torch.no_grad(), _Attention(self), _Operators(self):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, *_: object) -> None:
        self._inside += 1
        self._dtype = ""

    def _leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], _: object) -> None:
        self._inside -= 1
        holder, shape = self._parts.linears[id(module)], _shape(module)
        inputs = [each for each in tree_leaves((args, dict(kwargs))) if isinstance(each, torch.Tensor)]
        if not inputs or shape is None or inputs[0].shape[-1] != shape[1]:
            self.unknown.append(f"{holder.name}: a {holder.kind} that isn't called with rows of its inputs")
            return
        if any(Holder("", part, True).is_linear for part in module.modules() if part is not module):
            self.unknown.append(f"{holder.name}: a {holder.kind} with linear modules inside")
            return
        dtype = self._dtype or name_of(inputs[0].dtype)
        self.flops[dtype] += _kept(module) * 2.0 * inputs[0].numel() * shape[0]
        for tensor in self._parts.addressed[id(module)]:
            self.read.add_tensor(tensor)
        for name, num_bytes in self._parts.made_up[id(module)].items():
            self.read.add_bytes(name, num_bytes)

    @contextmanager
    def attention(self) -> Iterator[None]:
        """What runs meanwhile is one attention, however many operators it takes."""
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pairs: float) -> None:
        """Scores and weighted values of so many pairs of a query's and a key's position, over all heads."""
        if not self._inside:
            self.flops[name_of(query.dtype)] += 2.0 * pairs * (key.shape[-1] + value.shape[-1])

    def operator(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        """Count an operator that has run."""
        name = str(getattr(func, "_overloadpacket", func))
        tensors = [each for each in tree_leaves((args, dict(kwargs))) if isinstance(each, torch.Tensor)]
        if self._inside:
            if tensors and not self._dtype and multiplies(name):
                self._dtype = _operand_type(name, tensors)
            return
        self._count(name, func, args, kwargs, out)
        if not _is_view(func):
            self._look(name, args, tensors)

    def _count(self, name: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        formula = _FORMULAS.get(name) or flop_registry.get(getattr(func, "_overloadpacket", None))
        if formula is not None:
            counted = formula(*args, **kwargs, out_val=out)
            self.flops[name_of(args[0].dtype)] += float(counted)
        elif multiplies(name):
            self.unknown.append(f"the operator {name}")

    def _look(self, name: str, args: tuple[Any, ...], tensors: list[torch.Tensor]) -> None:
        """Note which of the stored tensors an operator reads, of tables only the rows."""
        table, rows = _looked_up(name, args)
        for tensor in tensors:
            for part in plain_tensors(tensor):
                if tensor is table and rows is not None and part.dim() and len(part) == len(table):
                    self.read.add_rows(part, rows)
                else:
                    self.read.add_tensor(part)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    supports_higher_order_operators = True

    def __init__(self, tally: Tally) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tally = tally

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._tally.operator(func, args, kwargs or {}, out)
        return out


class _Attention(TorchFunctionMode):
    """Sees scaled dot-product attention before it is taken apart into what each device has for it."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        with self._tally.attention():
            out = func(*args, **(kwargs or {}))
        self._tally.attend(*_attended(*args, **(kwargs or {})))
        return out


def _attended(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,  # noqa: ARG001
    is_causal: bool = False,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """The operands and how many pairs of positions are attended: what a mask hides isn't asked for."""
    queries, keys = query.shape[-2], key.shape[-2]
    heads = math.prod(query.shape[:-2])
    if is_causal:
        # of the upper left corner, as PyTorch aligns it
        return query, key, value, float(heads * sum(min(at + 1, keys) for at in range(queries)))
    if attn_mask is None:
        return query, key, value, float(heads * queries * keys)
    is_bool = attn_mask.dtype == torch.bool
    seen = attn_mask if is_bool else attn_mask > torch.finfo(attn_mask.dtype).min
    return query, key, value, int(seen.sum()) * (heads * queries * keys / attn_mask.numel())


def name_of(dtype: torch.dtype) -> str:
    """The type's name; integers of one byte are all int8, as the hardware has one rate for them."""
    name = str(dtype).removeprefix("torch.")
    return _ONE_BYTE.get(name, name)


def multiplies(name: str) -> bool:
    """Whether an operator's name (namespace.name) says that it is a matrix product, or made of some."""
    return bool(_PRODUCT.search(name.rpartition(".")[2]))


def _operand_type(name: str, tensors: list[torch.Tensor]) -> str:
    """The type in which a product is done: its operand's, but for kernels that round the operand inside."""
    if name.startswith(("quantized.", "bitsandbytes.int8_")):
        return "int8"
    return name_of(tensors[0].dtype)


def _is_view(func: Any) -> bool:
    """Whether an operator only gives another view of its input, and reads nothing."""
    returns = getattr(getattr(func, "_schema", None), "returns", ())
    return bool(returns) and all(each.alias_info is not None and not each.alias_info.is_write for each in returns)


def _looked_up(name: str, args: tuple[Any, ...]) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The table and the numbers of its rows, for operators that take rows out of one."""
    if name == "aten._grouped_mm" and args[1].dim() == 3 and len(args) > 2 and args[2] is not None:
        ends = args[2]
        sizes = torch.diff(ends, prepend=torch.zeros_like(ends[:1]))
        return args[1], torch.nonzero(sizes > 0)
    if name not in _LOOK_UPS:
        return None, None
    table, rows = (args[at] for at in _LOOK_UPS[name])
    if isinstance(rows, (list, tuple)):
        rows = rows[0] if rows else None
    is_by_row = isinstance(rows, torch.Tensor) and rows.dtype in (torch.int32, torch.int64)
    if name == "aten.index_select" and args[1] not in (0, -table.dim()):
        is_by_row = False
    return (table, rows.remainder(len(table))) if is_by_row else (None, None)


def _resident(holder: Holder) -> Mapping[str, object]:
    """What a module stores, in the form in which it lies there: to put it into another one can take long."""
    found = dict(holder.module.state_dict(keep_vars=True)) if holder.says_what_it_stores else {}
    return found if any(not is_bias(name) for name in found) else holder.named()


def _shape(module: nn.Module) -> tuple[int, int] | None:
    """(out, in) of a linear module; None if it doesn't say."""
    if isinstance(module, Conv1D):
        columns, rows = module.weight.shape
        return rows, columns
    return Holder("", module, True).features


def _kept(module: nn.Module) -> float:
    """Which part of the products is done: half of them on sparse tensor cores."""
    return 0.5 if getattr(module, "kernel", None) == "sparse" else 1.0


def _times(left: torch.Tensor, right: torch.Tensor) -> float:
    return 2.0 * left.numel() * right.shape[-1]


_FORMULAS: Mapping[str, Callable[..., float]] = {
    "aten._int_mm": lambda left, right, **_: _times(left, right),
    "aten.mv": lambda left, _right, **_: 2.0 * left.numel(),
    "aten.addmv": lambda _bias, left, _right, **_: 2.0 * left.numel(),
    "aten.dot": lambda left, _right, **_: 2.0 * left.numel(),
    # of tokens sorted by expert, each row meets one expert's matrix
    "aten._grouped_mm": lambda left, right, *_, **__: _times(left, right),
}
