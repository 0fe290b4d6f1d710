"""`compressbench leaderboard`: records into a page that people can look at, or the same rows as text."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli.reading import AllRuns, RecipeName, Records
from compressbench.core.errors import InputError

if TYPE_CHECKING:
    from compressbench.report.leaderboard.board import Board


class Form(StrEnum):
    html = "html"
    md = "md"
    csv = "csv"
    json = "json"
    latex = "latex"


def leaderboard(
    records: Records,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the site, or file of a text.")] = None,
    title: Annotated[str, typer.Option(help="What the page is called.")] = "Which compressed model should I deploy?",
    form: Annotated[Form, typer.Option("--format", "-f", help="A site, or the same rows as text.")] = Form.html,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    all_runs: AllRuns = False,
    recipe: RecipeName = "",
) -> None:
    """Rank records, split into groups that can be compared: a static site that opens from a disk, or a text."""
    from compressbench.cli.reading import pick, read_catalog
    from compressbench.core.garbage import no_garbage_collection
    from compressbench.report.leaderboard.board_build import board_of

    form = Form.json if as_json else form
    if form is Form.html and out is None:
        raise InputError(
            "a site needs a folder", do="Add --out site, or --format md, csv, json or latex for a text on the terminal."
        )
    with no_garbage_collection():
        catalog = read_catalog(records, all_runs=all_runs)
        if recipe:
            pick(catalog, (), recipe=recipe)  # says which recipes there are if this one isn't
        board = board_of(catalog, title, recipe=recipe)
        if form is Form.html and out is not None:
            from compressbench.report.leaderboard.site import write_site

            typer.echo(str(write_site(board, catalog, out)))
        else:
            _give(_as_text(board, form), out)


def _as_text(board: Board, form: Form) -> str:
    from compressbench.report.leaderboard import latex, text_forms

    forms = {
        Form.md: text_forms.to_markdown,
        Form.csv: text_forms.to_csv,
        Form.json: text_forms.to_json,
        Form.latex: latex.to_latex,
    }
    return forms[form](board)


def _give(text: str, out: Path | None) -> None:
    from compressbench.records.files import write_atomically

    if out is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(out, text.encode())
