"""A goal judged: met if the whole 95 % interval lies within the limit, missed if it lies wholly beyond, else undecided."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from compressbench.report.cost_words import ACCURACY, is_more_better
from compressbench.report.figures import COUNTED, Contender, Figure, is_timed
from compressbench.report.goals import LOSSES, Goal

Outcome = Literal["met", "undecided", "missed"]
# what is left of floats that were added in another order decides nothing
_ROUNDING = 1e-9
_CEILINGS = {"max-degradation", "percent-max-degradation", "max-stratum-drop", "not-degraded"}
_NOT_PAIRED = "it was not paired with the baseline's, and two separate intervals don't make a comparison"


class Judgement(NamedTuple):
    """One goal asked of one number of one contender. `value` with its bounds is on the goal's scale: the number itself, or
    what it lost, gained (of the unit, or in percent) or kept against the baseline.

    `shortfall` is how far the unfavourable bound lies beyond the limit on that scale, `fraction` the same in parts of the
    limit; 0 if it is met, None if there is no bound. Where `value` is None, `reason` says why.
    """

    goal: Goal
    figure: str
    outcome: Outcome
    value: float | None = None
    low: float | None = None
    high: float | None = None
    shortfall: float | None = None
    fraction: float | None = None
    reason: str = ""
    direction: str = "lower"
    is_missing: bool = False

    @property
    def is_ceiling(self) -> bool:
        """Whether the limit is the most that is allowed, not the least."""
        return is_ceiling(self.goal, self.direction)


def is_ceiling(goal: Goal, direction: str) -> bool:
    return direction == "lower" if goal.type == "threshold" else goal.type in _CEILINGS


class _Observed(NamedTuple):
    value: float
    low: float
    high: float


def judge(goal: Goal, contender: Contender, baseline_fault: str = "") -> list[Judgement]:
    """One judgement per number that the goal is about: `accuracy` may be several metrics.

    `baseline_fault` is why the contender's baseline can't be compared with.
    """
    if contender.faults:
        return [Judgement(goal, goal.figure, "missed", reason=contender.faults[0])]
    names = asked_metrics(goal, contender)
    if not names:
        known = ", ".join(contender.metrics) or "none"
        return [_unknown(goal, goal.figure, f"it has no such metric (its metrics: {known})", is_missing=True)]
    return [_judge_one(goal, contender, name, baseline_fault) for name in names]


def asked_metrics(goal: Goal, contender: Contender) -> list[str]:
    """What a goal is about. Losses of `accuracy` are asked of every task metric of which more is better, because each is
    compared with its own baseline; a threshold only of the metrics called so, where there are any.
    """
    if goal.type == "not-degraded":
        return list(contender.metrics)
    if goal.figure != ACCURACY:
        return [goal.figure]
    better = [name for name in contender.metrics if is_more_better(contender, name)]
    called = [name for name in better if name.partition("@")[0].partition("#")[0] == ACCURACY]
    return better if goal.type in LOSSES else called or better[:1]


def _judge_one(goal: Goal, contender: Contender, name: str, baseline_fault: str) -> Judgement:
    figure = contender.figures.get(name)
    if figure is None or figure.value is None:
        reason = "it was not recorded" if figure is None else figure.reason or "it was not recorded"
        return _unknown(goal, name, reason, is_missing=True)
    if goal.type == "required":
        return Judgement(goal, name, "met", figure.value, figure.low, figure.high, direction=figure.direction)
    if goal.type == "measured":
        if figure.kind == "measured":
            return Judgement(goal, name, "met", figure.value, figure.low, figure.high)
        return _unknown(goal, name, f"it is {figure.kind or 'of unknown origin'}, and measured energy is asked for")
    if contender.unsteady and is_timed(name, contender.metrics):
        return _unknown(goal, name, contender.unsteady[0])
    if baseline_fault and goal.type != "threshold" and not contender.is_baseline:
        return _unknown(goal, name, f"the baseline can't be compared with: {baseline_fault}")
    found = _observed(goal, contender, name, figure)
    if isinstance(found, str):
        return _unknown(goal, name, found)
    if goal.type == "not-degraded":
        return _not_degraded(goal, name, figure, found)
    return _bounded(goal, name, found, figure)


def _unknown(goal: Goal, name: str, reason: str, *, is_missing: bool = False) -> Judgement:
    return Judgement(goal, name, "undecided", reason=reason, is_missing=is_missing)


def _bounded(goal: Goal, name: str, found: _Observed, figure: Figure) -> Judgement:
    """The outcome of value and bounds against the limit.

    A limit of 0 has no parts: then `fraction` is of the figure's own value, or of 100 %.
    """
    value, low, high = found
    sign = 1.0 if is_ceiling(goal, figure.direction) else -1.0
    edge, one, other = sign * goal.value, sign * low, sign * high
    best, worst = (one, other) if one <= other else (other, one)
    slack = _ROUNDING * max(abs(edge), abs(one), abs(other))
    if worst - edge <= slack:
        return Judgement(goal, name, "met", value, low, high, 0.0, 0.0, "", figure.direction)
    outcome: Outcome = "missed" if best - edge > slack else "undecided"
    whole = abs(edge) or (100.0 if goal.type.startswith("percent") else abs(figure.value or 0.0))
    beyond = worst - edge
    share = beyond / whole if whole else None
    return Judgement(goal, name, outcome, value, low, high, beyond, share, "", figure.direction)


def _not_degraded(goal: Goal, name: str, figure: Figure, found: _Observed) -> Judgement:
    """By the verdict: within the margin where the recipe declared one, else not degraded."""
    accepted = ("equivalent", "improved")
    is_met = figure.verdict != "degraded" if figure.margin is None else figure.verdict in ("", *accepted)
    if is_met:
        return Judgement(goal, name, "met", *found, shortfall=0.0, fraction=0.0, direction=figure.direction)
    outcome: Outcome = "missed" if figure.verdict == "degraded" else "undecided"
    limit = _margin_in_unit(figure)
    beyond, whole = max(0.0, found.high - limit), limit or abs(figure.value or 0.0)
    share = beyond / whole if whole else None
    return Judgement(goal, name, outcome, *found, shortfall=beyond, fraction=share, direction=figure.direction)


def _margin_in_unit(figure: Figure) -> float:
    """0 without a margin; of a metric on a log scale it is a fraction of the baseline's."""
    if figure.margin is None or not figure.is_log:
        return figure.margin or 0.0
    return figure.margin * (figure.value or 0.0) / (figure.ratio or 1.0)


