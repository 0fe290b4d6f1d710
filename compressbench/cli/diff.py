"""`compressbench diff`: what differs between two recipes, or two records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compressbench.cli import arguments

_WHAT = "A recipe (YAML), a record (JSON), or a folder of records (its newest baseline)."


def diff(
    ours: Annotated[Path, typer.Argument(metavar="A", help=_WHAT, show_default=False)],
    theirs: Annotated[Path, typer.Argument(metavar="B", help="The same.", show_default=False)],
    as_json: arguments.AsJson = False,
) -> None:
    """Show what differs: keys of recipes; conditions, environment and recipe of records, and whether they can be ranked.

    Exit 0 if both could be read, whether or not they differ.
    """
    from compressbench.report import diff as report
    from compressbench.report import diff_words

    found = report.diff(ours, theirs)
    if as_json:
        typer.echo(diff_words.to_json(found))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for text, style in diff_words.lines(found, console.width):
        console.print(Text(text, style=style), crop=False, soft_wrap=True)
