"""The assumptions of carbon, water and cost as flags, and the terms that they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from compressbench.lifecycle.carbon import Terms

_PLACE, _MADE, _MONEY = "Where it runs", "How the hardware was made", "Prices (no defaults)"


def _option(name: str, text: str, panel: str) -> Any:
    return typer.Option(name, help=text, rich_help_panel=panel, show_default=False)


Region = Annotated[
    str, _option("--region", "Grid: DEU, USA-CA, CN-BJ, SE1, gcp:europe-west1; without it the world's range.", _PLACE)
]
GridGrams = Annotated[float | None, _option("--grid-g-per-kwh", "Grams of CO2e per kWh instead of a region's.", _PLACE)]
Site = Annotated[
    str, _option("--site", "lab, datacentre-unknown (if nothing is said), aws, microsoft, google or meta.", _PLACE)
]
Pue = Annotated[float | None, _option("--pue", "kWh of the building per kWh of its computers.", _PLACE)]
WueSite = Annotated[float | None, _option("--wue-site", "Litres of water per kWh at the site.", _PLACE)]
WueGrid = Annotated[float | None, _option("--wue-grid", "Litres per kWh where it is generated.", _PLACE)]
EmbodiedKg = Annotated[
    float | None,
    _option("--embodied-kg", "Kilograms of CO2e of making the hardware, instead of a cited figure.", _MADE),
]
Share = Annotated[float | None, _option("--share", "Share of the server that is held (0 to 1).", _MADE)]
LifetimeYears = Annotated[float | None, _option("--lifetime-years", "Years in use; 4 [3, 6] assumed.", _MADE)]
Utilisation = Annotated[
    float | None, _option("--utilisation", "Share of these at work; 0.45 [0.3, 0.6] assumed.", _MADE)
]
EndOfLifeKg = Annotated[
    float | None, _option("--end-of-life-kg", "Kilograms of CO2e of disposing of what is held.", _MADE)
]
PricePerHour = Annotated[float | None, _option("--price-per-hour", "Of the hardware.", _MONEY)]
PricePerKwh = Annotated[float | None, _option("--price-per-kwh", "Of electricity.", _MONEY)]
Currency = Annotated[str, _option("--currency", "A label only.", _MONEY)]


def terms_of(region: str, site: str, currency: str, numbers: Mapping[str, float | None]) -> Terms:
    """`numbers` are the flags' values by parameter. Raises InputError for what is impossible or has no such name."""
    from compressbench.lifecycle.amounts import absent, given
    from compressbench.lifecycle.carbon import NO_END_OF_LIFE, Terms
    from compressbench.lifecycle.cost import prices
    from compressbench.lifecycle.embodied import life
    from compressbench.lifecycle.facility import facility
    from compressbench.lifecycle.grid import grid_intensity

    place = facility(site, pue=numbers["pue"], wue_site=numbers["wue_site"], wue_grid=numbers["wue_grid"])
    working = life(numbers["lifetime_years"], numbers["utilisation"])
    gone = numbers["end_of_life_kg"]
    return Terms(
        grid_intensity(region, numbers["grid_g_per_kwh"]),
        place,
        working,
        prices(numbers["price_per_hour"], numbers["price_per_kwh"], currency)._replace(
            pue=None if "assumed" in place.pue.kinds else place.pue,
            utilisation=None if "assumed" in working.utilisation.kinds else working.utilisation,
        ),
        absent("kg", NO_END_OF_LIFE) if gone is None else given(gone, "kg", "--end-of-life-kg"),
    )
