"""What is different between a model and the one it was made from: values, shapes, ties, modules that came and went."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import nn

from compressbench.models.stored_weights import Holder, plain, ties, weight_holders

Change = Literal["same", "moved", "rounded", "values", "shape", "form", "added", "unknown"]
_DIGITS = re.compile(r"\d+")


class Changes(NamedTuple):
    """`by_module`: what happened to each module that stores something.

    `moved`: it has the values of a module of the same name but for numbers, and some of those are gone (a layer of a
    stack that was shortened). `rounded`: the original's values in another dtype. `form`: it stores other tensors.
    `unknown`: its tensors, or the original's, can't be read. `untied` are groups of parameter names that shared a tensor
    and don't any more.
    """

    by_module: dict[str, Change]
    removed: list[str]
    untied: list[tuple[str, ...]]


def compare_models(model: nn.Module, original: nn.Module) -> Changes:
    """Compare module by module; one module of each is looked at at a time."""
    ours, theirs = _by_name(weight_holders(model)), _by_name(weight_holders(original))
    siblings = _Siblings(ours, theirs)
    changes: dict[str, Change] = {}
    for name, holder in ours.items():
        change = "added" if name not in theirs else _change(holder, theirs[name])
        is_moved = change in ("values", "shape", "added") and any(
            _change(holder, other) in ("same", "rounded") for other in siblings.of(name)
        )
        changes[name] = "moved" if is_moved else change
    removed = [name for name in theirs if name not in ours]
    return Changes(changes, removed, _untied(model, original))


def _by_name(holders: Iterable[Holder]) -> dict[str, Holder]:
    return {holder.name: holder for holder in holders if any(plain(holder.named()))}


class _Siblings:
    """Modules of the original whose names differ in numbers only, where the model has fewer of them."""

    def __init__(self, ours: dict[str, Holder], theirs: dict[str, Holder]) -> None:
        self._ours, self._theirs = _grouped(ours), _grouped(theirs)

    def of(self, name: str) -> list[Holder]:
        pattern = _DIGITS.sub("#", name)
        theirs = self._theirs.get(pattern, [])
        return theirs if len(self._ours[pattern]) < len(theirs) else []


def _grouped(holders: dict[str, Holder]) -> dict[str, list[Holder]]:
    groups: dict[str, list[Holder]] = {}
    for name, holder in holders.items():
        groups.setdefault(_DIGITS.sub("#", name), []).append(holder)
    return groups


def _change(holder: Holder, other: Holder) -> Change:
    (ours, closed), (theirs, also_closed) = plain(holder.named()), plain(other.named())
    if closed or also_closed:
        return "unknown"
    if ours.keys() != theirs.keys() or type(holder.module) is not type(other.module):
        return "form"
    if any(ours[name].shape != theirs[name].shape for name in ours):
        return "shape"
    if any(ours[name].is_floating_point() != theirs[name].is_floating_point() for name in ours):
        return "form"
    if not all(_is_equal(ours[name], theirs[name]) for name in ours):
        return "values"
    return "same" if all(ours[name].dtype == theirs[name].dtype for name in ours) else "rounded"


def _is_equal(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal once the original is in this tensor's dtype."""
    other = other.to(device=tensor.device, dtype=tensor.dtype)
    # one-byte floats have no comparison of their own
    return torch.equal(_bytes(tensor), _bytes(other)) if tensor.element_size() == 1 else torch.equal(tensor, other)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8)


def _untied(model: nn.Module, original: nn.Module) -> list[tuple[str, ...]]:
    still = [set(group) for group in ties(model)]
    present = {name for name, _ in model.named_modules(remove_duplicate=False)}
    return [
        group
        for group in ties(original)
        if not any(set(group) <= names for names in still)
        # a module that was taken out isn't untied
        and sum(name.rpartition(".")[0] in present for name in group) > 1
    ]
