"""`compressbench think`: what several samples of each model bring for their joules, and who is best at equal energy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments
from compressbench.cli.reading import AllRuns, Force, Key, RecipeName, Records, pick, read_catalog

if TYPE_CHECKING:
    from compressbench.report.think import Thinking


def think(
    records: Records,
    svg: Annotated[Path | None, typer.Option("--svg", help="Write a picture to this file.", show_default=False)] = None,
    recipe: RecipeName = "",
    key: Key = "",
    all_runs: AllRuns = False,
    force: Force = False,
    as_json: arguments.AsJson = False,
) -> None:
    """Compare models that think longer: coverage and selected accuracy against joules a question, at equal energy.

    Reads records of the task generation with several samples. Exit 4 if there are none or they have no joules, 5 if they
    can't be compared.
    """
    from compressbench.report.groups import one_group
    from compressbench.report.think import thinking

    catalog = read_catalog(records, all_runs=all_runs)
    contenders = pick(catalog, [], recipe=recipe, key=key)
    found = thinking(catalog, contenders, one_group(catalog, contenders, force=force))
    if svg is not None:
        _write(svg, found)
    if as_json:
        from compressbench.report.think_data import to_json

        typer.echo(to_json(catalog, found), nl=False)
    else:
        from compressbench.report.think_tables import print_thinking

        print_thinking(found)


def _write(path: Path, found: Thinking) -> None:
    from compressbench.core.errors import OutputError
    from compressbench.report.think_plot import to_svg

    try:
        path.write_text(to_svg(found), encoding="utf-8")
    except OSError as error:
        raise OutputError("can't be written", where=str(path), got=str(error.strerror or error)) from error
