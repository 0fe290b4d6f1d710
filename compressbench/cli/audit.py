"""`compressbench audit`: did the compression really happen?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressbench.cli import arguments
from compressbench.core.errors import MissingMeasurementError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressbench.records.audit import Audit
    from compressbench.records.record import Record

FALSE_CLAIM, UNREADABLE = 3, 2


def audit(
    records: Annotated[list[Path], typer.Argument(metavar="RECORD", help="Records: files or folders.")],
    as_json: arguments.AsJson = False,
    full: Annotated[bool, typer.Option("--full", help="Every module and every kernel.")] = False,
) -> None:
    """Say what a compressed model really stores and runs, and which claims of its steps are false.

    Exit code 3 if a claim is false, else 4 if a record has no audit. The JSON of one file is an object, of more a list.
    """
    is_one = len(records) == 1 and records[0].is_file()
    found, codes = _read(records)
    audits: list[tuple[Record, Audit]] = []
    for record in found:
        try:
            audits.append((record, audit_of(record)))
        except MissingMeasurementError as error:
            if is_one:
                raise
            typer.echo(f"error: {error}", err=True)
            codes.append(error.exit_code)
    if as_json:
        data = [_as_data(record, each) for record, each in audits]
        typer.echo(json.dumps(data[0] if is_one else data, indent=1))
    else:
        _print(audits, full)
    code = worst([*codes, *(0 if each.claim_ok else FALSE_CLAIM for _, each in audits)])
    if code:
        raise typer.Exit(code)


def audit_of(record: Record) -> Audit:
    """Raises MissingMeasurementError with the reason if the record has no audit."""
    if record.audit is not None:
        return record.audit
    where = f"{record.recipe.name} {record.candidate} {record.run_id}"
    if record.failure is not None:
        reason, do = f"it {record.status}: {record.failure.message}", ""
    else:
        reason = f"a record of schema {record.schema_version} that was written without one"
        do = "Run the recipe again: schema 1 had no audits." if record.schema_version == 1 else "Run the recipe again."
    raise MissingMeasurementError("the record has no audit", where=where, got=reason, do=do)


def worst(codes: Sequence[int]) -> int:
    """A false claim weighs most, then a record that can't be read, then one without an audit."""
    order = (FALSE_CLAIM, UNREADABLE, MissingMeasurementError.exit_code)
    return next((code for code in order if code in codes), 0)


def _read(paths: Sequence[Path]) -> tuple[list[Record], list[int]]:
    from compressbench.records.store import read_record, read_records

    if len(paths) == 1 and paths[0].is_file():
        return [read_record(paths[0])], []
    found, unreadable = read_records(paths)
    for each in unreadable:
        typer.echo(f"error: {each.reason}", err=True)
    return found, [UNREADABLE] * len(unreadable)


def _as_data(record: Record, audit: Audit) -> dict[str, Any]:
    names = {"recipe": record.recipe.name, "candidate": record.candidate, "run_id": record.run_id}
    return {**names, **audit.model_dump(mode="json")}


def _print(audits: Sequence[tuple[Record, Audit]], full: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    from compressbench.core.names import one_line
    from compressbench.report.audit_lines import audit_lines
    from compressbench.report.heading import heading, wrapped

    console = Console(highlight=False)
    # false claims come first among the records, too
    for number, (record, each) in enumerate(sorted(audits, key=lambda pair: pair[1].claim_ok)):
        if number:
            console.print()
        console.print(Text(one_line(record.candidate), style="bold"))
        for line in wrapped(one_line(heading(record)), console.width):
            console.print(Text(line, style="dim"))
        for line, style in audit_lines(each, full=full):
            console.print(Text(one_line(line), style=style))
