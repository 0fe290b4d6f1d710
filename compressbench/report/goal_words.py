"""How goals and judgements read: in points, milliseconds and megabytes, with the interval that decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compressbench.core.units import three_digits, unit_of
from compressbench.report.catalog import Catalog
from compressbench.report.figures import HIGHER_IS_BETTER, Contender
from compressbench.report.goal_judge import Judgement
from compressbench.report.goals import Goal
from compressbench.report.policy import STRATUM
from compressbench.report.rows import Cell
from compressbench.report.words import title, value_text

Units = Mapping[str, str]
"""Of metrics: `fraction` where they read as percentages."""
_SHARES = ("sparsity", "mbu", "mfu")


def units_of(catalog: Catalog, contenders: Sequence[Contender]) -> dict[str, str]:
    """From the first row that has the metric."""
    found: dict[str, str] = {}
    for contender in contenders:
        for name in contender.metrics:
            if name not in found and contender.figures[name].value is not None:
                found[name] = catalog.row(contender.at).cells[name].unit
    return found


def number_text(name: str, value: float, units: Units) -> str:
    """`93.05 %`, `4.21 ms`."""
    return value_text(name, Cell(value=value, unit=units.get(name, unit_of(name))))


def amount_text(name: str, value: float, units: Units) -> str:
    """A difference of two such numbers: `0.31 points`, `1.20 ms`."""
    if units.get(name) == "fraction" or name in _SHARES:
        return f"{_fixed(100 * value, 2)} points"
    if not (units.get(name) or unit_of(name)):
        return three_digits(value)
    return number_text(name, value, units)


def _fixed(value: float, digits: int) -> str:
    """Nothing has no sign."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def judgement_text(found: Judgement, units: Units) -> str:
    """`accuracy loss 0.31 points [0.05, 0.57], at most 0.50 points: undecided, 0.07 points beyond at worst`."""
    name = subject_text(found)
    if found.value is None:
        return f"{name}: {found.reason}"
    if found.goal.type in ("measured", "required"):
        return f"{name} {number_text(found.figure, found.value, units)}"
    return f"{name} {observed_text(found, units)}, {limit_text(found, units)}{_verdict(found, units)}"


def subject_text(found: Judgement) -> str:
    """`accuracy loss`, `latency p95`."""
    if found.goal.type == "not-degraded" and found.figure == found.goal.figure:
        return "quality"
    name = "worst stratum" if found.figure == STRATUM else title(found.figure)
    return f"{name} {_noun(found)}".rstrip()


def observed_text(found: Judgement, units: Units) -> str:
    """The value with its interval, or why there is none: `0.31 points [0.05, 0.57]`."""
    if found.value is None:
        return found.reason
    if found.goal.type in ("measured", "required"):
        return number_text(found.figure, found.value, units)
    texts = [_on_scale(found, each, units) for each in (found.value, found.low or 0.0, found.high or 0.0)]
    same = found.low == found.high
    return texts[0] if same else f"{texts[0]} [{_bare(texts[1], texts[0])}, {_bare(texts[2], texts[0])}]"


def _bare(text: str, like: str) -> str:
    """Without the unit, where the value in front of it has the same."""
    number, _, unit = text.partition(" ")
    return number if unit and like.endswith(f" {unit}") else text


def _noun(found: Judgement) -> str:
    goal = found.goal.type
    if goal in ("threshold", "recovery", "measured", "required"):
        return ""
    if "improvement" in goal:
        return "improvement"
    return "loss" if goal == "max-stratum-drop" or found.direction == "higher" else "increase"


def _on_scale(found: Judgement, value: float, units: Units) -> str:
    goal = found.goal.type
    if goal == "threshold":
        return number_text(found.figure, value, units)
    if goal == "recovery":
        return f"{100 * value:.2f} % of the baseline's"
    if goal.startswith("percent"):
        return f"{_fixed(value, 1 if abs(value) >= 1 else 2)} %"
    if goal == "max-stratum-drop":
        return f"{_fixed(100 * value, 2)} {'%' if ': ' in found.figure else 'points'}"
    return amount_text(found.figure, value, units)


def limit_text(found: Judgement, units: Units) -> str:
    """`at most 0.50 points`, `at least 99 %`."""
    if found.goal.type in ("measured", "required"):
        return "measured" if found.goal.type == "measured" else "must be there"
    if found.goal.type == "not-degraded":
        words = {"missed": "degraded", "undecided": "not shown to be within the declared margin"}
        return words.get(found.outcome, "not shown to be degraded")
    return f"{'at most' if found.is_ceiling else 'at least'} {_limit_value(found, units)}"


def _limit_value(found: Judgement, units: Units) -> str:
    if found.goal.type == "recovery":
        return f"{100 * found.goal.value:g} %"
    return (
        f"{found.goal.value:g} %"
        if found.goal.type.startswith("percent")
        else _on_scale(found, found.goal.value, units)
    )


def _verdict(found: Judgement, units: Units) -> str:
    if found.outcome == "met" or found.goal.type == "not-degraded":
        return ""
    by = shortfall_text(found, units)
    return f": missed by up to {by}" if found.outcome == "missed" else f": undecided, {by} beyond at worst"


def shortfall_text(found: Judgement, units: Units) -> str:
    """How far the unfavourable bound lies beyond the limit: `0.07 points`."""
    shortfall = found.shortfall or 0.0
    if found.goal.type == "recovery":
        return f"{100 * shortfall:.2f} points"
    return (
        amount_text(found.figure, shortfall, units)
        if found.goal.type == "threshold"
        else _on_scale(found, shortfall, units)
    )


def goal_text(goal: Goal, directions: Mapping[str, str], units: Units) -> str:
    """The goal itself: `latency p95 at most 50.0 ms`."""
    if goal.type == "not-degraded":
        return goal.asked
    name = "worst stratum" if goal.figure == STRATUM else title(goal.figure)
    if goal.type == "required":
        return f"{name} must be there"
    if goal.type == "measured":
        return f"{name} must be measured, not estimated"
    default = "higher" if goal.figure in HIGHER_IS_BETTER else "lower"
    of_accuracy = "higher" if goal.figure == "accuracy" else default
    direction = directions.get(goal.figure, of_accuracy)
    like = Judgement(goal, goal.figure, "met", goal.value, goal.value, goal.value, direction=direction)
    shares = {"accuracy": "fraction", **units}
    of_baseline = " of the baseline's" if goal.type == "recovery" or goal.type.startswith("percent") else ""
    said = "" if goal.asked.startswith(goal.type) else f" ({goal.asked})" if goal.asked else ""
    return " ".join(each for each in (name, _noun(like), f"{limit_text(like, shares)}{of_baseline}{said}") if each)
