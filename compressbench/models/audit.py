"""What a model really stores: bits per weight, zeros, mask structures and data types, module by module.

Weights are dequantized one module at a time, so that a model needs no second copy of itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from torch import nn

from compressbench.models.stored_weights import (
    Holder,
    count_logical,
    is_bias,
    is_overhead,
    plain,
    registered_pointers,
    weight_holders,
)
from compressbench.records.audit import DtypeUse, ModuleAudit

_N_OF_M = re.compile(r"(\d+):(\d+)")


class Weighed(NamedTuple):
    """One module on the scales.

    `code_bits` are bits per weight without scales and zero points, `num_codes` the elements that hold them. `num_values`
    are the dequantized weights, `num_rows` and `num_columns` those of its matrices. `broken_groups` counts by mask
    structure the aligned groups with too many non-zeros; None if that can't be checked on this module. `is_floating`: what
    it stores are numbers of 16 bits and more; `keeps_floats`: it stores codes and has such numbers for all weights besides.
    """

    row: ModuleAudit
    module: nn.Module
    is_matrix: bool
    is_linear: bool
    is_floating: bool
    keeps_floats: bool
    code_bits: float | None
    num_codes: int
    num_values: int
    num_zeros: int | None
    num_rows: int
    num_columns: int
    broken_groups: dict[str, int | None]


class ModelFacts(NamedTuple):
    """`num_parameters` are weights and biases, `num_bytes` everything stored, both with tied tensors once and None where
    a module keeps it to itself: `unknown` says which and why.
    """

    modules: tuple[Weighed, ...]
    dtypes: dict[str, DtypeUse]
    num_tensors: int
    num_parameters: int | None
    num_bytes: int | None
    unknown: str


def weigh_model(model: nn.Module, structures_of: Callable[[str], Collection[str]]) -> ModelFacts:
    """Weigh every module. `structures_of` gives the mask structures to check by a module's name."""
    scales = _Scales(registered_pointers(model))
    for holder in weight_holders(model):
        scales.weigh(holder, structures_of(holder.name))
    return scales.facts()


def stored_bytes(model: nn.Module) -> int | None:
    """All that the model stores, tied tensors once; None if some of it can't be seen."""
    scales = _Scales(registered_pointers(model))
    for holder in weight_holders(model):
        scales.count(holder)
    return scales.facts().num_bytes


class _Counted(NamedTuple):
    """What one module stores, before anybody looks at the values."""

    tensors: dict[str, torch.Tensor]
    num_weights: int | None
    tied_to: str | None
    unknown: str


class _Scales:
    """Sums over modules. A registered tensor counts where it is met first."""

    def __init__(self, registered: set[int]) -> None:
        self._registered, self._owners = registered, dict[int, str]()
        self._modules, self._dtypes, self._unknown = list[Weighed](), dict[str, DtypeUse](), list[str]()
        self._num_parameters = self._num_tensors = 0

    def count(self, holder: Holder) -> _Counted:
        named = holder.named()
        tensors, hidden = plain(named)
        num_weights, uncounted = count_logical(holder, named)
        tied_to, num_biases = self._add(holder.name, tensors)
        self._num_parameters += (0 if tied_to is not None else num_weights or 0) + num_biases
        unknown = hidden or uncounted
        if unknown:
            self._unknown.append(f"{holder.name}: {unknown}")
        return _Counted(tensors, None if uncounted else num_weights, tied_to, unknown)

    def weigh(self, holder: Holder, structures: Collection[str]) -> None:
        counted = self.count(holder)
        if any(not is_bias(name) for name in counted.tensors) or counted.unknown:
            self._modules.append(_weighed(holder, counted, structures))

    def _add(self, name: str, tensors: dict[str, torch.Tensor]) -> tuple[str | None, int]:
        """Count what is new: the owner of the weights if they were counted there already, and the number of biases."""
        tied_to, num_biases = None, 0
        for part, tensor in tensors.items():
            pointer = tensor.data_ptr() if tensor.numel() else 0
            if pointer in self._owners:
                tied_to = tied_to if is_bias(part) else self._owners[pointer]
                continue
            if pointer in self._registered:
                self._owners[pointer] = name
            used = self._dtypes.get(dtype_name(tensor), DtypeUse(num_elements=0, num_bytes=0))
            self._dtypes[dtype_name(tensor)] = DtypeUse(
                num_elements=used.num_elements + tensor.numel(), num_bytes=used.num_bytes + bytes_of(tensor)
            )
            self._num_tensors += 1
            num_biases += tensor.numel() if is_bias(part) and tensor.is_floating_point() else 0
        return tied_to, num_biases

    def facts(self) -> ModelFacts:
        known = not self._unknown
        return ModelFacts(
            tuple(self._modules),
            self._dtypes,
            self._num_tensors,
            self._num_parameters if known else None,
            sum(use.num_bytes for use in self._dtypes.values()) if known else None,
            "; ".join(self._unknown),
        )


