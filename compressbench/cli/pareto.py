"""`compressbench pareto`: which rows are on the Pareto front, and how sure that is."""

from __future__ import annotations

from typing import Annotated

import typer

from compressbench.cli import arguments
from compressbench.cli.reading import AllRuns, Force, Key, RecipeName, Records, pick, read_catalog
from compressbench.cli.table import Form


def pareto(
    records: Records,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "-m",
            help="Two or more: names, or short words (accuracy, latency, energy, memory, size, throughput). "
            "Without it the first task's metric, the speed and the size.",
            show_default=False,
        ),
    ] = None,
    recipe: RecipeName = "",
    key: Key = "",
    all_runs: AllRuns = False,
    force: Force = False,
    form: Annotated[Form, typer.Option("--format", "-f", help="How to print it.")] = Form.terminal,
    as_json: arguments.AsJson = False,
) -> None:
    """Print the Pareto front of each group of comparable rows: who is on it, how probably, and who dominates the others."""
    from compressbench.report.pareto import asked_for, fronts

    catalog = read_catalog(records, all_runs=all_runs)
    words = metric or []
    contenders = pick(catalog, asked_for(words), recipe=recipe, key=key)
    found = fronts(catalog, contenders, words, force=force)
    if form is Form.terminal and not as_json:
        from compressbench.report.pareto_tables import print_fronts

        print_fronts(catalog, found)
    elif form is Form.md and not as_json:
        from compressbench.report.pareto_tables import to_markdown

        typer.echo(to_markdown(catalog, found), nl=False)
    else:
        from compressbench.report.pareto_data import to_csv, to_json

        typer.echo(
            to_csv(catalog, found) if form is Form.csv and not as_json else to_json(catalog, found) + "\n", nl=False
        )
