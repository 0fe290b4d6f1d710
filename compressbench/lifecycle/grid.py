"""Grams of CO2e per kWh of a grid, from the tables that codecarbon ships: no network, and no guess of where this is."""

from __future__ import annotations

import difflib
import importlib.util
import json
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from compressbench.core.errors import InputError, MissingDependencyError, UnknownNameError
from compressbench.core.names import one_line
from compressbench.lifecycle.amounts import Amount, exact, given

UNIT = "g/kWh"
_G_PER_KWH_OF_LB_PER_MWH = 0.45359237
_WORLD_LOW, _WORLD_HIGH = 30.0, 715.0
_MOST_NEAR = 3


def grid_intensity(region: str = "", g_per_kwh: float | None = None) -> Amount:
    """Of the region, of what the user gives, or of the world with its range and the kind `assumed`.

    A region is `DEU` (ISO 3166 alpha-3), `USA-CA` or `USA-california`, `CAN-ontario`, `CN-BJ`, `SE1`, or
    `gcp:europe-west1`, in whatever case; yearly means, location-based.

    Raises UnknownNameError with the nearest names, InputError for both.
    """
    if region and g_per_kwh is not None:
        raise InputError("give one of both", where="--region and --grid-g-per-kwh", got=f"{region} and {g_per_kwh:g}")
    if g_per_kwh is not None:
        return given(g_per_kwh, UNIT, "--grid-g-per-kwh")
    if not region:
        return _world()
    known = regions()
    found = known.get(region.strip().casefold())
    if found is None:
        raise UnknownNameError(
            "no such region", where="--region", got=f"'{one_line(region)}'", do=_nearest(region, known)
        )
    return found


def regions() -> dict[str, Amount]:
    """Every region of the tables by its name in lower case."""
    return {**_countries(), **_usa(), **_canada(), **_by_factor(), **_cloud()}


def _nearest(region: str, known: dict[str, Amount]) -> str:
    word = region.strip().casefold()
    begun = [name for name in known if len(word) >= _MOST_NEAR and name.startswith(word)]
    near = [*begun, *difflib.get_close_matches(word, known, n=_MOST_NEAR, cutoff=0.5)][:_MOST_NEAR]
    names = ", ".join(f"'{each.upper() if len(each) == 3 else each}'" for each in near)
    hint = f"Did you mean {names}? " if near else ""
    return f"{hint}Countries are ISO 3166 alpha-3 (DEU) or by name; or give --grid-g-per-kwh."


def _world() -> Amount:
    table = _table("private_infra/carbon_intensity_per_source.json")
    return Amount(
        value=float(table["world_average"]),
        low=_WORLD_LOW,
        high=_WORLD_HIGH,
        unit=UNIT,
        kinds=("assumed",),
        source=f"world average, range of grids from hydropower to coal; {table['world_average_source']}, {_version()}",
        year="2019",
    )


def _countries() -> dict[str, Amount]:
    found: dict[str, Amount] = {}
    for code, mix in _table("private_infra/global_energy_mix.json").items():
        if mix.get("carbon_intensity"):  # a grid of 0 g/kWh is one that nobody knows
            amount = _yearly(mix["carbon_intensity"], f"{mix['country_name']}, Our World in Data", mix["year"])
            found |= dict.fromkeys((code.casefold(), mix["country_name"].casefold()), amount)
    return found


def _usa() -> dict[str, Amount]:
    table = dict(_table("private_infra/2023/usa_emissions.json"))
    origin = table.pop("_source")
    table.pop("_unit")
    found: dict[str, Amount] = {}
    for name, state in table.items():
        grams = state["emissions"] * _G_PER_KWH_OF_LB_PER_MWH
        amount = _yearly(grams, f"{name.title()}, {origin['name']}", origin["year"])
        names = [name, *([state["regionCode"]] if state.get("regionCode") else [])]
        found |= {f"usa-{each}".casefold(): amount for each in names}
    return found


def _canada() -> dict[str, Amount]:
    """Provinces have a mix of sources: each counts with its own factor, over those that have one. codecarbon counts only
    the fossil ones, which makes hydropower nothing.
    """
    factors = _table("private_infra/carbon_intensity_per_source.json")
    factor_of = {"naturalGas": "natural_gas", "hydro": "hydroelectricity"}
    found: dict[str, Amount] = {}
    for name, mix in _table("private_infra/2023/canada_energy_mix.json").items():
        shares = {source: share for source, share in mix.items() if factor_of.get(source, source) in factors}
        grams = sum(share * factors[factor_of.get(source, source)] for source, share in shares.items())
        told = f"{name.title()}, its mix of sources times their factors"
        found[f"can-{name}".casefold()] = _yearly(grams / sum(shares.values()), told, 2023)
    return found


def _by_factor() -> dict[str, Amount]:
    """Provinces of China, and bidding zones of the north of Europe."""
    files = {
        "private_infra/2023/china_provincial_emissions.json": "official factor of the province",
        "private_infra/nordic_emissions.json": "ENTSO-E generation of the bidding zone",
    }
    return {
        code.casefold(): _yearly(each["emission_factor"], f"{each['description']}, {what}", each["year"])
        for file, what in files.items()
        for code, each in _table(file)["data"].items()
    }


def _cloud() -> dict[str, Amount]:
    import csv
    import io

    text = _text("cloud/impact.csv").removeprefix("\ufeff")
    return {
        f"{row['provider']}:{row['region']}".casefold(): _yearly(
            float(row["impact"]), f"{row['providerName']} {row['region']}, {row['source']}", ""
        )
        for row in csv.DictReader(io.StringIO(text))
    }


def _yearly(grams: float, source: str, year: object) -> Amount:
    """The tables state no error: what is computed holds for this yearly mean, and hours differ from it."""
    return exact(float(grams), UNIT, "modelled", f"{source}; yearly mean, {_version()}", str(year))


@cache
def _table(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_text(name))
    return found


def _text(name: str) -> str:
    return (_folder() / name).read_text(encoding="utf-8")


def _folder() -> Path:
    # finding a package doesn't import it: codecarbon brings pandas
    found = importlib.util.find_spec("codecarbon")
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError(
            "codecarbon isn't installed, whose tables say what a grid emits",
            where="--region",
            do="pip install codecarbon, or give --grid-g-per-kwh.",
        )
    return Path(next(iter(found.submodule_search_locations))) / "data"


def _version() -> str:
    return f"codecarbon {metadata.version('codecarbon')}"
