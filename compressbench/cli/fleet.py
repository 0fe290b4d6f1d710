"""`compressbench fleet`: replicas, joules, grams and money of a deployment's whole life, with each candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments, balance_flags, reading

if TYPE_CHECKING:
    from compressbench.lifecycle.fleet_words import FleetSheet

IdleWatts = Annotated[
    float | None,
    typer.Option(
        "--idle-watts", help="What a replica draws while it waits; else that is not counted.", show_default=False
    ),
]


def fleet(
    records: reading.Records,
    requests_per_day: Annotated[float, typer.Option("--requests-per-day", help="Inferences asked for.")],
    lifetime_years: Annotated[float, typer.Option("--lifetime-years", help="How long it is deployed.")],
    utilisation: Annotated[
        float, typer.Option("--utilisation", help="Share of a replica's throughput that may be used at the peak.")
    ] = 1.0,
    peak_factor: Annotated[float, typer.Option("--peak-factor", help="The peak over the mean rate.")] = 1.0,
    idle_watts: IdleWatts = None,
    extra_joules: balance_flags.ExtraJoules = None,
    extra_seconds: balance_flags.ExtraSeconds = None,
    grid_g_per_kwh: balance_flags.GridIntensity = None,
    price_per_kwh: balance_flags.PricePerKwh = None,
    price_per_hour: balance_flags.PricePerHour = None,
    currency: balance_flags.Currency = "money",
    recipe: reading.RecipeName = "",
    key: reading.Key = "",
    all_runs: reading.AllRuns = False,
    force: reading.Force = False,
    form: Annotated[balance_flags.Form, typer.Option("--format", "-f", help="How to print it.")] = (
        balance_flags.Form.terminal
    ),
    as_json: arguments.AsJson = False,
) -> None:
    """Say what a deployment takes over its whole life with the baseline and with each candidate. All of it is modelled.

    Exit 5 if the records can't stand beside each other.
    """
    from compressbench.cli.balance_rows import Given
    from compressbench.cli.fleet_rows import machines
    from compressbench.core.errors import InputError
    from compressbench.lifecycle.fleet import Load, life_of
    from compressbench.lifecycle.fleet_words import FleetSheet

    given = {"extra_joules": extra_joules, "extra_seconds": extra_seconds}
    rates = {
        "requests_per_day": requests_per_day,
        "lifetime_years": lifetime_years,
        "utilisation": utilisation,
        "peak_factor": peak_factor,
    }
    prices = {
        "idle_watts": idle_watts,
        "grid_g_per_kwh": grid_g_per_kwh,
        "price_per_kwh": price_per_kwh,
        "price_per_hour": price_per_hour,
    }
    balance_flags.check({**given, **rates, **prices}, above_zero=tuple(rates))
    if utilisation > 1 or peak_factor < 1:
        raise InputError(
            "utilisation is at most 1, and a peak factor at least 1", got=f"{utilisation:g}, {peak_factor:g}"
        )
    load = Load(requests_per_day, lifetime_years, utilisation, peak_factor, **prices)
    catalog = reading.read_catalog(records, all_runs=True)
    found, watermark = machines(
        catalog, Given(extra_joules, extra_seconds), recipe=recipe, key=key, all_runs=all_runs, force=force
    )
    lives = [life_of(machine, load) for machine in found]
    _print(FleetSheet(lives, load, currency, watermark), "json" if as_json else form.value)


def _print(sheet: FleetSheet, form: str) -> None:
    from compressbench.cli.balance_print import print_balance
    from compressbench.lifecycle import fleet_words
    from compressbench.lifecycle.balance_terminal import print_fleet

    print_balance(sheet, form, fleet_words, print_fleet)
