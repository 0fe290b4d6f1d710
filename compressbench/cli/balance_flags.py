"""Options that the verbs share which weigh what compressing took against what it saves."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated

import typer

from compressbench.core.errors import InputError

GridIntensity = Annotated[
    float | None,
    typer.Option(
        "--grid-g-per-kwh", help="Grams of CO2e per kilowatt-hour: adds a balance in grams.", show_default=False
    ),
]
PricePerKwh = Annotated[
    float | None, typer.Option("--price-per-kwh", help="Adds what electricity costs.", show_default=False)
]
PricePerHour = Annotated[
    float | None, typer.Option("--price-per-hour", help="Adds what the machine costs per hour.", show_default=False)
]
Currency = Annotated[str, typer.Option("--currency", help="What the prices are in.")]
ExtraJoules = Annotated[
    float | None,
    typer.Option("--extra-joules", help="What making a candidate took that no record has.", show_default=False),
]
ExtraSeconds = Annotated[
    float | None, typer.Option("--extra-seconds", help="The same in seconds of the machine.", show_default=False)
]


class Form(StrEnum):
    terminal = "terminal"
    md = "md"
    csv = "csv"
    json = "json"


def check(numbers: dict[str, float | None], *, above_zero: tuple[str, ...] = ()) -> None:
    """Raises InputError for a number that is below zero or none, or not above zero where it has to be."""
    for name, value in numbers.items():
        is_low = value is not None and (value <= 0 if name in above_zero else value < 0)
        if value is not None and (is_low or not math.isfinite(value)):
            least = "above zero" if name in above_zero else "at least zero"
            raise InputError(f"a number {least} is needed", where=f"--{name.replace('_', '-')}", got=f"{value:g}")
