"""Costs of two rows side by side: stored, counted, or through the baseline that both were measured against.

Two candidates are never timed against each other. But each was interleaved with the same baseline, and in the ratio of
their two ratios cancels what the machine did to each run. What has no such baseline stands side by side without a claim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from compressbench.core.statistics import Interval
from compressbench.report.against import COUNTED_COSTS, counted_ratio, ratio_verdict
from compressbench.report.figures import HIGHER_IS_BETTER
from compressbench.report.pairing import COUNTED, STORED, THROUGH_BASELINE
from compressbench.report.rows import Row
from compressbench.report.verdict import Verdict

NEVER_TOGETHER = "they were never measured together, nor against one baseline"
_OPPOSITE = {
    "faster": "slower", "slower": "faster", "lower": "higher", "higher": "lower",
}  # fmt: skip


class Obtained(NamedTuple):
    """A verdict and how it was obtained; an undecided one has its reason, None is for what nobody claims anything of."""

    how: str
    verdict: Verdict | None


def cost_between(reference: Row, other: Row, name: str) -> Obtained:
    """`other` against `reference`: of one cost that both have."""
    if name in COUNTED_COSTS:
        return _counted(reference, other, name)
    if _is_one_run(reference, other) and reference.role == "baseline":
        return _stored(other.against_baseline.get(name))
    if _is_one_run(reference, other) and other.role == "baseline":
        found = reference.against_baseline.get(name)
        return _stored(None if found is None else mirrored(found))
    return _through_baseline(reference, other, name)


def _is_one_run(reference: Row, other: Row) -> bool:
    return (reference.run_id, reference.recipe) == (other.run_id, other.recipe)


def _stored(found: Verdict | None) -> Obtained:
    return Obtained("" if found is None else STORED, found)


def _counted(reference: Row, other: Row, name: str) -> Obtained:
    values = [row.cells[name].value if name in row.cells else None for row in (reference, other)]
    theirs, ours = values
    if theirs is None or ours is None or theirs <= 0:
        return Obtained("", None)
    return Obtained(COUNTED, counted_ratio(ours / theirs))


def mirrored(found: Verdict) -> Verdict:
    """The same of the baseline against the candidate."""
    turned: dict[str, object] = {"verdict": _OPPOSITE.get(found.verdict, found.verdict)}
    turned |= {"ratio": _inverse(found.ratio), "low": _inverse(found.high), "high": _inverse(found.low)}
    turned |= {"clean_ratio": _inverse(found.clean_ratio)}
    turned |= {"clean_low": _inverse(found.clean_high), "clean_high": _inverse(found.clean_low)}
    return found.model_copy(update=turned)


def _inverse(value: float | None) -> float | None:
    return 1 / value if value else None


def _through_baseline(reference: Row, other: Row, name: str) -> Obtained:
    theirs, ours = (_of_one(row, name) for row in (reference, other))
    if theirs is None and ours is None:
        return Obtained("", None)
    if reference.baseline_id != other.baseline_id:
        return Obtained("", Verdict(verdict="undecided", reason=NEVER_TOGETHER))
    if reference.role == other.role == "baseline":
        return Obtained(
            "", Verdict(verdict="undecided", reason="both are that baseline, measured in runs of their own")
        )
    if theirs is None or ours is None:
        return Obtained("", Verdict(verdict="undecided", reason="one of them was not paired with its baseline"))
    return Obtained(THROUGH_BASELINE, _judged(chained(theirs, ours), _noise(theirs, ours), name))


def _of_one(row: Row, name: str) -> Verdict | None:
    """Against the row's own baseline; which is once itself, and without noise because nothing was measured for that."""
    if row.role == "baseline":
        cell = row.cells.get(name)
        has_value = cell is not None and cell.value is not None
        return Verdict(verdict="same", ratio=1.0, low=1.0, high=1.0, noise=0.0) if has_value else None
    found = row.against_baseline.get(name)
    return None if found is None or found.ratio is None else found


def chained(theirs: Verdict, ours: Verdict) -> Interval:
    """(ours / baseline) / (theirs / baseline); distances to the bounds are added in squares, as logarithms.

    Both schedules have blocks of the baseline of their own, so that their errors are independent.
    """
    first, second = (_logs(each) for each in (theirs, ours))
    value = second.value - first.value
    below = math.hypot(second.value - second.low, first.high - first.value)
    above = math.hypot(second.high - second.value, first.value - first.low)
    return Interval(math.exp(value), math.exp(value - below), math.exp(value + above))


def _logs(found: Verdict) -> Interval:
    bounds = [found.ratio, found.low, found.high]
    return Interval(*(math.log(each) if each and each > 0 else math.nan for each in bounds))


def _noise(theirs: Verdict, ours: Verdict) -> float | None:
    """At worst what the baseline differed from itself by in one schedule comes on top of what it did in the other."""
    if theirs.noise is None or ours.noise is None:
        return None
    return (1 + theirs.noise) * (1 + ours.noise) - 1


def _judged(ratio: Interval, noise: float | None, name: str) -> Verdict:
    """As from the side on which the effect looks smaller, so that both directions say the same."""
    if not all(math.isfinite(each) for each in ratio):
        return Verdict(verdict="undecided", reason="a ratio without bounds can't be chained")
    is_turned = ratio.value > 1
    seen = Interval(1 / ratio.value, 1 / ratio.high, 1 / ratio.low) if is_turned else ratio
    found = ratio_verdict(seen, noise, words_of(name), is_steady=True)
    return mirrored(found) if is_turned else found


def words_of(name: str) -> tuple[str, str]:
    """For a lower and a higher value, as ratios of one run have them."""
    is_time = name.endswith("_s") and name not in HIGHER_IS_BETTER
    return ("faster", "slower") if is_time else ("lower", "higher")


def better_words(direction: str) -> Mapping[str, str]:
    """By word of a verdict: better, worse, same or undecided."""
    good, bad = ("higher", "lower") if direction == "higher" else ("lower", "higher")
    return {
        good: "better", bad: "worse", "faster": "better", "slower": "worse", "improved": "better", "degraded": "worse",
        "same": "same", "equivalent": "same",
    }  # fmt: skip
