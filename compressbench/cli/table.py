"""`compressbench table`: records into a table."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments
from compressbench.core.errors import InputError
from compressbench.core.garbage import no_garbage_collection

if TYPE_CHECKING:
    from compressbench.records.record import Record
    from compressbench.report.rows import Row


class Form(StrEnum):
    terminal = "terminal"
    md = "md"
    csv = "csv"
    json = "json"


def table(
    records: Annotated[list[Path], typer.Argument(metavar="RECORDS", help="Folders or files of records.")],
    form: Annotated[Form, typer.Option("--format", "-f", help="How to print it.")] = Form.terminal,
    as_json: arguments.AsJson = False,
    all_runs: Annotated[bool, typer.Option("--all", help="Every run, not only each candidate's newest.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Every column.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write into this file instead.")] = None,
    max_stratum_drop: Annotated[
        float | None,
        typer.Option(
            min=0, help="Exit 1 if a candidate lost more in any stratum, 2 if that can't be told (0.05: five points)."
        ),
    ] = None,
) -> None:
    """Print records as a table. A number that is not there is a dash with its reason, never 0."""
    print_rows(records, form="json" if as_json else form.value, all_runs=all_runs, full=full, out=out)
    if max_stratum_drop is not None:
        _gate(records, max_stratum_drop, all_runs)


def _gate(paths: Sequence[Path], max_drop: float, all_runs: bool) -> None:
    from compressbench.records.store import read_records
    from compressbench.report.rows import latest, rows_of
    from compressbench.report.stratum_gate import EXIT_CODES, stratum_gate

    records, _ = read_records(paths)
    found = stratum_gate(rows_of(records if all_runs else latest(records)), max_drop)
    for line in found.lines:
        typer.echo(line, err=True)
    raise typer.Exit(EXIT_CODES[found.outcome])


def print_rows(
    paths: Sequence[Path], *, form: str, all_runs: bool = False, full: bool = False, out: Path | None = None,
    only_recipe: str = "",
) -> None:  # fmt: skip
    """Read records and print them; what could not be read is said on standard error."""
    from compressbench.report.rows import latest

    def read_and_print() -> None:
        records = _read(paths, only_recipe)
        records = records if all_runs else latest(records)
        if form == "terminal":
            _print_tables(records, full)
        else:
            _give(_as_text(records, form, full), out)

    if form == "terminal" and out is not None:
        raise InputError("a terminal table can't be written into a file", do="Add --format md, csv or json.")
    # hundreds of records are millions of numbers, and nothing here makes cycles
    with no_garbage_collection():
        read_and_print()


def _read(paths: Sequence[Path], only_recipe: str) -> list[Record]:
    from compressbench.records.store import read_records

    records, unreadable = read_records(paths)
    for each in unreadable:
        typer.echo(f"warning: left out: {each.reason}", err=True)
    if not only_recipe:
        return records
    from compressbench.plan import plan_file

    # not by the recipe's hash: with --resume the recipe may have got new candidates since the others were measured
    plan = plan_file(only_recipe)
    keys = {cell.key for cell in plan.cells}
    return [record for record in records if record.recipe.name == plan.recipe.name and record.key in keys]


def _print_tables(records: Sequence[Record], full: bool) -> None:
    """One table for all records that were measured under the same conditions."""
    from rich.console import Console

    from compressbench.report.heading import conditions, heading
    from compressbench.report.rows import rows_of
    from compressbench.report.terminal import print_table

    console = Console()
    groups: dict[str, list[tuple[Record, Row]]] = {}
    for record, row in zip(records, rows_of(records), strict=True):
        groups.setdefault(conditions(record), []).append((record, row))
    for group in groups.values():
        newest, _ = group[-1]
        print_table([row for _, row in group], heading(newest), full=full, console=console)


def _as_text(records: Sequence[Record], form: str, full: bool) -> str:
    from compressbench.report import plain
    from compressbench.report.rows import rows_of

    rows = rows_of(records)
    if form == "json":
        return plain.to_json(rows) + "\n"
    return plain.to_markdown(rows, full=full) if form == "md" else plain.to_csv(rows)


def _give(text: str, out: Path | None) -> None:
    from compressbench.records.files import write_atomically

    if out is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(out, text.encode())
