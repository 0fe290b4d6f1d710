"""What a unit of work costs at prices that the user gives: time of the hardware, and electricity."""

from __future__ import annotations

from typing import NamedTuple

from compressbench.core.units import JOULES_PER_KWH
from compressbench.lifecycle.amounts import Amount, absent, given, inverse, product, total_of
from compressbench.lifecycle.facility import facility_kwh

UNIT_PRICES = ("--price-per-hour", "--price-per-kwh")


class Prices(NamedTuple):
    """Prices and their currency, a label only. `pue` and `utilisation` are None where they are assumed."""

    per_hour: Amount | None
    per_kwh: Amount | None
    currency: str
    pue: Amount | None = None
    utilisation: Amount | None = None


def prices(per_hour: float | None, per_kwh: float | None, currency: str) -> Prices:
    return Prices(
        None if per_hour is None else given(per_hour, f"{currency}/h", "--price-per-hour"),
        None if per_kwh is None else given(per_kwh, f"{currency}/kWh", "--price-per-kwh"),
        currency,
    )


def cost_of(joules: Amount, seconds: Amount, at: Prices) -> Amount:
    """price_per_hour * seconds / 3600 + price_per_kwh * kWh, of the prices that are given.

    No assumption goes into money: the hours are divided by a utilisation only where the user gave one, and the kWh
    multiplied with a PUE only where one is given or published.
    """
    parts: list[Amount] = []
    if at.per_hour is not None:
        busy = [] if at.utilisation is None else [inverse(at.utilisation, "")]
        parts.append(product(at.currency, [at.per_hour, seconds, *busy], 1 / 3600))
    if at.per_kwh is not None:
        kwh = product("kWh", [joules], 1 / JOULES_PER_KWH) if at.pue is None else facility_kwh(joules, at.pue)
        parts.append(product(at.currency, [at.per_kwh, kwh]))
    if not parts:
        return absent(at.currency, f"not accounted: neither {' nor '.join(UNIT_PRICES)} is given")
    return total_of(at.currency, parts)
