"""`compressbench table`: records into a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments, reading
from compressbench.core.errors import InputError
from compressbench.core.garbage import no_garbage_collection

if TYPE_CHECKING:
    from compressbench.report.catalog import Catalog, Only
    from compressbench.report.rows import Row

_LIMIT = 500
_PIECES_AT_ONCE = 256


class Form(StrEnum):
    terminal = "terminal"
    md = "md"
    csv = "csv"
    json = "json"


def table(
    records: reading.Records,
    form: Annotated[Form, typer.Option("--format", "-f", help="How to print it.")] = Form.terminal,
    as_json: arguments.AsJson = False,
    all_runs: reading.AllRuns = False,
    full: Annotated[bool, typer.Option("--full", help="Every column.")] = False,
    limit: Annotated[
        int, typer.Option(min=0, help="At most so many rows on the terminal and in Markdown, the newest; 0: all.")
    ] = _LIMIT,
    reindex: reading.Reindex = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write into this file instead.")] = None,
    max_stratum_drop: Annotated[
        float | None,
        typer.Option(
            min=0, help="Exit 1 if a candidate lost more in any stratum, 2 if that can't be told (0.05: five points)."
        ),
    ] = None,
) -> None:
    """Print records as a table. A number that is not there is a dash with its reason, never 0."""
    chosen = "json" if as_json else form.value
    _refuse_terminal_file(chosen, out)
    # hundreds of records are millions of numbers, and nothing here makes cycles
    with no_garbage_collection():
        catalog = reading.read_catalog(records, all_runs=all_runs, reindex=reindex)
        _print(catalog, chosen, full=full, limit=limit, out=out)
        if max_stratum_drop is not None:
            _gate(catalog, max_stratum_drop)


def _gate(catalog: Catalog, max_drop: float) -> None:
    from compressbench.report.stratum_gate import EXIT_CODES, stratum_gate

    found = stratum_gate(catalog.rows(), max_drop)
    for line in found.lines:
        typer.echo(line, err=True)
    raise typer.Exit(EXIT_CODES[found.outcome])


def print_rows(
    paths: Sequence[Path], *, form: str, all_runs: bool = False, full: bool = False, out: Path | None = None,
    only_recipe: str = "",
) -> None:  # fmt: skip
    """Read records and print them all; what could not be read is said on standard error."""
    _refuse_terminal_file(form, out)
    with no_garbage_collection():
        catalog = reading.read_catalog(paths, all_runs=all_runs, only=_only(only_recipe) if only_recipe else None)
        _print(catalog, form, full=full, limit=0, out=out)


def _refuse_terminal_file(form: str, out: Path | None) -> None:
    if form == "terminal" and out is not None:
        raise InputError("a terminal table can't be written into a file", do="Add --format md, csv or json.")


def _only(recipe: str) -> Only:
    from compressbench.plan import plan_file
    from compressbench.report.catalog import Only

    # not by the recipe's hash: with --resume the recipe may have got new candidates since the others were measured
    plan = plan_file(recipe)
    return Only(plan.recipe.name, frozenset(cell.key for cell in plan.cells))


def _print(catalog: Catalog, form: str, *, full: bool, limit: int, out: Path | None) -> None:
    from compressbench.report import plain
    from compressbench.report.catalog import older_words, within

    if form == "json":
        _give(_lines(plain.json_list(catalog.texts("row"))), out)
        return
    if form == "csv":
        metrics = catalog.metrics()
        names = list(dict.fromkeys(name for own in dict.fromkeys(metrics) for name in own))
        _give(plain.csv_lines(names, zip(metrics, catalog.texts("csv"), strict=True)), out)
        return
    older = older_words(catalog.num_older)
    shown, more = within(catalog, limit)
    left_out = " ".join(part for part in (more, older) if part)
    if form == "md":
        _give([_markdown(catalog, shown, full), f"\n{left_out}\n" if left_out else ""], out)
    else:
        _print_tables(catalog, shown, full, left_out)


def _by_heading(catalog: Catalog, shown: Sequence[int]) -> list[tuple[str, list[Row]]]:
    """Rows that were measured under the same conditions, each with what their table is headed with.

    A heading has room for few conditions: tables of the same one may differ in others.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for heading, row in zip(catalog.texts("heading", shown), catalog.rows(shown), strict=True):
        groups.setdefault((heading, row.comparability_key), []).append(row)
    return [(f"{heading} · {rows[-1].created_utc[:10]}", rows) for (heading, _), rows in groups.items()]


def _markdown(catalog: Catalog, shown: Sequence[int], full: bool) -> str:
    """One table, or one under a heading for all records that were measured under the same conditions."""
    from compressbench.report.plain import escape, to_markdown

    groups = _by_heading(catalog, shown)
    tables = [(heading, to_markdown(rows, full=full)) for heading, rows in groups]
    if len(groups) == 1:
        return tables[0][1]
    return "\n".join(f"### {escape(heading)}\n\n{each}" for heading, each in tables)


def _print_tables(catalog: Catalog, shown: Sequence[int], full: bool, left_out: str) -> None:
    """One table for all records that were measured under the same conditions."""
    from rich.console import Console
    from rich.text import Text

    from compressbench.report.terminal import print_table

    console = Console()
    for number, (heading, rows) in enumerate(_by_heading(catalog, shown)):
        if number:
            console.print()
        print_table(rows, heading, full=full, console=console)
    if left_out:
        console.print(Text(f"\n{left_out}", style="bold"))


def _lines(pieces: Iterable[str]) -> Iterable[str]:
    yield from pieces
    yield "\n"


def _give(pieces: Iterable[str], out: Path | None) -> None:
    """Piece by piece: a hundred thousand rows are a gigabyte of text."""
    from compressbench.records.files import write_atomically

    if out is not None:
        write_atomically(out, (piece.encode() for piece in pieces))
        return
    left, stream = iter(pieces), typer.get_text_stream("stdout")
    while some := list(islice(left, _PIECES_AT_ONCE)):
        stream.write("".join(some))
    stream.flush()
