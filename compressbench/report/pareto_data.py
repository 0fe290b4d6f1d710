"""Pareto fronts for other programs: JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from compressbench.core.ranking import written
from compressbench.core.units import unit_of
from compressbench.report.catalog import Catalog
from compressbench.report.figures import Contender
from compressbench.report.pareto import SEED, Entry, Front, LeftOut
from compressbench.report.pareto_words import heading
from compressbench.report.plain import inert

_HEAD = (
    "recipe", "candidate", "role", "run_id", "key", "watermark", "front", "probability", "dominator",
    "dominated_with", "not_ranked_by", "reason",
)  # fmt: skip
_PARTS = ("value", "low", "high", "unit", "kind", "position", "error", "rank_low", "rank_high", "letters")


def to_json(catalog: Catalog, fronts: Sequence[Front]) -> str:
    """A list of fronts, one per comparability group.

    Each has `key` and `watermark` (one of them is ""), `heading`, `conditions`, `method` (pairwise tests | joint
    intervals), `seed`, `metrics`, `rows` and `left_out`. `metrics` have `name` and `scale` (against the baseline |
    absolute). A row has `recipe`, `candidate`, `role`, `run_id`, `label`, `front` ({`membership`: on the front | possibly |
    dominated, `probability`}), `dominator` ({`label`, `probability`} or null), and `metrics` by name: `value`, `low`,
    `high`, `unit`, `kind`, the `position` by which it was ranked (the less the better) with its standard `error`,
    `rank_low`, `rank_high`, `letters` (a list) and `direction`. One that was left out has `recipe`, `candidate`, `role`,
    `run_id`, `label`, `metric` ("" if the whole row is at fault) and `reason`.
    """
    return json.dumps([_front(catalog, front) for front in fronts], indent=1, allow_nan=False)


def _front(catalog: Catalog, front: Front) -> dict[str, Any]:
    return {
        "key": front.key,
        "watermark": front.watermark,
        "heading": heading(front),
        "conditions": dict(front.conditions),
        "method": front.method,
        "seed": SEED,
        "metrics": [{"name": name, "scale": scale} for name, scale in zip(front.names, front.scales, strict=True)],
        "rows": list(_rows(catalog, front)),
        "left_out": [{**_who(each), "metric": each.name, "reason": each.reason} for each in front.left_out],
    }


def _who(each: Entry | LeftOut) -> dict[str, str]:
    contender = each.contender
    return {
        "recipe": contender.recipe,
        "candidate": contender.candidate,
        "role": contender.role,
        "run_id": contender.run_id,
        "label": each.label,
    }


def _rows(catalog: Catalog, front: Front) -> Iterator[dict[str, Any]]:
    units: dict[tuple[str, str], str] = {}
    return (_row(catalog, front, entry, units) for entry in front.entries)


def _row(catalog: Catalog, front: Front, entry: Entry, units: dict[tuple[str, str], str]) -> dict[str, Any]:
    by = {"label": entry.dominator, "probability": entry.dominated_with} if entry.dominator else None
    return {
        **_who(entry),
        "front": {"membership": entry.membership, "probability": entry.probability},
        "dominator": by,
        "metrics": {
            name: _numbers(entry, name, at, _unit(catalog, entry.contender, name, units))
            for at, name in enumerate(front.names)
        },
    }


def _unit(catalog: Catalog, contender: Contender, name: str, known: dict[tuple[str, str], str]) -> str:
    """A cost's is in its name, a metric's the same in all rows of a key that have a value: whole rows are slow to read."""
    if name not in contender.metrics:
        return unit_of(name)
    has_value = contender.figures[name].value is not None
    place = (contender.comparability_key if has_value else str(contender.at), name)
    if place not in known:
        known[place] = catalog.row(contender.at).cells[name].unit
    return known[place]


def _numbers(entry: Entry, name: str, at: int, unit: str) -> dict[str, Any]:
    figure, rank, position = entry.contender.figures[name], entry.ranks[at], entry.positions[at]
    low, high = rank.interval or (None, None)
    return {
        "value": figure.value,
        "low": _finite(figure.low),
        "high": _finite(figure.high),
        "unit": unit,
        "kind": figure.kind,
        "position": position.value,
        "error": position.error,
        "rank_low": low,
        "rank_high": high,
        "letters": list(rank.letters),
        "direction": figure.direction,
    }


def _finite(bound: float | None) -> float | None:
    """JSON has no infinity; a bound that is none is not there."""
    return bound if bound is not None and math.isfinite(bound) else None


def to_csv(catalog: Catalog, fronts: Sequence[Front]) -> str:
    """A line per row, those that were left out with their reason; the parts of a metric are as in JSON."""
    names = list(dict.fromkeys(name for front in fronts for name in front.names))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*_HEAD, *(inert(f"{name}_{part}") for name in names for part in _PARTS)])
    for front in fronts:
        for line in _csv_lines(catalog, front, names):
            writer.writerow([inert(value) for value in line])
    return buffer.getvalue()


def _csv_lines(catalog: Catalog, front: Front, names: Sequence[str]) -> Iterator[list[Any]]:
    for entry, row in zip(front.entries, _rows(catalog, front), strict=True):
        numbers = row["metrics"]
        by: list[Any] = [entry.dominator, entry.dominated_with] if entry.dominator else ["", None]
        line = [*_start(front, entry), entry.membership, entry.probability, *by, "", ""]
        for name in names:
            found = numbers.get(name, {})
            line += [written(found[part]) if part == "letters" and found else found.get(part) for part in _PARTS]
        yield line
    for left in front.left_out:
        blank: list[Any] = [None] * (len(names) * len(_PARTS))
        yield [*_start(front, left), "", None, "", None, left.name, left.reason, *blank]


def _start(front: Front, each: Entry | LeftOut) -> list[Any]:
    contender = each.contender
    return [contender.recipe, contender.candidate, contender.role, contender.run_id, front.key, front.watermark]
