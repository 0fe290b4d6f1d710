"""A recipe with every name resolved and every option checked, and nothing loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compressbench.core import registry
from compressbench.core.errors import CompressbenchError, InputError, RecipeError, UnsupportedError
from compressbench.core.registry import Registry, Resolved
from compressbench.core.spec import content_hash
from compressbench.data.data_root import reading_below
from compressbench.measure import estimate
from compressbench.measure.planned_checks import check_data, check_runtime, why_unsupported
from compressbench.measure.planned_work import PlannedWork
from compressbench.measure.schedule import Schedule
from compressbench.models.config import read_config, weight_format
from compressbench.models.heads import HEADS
from compressbench.recipe.load import LoadedRecipe, load_recipe
from compressbench.recipe.problems import Problem, recipe_error
from compressbench.recipe.schema import Recipe, canonical
from compressbench.recipe.sentences import option_problems
from compressbench.recipe.use import Use
from compressbench.tasks.calibration import check_calibration
from compressbench.tasks.ready_made import fill_in, ready_names


@dataclass(frozen=True)
class Cell:
    """One model to be made and measured. `key` is the content hash of all that decides its result; `unsupported` says why
    this machine can't make it, where that is known before anything is loaded.
    """

    name: str
    role: str
    steps: tuple[Resolved, ...]
    runtime: Resolved
    key: str
    seconds: float | None
    unsupported: str = ""


@dataclass(frozen=True)
class Plan:
    """What will run: the baseline first, then the candidates in the recipe's order. `root:` data are below `data_root`."""

    recipe: Recipe
    recipe_hash: str
    head: str
    tasks: tuple[Resolved, ...]
    meters: tuple[Resolved, ...]
    cells: tuple[Cell, ...]
    schedule: Schedule
    data_root: Path | None = None

    @property
    def baseline(self) -> Cell:
        return self.cells[0]

    def labelled_tasks(self) -> list[tuple[str, Resolved]]:
        """The tasks under names that differ: a second use of a task is numbered."""
        names = [task.name for task in self.tasks]
        seen = [names[:index].count(name) for index, name in enumerate(names)]
        return [(f"{t.name}-{count + 1}" if count else t.name, t) for t, count in zip(self.tasks, seen, strict=True)]

    @property
    def seconds(self) -> float | None:
        """Rough duration on this machine's CPU (within a factor of two or three), or None if a size is unknown."""
        parts = [cell.seconds for cell in self.cells]
        known = [part for part in parts if part is not None]
        return estimate.start_up_seconds() + sum(known) if len(known) == len(parts) else None


@dataclass
class _Checker:
    """Collects what is wrong with a recipe, so that the reader is told everything at once."""

    loaded: LoadedRecipe
    problems: list[Problem] = field(default_factory=list)

    def add(self, key: str, error: CompressbenchError) -> None:
        what = f"{error.where}: {error.what}" if error.where else error.what
        self.problems.append(Problem(key, what, error.got, error.do))

    def run(self, key: str, check: Callable[[], Any]) -> Any:
        """What `check` returns, or None after its error was noted under `key`."""
        try:
            return check()
        except (InputError, UnsupportedError) as error:
            self.add(key, error)
            return None

    def resolve(self, use: Use, table: Registry, key: str) -> Resolved | None:
        found = self.run(f"{key}.use" if f"{key}.use" in self.loaded.lines else key, partial(_named, use, table))
        if found is None:
            return None
        kind, name, options = found
        try:
            value = kind(**options)
        except ValidationError as error:
            self.problems.extend(option_problems(error, kind, key))
            return None
        return Resolved(use.name, value, value.model_dump(mode="json"), "" if name == use.name else name)

    def resolve_all(self, uses: tuple[Use, ...], table: Registry, key: str) -> dict[str, Resolved]:
        """Those that could be resolved, by their key paths."""
        found = {f"{key}[{index}]": self.resolve(use, table, f"{key}[{index}]") for index, use in enumerate(uses)}
        return {at: each for at, each in found.items() if each is not None}

    def finish(self) -> None:
        if self.problems:
            raise recipe_error(self.loaded.path, self.loaded.lines, self.problems)


def _named(use: Use, table: Registry) -> tuple[Any, str, Mapping[str, Any]]:
    """What a use names: a class, the name that it is registered under, and the options for it."""
    if table is not registry.tasks:
        return table.resolve(use.name), use.name, use.options
    kind, options = fill_in(use)
    return table.resolve(kind, also=ready_names()), kind, options


def plan_file(path: str, *, data_root: str | Path | None = None) -> Plan:
    """Load and plan a recipe file. Raises RecipeError with everything that is wrong in it."""
    return make_plan(load_recipe(path), data_root=data_root)


def make_plan(loaded: LoadedRecipe, *, data_root: str | Path | None = None) -> Plan:
    """Resolve names, check options, their combinations, the model's configuration and the data. Loads no weights.

    `data_root` is the folder of local copies, which `root:NAME` and ready-made tasks are read from.
    Raises RecipeError that names file, line, key and the nearest right word for every problem found, and DataError if
    the data root is no folder.
    """
    with reading_below(data_root) as root:
        return _make_plan(loaded, root)


