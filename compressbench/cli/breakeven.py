"""`compressbench breakeven`: what compressing took against what it saves, and after how many requests both are even."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments, balance_flags, reading

if TYPE_CHECKING:
    from compressbench.lifecycle.breakeven_words import Sheet

RequestsPerDay = Annotated[
    float | None, typer.Option("--requests-per-day", help="Adds after how many days it pays.", show_default=False)
]
LifetimeYears = Annotated[
    float | None,
    typer.Option("--lifetime-years", help="With --requests-per-day: the net saving by then.", show_default=False),
]
CountSearch = Annotated[
    bool,
    typer.Option(
        "--count-search/--no-count-search",
        help="Count what the whole run took to find the candidate: the others, timed calls, the baseline's evaluation.",
    ),
]


class Per(StrEnum):
    inference = "inference"
    correct = "correct"


def breakeven(
    records: reading.Records,
    per: Annotated[Per, typer.Option("--per", help="Save per inference or per correct answer.")] = Per.inference,
    count_search: CountSearch = True,
    extra_joules: balance_flags.ExtraJoules = None,
    extra_seconds: balance_flags.ExtraSeconds = None,
    grid_g_per_kwh: balance_flags.GridIntensity = None,
    price_per_kwh: balance_flags.PricePerKwh = None,
    price_per_hour: balance_flags.PricePerHour = None,
    currency: balance_flags.Currency = "money",
    requests_per_day: RequestsPerDay = None,
    lifetime_years: LifetimeYears = None,
    recipe: reading.RecipeName = "",
    key: reading.Key = "",
    all_runs: reading.AllRuns = False,
    form: Annotated[balance_flags.Form, typer.Option("--format", "-f", help="How to print it.")] = (
        balance_flags.Form.terminal
    ),
    as_json: arguments.AsJson = False,
) -> None:
    """Say after how many requests each candidate has paid for its compressing, in joules, seconds, grams and money.

    Each stands against the baseline of its own run. Exit 2 if there is no candidate.
    """
    from compressbench.cli.balance_rows import Given, cases
    from compressbench.core.errors import InputError
    from compressbench.lifecycle.accounts import Factors, all_accounts
    from compressbench.lifecycle.breakeven_words import Sheet

    given = {"extra_joules": extra_joules, "extra_seconds": extra_seconds}
    numbers = {
        "grid_g_per_kwh": grid_g_per_kwh,
        "price_per_kwh": price_per_kwh,
        "price_per_hour": price_per_hour,
        "requests_per_day": requests_per_day,
        "lifetime_years": lifetime_years,
    }
    balance_flags.check({**given, **numbers}, above_zero=("requests_per_day", "lifetime_years"))
    if lifetime_years is not None and requests_per_day is None:
        raise InputError(
            "how much is asked in that time is needed", where="--lifetime-years", do="Add --requests-per-day."
        )
    catalog = reading.read_catalog(records, all_runs=True)
    found = cases(catalog, Given(extra_joules, extra_seconds), recipe=recipe, key=key, all_runs=all_runs)
    factors = Factors(**numbers, counts_search=count_search)
    balances = list(all_accounts(found, factors, per.value))
    _print(Sheet(balances, factors, currency, per.value), "json" if as_json else form.value)


def _print(sheet: Sheet, form: str) -> None:
    from compressbench.cli.balance_print import print_balance
    from compressbench.lifecycle import breakeven_words
    from compressbench.lifecycle.balance_terminal import print_sheet

    print_balance(sheet, form, breakeven_words, print_sheet)
