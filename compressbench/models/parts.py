"""Where a transformers model keeps its layers and its linear modules, found by structure rather than by a list of names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from compressbench.core.errors import UnsupportedError

OUTPUT_HEADS = ("lm_head", "classifier", "score", "pooler", "qa_outputs")


def layer_stack(model: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """The module that owns the transformer layers, the attribute's name, and the list itself.

    Raises UnsupportedError if not exactly one ModuleList has config.num_hidden_layers entries.
    """
    wanted = getattr(model.config, "num_hidden_layers", None)
    found = [
        (module, name, child)
        for module in model.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == wanted
    ]
    if len(found) != 1:
        raise UnsupportedError(
            f"{type(model).__name__} has {len(found)} stacks of {wanted} layers where one is needed",
            do="Depth can be pruned in models with a single stack of layers.",
        )
    return found[0]


def target_linears(model: nn.Module, targets: Sequence[str] = (), ignore: Sequence[str] = ()) -> dict[str, nn.Linear]:
    """The linear modules to compress by name. `targets` and `ignore` are module names, parts of them, or `re:` patterns.

    Without targets: every linear module but output heads. Tied weights (an lm_head that shares its tensor with the
    embedding) are never touched, because changing one changes the other. Raises UnsupportedError if nothing is left.
    """
    shared = _tensors_used_twice(model)
    chosen = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and module.weight.data_ptr() not in shared
        and (matches(name, targets) if targets else not matches(name, OUTPUT_HEADS))
        and not matches(name, ignore)
    }
    if not chosen:
        raise UnsupportedError(
            f"no linear module of {type(model).__name__} is left to compress",
            got=f"targets {list(targets)}, ignore {list(ignore)}",
            do="Name modules of this model, or use re: patterns.",
        )
    return chosen


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a module's dotted name has one of `patterns` as a run of whole parts, or matches one of the `re:` patterns
    from its start.
    """
    return any(
        re.match(pattern[3:], name) if pattern.startswith("re:") else f".{pattern}." in f".{name}."
        for pattern in patterns
    )


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _tensors_used_twice(model: nn.Module) -> set[int]:
    owners: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(parameter.data_ptr(), set()).add(name)
    return {pointer for pointer, names in owners.items() if len(names) > 1}
