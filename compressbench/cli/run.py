"""`compressbench run`: a recipe in, records and a table out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from compressbench.cli import arguments
from compressbench.core.errors import StoppedError


class Kind(StrEnum):
    measured = "measured"
    estimated = "estimated"
    modelled = "modelled"


def run(
    recipe: arguments.Recipe,
    out: arguments.Out = Path("out"),
    resume: Annotated[bool, typer.Option("--resume", help="Keep cells that already have a good record there.")] = False,
    save: Annotated[
        bool, typer.Option("--save", help="Keep every candidate under OUT/artefacts, and check that it loads again.")
    ] = False,
    require_energy: Annotated[
        Kind | None, typer.Option("--require-energy", help="Stop (exit code 4) unless energy is at least of this kind.")
    ] = None,
    data_root: arguments.DataRoot = None,
    as_json: arguments.AsJson = False,
) -> None:
    """Run a recipe: compress, evaluate and measure the baseline and every candidate; write records; print the table.

    Exit code 1 if a cell failed; its record says why and the others are kept.
    """
    from compressbench.cli.table import print_rows
    from compressbench.data.data_root import reading_below

    try:
        needed = None if require_energy is None else require_energy.value
        num_failed = _run(recipe, out, resume=resume, save=save, needs_energy=needed, data_root=data_root)
    except KeyboardInterrupt:
        raise StoppedError("stopped; what was already measured is kept", where=str(out)) from None
    with reading_below(data_root):
        print_rows([out], form="json" if as_json else "terminal", only_recipe=str(recipe))
    typer.echo(f"records: {out}", err=as_json)
    if num_failed:
        raise typer.Exit(1)


def _run(recipe: Path, out: Path, **options: Any) -> int:
    """How many cells failed."""
    from compressbench.cli.bars import TerminalProgress
    from compressbench.core.names import one_line
    from compressbench.run import run_recipe

    num_failed = 0
    with TerminalProgress() as progress:
        for record in run_recipe(recipe, out, progress=progress, **options):
            num_failed += record.status == "failed"
            if record.failure is not None:
                progress.say(one_line(f"  {record.status}: {record.failure.message}"))
    return num_failed
