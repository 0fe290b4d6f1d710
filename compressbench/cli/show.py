"""`compressbench show`: one record, whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments

if TYPE_CHECKING:
    from compressbench.records.record import Record


def show(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="One record file.", show_default=False)],
    as_json: arguments.AsJson = False,
    recipe: Annotated[bool, typer.Option("--recipe", help="Print its recipe as YAML that can be run again.")] = False,
) -> None:
    """Show one record: what was done, what came out and how it was obtained, what is absent and why, and where it ran.

    Verdicts are against the baseline of the same run, which is looked for in the same folder.
    """
    from compressbench.records.store import read_record

    found = read_record(record)
    if as_json:
        typer.echo(json.dumps(found.model_dump(mode="json"), indent=1))
    elif recipe:
        from compressbench.report.reproduce import recipe_yaml

        typer.echo(recipe_yaml(found), nl=False)
    else:
        _print(record, found)


def _print(path: Path, record: Record) -> None:
    from rich.console import Console
    from rich.text import Text

    from compressbench.core.names import one_line
    from compressbench.report.beside import run_beside
    from compressbench.report.record_words import record_lines

    console = Console(highlight=False)
    run, unreadable = run_beside(path, record)
    for line in record_lines(record, run, unreadable, width=console.width):
        # a command is longer than a line, and is copied whole
        console.print(Text.assemble(*((one_line(text), style) for text, style in line)), soft_wrap=True)
