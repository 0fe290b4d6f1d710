"""`compressbench think`: what several samples of each model bring for their joules, and who is best at equal energy."""

from __future__ import annotations

import typer

from compressbench.cli import arguments
from compressbench.cli.reading import AllRuns, Force, Key, RecipeName, Records, Svg, pick, read_catalog


def think(
    records: Records,
    svg: Svg = None,
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
        from compressbench.records.files import write_atomically
        from compressbench.report.think_plot import to_svg

        write_atomically(svg, to_svg(found).encode())
    if as_json:
        from compressbench.report.think_data import to_json

        typer.echo(to_json(catalog, found), nl=False)
    else:
        from compressbench.report.think_tables import print_thinking

        print_thinking(found)