def _weighed(holder: Holder, counted: _Counted, structures: Collection[str]) -> Weighed:
    num_weights = counted.num_weights
    own = {name: tensor for name, tensor in counted.tensors.items() if not is_bias(name)}
    codes = [tensor for name, tensor in own.items() if not is_overhead(name, tensor, num_weights or 0)]
    can_tell = bool(num_weights) and not counted.unknown
    stored, code_bytes = sum(map(bytes_of, own.values())), sum(map(bytes_of, codes))
    values = _look_at_values(holder, structures)
    widest = max(codes or own.values(), key=bytes_of, default=None)
    is_floating = widest is not None and widest.is_floating_point() and widest.element_size() > 1
    # a matrix of floats without its zeros makes a full copy besides as suspicious as codes do
    num_codes = sum(tensor.numel() for tensor in codes)
    has_fewer = bool(num_weights) and (not is_floating or num_codes < (num_weights or 0))
    row = ModuleAudit(
        name=holder.name,
        kind=holder.kind,
        num_weights=num_weights,
        stored_bytes=None if counted.unknown else stored,
        bits=8 * stored / num_weights if can_tell and num_weights else None,
        sparsity=values.num_zeros / values.num_values if values.num_zeros is not None and values.num_values else None,
        dtype="" if widest is None else dtype_name(widest),
        tied_to=counted.tied_to,
        unknown=counted.unknown or values.unknown,
    )
    return Weighed(
        row=row,
        module=holder.module,
        is_matrix=holder.features is not None or any(tensor.dim() > 1 for tensor in own.values()),
        is_linear=holder.is_linear,
        is_floating=is_floating,
        keeps_floats=has_fewer and holder.keeps_floats(num_weights or 0),
        code_bits=8 * code_bytes / num_weights if can_tell and num_weights else None,
        num_codes=num_codes,
        num_values=values.num_values,
        num_zeros=values.num_zeros,
        num_rows=values.num_rows,
        num_columns=holder.features[1] if holder.features else values.num_columns,
        broken_groups=values.broken_groups,
    )


class _Values(NamedTuple):
    """What the dequantized weights of one module show."""

    num_values: int
    num_zeros: int | None
    num_rows: int
    num_columns: int
    broken_groups: dict[str, int | None]
    unknown: str


def _look_at_values(holder: Holder, structures: Collection[str]) -> _Values:
    weights, unknown = holder.weights()
    if not weights:
        return _Values(0, None, 0, 0, dict.fromkeys(structures), unknown)
    return _Values(
        num_values=sum(weight.numel() for weight in weights),
        num_zeros=sum(weight.numel() - int(torch.count_nonzero(weight)) for weight in weights),
        num_rows=sum(len(weight) for weight in weights if weight.dim() > 1),
        num_columns=max(weight.shape[-1] for weight in weights),
        broken_groups={structure: _num_broken(weights, structure) for structure in structures},
        unknown="",
    )


def _num_broken(weights: list[torch.Tensor], structure: str) -> int | None:
    if any(weight.dim() > 2 for weight in weights):
        return None
    counts = [num_broken_groups(weight, structure) for weight in weights if weight.dim() == 2]
    return None if None in counts else sum(count or 0 for count in counts)


def num_broken_groups(weight: torch.Tensor, structure: str) -> int | None:
    """Aligned groups of m neighbours in a row of `weight` (out x in) with more than n non-zeros, for structure "n:m".

    A last group that the row doesn't fill is held to the same n. None for a structure that isn't n:m.
    """
    found = _N_OF_M.fullmatch(structure)
    if found is None:
        return None
    most, group = int(found[1]), int(found[2])
    is_kept = nn.functional.pad((weight != 0).to(torch.uint8), (0, -weight.shape[1] % group))
    return int((is_kept.view(len(weight), -1, group).sum(dim=2) > most).sum())


def dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def bytes_of(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
