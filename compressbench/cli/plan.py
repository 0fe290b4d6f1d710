"""`compressbench plan`: what would run, and for how long?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from compressbench.cli import arguments

if TYPE_CHECKING:
    from compressbench.core.registry import Resolved
    from compressbench.plan import Plan


def plan(recipe: arguments.Recipe, data_root: arguments.DataRoot = None, as_json: arguments.AsJson = False) -> None:
    """Show every cell that would run, its content hash, and a rough estimate of the time. Nothing is loaded."""
    from compressbench.data.data_root import reading_below
    from compressbench.plan import plan_file

    planned = plan_file(str(recipe), data_root=data_root)
    with reading_below(planned.data_root):
        if as_json:
            typer.echo(json.dumps(_as_data(planned), indent=1))
        else:
            _print(planned)


def _as_data(planned: Plan) -> dict[str, object]:
    from compressbench.measure.planned_samples import planned_samples

    cells = [
        {"name": cell.name, "role": cell.role, "key": cell.key, "steps": [step.as_data() for step in cell.steps],
         "runtime": cell.runtime.as_data(), "estimated_seconds": cell.seconds, "unsupported": cell.unsupported or None}
        for cell in planned.cells
    ]  # fmt: skip
    samples = [planned_samples(label, task.value).model_dump(mode="json") for label, task in planned.labelled_tasks()]
    total = {"recipe": planned.recipe.name, "hash": planned.recipe_hash, "estimated_seconds": planned.seconds}
    tasks = [{"label": label, **task.as_data()} for label, task in planned.labelled_tasks()]
    return {**total, "tasks": tasks, "samples": samples, "cells": cells}


def _print(planned: Plan) -> None:
    typer.echo(f"{planned.recipe.name}  {planned.recipe_hash}\n")
    for label, task in planned.labelled_tasks():
        typer.echo(f"  {label}: {task.registered_name}{_source(task)}")
    typer.echo()
    width = max(len(cell.name) for cell in planned.cells)
    for cell in planned.cells:
        time = f"unsupported: {cell.unsupported}" if cell.unsupported else _duration(cell.seconds)
        typer.echo(f"  {cell.name:<{width}}  {cell.key}  {cell.runtime.name}  {time}")
        for step in cell.steps:
            typer.echo(f"      {step.name} {_options(step)}".rstrip())
    _print_samples(planned)
    typer.echo(f"\n{planned.schedule.announcement(0.0, len(planned.cells))}")
    typer.echo(_in_all(planned.seconds))


def _in_all(seconds: float | None) -> str:
    if seconds is None:
        return "How long it takes in all can't be told before the model is on this machine."
    return f"In all {_duration(seconds)} on CPU, within a factor of three; a GPU is faster."


def _print_samples(planned: Plan) -> None:
    from compressbench.measure.planned_samples import planned_samples, sentences

    typer.echo("")
    for label, task in planned.labelled_tasks():
        first, *others = sentences(planned_samples(label, task.value))
        typer.echo(f"  {first}")
        for other in others:
            typer.echo(f"      {other}")


def _source(task: Resolved) -> str:
    """Where the data of a task come from: a ready-made one falls back on the Hub where there is no local copy."""
    data, split = task.options.get("data"), task.options.get("split")
    return f" on {data}, split {split}" if data else ""


def _options(step: Resolved) -> str:
    given = step.value.model_dump(exclude_defaults=True)
    return " ".join(f"{key}={value}" for key, value in given.items())


def _duration(seconds: float | None) -> str:
    from compressbench.measure.schedule import duration

    return "of unknown duration" if seconds is None else f"about {duration(seconds)}"
