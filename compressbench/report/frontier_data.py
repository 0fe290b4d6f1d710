"""Diminishing returns for other programs: JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from compressbench.core.curve_fits import Fit, Fits
from compressbench.core.names import json_text
from compressbench.core.returns import Ratio, Step, elasticity, knee
from compressbench.core.units import unit_of
from compressbench.report.catalog import Catalog
from compressbench.report.frontier import SEED, Frontier
from compressbench.report.frontier_check_words import check_sentences
from compressbench.report.frontier_levels import RATES
from compressbench.report.frontier_numbers import Words
from compressbench.report.frontier_rivals import Member
from compressbench.report.frontier_words import fit_sentences, notes, rival_sentences, stop_sentences
from compressbench.report.plain import inert

_HEAD = (
    "recipe", "candidate", "role", "run_id", "key", "watermark", "model", "rival", "on_front", "is_stop", "cost",
    "cost_error", "quality", "quality_error", "value", "extra_cost", "gain", "gain_low", "gain_high", "gain_per_cost",
    "gain_per_cost_low", "gain_per_cost_high", "elasticity", "elasticity_low", "elasticity_high", "is_shown",
    "not_ranked_by", "reason",
)  # fmt: skip


def to_json(catalog: Catalog, found: Frontier) -> str:
    """Everything: `metric`, `cost`, `rows` (cheapest first), `steps` along the front, `stop`, `fit`, `left_out` and texts.

    Costs are in `cost_unit`; qualities are the metric, its negative or its (negative) logarithm, as `quality` says.
    """
    words = Words.of(found, catalog)
    returns = found.returns
    fields = {
        "key": found.front.key,
        "watermark": found.front.watermark,
        "metric": found.metric,
        "quality": _quality(words),
        "cost": found.cost,
        "cost_unit": "s" if found.cost in RATES else unit_of(found.cost),
        "scales": dict(zip((found.metric, found.cost), found.front.scales, strict=True)),
        "smallest_gain": found.smallest_gain,
        "smallest_gain_source": found.margin_source,
        "rows": [_row(catalog, found, at, member) for at, member in enumerate(found.members)],
        "steps": [_step(found, step) for step in returns.steps],
        "stop": {
            "label": words.name(returns.stop),
            "cost": found.points[returns.stop].cost,
            "is_exhausted": bool(returns.beyond),
            "first_unshown_step": returns.first_unshown,
            "jumps": [_step(found, step) for step in returns.jumps],
            "beyond": [_step(found, step) for step in returns.beyond],
            "text": list(stop_sentences(words)),
        },
        "knee": None if (at := knee(found.points, returns.front)) is None else words.name(at),
        "rivals": list(rival_sentences(words)),
        "num_rivals": len(found.rivals),
        "fit": _fits(found.fits),
        "why_no_fit": found.why_no_fit,
        "fitted_to": "all rows" if found.all_rows else "the front",
        "fit_text": list(fit_sentences(words)),
        "monotony": _monotony(found),
        "bits_laws": {method: law._asdict() for method, law in found.checks.laws.items()},
        "why_no_bits_law": found.checks.why_no_law,
        "check_text": list(check_sentences(words)),
        "left_out": [each._asdict() for each in found.unplaced],
        "notes": list(notes(words)),
        "seed": SEED,
    }
    return json_text(fields)


def _quality(words: Words) -> str:
    sign = "-" if words.is_lower_better else ""
    return f"{sign}{'ln ' if words.found.is_log else ''}{words.found.metric}"


def _row(catalog: Catalog, found: Frontier, at: int, member: Member) -> dict[str, Any]:
    contender, point = member.contender, member.point
    cells = catalog.row(contender.at).cells
    return {
        "recipe": contender.recipe,
        "candidate": contender.candidate,
        "role": contender.role,
        "run_id": contender.run_id,
        "label": member.label,
        "model": contender.model,
        "rival": member.rival,
        "on_front": at in found.returns.front,
        "front_probability": member.probability,
        "cost": point.cost,
        "cost_error": point.cost_error,
        "cost_kind": cells[found.cost].kind,
        "quality": point.quality,
        "quality_error": point.quality_error,
        "value": cells[found.metric].value,
    }


def _step(found: Frontier, step: Step) -> dict[str, Any]:
    return {
        "from": found.members[step.start].label,
        "to": found.members[step.end].label,
        "extra_cost": step.extra_cost._asdict(),
        "gain": step.gain._asdict(),
        "gain_per_cost": step.per_cost._asdict(),
        "elasticity": _ratio(elasticity(found.points, step, is_log=found.is_log)),
        "is_shown": step.is_shown,
    }


def _ratio(found: Ratio | None) -> dict[str, Any] | None:
    return None if found is None else found._asdict()


def _monotony(found: Frontier) -> dict[str, Any] | None:
    checks = found.checks
    if checks.monotony is None:
        return None
    return {
        "isotonic": {
            found.members[at].label: level for at, level in zip(checks.places, checks.monotony.fitted, strict=True)
        },
        "num_pairs": checks.monotony.num_pairs,
        "num_shown": checks.monotony.num_shown,
        "largest_fall": None if (worst := checks.monotony.worst) is None else worst.gain._asdict(),
        "curve_departs_by": None if checks.gap is None else checks.gap.above,
    }


def _fits(fits: Fits | None) -> dict[str, Any] | None:
    if fits is None:
        return None
    return {
        "chosen": fits.chosen.form,
        "kind": "modelled",
        "alike": list(fits.alike),
        "inflation": fits.inflation,
        "forms": [_fit(fit) for fit in fits.fits],
        "curve": [point._asdict() for point in fits.curve],
        "num_draws": fits.num_draws,
    }


def _fit(fit: Fit) -> dict[str, Any]:
    return {
        "form": fit.form,
        "chi_square": fit.chi_square,
        "aicc": fit.aicc if math.isfinite(fit.aicc) else None,
        "weight": fit.weight,
        "left_out_error": fit.left_out_error,
        "parameters": [each._asdict() for each in fit.parameters],
    }


def to_csv(catalog: Catalog, found: Frontier) -> str:
    """A line per row, cheapest first; those on the front with the step that leads to them."""
    step_to = {step.end: step for step in found.returns.steps}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_HEAD)
    for at, member in enumerate(found.members):
        fields = {
            **_row(catalog, found, at, member),
            "is_stop": at == found.returns.stop and bool(found.returns.beyond),
        }
        if at in step_to:
            fields |= _flat(_step(found, step_to[at]))
        writer.writerow([inert(value) for value in _values(found, fields)])
    for each in found.unplaced:
        fields = {"candidate": each.label, "rival": each.rival, "not_ranked_by": each.name, "reason": each.reason}
        writer.writerow([inert(value) for value in _values(found, fields)])
    return buffer.getvalue()


def _flat(step: dict[str, Any]) -> dict[str, Any]:
    found = {"extra_cost": step["extra_cost"]["value"], "is_shown": step["is_shown"]}
    for name in ("gain", "gain_per_cost", "elasticity"):
        parts = step[name] or {}
        found |= {name: parts.get("value"), f"{name}_low": parts.get("low"), f"{name}_high": parts.get("high")}
    return found


def _values(found: Frontier, fields: dict[str, Any]) -> list[Any]:
    whole = {"key": found.front.key, "watermark": found.front.watermark, **fields}
    return [whole.get(name) for name in _HEAD]
