"""Units: in names (`latency_p50_s`, `disk_bytes`), and as people read them (`4.21 ms`, `22.7 MB`)."""

from __future__ import annotations

import math
import re
from functools import lru_cache

JOULES_PER_KWH = 3.6e6
_BY_SUFFIX = {
    "_j_per_inference": "J/inference",
    "_j_per_output_token": "J/output token",
    "_j_per_total_token": "J/token",
    "_j_per_correct": "J/correct answer",
    "_wh_per_1000_queries": "Wh/1000 queries",
    "_per_s": "1/s",
    "_seconds": "s",
    "_bytes": "B",
    "_bits": "bit",
}
_BY_LETTER = {"s": "s", "j": "J", "w": "W"}
_SPEAKS_OF_ENERGY = re.compile(r"energy|power|joule|watt|(?:^|[^a-z])[kmgtuµ]?(?:wh|w|j)(?![a-z0-9])")
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_LEAST = [(scale * 0.9995, scale, prefix) for scale, prefix in _PREFIXES]


@lru_cache(maxsize=1024)
def unit_of(name: str) -> str:
    """The unit that a name carries in its suffix; "" for a pure number.

    >>> unit_of("latency_p50_s"), unit_of("energy_j_per_inference"), unit_of("accuracy")
    ('s', 'J/inference', '')
    """
    for suffix, unit in _BY_SUFFIX.items():
        if name.endswith(suffix):
            return unit
    _, separator, letter = name.rpartition("_")
    return _BY_LETTER.get(letter, "") if separator else ""


def is_energy(name: str) -> bool:
    """Whether the suffix of a name says joules or watts, per whatever."""
    return unit_of(name)[:1] in ("J", "W")


def lacks_energy_unit(name: str) -> bool:
    """Whether a name speaks of energy or power, and its suffix doesn't say in joules or in watts.

    >>> lacks_energy_unit("energy_kwh"), lacks_energy_unit("energy_j"), lacks_energy_unit("disk_bytes")
    (True, False, False)
    """
    return _SPEAKS_OF_ENERGY.search(name.lower()) is not None and not is_energy(name)


def require_energy_unit(name: str) -> None:
    """Raises ValueError for a name that speaks of energy in another unit, or in none."""
    if lacks_energy_unit(name):
        raise ValueError(f"'{name}' speaks of energy, which is in joules (_j) or watts (_w)")


def humanize(value: float, unit: str) -> str:
    """`value` in `unit` with three significant digits and a decimal prefix.

    >>> humanize(0.00421, "s"), humanize(22_713_216, "B"), humanize(0.0, "J")
    ('4.21 ms', '22.7 MB', '0 J')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}".strip()
    base = unit.partition("/")[0]
    # a value that would round up to 1000 belongs to the next prefix
    size = abs(value)
    for least, scale, prefix in _LEAST:  # noqa: B007 -- of values below all of them the last
        if size >= least:
            break
    if unit == "1/s":
        return f"{grouped(value)}/s"
    if not base:
        return three_digits(value)
    return f"{three_digits(value / scale)} {prefix}{base}"


def three_digits(value: float) -> str:
    """Three significant digits, never in exponent form.

    >>> three_digits(0.93347), three_digits(1234.5), three_digits(0)
    ('0.933', '1234', '0')
    """
    # most numbers, well away from where rounding would take another digit
    size = abs(value)
    if 1 <= size < 9.99:
        return f"{value:.2f}"
    if 10 <= size < 99.9:
        return f"{value:.1f}"
    if 100 <= size < 999:
        return f"{value:.0f}"
    return significant(value, 3)


def grouped(value: float) -> str:
    """Three significant digits, and commas where there are thousands.

    >>> grouped(49276.3), grouped(12.34)
    ('49,276', '12.3')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else three_digits(value)


def significant(value: float, num_digits: int) -> str:
    """So many significant digits, never in exponent form; whole numbers keep all of theirs.

    >>> significant(27.2697, 4), significant(1234.5, 2)
    ('27.27', '1234')
    """
    if value == 0:
        return "0"
    # the exponent after rounding: 0.9999 is 1.00
    exponent = int(f"{value:.{num_digits - 1}e}".partition("e")[2])
    return f"{value:.{max(0, num_digits - 1 - exponent)}f}"