def _make_plan(loaded: LoadedRecipe, data_root: Path | None) -> Plan:
    recipe, checker = loaded.recipe, _Checker(loaded)
    config = checker.run("model.id", lambda: read_config(recipe.model.id))
    tasks_at = checker.resolve_all(recipe.tasks, registry.tasks, "tasks")
    tasks = tuple(tasks_at.values())
    meters = tuple(checker.resolve_all(recipe.meters, registry.meters, "meters").values())
    _check_tasks(checker, recipe, tasks_at, config)
    arms = [("baseline", "baseline", recipe.baseline.compress, recipe.baseline.runtime, "baseline")]
    arms += [
        (candidate.name, "candidate", candidate.compress, candidate.runtime, f"candidates[{index}]")
        for index, candidate in enumerate(recipe.candidates)
    ]
    prepared = []
    for name, role, compress, runtime_use, key in arms:
        steps = tuple(checker.resolve_all(compress, registry.methods, f"{key}.compress").values())
        runtime = checker.resolve(runtime_use, registry.runtimes, runtime_use.key_path or f"{key}.runtime")
        if len(steps) == len(compress):
            weights = _check_steps(checker, tasks, steps, config or {}, f"{key}.compress")
            if runtime is not None and weights is not None:
                at = runtime_use.key_path or f"{key}.runtime"
                checker.run(at, partial(check_runtime, runtime, weights, steps, tasks))
        prepared.append((name, role, steps, runtime))
    checker.finish()
    schedule = Schedule.of(recipe.workload)
    shared = _shared_content(recipe, tasks, meters)
    # a candidate is paired with its baseline, and may have it as its teacher
    _, _, baseline_steps, baseline_runtime = prepared[0]
    if baseline_runtime is not None:
        shared["baseline"] = [*(step.as_data() for step in baseline_steps), baseline_runtime.as_data()]
    work = PlannedWork.of(tasks, config or {}, schedule)
    cells = tuple(
        Cell(
            name,
            role,
            steps,
            runtime,
            _key(shared, steps, runtime),
            work.seconds(steps),
            why_unsupported(recipe, steps, runtime),
        )
        for name, role, steps, runtime in prepared
        if runtime is not None
    )
    recipe_hash = content_hash({**canonical(recipe), "cells": [[cell.name, cell.key] for cell in cells]})
    return Plan(recipe, recipe_hash, tasks[0].value.head, tasks, meters, cells, schedule, data_root)


def _check_tasks(
    checker: _Checker, recipe: Recipe, tasks: Mapping[str, Resolved], config: Mapping[str, Any] | None
) -> None:
    first = next(iter(tasks.values()), None)
    for key, task in tasks.items():
        checker.run(f"{key}.data", task.value.check)
        if first is not None and task.value.head != first.value.head:
            checker.add(key, RecipeError("one model can't have both heads", got=f"{first.name} and {task.name}"))
        checker.run(key, lambda task=task: _check_head(task, config))  # type: ignore[misc]
    if recipe.workload.output_tokens is not None and first is not None and first.value.head != "causal-lm":
        error = RecipeError("only a language model can generate", do="Remove output_tokens.")
        checker.add("workload.output_tokens", error)


def _check_head(task: Resolved, config: Mapping[str, Any] | None) -> None:
    names = [str(name) for name in (config or {}).get("architectures") or ()]
    endings = HEADS[task.value.head].endings
    if names and not any(name.endswith(endings) for name in names):
        wanted = " or ".join(endings)
        raise RecipeError(f"the task '{task.name}' needs a model with the head {wanted}", got=", ".join(names))


def _check_steps(
    checker: _Checker, tasks: tuple[Resolved, ...], steps: tuple[Resolved, ...], config: Mapping[str, Any], key: str
) -> str | None:
    """The weight format that the steps leave, None if one can't follow the one before."""
    recipe = checker.loaded.recipe
    weights = weight_format(recipe.model.id, recipe.model.dtype) if config else recipe.model.dtype
    for index, step in enumerate(steps):
        facts, at = step.value.facts, f"{key}[{index}]"
        if weights not in facts.accepts:
            wanted = ", ".join(sorted(facts.accepts))
            before = steps[index - 1].name if index else f"a model in {weights}"
            checker.add(
                at,
                RecipeError(
                    f"'{step.name}' can't follow {before}",
                    got=f"{weights} weights where it needs {wanted}",
                    do="Change the order of the steps.",
                ),
            )
            return None
        if tasks:
            checker.run(at, partial(check_data, step, HEADS[tasks[0].value.head], tasks[0].name))
        if facts.needs_training_data and tasks:
            checker.run(at, lambda: tasks[0].value.check(training=True))
        if facts.needs_calibration and tasks:
            calibration = step.value.calibration
            checker.run(f"{at}.calibration", partial(check_calibration, tasks[0].value, calibration))
        checker.run(at, partial(step.value.check_model, config))
        weights = step.value.weights_after(weights)
    return weights


def _shared_content(recipe: Recipe, tasks: tuple[Resolved, ...], meters: tuple[Resolved, ...]) -> dict[str, Any]:
    return {
        "model": recipe.model.model_dump(mode="json"),
        "tasks": [{**task.as_data(), "version": task.value.version} for task in tasks],
        "meters": [meter.as_data() for meter in meters],
        "workload": recipe.workload.model_dump(mode="json"),
        "device": recipe.device,
        "seed": recipe.seed,
    }


def _key(shared: Mapping[str, Any], steps: tuple[Resolved, ...], runtime: Resolved) -> str:
    return content_hash({**shared, "steps": [step.as_data() for step in steps], "runtime": runtime.as_data()})
