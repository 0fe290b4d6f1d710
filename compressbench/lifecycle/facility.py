"""What a building adds to what a computer draws: its PUE, and litres of water per kWh."""

from __future__ import annotations

from typing import NamedTuple

from compressbench.core.errors import UnknownNameError
from compressbench.core.names import did_you_mean, one_line
from compressbench.core.units import JOULES_PER_KWH
from compressbench.lifecycle.amounts import Amount, absent, exact, given, product, total_of

WUE_UNIT = "L/kWh"


class _Site(NamedTuple):
    pue: Amount
    wue: Amount | None = None


class Facility(NamedTuple):
    """`pue` is kWh of the building per kWh of its computers; `wue_site` and `wue_grid` litres per kWh, or why not."""

    pue: Amount
    wue_site: Amount
    wue_grid: Amount


def _published(value: float, unit: str, source: str, year: str) -> Amount:
    return exact(value, unit, "modelled", f"{source}, mean of a fleet", year)


_AWS = "Amazon, https://sustainability.aboutamazon.com/products-services/aws-cloud"
_MICROSOFT = "Microsoft, https://datacenters.microsoft.com/sustainability/efficiency"
_GOOGLE = "Google, https://datacenters.google/efficiency"
_META = "Meta, https://sustainability.atmeta.com/data-centers"
_UPTIME = "Uptime Institute Global Data Center Survey 2022 and 2023, https://uptimeinstitute.com/resources"
SITES = {
    "lab": _Site(exact(1.0, "", "assumed", "a laboratory or workstation: no cooling of its own is counted")),
    "datacentre-unknown": _Site(
        Amount(
            value=1.56,
            low=1.08,
            high=1.58,
            kinds=("assumed",),
            source=f"mean of the industry, from the best fleet named here to the worse of two years; {_UPTIME}",
            year="2023",
        )
    ),
    "aws": _Site(_published(1.15, "", _AWS, "2024"), _published(0.15, WUE_UNIT, _AWS, "2024")),
    "microsoft": _Site(_published(1.17, "", _MICROSOFT, "2025"), _published(0.27, WUE_UNIT, _MICROSOFT, "2025")),
    "google": _Site(_published(1.09, "", _GOOGLE, "2024"), _published(0.99, WUE_UNIT, "Google, by EcoLogits", "2024")),
    "meta": _Site(_published(1.08, "", _META, "2024")),
}
UNKNOWN_SITE = "datacentre-unknown"


def facility(
    site: str = "", *, pue: float | None = None, wue_site: float | None = None, wue_grid: float | None = None
) -> Facility:
    """A named site with what the user gives instead of its numbers; without a name an unknown data centre.

    Raises UnknownNameError for an unknown site and InputError for impossible numbers.
    """
    named = SITES.get(site or UNKNOWN_SITE)
    if named is None:
        raise UnknownNameError("no such site", where="--site", got=f"'{one_line(site)}'", do=did_you_mean(site, SITES))
    no_site = absent(WUE_UNIT, "not accounted: --wue-site is not given")
    no_grid = absent(WUE_UNIT, "not accounted: --wue-grid is not given")
    return Facility(
        named.pue if pue is None else given(pue, "", "--pue", above=1),
        (named.wue or no_site) if wue_site is None else given(wue_site, WUE_UNIT, "--wue-site"),
        no_grid if wue_grid is None else given(wue_grid, WUE_UNIT, "--wue-grid"),
    )


def facility_kwh(joules: Amount, pue: Amount) -> Amount:
    """kWh that the building draws for the joules that the computer did."""
    return product("kWh", [joules, pue], 1 / JOULES_PER_KWH)


def water_litres(joules: Amount, place: Facility) -> Amount:
    """E_IT * (WUE_site + PUE * WUE_grid)."""
    per_kwh = total_of(WUE_UNIT, [place.wue_site, product(WUE_UNIT, [place.pue, place.wue_grid])])
    return product("L", [joules, per_kwh], 1 / JOULES_PER_KWH)