def _observed(goal: Goal, contender: Contender, name: str, figure: Figure) -> _Observed | str:
    found = _on_scale(goal, contender, name, figure)
    # the sum of finite numbers is finite, or too large for any goal
    return found if isinstance(found, str) or math.isfinite(sum(found)) else "it isn't a finite number"


def _on_scale(goal: Goal, contender: Contender, name: str, figure: Figure) -> _Observed | str:
    if goal.type == "threshold":
        return _own(name, figure)
    if contender.is_baseline:
        return _Observed(1.0, 1.0, 1.0) if goal.type == "recovery" else _Observed(0.0, 0.0, 0.0)
    if goal.type in ("max-degradation", "not-degraded"):
        return _loss(name, figure)
    if goal.type == "min-improvement":
        loss = _loss(name, figure)
        return loss if isinstance(loss, str) else _Observed(-loss.value, -loss.high, -loss.low)
    ratio = _ratio(figure)
    if isinstance(ratio, str):
        return ratio
    if goal.type == "recovery":
        return ratio if figure.direction == "higher" else _inverse(ratio)
    falls = (goal.type == "percent-max-degradation") == (figure.direction == "higher")
    sign = -1.0 if falls else 1.0
    return _each(ratio, lambda each: sign * 100 * (each - 1))


def _own(name: str, figure: Figure) -> _Observed | str:
    assert figure.value is not None  # noqa: S101 -- missing values were told apart
    if figure.low is not None and figure.high is not None:
        return _Observed(figure.value, figure.low, figure.high)
    if name in COUNTED:
        return _Observed(figure.value, figure.value, figure.value)
    how = f"it is {figure.kind}" if figure.kind not in ("", "measured") else "it was measured"
    return f"{how} without an interval, so that nobody knows how far it is off"


def _loss(name: str, figure: Figure) -> _Observed | str:
    """How much worse than the baseline, in the figure's unit."""
    sign = -1.0 if figure.direction == "higher" else 1.0
    if figure.difference is not None and figure.difference_low is not None and figure.difference_high is not None:
        return _each(
            _Observed(figure.difference, figure.difference_low, figure.difference_high), lambda each: sign * each
        )
    ratio, own = _ratio(figure), _own(name, figure)
    if isinstance(ratio, str) or isinstance(own, str):
        return ratio if isinstance(ratio, str) else own
    if min(ratio) <= 0:
        return "its ratio to the baseline's isn't above zero"
    # value - baseline = value (1 - 1 / ratio), in the worst and best corner of both intervals
    corners = [sign * value * (1 - 1 / times) for value in own[1:] for times in ratio[1:]]
    return _Observed(sign * own.value * (1 - 1 / ratio.value), min(corners), max(corners))


def _ratio(figure: Figure) -> _Observed | str:
    """To the baseline. Of costs the interval is at least as wide as what the baseline differs from itself by, as in
    positions.py.
    """
    if figure.ratio is None or figure.ratio_low is None or figure.ratio_high is None:
        return _NOT_PAIRED
    found = _Observed(figure.ratio, figure.ratio_low, figure.ratio_high)
    if figure.difference is not None or not figure.noise:
        return found
    wider = 1 + figure.noise
    return _Observed(found.value, min(found.low, found.value / wider), max(found.high, found.value * wider))


def _inverse(ratio: _Observed) -> _Observed | str:
    if min(ratio) <= 0:
        return "its ratio to the baseline's isn't above zero"
    return _each(ratio, lambda each: 1 / each)


def _each(found: _Observed, change: Callable[[float], float]) -> _Observed:
    low, high = change(found.low), change(found.high)
    return _Observed(change(found.value), low, high) if low <= high else _Observed(change(found.value), high, low)


def worst_of(judgements: Sequence[Judgement]) -> Outcome:
    """missed before undecided before met; nothing judged is undecided."""
    found = {each.outcome for each in judgements}
    if not found:
        return "undecided"
    return "missed" if "missed" in found else "undecided" if "undecided" in found else "met"
