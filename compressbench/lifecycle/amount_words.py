"""Amounts with their intervals as people read them: `33.3 mJ [27.4, 38.7]`, `49,600 [42,600, 60,500]`, `4.96 days`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from compressbench.core.statistics import Interval
from compressbench.core.units import three_digits
from compressbench.lifecycle.amounts import Amount

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_TIMES = ((31_557_600.0, "years"), (86_400.0, "days"), (3600.0, "h"), (60.0, "min"))
_SCALES = {prefix: scale for scale, prefix in _PREFIXES}
_ROUNDED = 0.9995
DASH = "—"
MARKS = {"estimated": "(est.)", "modelled": "(model)", "assumed": "(assumed)"}


def interval_text(found: Interval, unit: str) -> str:
    """One unit for the value and its bounds; exact amounts have none. `unit` is s, J, g, "" (requests) or a currency."""
    # a value of a few parts in a billion of its own interval is no unit to write the bounds in
    scale, name = scale_of(max(abs(found.value), 1e-3 * max(abs(found.low), abs(found.high))), unit)
    value, low, high = (_number(each / scale) for each in found)
    text = f"{value} {name}".strip()
    return text if low == high == value else f"{text} [{low}, {high}]"


def percent_text(found: Interval, unit: str) -> str:
    """The value, and how far its interval reaches in hundredths of it: `1.65 kJ ±3%`."""
    text = value_text(found.value, unit)
    far = max(found.high - found.value, found.value - found.low)
    if far == 0 or found.value == 0:
        return text
    percent = 100 * far / abs(found.value)
    if percent < 0.05:
        return text
    return f"{text} ±{percent:.0f}%" if percent >= 0.95 else f"{text} ±{percent:.1g}%"


def value_text(value: float, unit: str) -> str:
    return interval_text(Interval(value, value, value), unit)


def scale_of(value: float, unit: str) -> tuple[float, str]:
    """By how much it is divided to be read, and what stands behind it then."""
    if unit == "s" and value >= 120 * _ROUNDED:
        return next(
            (scale, name) for scale, name in _TIMES if value >= scale * (2 if name != "years" else 1) * _ROUNDED
        )
    if unit not in ("s", "J", "g"):
        return 1.0, unit
    if value == 0 or not math.isfinite(value):
        return 1.0, unit
    if unit == "g" and value >= 1e6 * _ROUNDED:
        return 1e6, "t"
    scale, prefix = next(((s, p) for s, p in _PREFIXES if value >= s * _ROUNDED), _PREFIXES[-1])
    if unit == "s" and scale > 1:
        return 1.0, "s"
    return scale, f"{prefix}{unit}"


def _number(value: float) -> str:
    """Three digits, thousands apart; very large ones by their exponent."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    if value == round(value) and abs(value) < 1000:
        return f"{value:.0f}"
    if abs(value) < 1000 * _ROUNDED:
        return "0" if abs(value) < 1e-9 else three_digits(value)
    return f"{float(f'{value:.2e}'):,.0f}"


def days_text(found: Interval) -> str:
    return interval_text(Interval(*(each * 86_400.0 for each in found)), "s")


def kind_mark(kind: str) -> str:
    return MARKS.get(kind, "")


def scale_in(text: str, base: str) -> float:
    """By what the number before the unit was divided: 0.001 in `24.0 mJ`."""
    return _SCALES.get(text.partition(" ")[2].removesuffix(base), 1.0)


def value_told(amount: Amount) -> str:
    """`475 g/kWh [30, 715]`."""
    value = three_digits(amount.value) if amount.value is not None else DASH
    bounds = ""
    if amount.low is not None and amount.high is not None and amount.low != amount.high:
        bounds = f" [{three_digits(amount.low)}, {three_digits(amount.high)}]"
    return f"{value} {amount.unit}".strip() + bounds


def source_told(amount: Amount) -> str:
    """`world average; 2019`."""
    return f"{amount.source}; {amount.year}" if amount.year else amount.source


def inputs_data(said: Mapping[str, Any], currency: str, defaults: Mapping[str, float] = {}) -> dict[str, Any]:
    """`given_data` of what the flags of these names say; what has no flag is left out."""
    units = {
        "requests_per_day": "1/day",
        "lifetime_years": "years",
        "utilisation": "",
        "peak_factor": "",
        "idle_watts": "W",
        "grid_g_per_kwh": "g/kWh",
        "price_per_kwh": f"{currency}/kWh",
        "price_per_hour": f"{currency}/h",
    }
    return {
        name: given_data(value, units[name], f"--{name.replace('_', '-')}", defaults.get(name))
        for name, value in said.items()
        if name in units
    }


def given_data(value: float | None, unit: str, flag: str, default: float | None = None) -> dict[str, Any]:
    """What a flag says, with its label: `given`, or `assumed` where it is what holds if nothing is said."""
    if value is None:
        return {"value": None, "unit": unit, "kind": "", "source": "", "reason": f"{flag} is not given"}
    if value == default:
        return {
            "value": value,
            "unit": unit,
            "kind": "assumed",
            "source": f"unless {flag} says otherwise",
            "reason": "",
        }
    return {"value": value, "unit": unit, "kind": "given", "source": flag, "reason": ""}
