"""`compressbench frontier`: what more energy, time, memory, size or bits still gain, and after which row nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments
from compressbench.cli.reading import AllRuns, Force, Key, RecipeName, Records, Svg, pick, read_catalog
from compressbench.cli.table import Form

if TYPE_CHECKING:
    from pathlib import Path

    from compressbench.report.catalog import Catalog
    from compressbench.report.figures import Contender
    from compressbench.report.frontier import Asked, Frontier


def frontier(
    records: Records,
    metric: Annotated[
        str, typer.Option("--metric", "-m", help="The quality; the first task's metric.", show_default=False)
    ] = "",
    cost: Annotated[
        str,
        typer.Option(
            "--cost",
            help="energy, latency, memory, size, bits, parameters, throughput, or a cost of table --json; energy, or size "
            "where there is none.",
            show_default=False,
        ),
    ] = "",
    rival: Annotated[
        list[str] | None, typer.Option("--rival", help="A recipe of another model, such as a smaller dense one.")
    ] = None,
    task_rival: Annotated[
        list[str] | None,
        typer.Option("--task-rival", help="A recipe of a small model that was made for this task alone."),
    ] = None,
    smallest_gain: Annotated[
        float | None,
        typer.Option(
            "--smallest-gain",
            help="Gains below it don't matter: 0.01 is a point of accuracy, or 1 % of a perplexity. The declared margin.",
            show_default=False,
        ),
    ] = None,
    all_rows: Annotated[
        bool, typer.Option("--all-rows", help="Fit curves to all rows, not only to the front.")
    ] = False,
    svg: Svg = None,
    recipe: RecipeName = "",
    key: Key = "",
    all_runs: AllRuns = False,
    force: Force = False,
    form: Annotated[Form, typer.Option("--format", "-f", help="How to print it.")] = Form.terminal,
    as_json: arguments.AsJson = False,
) -> None:
    """Print diminishing returns: what each dearer row of the front gains, and after which one no more gain is shown.

    Exit 5 if the records can't be ranked together, 4 if no row has both numbers.
    """
    from compressbench.report.cost_words import names_for
    from compressbench.report.frontier import Asked
    from compressbench.report.frontier import frontier as compute
    from compressbench.report.groups import one_group

    rivals, task_rivals = tuple(rival or ()), tuple(task_rival or ())
    asked = Asked(metric, cost, rivals, task_rivals, smallest_gain, all_rows)
    catalog = read_catalog(records, all_runs=all_runs)
    names = names_for([cost] if cost else ["energy", "size"])
    contenders = _picked(catalog, names, asked, recipe, key)
    watermark = one_group(catalog, contenders, force=force)
    found = compute(catalog, contenders, asked, watermark)
    if svg is not None:
        _draw(catalog, found, svg)
    _print(catalog, found, Form.json if as_json else form)


def _picked(catalog: Catalog, names: list[str], asked: Asked, recipe: str, key: str) -> list[Contender]:
    """All rows, or those of one recipe and of the rivals', which must be there."""
    found = pick(catalog, names, recipe=recipe, key=key)
    for rival in dict.fromkeys((*asked.rivals, *asked.task_rivals)):
        found += pick(catalog, names, recipe=rival, key=key)
    return sorted({each.at: each for each in found}.values(), key=lambda each: each.at)


def _draw(catalog: Catalog, found: Frontier, path: Path) -> None:
    from compressbench.records.files import write_atomically
    from compressbench.report.frontier_plot import to_svg

    write_atomically(path, to_svg(catalog, found).encode())


def _print(catalog: Catalog, found: Frontier, form: Form) -> None:
    if form is Form.terminal:
        from compressbench.report.frontier_tables import print_frontier

        print_frontier(catalog, found)
    elif form is Form.md:
        from compressbench.report.frontier_tables import to_markdown

        typer.echo(to_markdown(catalog, found), nl=False)
    else:
        from compressbench.report.frontier_data import to_csv, to_json

        typer.echo(to_csv(catalog, found) if form is Form.csv else to_json(catalog, found), nl=False)
