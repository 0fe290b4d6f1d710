"""Names to classes, without importing anything until a name is used.

A word in a recipe is a file name: `use: depth-pruning` is methods/pruning/depth_pruning.py. Other packages add words
through the entry-point groups `compressbench.methods | runtimes | tasks | meters | layers`; a plug-in can't replace a
built-in. Layers aren't words of a recipe: an artefact's manifest names them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from compressbench.core.errors import MissingDependencyError, UnknownNameError
from compressbench.core.names import did_you_mean


class Resolved(NamedTuple):
    """A use of a name: the object that does it, and its options with every default."""

    name: str
    value: Any
    options: dict[str, Any]

    def as_data(self) -> dict[str, Any]:
        return {"use": self.name, **self.options}


class Registry:
    """An explicit table `name -> "module:attribute"` plus the entry points of one group."""

    def __init__(self, kind: str, table: Mapping[str, str]) -> None:
        self.kind, self.group, self._builtin = kind, f"compressbench.{kind}s", dict(table)

    @cached_property
    def table(self) -> dict[str, str]:
        """Every known name and where it lives; built-ins win over plug-ins of the same name."""
        plugins = {point.name: point.value for point in entry_points(group=self.group)}
        return {**plugins, **self._builtin}

    def names(self) -> list[str]:
        return sorted(self.table)

    def is_builtin(self, name: str) -> bool:
        return name in self._builtin

    def resolve(self, name: str) -> Any:
        """The class or function behind `name`.

        Raises UnknownNameError with the nearest known name, and MissingDependencyError if its module can't be imported.
        """
        if name not in self.table:
            raise UnknownNameError(f"unknown {self.kind} '{name}'", do=did_you_mean(name, self.table))
        module, _, attribute = self.table[name].partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:  # whatever the module of a plug-in raises becomes an error that names it
            raise MissingDependencyError(
                f"the {self.kind} '{name}' can't be imported from {self.table[name]}",
                got=f"{type(error).__name__}: {error}",
                do="Install what it needs, or remove the package that offers it.",
            ) from error


methods = Registry(
    "method",
    {
        "cast": "compressbench.methods.quantization.cast:Cast",
        "int8-dynamic": "compressbench.methods.quantization.int8_dynamic:Int8Dynamic",
        "int8-weight-only": "compressbench.methods.quantization.int8_weight_only:Int8WeightOnly",
        "magnitude": "compressbench.methods.pruning.magnitude:Magnitude",
        "depth-pruning": "compressbench.methods.pruning.depth_pruning:DepthPruning",
        "logit-distillation": "compressbench.methods.distillation.logit_distillation:LogitDistillation",
    },
)
runtimes = Registry("runtime", {"torch": "compressbench.runtimes.torch_eager:TorchEager"})
tasks = Registry(
    "task",
    {
        "text-classification": "compressbench.tasks.text_classification:TextClassification",
        "perplexity": "compressbench.tasks.perplexity:Perplexity",
    },
)
meters = Registry(
    "meter",
    {
        "latency": "compressbench.meters.latency:Latency",
        "memory": "compressbench.meters.memory:Memory",
        "energy": "compressbench.meters.energy:Energy",
        "size": "compressbench.meters.size:Size",
    },
)
layers = Registry(
    "layer",
    {
        "packed": "compressbench.models.packed_linear:PackedLinear",
        "int8-weight": "compressbench.models.int8_linear:Int8WeightLinear",
        "int8-dynamic": "compressbench.models.int8_linear:Int8DynamicLinear",
        "low-rank": "compressbench.models.low_rank_linear:LowRankLinear",
    },
)
