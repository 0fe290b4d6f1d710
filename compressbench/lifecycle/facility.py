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


_ECOLOGITS = "by EcoLogits, docs/methodology/llm_inference.md of November 2025"
_AWS = "Amazon, https://sustainability.aboutamazon.com/environment/the-cloud"
_MICROSOFT_PUE = "Microsoft, by https://www.datacenterdynamics.com of December 2024"
_MICROSOFT_WUE = "Microsoft's announcement of 24 June 2026, by https://windowsforum.com"
_GOOGLE = f"Google, https://datacenters.google/efficiency, {_ECOLOGITS}"
_META = "Meta's sustainability report of 2024, by https://africa.hyperscalers.news"
_UPTIME = "Uptime Institute, https://journal.uptimeinstitute.com/large-data-centers-are-mostly-more-efficient-analysis-confirms"
SITES = {
    "lab": _Site(exact(1.0, "", "assumed", "a laboratory or workstation: no cooling of its own is counted")),
    "datacentre-unknown": _Site(
        Amount(
            value=1.56,
            low=1.08,
            high=1.59,
            kinds=("assumed",),
            source=f"mean of the industry, 1.55 to 1.59 since 2020, or as low as the best fleet named here; {_UPTIME}",
            year="2023",
        )
    ),
    "aws": _Site(_published(1.14, "", _AWS, "2025"), _published(0.13, WUE_UNIT, f"Amazon, {_ECOLOGITS}", "2025")),
    "microsoft": _Site(
        _published(1.18, "", _MICROSOFT_PUE, "2024"), _published(0.27, WUE_UNIT, _MICROSOFT_WUE, "2025")
    ),
    "google": _Site(_published(1.09, "", _GOOGLE, "2025"), _published(0.99, WUE_UNIT, f"Google, {_ECOLOGITS}", "2025")),
    "meta": _Site(_published(1.08, "", _META, "2023")),
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
