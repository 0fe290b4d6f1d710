"""`compressbench carbon`: grams of CO2e, litres of water and money per unit of work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressbench.cli import arguments, reading
from compressbench.cli.table import Form

if TYPE_CHECKING:
    from compressbench.lifecycle.carbon import Terms


def _option(name: str, text: str, panel: str) -> Any:
    return typer.Option(name, help=text, rich_help_panel=panel, show_default=False)


_PLACE, _MADE, _MONEY = "Where it runs", "How the hardware was made", "Prices (no defaults)"


def carbon(
    records: reading.Records,
    region: Annotated[
        str,
        _option("--region", "Grid: DEU, USA-CA, CN-BJ, SE1, gcp:europe-west1; without it the world's range.", _PLACE),
    ] = "",
    grid_g_per_kwh: Annotated[
        float | None, _option("--grid-g-per-kwh", "Grams of CO2e per kWh instead of a region's.", _PLACE)
    ] = None,
    site: Annotated[
        str, _option("--site", "lab, datacentre-unknown (if nothing is said), aws, microsoft, google or meta.", _PLACE)
    ] = "",
    pue: Annotated[float | None, _option("--pue", "kWh of the building per kWh of its computers.", _PLACE)] = None,
    wue_site: Annotated[float | None, _option("--wue-site", "Litres of water per kWh at the site.", _PLACE)] = None,
    wue_grid: Annotated[float | None, _option("--wue-grid", "Litres per kWh where it is generated.", _PLACE)] = None,
    embodied_kg: Annotated[
        float | None, _option("--embodied-kg", "Kilograms of CO2e of making the hardware that is held.", _MADE)
    ] = None,
    share: Annotated[float | None, _option("--share", "Share of the server that is held (0 to 1).", _MADE)] = None,
    lifetime_years: Annotated[
        float | None, _option("--lifetime-years", "Years in use; 4 [3, 6] assumed.", _MADE)
    ] = None,
    utilisation: Annotated[
        float | None, _option("--utilisation", "Share of these at work; 0.45 [0.3, 0.6] assumed.", _MADE)
    ] = None,
    end_of_life_kg: Annotated[
        float | None, _option("--end-of-life-kg", "Kilograms of CO2e of disposing of what is held.", _MADE)
    ] = None,
    price_per_hour: Annotated[float | None, _option("--price-per-hour", "Of the hardware.", _MONEY)] = None,
    price_per_kwh: Annotated[float | None, _option("--price-per-kwh", "Of electricity.", _MONEY)] = None,
    currency: Annotated[str, _option("--currency", "A label only.", _MONEY)] = "",
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
    from compressbench.lifecycle.amounts import absent, given
    from compressbench.lifecycle.carbon import NO_END_OF_LIFE, Terms
    from compressbench.lifecycle.cost import prices
    from compressbench.lifecycle.embodied import life
    from compressbench.lifecycle.facility import facility
    from compressbench.lifecycle.grid import grid_intensity

    place, working = facility(site, pue=pue, wue_site=wue_site, wue_grid=wue_grid), life(lifetime_years, utilisation)
    terms = Terms(
        grid_intensity(region, grid_g_per_kwh),
        place,
        working,
        prices(price_per_hour, price_per_kwh, currency)._replace(
            pue=None if "assumed" in place.pue.kinds else place.pue,
            utilisation=None if utilisation is None else working.utilisation,
        ),
        absent("kg", NO_END_OF_LIFE) if end_of_life_kg is None else given(end_of_life_kg, "kg", "--end-of-life-kg"),
    )
    catalog = reading.read_catalog(records, all_runs=all_runs)
    contenders = reading.pick(catalog, NAMES, recipe=recipe, key=key)
    _print(accounts(catalog, contenders, terms, kg=embodied_kg, share=share), terms, "json" if as_json else form.value)


def _print(found: Any, terms: Terms, form: str) -> None:
    from compressbench.cli.carbon_print import print_terminal, to_csv, to_json_text, to_markdown

    if form == "terminal":
        from rich.console import Console

        print_terminal(found, terms, Console(highlight=False))
    else:
        write = {"json": to_json_text, "md": to_markdown, "csv": to_csv}[form]
        typer.echo(write(found, terms), nl=False)
