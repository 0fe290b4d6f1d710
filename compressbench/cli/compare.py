"""`compressbench compare`: models side by side, what is better, worse and undecided."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments, reading
from compressbench.core.errors import InputError, RecordError
from compressbench.core.garbage import no_garbage_collection

if TYPE_CHECKING:
    from compressbench.report.compare import Comparison


class Form(StrEnum):
    terminal = "terminal"
    md = "md"
    json = "json"


def compare(
    records: Annotated[
        list[Path],
        typer.Argument(metavar="RECORDS", help="One folder, or two and more records, the first being the reference."),
    ],
    form: Annotated[Form, typer.Option("--format", "-f", help="How to print it.")] = Form.terminal,
    as_json: arguments.AsJson = False,
    full: Annotated[bool, typer.Option("--full", help="Every quantity.")] = False,
    recipe: reading.RecipeName = "",
    force: reading.Force = False,
) -> None:
    """Compare models side by side: a folder's newest run with its baseline, or records with the first of them.

    Exit 5 if records were measured under different conditions; --force compares them all the same, with a watermark.
    """
    with no_garbage_collection():
        found = _of_run(records[0], recipe, full) if len(records) == 1 else _of_records(records, recipe, force, full)
        _print(found, "json" if as_json else form.value)


def _of_run(path: Path, recipe: str, full: bool) -> Comparison:
    from compressbench.report.compare import compare_run

    catalog = reading.read_catalog([path])
    return compare_run(catalog, reading.pick(catalog, (), recipe=recipe), full=full)


def _of_records(paths: Sequence[Path], recipe: str, force: bool, full: bool) -> Comparison:
    from compressbench.report.beside import with_baselines
    from compressbench.report.compare import compare_records

    if recipe:
        raise InputError("--recipe chooses in one folder", got=f"{len(paths)} paths", do="Give one folder, or files.")
    files = [_one_record(path) for path in paths]
    if len({file.resolve() for file in files}) < len(files):
        raise InputError("the same record is given twice", got=", ".join(map(str, paths)))
    catalog = reading.read_catalog(with_baselines(files), all_runs=True)
    places = {catalog.path(at).resolve(): at for at in range(len(catalog))}
    reference, *others = [places[file.resolve()] for file in files]
    return compare_records(catalog, reference, others, force=force, full=full)


def _one_record(path: Path) -> Path:
    """The file itself, or the only record in a folder."""
    from compressbench.report.catalog import open_catalog

    found = open_catalog([path], all_runs=True)
    if found.unreadable:
        raise RecordError("it can't be compared", where=str(path), got=found.unreadable[0].reason)
    if len(found) != 1:
        do = "Give this folder alone, or the files of the records."
        raise RecordError("a folder beside others must hold one record", where=str(path), got=str(len(found)), do=do)
    return found.path(0)


def _print(found: Comparison, form: str) -> None:
    from compressbench.report import compare_words

    if form == "json":
        typer.echo(compare_words.to_json(found))
    elif form == "md":
        typer.echo(compare_words.to_markdown(found), nl=False)
    else:
        from compressbench.report.compare_terminal import print_comparison

        print_comparison(found)
