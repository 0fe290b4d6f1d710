"""Fleets on a terminal, in Markdown, as CSV and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from compressbench.core.statistics import Interval
from compressbench.lifecycle.amount_words import DASH, given_data, inputs_data, interval_text
from compressbench.lifecycle.fleet import Life, Load

_MOST_NAMED = 3


class FleetSheet(NamedTuple):
    lives: Sequence[Life]
    load: Load
    currency: str = "money"
    watermark: str = ""

    @property
    def has_money(self) -> bool:
        return self.load.price_per_hour is not None or self.load.price_per_kwh is not None


def headers(sheet: FleetSheet) -> list[str]:
    found = ["model", "replicas", "energy", "calls save, net"]
    found += ["carbon"] if sheet.load.grid_g_per_kwh is not None else []
    return [*found, *(["costs"] if sheet.has_money else [])]


def rows(sheet: FleetSheet) -> list[list[str]]:
    return [_row(sheet, life) for life in sheet.lives]


def _row(sheet: FleetSheet, life: Life) -> list[str]:
    partial = " partial" if life.missing and life.joules is not None else ""
    found = [life.name, _text(life.replicas, ""), _text(life.joules, "J") + partial, _text(life.saved_joules, "J")]
    found += [_text(life.grams, "g") + partial] if sheet.load.grid_g_per_kwh is not None else []
    return [*found, *([_text(life.money, sheet.currency)] if sheet.has_money else [])]


def _text(found: Interval | None, unit: str) -> str:
    return DASH if found is None else interval_text(found, unit)


def notes(sheet: FleetSheet) -> list[tuple[str, list[str]]]:
    """Models of the same notes together."""
    names_of: dict[tuple[str, ...], list[str]] = {}
    for life in sheet.lives:
        more = len(life.missing) - _MOST_NAMED
        named = [*life.missing[:_MOST_NAMED], *([f"and {more} more"] if more > 0 else [])]
        lines = [life.reason] if life.reason else []
        lines += [f"not counted: {'; '.join(named)}"] if named else []
        lines += list(life.marks)
        if lines:
            names_of.setdefault(tuple(lines), []).append(life.name)
    return [(", ".join(names), list(lines)) for lines, names in names_of.items()]


def how(sheet: FleetSheet) -> list[str]:
    load = sheet.load
    return [
        f"{load.requests_per_day:,.10g} requests a day for {load.lifetime_years:g} years, a peak of {load.peak_factor:g} "
        f"times the mean, at {100 * load.utilisation:g} % of the measured throughput: given, so assumed.",
        "Modelled: throughput and joules per inference were measured on one machine, and so many of them are taken to do "
        "so many times as much. Energy counts what making the candidate took, its search too. What calls save is paired "
        "with the baseline, less what it took once; what replicas draw while they wait is not in it. Intervals at 95 %.",
    ]


def to_markdown(sheet: FleetSheet, escape: Callable[[str], str]) -> str:
    lines = [f"**{escape(sheet.watermark)}**", ""] if sheet.watermark else []
    head = headers(sheet)
    lines += [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    lines += [f"| {' | '.join(map(escape, row))} |" for row in rows(sheet)]
    lines += ["", *(f"- {escape(name)}: {escape(line)}" for name, each in notes(sheet) for line in each)]
    return "\n".join([*lines, *(f"- {escape(line)}" for line in how(sheet))]) + "\n"


def to_data(sheet: FleetSheet) -> dict[str, Any]:
    return {
        "inputs": _inputs(sheet),
        "currency": sheet.currency,
        "watermark": sheet.watermark,
        "models": [
            {name: each._asdict() if isinstance(each, Interval) else each for name, each in life._asdict().items()}
            | {"source": "computed of `inputs`, and of throughput and joules measured on one machine"}
            for life in sheet.lives
        ],
    }


def _inputs(sheet: FleetSheet) -> dict[str, Any]:
    """What was said of the load, each with its label, and the requests that follow from it."""
    load = sheet.load
    found = inputs_data(load._asdict(), sheet.currency, load._field_defaults)
    return found | {"requests": given_data(load.requests, "", "--requests-per-day x --lifetime-years")}


CSV_HEADER = [
    "model", "kind", *(f"{name}{part}" for name in ("replicas", "joules", "grams", "money", "saved_joules")
    for part in ("", "_low", "_high")), "reason", "missing",
]  # fmt: skip


def to_csv_rows(sheet: FleetSheet) -> Iterator[list[Any]]:
    for life in sheet.lives:
        numbers = (life.replicas, life.joules, life.grams, life.money, life.saved_joules)
        bounds = [each for found in numbers for each in (found or [None] * 3)]
        yield [life.name, life.kind, *bounds, life.reason, "; ".join(life.missing)]
