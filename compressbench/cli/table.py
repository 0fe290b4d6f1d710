"""`compressbench table`: records into a table."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments
from compressbench.core.errors import InputError

if TYPE_CHECKING:
    from compressbench.records.record import Record


class Form(StrEnum):
    terminal = "terminal"
    md = "md"
    csv = "csv"
    json = "json"


def table(
    records: Annotated[list[Path], typer.Argument(metavar="RECORDS...", help="Folders or files of records.")],
    form: Annotated[Form, typer.Option("--format", "-f", help="How to print it.")] = Form.terminal,
    as_json: arguments.AsJson = False,
    all_runs: Annotated[bool, typer.Option("--all", help="Every run, not only each candidate's newest.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Every column.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write into this file instead.")] = None,
) -> None:
    """Print records as a table. A number that is not there is a dash with its reason, never 0."""
    print_rows(records, form="json" if as_json else form.value, all_runs=all_runs, full=full, out=out)


def print_rows(
    paths: Sequence[Path], *, form: str, all_runs: bool = False, full: bool = False, out: Path | None = None,
    only_recipe: str = "",
) -> None:  # fmt: skip
    """Read records and print them; what could not be read is said on standard error."""
    from compressbench.records.store import read_records
    from compressbench.report.rows import latest, rows_of

    records, unreadable = read_records(paths)
    for each in unreadable:
        typer.echo(f"warning: left out: {each.reason}", err=True)
    if only_recipe:
        from compressbench.plan import plan_file

        recipe_hash = plan_file(only_recipe).recipe_hash
        records = [record for record in records if record.recipe.hash == recipe_hash]
    rows = rows_of(records if all_runs else latest(records))
    if form == "terminal":
        _print_by_recipe(records, rows, full, out)
        return
    from compressbench.report import plain

    text = {"md": lambda: plain.to_markdown(rows, full=full), "csv": lambda: plain.to_csv(rows)}.get(
        form, lambda: plain.to_json(rows) + "\n"
    )()
    if out is None:
        typer.echo(text, nl=False)
    else:
        _write(out, text)


def _print_by_recipe(records: list[Record], rows: list, full: bool, out: Path | None) -> None:  # type: ignore[type-arg]
    from rich.console import Console

    from compressbench.report.heading import heading
    from compressbench.report.terminal import print_table

    if out is not None:
        raise InputError("a terminal table can't be written into a file", do="Add --format md, csv or json.")
    console = Console()
    for name in dict.fromkeys(row.recipe for row in rows):
        newest = [record for record in records if record.recipe.name == name][-1]
        print_table([row for row in rows if row.recipe == name], heading(newest), full=full, console=console)


def _write(out: Path, text: str) -> None:
    from compressbench.records.files import write_atomically

    write_atomically(out, text.encode())
