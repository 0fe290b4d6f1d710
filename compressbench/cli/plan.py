"""`compressbench plan`: what would run, and for how long?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from compressbench.cli import arguments

if TYPE_CHECKING:
    from compressbench.plan import Cell, Plan


def plan(recipe: arguments.Recipe, as_json: arguments.AsJson = False) -> None:
    """Show every cell that would run, its content hash, and a rough estimate of the time. Nothing is loaded."""
    from compressbench.plan import plan_file

    planned = plan_file(str(recipe))
    if as_json:
        typer.echo(json.dumps(_as_data(planned), indent=1))
    else:
        _print(planned)


def _as_data(planned: Plan) -> dict[str, object]:
    cells = [
        {"name": cell.name, "role": cell.role, "key": cell.key, "steps": [step.as_data() for step in cell.steps],
         "runtime": cell.runtime.as_data(), "estimated_seconds": cell.seconds}
        for cell in planned.cells
    ]  # fmt: skip
    total = {"recipe": planned.recipe.name, "hash": planned.recipe_hash, "estimated_seconds": planned.seconds}
    return {**total, "tasks": [task.as_data() for task in planned.tasks], "cells": cells}


def _print(planned: Plan) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(
        "cell",
        "steps",
        "runtime",
        "hash",
        title=f"{planned.recipe.name}  {planned.recipe_hash}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    grid.add_column("about", justify="right")
    for cell in planned.cells:
        grid.add_row(cell.name, _steps(cell), cell.runtime.name, cell.key, _duration(cell.seconds))
    console = Console()
    console.print(grid)
    console.print(f"In all about {_duration(planned.seconds)} on CPU, within a factor of three; a GPU is faster.")


def _steps(cell: Cell) -> str:
    return "\n".join(
        f"{step.name} "
        + " ".join(f"{key}={value}" for key, value in step.value.model_dump(exclude_defaults=True).items())
        for step in cell.steps
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
