"""Records for a verb that decides: read, what was left out said, and one recipe or group picked."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.core.errors import RecordError
from compressbench.core.garbage import no_garbage_collection
from compressbench.core.names import one_line

if TYPE_CHECKING:
    from compressbench.report.catalog import Catalog, Only
    from compressbench.report.figures import Contender

_MOST_NAMED = 5
Records = Annotated[list[Path], typer.Argument(metavar="RECORDS", help="Folders or files of records.")]
RecipeName = Annotated[str, typer.Option("--recipe", help="Only rows of the recipe of this name.")]
Key = Annotated[str, typer.Option("--key", help="Only rows of this comparability key (table --json has them).")]
AllRuns = Annotated[bool, typer.Option("--all", help="Every run, not only each candidate's newest.")]
Force = Annotated[bool, typer.Option("--force", help="Rank what isn't comparable all the same, with a watermark.")]
Svg = Annotated[Path | None, typer.Option("--svg", help="Write a picture to this file.", show_default=False)]
Reindex = Annotated[
    bool, typer.Option("--reindex", help="Make the index of large folders anew: every file is read and checked.")
]


def read_catalog(
    paths: Sequence[Path], *, all_runs: bool = False, reindex: bool = False, only: Only | None = None
) -> Catalog:
    """Says on standard error which files were left out, and why. Raises RecordError if no record could be read."""
    from compressbench.report.catalog import open_catalog
    from compressbench.report.index import Settings
    from compressbench.report.index_files import no_records_in

    skipped = no_records_in(paths)
    if skipped:
        _say(f"warning: skipped: {_skipped(skipped)}")
    settings = Settings(reindex=reindex, processes=os.cpu_count() or 1, say=_say)
    with no_garbage_collection():
        catalog = open_catalog(paths, all_runs=all_runs, only=only, settings=settings)
        gc.freeze()  # it lives until the end: no later search for cycles need walk through it
    for each in catalog.unreadable:
        _say(f"warning: left out: {each.reason}")
    if catalog.unreadable and not len(catalog) and only is None:
        raise _nothing_read(paths, len(catalog.unreadable) + len(skipped))
    return catalog


def _skipped(files: Sequence[Path]) -> str:
    """How many files are no records, and the names of a few."""
    if len(files) == 1:
        return f"1 JSON file is no record (it has no schema_version): {files[0]}"
    left = [f"and {len(files) - _MOST_NAMED:,} more"] if len(files) > _MOST_NAMED else []
    names = ", ".join([*map(str, files[:_MOST_NAMED]), *left])
    return f"{len(files):,} JSON files are no records (they have no schema_version): {names}"


def _nothing_read(paths: Sequence[Path], num_files: int) -> RecordError:
    return RecordError(
        f"0 of {num_files:,} {'file' if num_files == 1 else 'files'} could be read",
        where=", ".join(map(str, paths)),
        do="The warnings above say why, file by file. compressbench run RECIPE --out FOLDER writes records that can be.",
    )


def _say(text: str) -> None:
    typer.echo(one_line(text), err=True)


def pick(catalog: Catalog, names: Iterable[str], *, recipe: str = "", key: str = "") -> list[Contender]:
    """Raises RecordError if nothing is left."""
    with no_garbage_collection():
        found = catalog.contenders(names, recipe=recipe, key=key)
        gc.freeze()
    if found:
        return found
    asked = " and ".join(f"{what} '{name}'" for what, name in (("recipe", recipe), ("key", key)) if name)
    known = ", ".join(dict.fromkeys(f"{each.recipe} ({each.comparability_key})" for each in catalog.contenders()))
    raise RecordError(f"no row has {asked or 'a record'}", got=f"rows of {known or 'nothing'}")
