"""Where rows stand on one quantity, on a scale on which they can be compared: the less the better, with standard errors.

Within one baseline rows stand relative to it, because a paired difference doesn't hold what both sides share (the
samples' difficulty, the machine's mood). Between two candidates errors are then added as if they were independent,
though they share the baseline's: that can only widen what is said of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from compressbench.report.figures import COUNTED, Contender, Figure, is_timed, names_in

Scale = Literal["against the baseline", "absolute"]
_Z95 = 1.959963984540054


class Position(NamedTuple):
    """The less the better: logarithms of costs and of metrics on a log scale, losses of other metrics in their unit; in
    an absolute standing counted costs in their unit.

    `error` is a standard error (k = 1), 0 for what was counted.
    """

    value: float
    error: float


class Standing(NamedTuple):
    """Positions by place among the contenders, and by place why there is none."""

    scale: Scale
    positions: Mapping[int, Position]
    absent: Mapping[int, str]


def standing(contenders: Sequence[Contender], name: str) -> Standing:
    """Relative to the baseline where all that have a value share it and were paired with it; else absolute.

    A position that is no finite number is none, and a baseline stands nowhere if nobody was paired with it.
    """
    found = _standing(contenders, name)
    odd = {
        at: "its value or its interval is no sound number"
        for at, each in found.positions.items()
        if not _is_sound(each, contenders[at].figures[name])
    }
    if not any(contenders[at].figures[name].value is not None for at in found.positions):
        odd |= {at: contenders[at].figures[name].reason or "it was not recorded" for at in found.positions}
    if not odd:
        return found
    sound = {at: each for at, each in found.positions.items() if at not in odd}
    return Standing(found.scale, sound, {**found.absent, **odd})


def _is_sound(position: Position, figure: Figure) -> bool:
    """A baseline stands at nothing whatever its value is, and an interval upside down may pass for an exact one."""
    bounds = (
        (figure.low, figure.high),
        (figure.ratio_low, figure.ratio_high),
        (figure.difference_low, figure.difference_high),
    )
    is_turned = any(low is not None and high is not None and low > high for low, high in bounds)
    return all(map(math.isfinite, (*position, figure.value or 0.0))) and position.error >= 0 and not is_turned


def _standing(contenders: Sequence[Contender], name: str) -> Standing:
    eligible, absent = _eligible(contenders, name)
    relative = {at: _relative(contenders[at], figure) for at, figure in eligible.items()}
    shares = len({contenders[at].baseline_id for at in eligible}) <= 1
    if shares and not any(isinstance(each, str) for each in relative.values()):
        return Standing("against the baseline", _positions(relative), absent)
    # the baseline's own figure has no verdict that could say so
    is_log = is_timed(name, names_in(contenders)) or any(figure.is_log for figure in eligible.values())
    is_exact = name in COUNTED
    absolute = {at: _absolute(figure, is_log, is_exact) for at, figure in eligible.items()}
    unknown = {at: each for at, each in absolute.items() if isinstance(each, str)}
    return Standing("absolute", _positions(absolute), absent | unknown)


def _positions(found: Mapping[int, Position | str]) -> dict[int, Position]:
    return {at: each for at, each in found.items() if isinstance(each, Position)}


def _eligible(contenders: Sequence[Contender], name: str) -> tuple[dict[int, Figure], dict[int, str]]:
    eligible: dict[int, Figure] = {}
    absent: dict[int, str] = {}
    for at, contender in enumerate(contenders):
        why = why_not_ranked(contender, name)
        if why:
            absent[at] = why
        else:
            eligible[at] = contender.figures[name]
    return eligible, absent


def why_not_ranked(contender: Contender, name: str) -> str:
    """Why a contender has no place in a ranking by this quantity; "" if it has one."""
    figure = contender.figures.get(name)
    if contender.faults:
        return contender.faults[0]
    if figure is None:
        return f"it has no {name}"
    if figure.value is None and not contender.is_baseline:  # which stands at nothing, whatever is known of it
        return figure.reason or "it was not recorded"
    return contender.unsteady[0] if contender.unsteady and is_timed(name, contender.metrics) else ""


def _relative(contender: Contender, figure: Figure) -> Position | str:
    if contender.is_baseline:
        return Position(0.0, 0.0)
    sign = -1.0 if figure.direction == "higher" else 1.0
    if figure.difference is not None and not figure.is_log:
        if figure.difference_low is None or figure.difference_high is None:
            return "its difference has no interval"
        return Position(sign * figure.difference, (figure.difference_high - figure.difference_low) / 2 / _Z95)
    if figure.ratio is None or figure.ratio_low is None or figure.ratio_high is None or figure.ratio_low <= 0:
        return "it was not paired with its baseline"
    error = math.log(figure.ratio_high / figure.ratio_low) / 2 / _Z95
    # in speed the baseline differs from itself by as much as the control shows: less is no difference
    noise = 0.0 if figure.noise is None or figure.difference is not None else math.log1p(figure.noise) / _Z95
    return Position(sign * math.log(figure.ratio), max(error, noise))


def _absolute(figure: Figure, is_log: bool, is_exact: bool) -> Position | str:
    sign = -1.0 if figure.direction == "higher" else 1.0
    value, low, high = figure.value, figure.low, figure.high
    if value is None:
        return figure.reason or "it was not recorded"
    if is_exact:
        return Position(sign * value, 0.0)
    if low is None or high is None:
        return "it has no interval"
    if is_log:
        if value <= 0 or low <= 0:
            return f"it is not above zero (got {value:g})"
        return Position(sign * math.log(value), math.log(high / low) / 2 / _Z95)
    return Position(sign * value, (high - low) / 2 / _Z95)
