"""How scores and what may be said of them read in a table for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from compressbench.report.rows import Row
from compressbench.report.verdict import Verdict

WORST = "worst_stratum"
_ROUNDING = 1e-6


def worst_stratum(rows: Sequence[Row]) -> list[str]:
    """The column that leads where any candidate was asked about more than one capability."""
    return [WORST] if any(len({stratum.name for stratum in row.strata}) > 1 for row in rows) else []


def stratum_lines(row: Row) -> list[str]:
    """`reasoning`, `-9.00 degraded`, `[-11.2, -6.8]`."""
    if not row.strata:
        return [""]
    worst = row.strata[0]
    name = f"{worst.name}: {worst.metric}" if worst.metric else worst.name
    return [name, *_difference_lines(worst.verdict, scale=1 if worst.metric else 100)]


def quality_lines(row: Row, name: str) -> list[str]:
    """Below a score: the difference with its verdict and interval, the smallest detectable one, and what flipped."""
    verdict = row.against_baseline.get(name)
    if verdict is None:
        return []
    cell = row.cells[name]
    scale = 100 if cell.unit == "fraction" else 1
    lines = _difference_lines(verdict, scale)
    if verdict.num_samples_needed:
        lines.append(f"n needed = {verdict.num_samples_needed:,}")
    if verdict.smallest_detectable is not None:
        lines.append(f"MDE {_detectable(verdict, scale)}")
    return lines + _flips(verdict) + _fidelity(row, name)


def _difference_lines(verdict: Verdict, scale: int) -> list[str]:
    """`-0.03 inconclusive`, `[-0.16, +0.09]`."""
    change, low, high = verdict.difference, verdict.difference_low, verdict.difference_high
    if change is None or low is None or high is None:
        return [verdict.verdict]
    half = scale * (high - low) / 2
    texts = [signed(scale * value, half) for value in (change, low, high)]
    return [f"{texts[0]} {verdict.verdict}", f"[{texts[1]}, {texts[2]}]"]


def _detectable(verdict: Verdict, scale: int) -> str:
    value = verdict.smallest_detectable or 0.0
    return f"{100 * value:.2g} %" if verdict.is_log else f"{scale * value:.2g}"


def _flips(verdict: Verdict) -> list[str]:
    if verdict.num_harmful is None or verdict.num_beneficial is None:
        return []
    return [f"{verdict.num_harmful} lost, {verdict.num_beneficial} won"]


def _fidelity(row: Row, name: str) -> list[str]:
    found = row.fidelity.get(name)
    if found is None:
        return []
    if found.kl_mean is not None:
        return [f"KL {found.kl_mean:.2g}"]
    return [] if found.cosine_mean is None else [f"cosine {found.cosine_mean:.4f}"]


def signed(value: float, half_width: float) -> str:
    """With two to four decimals, so that a narrow interval doesn't look like none; with none where hundreds are unsure."""
    least = 0 if half_width >= 100 else 2
    decimals = min(4, max(least, 1 - math.floor(math.log10(half_width)))) if half_width > 0 else 2
    text = f"{value:+,.{decimals}f}"
    return f"±{text[1:]}" if float(text.replace(",", "")) == 0 else text


def quality_notes(rows: Sequence[Row]) -> list[str]:
    """What the words below a score mean, and how far the baseline differs from itself."""
    judged = [(row, row.against_baseline[name]) for row in rows for name in row.metrics if name in row.against_baseline]
    if not judged:
        return []
    families = {(row.recipe, row.run_id) for row, _ in judged}
    return [*_how_judged([each for _, each in judged], len(families)), *_floors(rows), *_fidelity_notes(rows)]


def _how_judged(verdicts: Sequence[Verdict], num_families: int) -> Iterator[str]:
    how = "those of each run judged as one family" if num_families > 1 else "judged as one family"
    what = (
        "1 difference judged" if len(verdicts) == 1 else f"{len(verdicts)} differences{',' * (num_families > 1)} {how}"
    )
    yield (
        f"Scores: {what} (Holm). MDE: the smallest difference that these "
        "samples show in 80 % of cases; n needed: samples like these that would settle it; lost, won: answers that became "
        "wrong, right."
    )
    if all(verdict.margin is None for verdict in verdicts):
        yield "No margin was declared, so nothing is called equivalent: set `margin` in a task."


def _floors(rows: Sequence[Row]) -> Iterator[str]:
    """The largest noise floor of each metric."""
    for name in dict.fromkeys(name for row in rows for name in row.metrics):
        found = [
            (verdict.noise, row)
            for row in rows
            if (verdict := row.against_baseline.get(name)) is not None and verdict.noise is not None
        ]
        # floats that are added in another order differ in their last digits
        if found and max(noise for noise, _ in found) > _ROUNDING:
            noise, row = max(found, key=lambda each: each[0])
            is_share = row.cells[name].unit == "fraction"
            text = f"{100 * noise:.2g} points" if is_share else f"{noise:.2g}"
            yield f"{name}: in another batch size and order the baseline differs from itself by {text}; less is noise."


def _fidelity_notes(rows: Sequence[Row]) -> Iterator[str]:
    found = [fidelity for row in rows for fidelity in row.fidelity.values() if fidelity.kl_mean is not None]
    cut = [each for each in found if each.top_k and each.num_classes and each.top_k < each.num_classes]
    if cut:
        yield (
            f"KL: mean over positions, in nats, of the candidate from the baseline, over its {cut[0].top_k} likeliest "
            "classes and one for all others: a lower bound."
        )
    elif found:
        yield "KL: mean over samples, in nats, of the candidate from the baseline."
