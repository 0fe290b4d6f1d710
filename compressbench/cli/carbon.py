"""`compressbench carbon`: grams of CO2e, litres of water and money per unit of work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments, carbon_flags, reading
from compressbench.cli.table import Form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressbench.lifecycle.account import Account
    from compressbench.lifecycle.carbon import Terms


def carbon(
    records: reading.Records,
    region: carbon_flags.Region = "",
    grid_g_per_kwh: carbon_flags.GridGrams = None,
    site: carbon_flags.Site = "",
    pue: carbon_flags.Pue = None,
    wue_site: carbon_flags.WueSite = None,
    wue_grid: carbon_flags.WueGrid = None,
    embodied_kg: carbon_flags.EmbodiedKg = None,
    share: carbon_flags.Share = None,
    lifetime_years: carbon_flags.LifetimeYears = None,
    utilisation: carbon_flags.Utilisation = None,
    end_of_life_kg: carbon_flags.EndOfLifeKg = None,
    price_per_hour: carbon_flags.PricePerHour = None,
    price_per_kwh: carbon_flags.PricePerKwh = None,
    currency: carbon_flags.Currency = "",
    recipe: reading.RecipeName = "",
    key: reading.Key = "",
    all_runs: reading.AllRuns = False,
    form: Annotated[Form, typer.Option("--format", "-f", help="How to print it.")] = Form.terminal,
    as_json: arguments.AsJson = False,
) -> None:
    """Print what a unit of work emits, drinks and costs: running it, its share of the hardware, and both together.

    SCI = (E * I + M) / R (ISO/IEC 21031). Nothing is looked up on a network, and every assumption carries its label.
    """
    from compressbench.cli.carbon_rows import NAMES, accounts

    numbers = {
        "grid_g_per_kwh": grid_g_per_kwh,
        "pue": pue,
        "wue_site": wue_site,
        "wue_grid": wue_grid,
        "lifetime_years": lifetime_years,
        "utilisation": utilisation,
        "end_of_life_kg": end_of_life_kg,
        "price_per_hour": price_per_hour,
        "price_per_kwh": price_per_kwh,
    }
    terms = carbon_flags.terms_of(region, site, currency, numbers)
    catalog = reading.read_catalog(records, all_runs=all_runs)
    contenders = reading.pick(catalog, NAMES, recipe=recipe, key=key)
    _print(accounts(catalog, contenders, terms, kg=embodied_kg, share=share), terms, "json" if as_json else form.value)


def _print(found: Sequence[Account], terms: Terms, form: str) -> None:
    from compressbench.cli.carbon_print import print_terminal, to_csv, to_json_text, to_markdown

    if form == "terminal":
        from rich.console import Console

        print_terminal(found, terms, Console(highlight=False))
    else:
        write = {"json": to_json_text, "md": to_markdown, "csv": to_csv}[form]
        typer.echo(write(found, terms), nl=False)
