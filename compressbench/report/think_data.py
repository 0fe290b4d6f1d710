"""Test-time compute for other programs: JSON."""

from __future__ import annotations

from typing import Any

from compressbench.core.equal_energy import Budget
from compressbench.core.names import json_text
from compressbench.core.statistics import Interval
from compressbench.report.catalog import Catalog
from compressbench.report.think import Leader, Line, Pair, Thinking
from compressbench.report.think_prices import Costs
from compressbench.report.think_words import answer, heading, notes


def to_json(catalog: Catalog, found: Thinking) -> str:
    """`rows` with points, `pairs` with what the same joules buy, `leaders` by budget, and texts. Costs are modelled."""
    fields = {
        "heading": heading(found),
        "watermark": found.watermark,
        "answer": list(answer(found)),
        "rows": [_row(catalog, line) for line in found.lines],
        "pairs": [_pair(found, pair) for pair in found.pairs],
        "leaders": [_leader(found, each) for each in found.leaders],
        "num_reversed": sum(pair.is_reversed for pair in found.pairs),
        "left_out": [each._asdict() for each in found.skipped],
        "notes": list(notes(found)),
    }
    return json_text(fields)


def _row(catalog: Catalog, line: Line) -> dict[str, Any]:
    variant, entry = line.variant, catalog.entry(line.variant.at)
    return {
        "label": variant.label,
        "recipe": entry.recipe,
        "candidate": entry.candidate,
        "run_id": entry.run_id,
        "is_baseline": variant.is_baseline,
        "select": variant.select,
        "num_samples": variant.num_samples,
        "num_questions": len(variant.num_right),
        "tokens": variant.tokens._asdict(),
        "unfinished": variant.unfinished,
        "joules": _costs(variant.joules),
        "seconds": _costs(variant.seconds),
        "points": [
            {name: _interval(value) if name != "k" else value for name, value in point._asdict().items()}
            for point in line.points
        ],
        "fit": line.fit
        if isinstance(line.fit, str)
        else {**line.fit._asdict(), "exponent": _interval(line.fit.exponent)},
    }


def _costs(costs: Costs) -> dict[str, Any]:
    if costs.price is None:
        return {"kind": "", "reason": costs.reason}
    return {
        "kind": "modelled",
        "kind_of_rate": costs.kind,
        "source": costs.source,
        "once": costs.price.once,
        "per_sample": costs.price.per_sample,
        "relative_error": costs.error,
    }


def _pair(found: Thinking, pair: Pair) -> dict[str, Any]:
    return {
        "reference": found.label(pair.reference),
        "other": found.label(pair.other),
        "difference_at_one_sample": _interval(pair.at_one),
        "budgets": [_budget(each) for each in pair.budgets],
        "is_reversed": pair.is_reversed,
        "crossovers_j": list(pair.crossovers),
    }


def _budget(each: Budget) -> dict[str, Any]:
    nearest, fewest, most = each.num_other
    return {
        "joules": each.joules,
        "num_reference": each.num_reference,
        "num_other": nearest,
        "num_other_low": fewest,
        "num_other_high": most,
        "difference": _interval(each.difference),
        "reason": each.reason,
    }


def _leader(found: Thinking, each: Leader) -> dict[str, Any]:
    return {
        "joules": each.joules,
        "best": found.label(each.best),
        "accuracy": _interval(each.accuracy),
        "bought": {found.label(at): number for at, number in enumerate(each.bought)},
        "not_shown_worse": [found.label(at) for at in each.not_worse],
    }


def _interval(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval._asdict()
