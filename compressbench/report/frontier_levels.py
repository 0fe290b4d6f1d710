"""From positions to levels: how good a row is and what it costs, in units, with the errors that comparisons have."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from compressbench.core.equivalence import Direction
from compressbench.core.returns import Point
from compressbench.report.figures import COUNTED, Contender, Figure
from compressbench.report.pareto import Front
from compressbench.report.positions import Position

RATES = {"throughput_per_s", "output_tokens_per_s", "max_rate_per_s"}
"""Costs of which more is better; what one costs is the time between two, in seconds."""
_Z95 = 1.959963984540054


class Scale(NamedTuple):
    """Quality is the metric, its negative where less is better, and of a metric on a log scale the logarithm of that.

    `base_quality` and `base_log_cost` are what positions are relative to: the baseline's, 0 where they are absolute.
    `base_log_cost` is None where nobody knows it.
    """

    metric: str
    cost: str
    is_log: bool
    direction: Direction
    base_quality: float
    base_log_cost: float | None

    @classmethod
    def of(cls, front: Front) -> Scale:
        metric, cost = front.names
        contenders = [entry.contender for entry in front.entries]
        figures = [each.figures[metric] for each in contenders]
        direction = figures[0].direction if figures else "higher"
        scale = cls(metric, cost, any(figure.is_log for figure in figures), direction, 0.0, 0.0)
        quality_scale, cost_scale = front.scales
        if quality_scale == "against the baseline":
            scale = scale._replace(base_quality=_of_baseline(contenders, scale._base_quality) or 0.0)
        if cost_scale == "against the baseline":
            scale = scale._replace(base_log_cost=_of_baseline(contenders, scale._base_log_cost))
        return scale

    def paired_point(self, contender: Contender, quality: Position, cost: Position) -> Point | None:
        """By its positions; None where its cost has no level."""
        level = self._cost_of(contender.figures[self.cost], cost)
        if level is None:
            return None
        own = self.own_point(contender)
        return own._replace(
            cost=level[0],
            cost_error=level[1],
            quality=self.base_quality - quality.value,
            quality_error=quality.error,
            group="family",
        )

    def own_point(self, contender: Contender) -> Point:
        """By its own values and intervals; an error that `lacks` speaks of is 0."""
        quality, cost = contender.figures[self.metric], contender.figures[self.cost]
        quality_error = _own_error(quality, is_log=self.is_log) or 0.0
        level = 0.0 if cost.value is None else self._own_cost(cost.value)
        cost_error = 0.0 if self.cost in COUNTED else level * (_own_error(cost, is_log=True) or 0.0)
        value = 0.0 if quality.value is None or not self._is_fit(quality.value) else self._quality(quality.value)
        return Point(level, value, cost_error, quality_error, "rivals", cost_error, quality_error)

    def lacks(self, contender: Contender, name: str) -> str:
        """Why its own value can't be compared with another model's; "" if it can."""
        figure = contender.figures[name]
        if figure.value is None:
            return figure.reason or "it was not recorded"
        if name in COUNTED:
            return ""
        is_log = self.is_log if name == self.metric else True
        if is_log and figure.value <= 0:
            return f"it is not above zero (got {figure.value:g})"
        return "it has no interval of its own" if _own_error(figure, is_log=is_log) is None else ""

    def _is_fit(self, value: float) -> bool:
        return value > 0 or not self.is_log

    def _quality(self, value: float) -> float:
        level = math.log(value) if self.is_log else value
        return level if self.direction == "higher" else -level

    def _own_cost(self, value: float) -> float:
        return 1 / value if self.cost in RATES and value else value

    def _cost_of(self, figure: Figure, position: Position) -> tuple[float, float] | None:
        """With its standard error, that of the ratio to the baseline's: the baseline's own is taken as given."""
        if self.cost in COUNTED:
            return None if figure.value is None else (figure.value, 0.0)
        if self.base_log_cost is None:
            return None
        level = math.exp(self.base_log_cost + position.value)
        return level, level * position.error

    def _base_quality(self, contender: Contender) -> float | None:
        """A candidate knows its baseline's by their difference or ratio."""
        figure = contender.figures[self.metric]
        if figure.value is None or not self._is_fit(figure.value):
            return None
        if contender.is_baseline:
            return self._quality(figure.value)
        if self.is_log:
            return None if not figure.ratio else self._quality(figure.value / figure.ratio)
        return None if figure.difference is None else self._quality(figure.value - figure.difference)

    def _base_log_cost(self, contender: Contender) -> float | None:
        figure = contender.figures[self.cost]
        ratio = 1.0 if contender.is_baseline else figure.ratio
        if not figure.value or not ratio or figure.value < 0:
            return None
        return math.log(self._own_cost(figure.value / ratio))


def _of_baseline(contenders: Sequence[Contender], ask: Callable[[Contender], float | None]) -> float | None:
    """The mean of what the baselines say, or else of what the candidates do."""
    for is_asked in (True, False):
        said = [found for each in contenders if each.is_baseline is is_asked and (found := ask(each)) is not None]
        if said:
            return math.fsum(said) / len(said)
    return None


def _own_error(figure: Figure, *, is_log: bool) -> float | None:
    low, high = figure.low, figure.high
    if low is None or high is None or high < low or (is_log and low <= 0):
        return None
    return (math.log(high / low) if is_log else high - low) / 2 / _Z95
