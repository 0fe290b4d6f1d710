"""Where a transformers model keeps its layers and its linear modules, found by structure rather than by a list of names."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Batch
from compressbench.models.stored_layer import StoredLayer

OUTPUT_HEADS = ("lm_head", "classifier", "pre_classifier", "score", "pooler", "qa_outputs")


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


def layer_stacks(model: nn.Module) -> list[tuple[str, nn.ModuleList]]:
    """The outermost lists of equal modules that hold linear modules, by name: a decoder's layers, an encoder's and a
    decoder's. Whether they really run one after the other shows only when they run.
    """
    found: list[tuple[str, nn.ModuleList]] = []
    for name, module in model.named_modules():
        is_inside = any(name.startswith(f"{outer}.") for outer, _ in found)
        if isinstance(module, nn.ModuleList) and not is_inside and _is_stack(module):
            found.append((name, module))
    return found


def _is_stack(modules: nn.ModuleList) -> bool:
    kinds = {type(module) for module in modules}
    return len(kinds) == 1 and all(any(is_linear(part) for part in module.modules()) for module in modules)


def is_linear(module: nn.Module) -> bool:
    """Whether it multiplies by a matrix: a linear module, GPT-2's Conv1D, or a layer that stands in for one."""
    return isinstance(module, nn.Linear | Conv1D | StoredLayer) and not hasattr(module, "num_embeddings")


class Modules(Mapping[str, nn.Linear]):
    """The modules of these names as they are in `model` now: one that was replaced isn't kept alive from here."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self._model, self._names = model, tuple(names)

    def __getitem__(self, name: str) -> nn.Linear:
        if name not in self._names:
            raise KeyError(name)
        return cast(nn.Linear, self._model.get_submodule(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Choice(NamedTuple):
    """The linear modules to work on (GPT-2's Conv1D among them), and why the others are left as they are; by name."""

    modules: Mapping[str, nn.Linear]
    left_out: dict[str, str]


def choose_linears(model: nn.Module, targets: Sequence[str] = (), ignore: Sequence[str] = ()) -> Choice:
    """The linear modules to compress. `targets` and `ignore` are module names, parts of them, or `re:` patterns.

    Without targets: every linear module but output heads. Tied weights (an lm_head that shares its tensor with the
    embedding) are never touched, because changing one changes the other. GPT-2's Conv1D counts as linear; see `matrix`.
    Raises UnsupportedError if nothing is left.
    """
    shared = tensors_used_twice(model)
    head = _output_embeddings(model)
    linears = {
        name: cast(nn.Linear, module) for name, module in model.named_modules() if type(module) in (nn.Linear, Conv1D)
    }
    reasons = {
        name: _why_left_out(
            name, matrix(module).data_ptr() in shared, module is head or matches(name, OUTPUT_HEADS), targets, ignore
        )
        for name, module in linears.items()
    }
    chosen = {name: module for name, module in linears.items() if not reasons[name]}
    if not chosen:
        raise UnsupportedError(
            f"no linear module of {type(model).__name__} is left to compress",
            got=f"targets {list(targets)}, ignore {list(ignore)}",
            do="Name modules of this model, or use re: patterns.",
        )
    return Choice(Modules(model, list(chosen)), {name: reason for name, reason in reasons.items() if reason})


def _output_embeddings(model: nn.Module) -> nn.Module | None:
    """What gives a language model's logits, whatever its name (lm_head, proj_out); None for other models."""
    found: nn.Module | None = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return found


def _why_left_out(name: str, is_tied: bool, is_head: bool, targets: Sequence[str], ignore: Sequence[str]) -> str:
    if is_tied:
        return "its weights are tied to another module's"
    if targets and not matches(name, targets):
        return "not among the targets"
    if not targets and is_head:
        return "an output head"
    return "ignored by the recipe" if matches(name, ignore) else ""


def fitting(choice: Choice, misfit: Callable[[int, int], str]) -> Choice:
    """The choice without the modules of whose inputs and outputs `misfit` tells why they don't fit.

    Raises UnsupportedError if none fits.
    """
    reasons = {name: misfit(*reversed(matrix(module).shape)) for name, module in choice.modules.items()}
    fits = {name: module for name, module in choice.modules.items() if not reasons[name]}
    if not fits:
        raise UnsupportedError(
            "no linear module has a shape that fits",
            got="; ".join(sorted(set(reasons.values()))),
            do="Choose other groups or blocks, or other targets.",
        )
    return Choice(fits, {**choice.left_out, **{name: reason for name, reason in reasons.items() if reason}})


def target_linears(model: nn.Module, targets: Sequence[str] = (), ignore: Sequence[str] = ()) -> dict[str, nn.Linear]:
    """The modules of `choose_linears` alone."""
    return dict(choose_linears(model, targets, ignore).modules)


def matrix(module: nn.Module) -> torch.Tensor:
    """The weight of a linear module as out x in: a view, so that changing it in place changes the module.

    GPT-2's Conv1D stores in x out. No gradient is followed through the view.
    """
    weight = cast(torch.Tensor, module.weight).detach()
    return weight.t() if isinstance(module, Conv1D) else weight


def bias_of(module: nn.Module) -> torch.Tensor | None:
    """The bias (out) of a linear module without its gradient, or None."""
    bias = module.bias
    return bias.detach() if isinstance(bias, torch.Tensor) else None


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a module's dotted name has one of `patterns` as a run of whole parts, or matches one of the `re:` patterns
    from its start.
    """
    return any(
        re.match(pattern[3:], name) if pattern.startswith("re:") else f".{pattern}." in f".{name}."
        for pattern in patterns
    )


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Parameters and stored buffers in `dtype`, in place. Buffers that are computed (rotary frequencies) keep their type,
    as they do when transformers loads a model in `dtype`: rounded, they would change every position.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                setattr(module, name, buffer.to(dtype))


def require_described(model: PreTrainedModel, what: str) -> None:
    """See that a model built from this one's configuration has exactly its tensors, or it could not be loaded again;
    stored layers, which are loaded by themselves, are left aside. Raises UnsupportedError that calls the change `what`.
    """
    try:
        config = type(model.config).from_dict(copy.deepcopy(model.config.to_dict()))
        with torch.device("meta"):
            fresh = type(model)(config)
        if getattr(model, "pooler", fresh) is None:  # taken off an encoder when it was loaded
            fresh.pooler = None
        built = _shapes(fresh)
    except (StrictDataclassError, ValueError) as error:
        raise UnsupportedError(f"the configuration refuses {what}", got=str(error)) from error
    inside = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, StoredLayer))
    ours = _shapes(model)
    wrong = [name for name in {**ours, **built} if ours.get(name) != built.get(name) and not name.startswith(inside)]
    if wrong:
        raise UnsupportedError(f"no configuration of {type(model).__name__} describes {what}", got=wrong[0])


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def inputs_of(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """The inputs on the model's device, sounds and images among them in its own type: not every model rounds them."""
    first = next(model.parameters())
    return {
        name: tensor.to(first.device, first.dtype if tensor.is_floating_point() else None)
        for name, tensor in batch.items()
    }


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def tensors_used_twice(model: nn.Module) -> set[int]:
    """Addresses of the parameters that more than one module holds (tied weights)."""
    owners: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(parameter.data_ptr(), set()).add(name)
    return {pointer for pointer, names in owners.items() if len(names) > 1}
