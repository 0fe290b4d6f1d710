"""A picture of test-time compute: accuracy against joules a question, a line for each variant, as a small SVG."""

from __future__ import annotations

import math
from typing import NamedTuple

from compressbench.core.statistics import Interval
from compressbench.core.units import humanize
from compressbench.report.svg_parts import hint, label, picture, straight
from compressbench.report.think import Point, Thinking
from compressbench.report.think_words import accuracy_word

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 440, 64, 190, 40, 56
_COLOURS = ("#2f6fb3", "#c8553d", "#3a8f5c", "#8a5fb0", "#b58a1b", "#4a9aa8", "#b04a80", "#7a7a7a")
_DASHES = ("", "6 3", "2 3")


class _Axes(NamedTuple):
    """Joules on a logarithmic scale, accuracies from 0 to the highest."""

    low: float
    high: float
    top: float

    def x(self, joules: float) -> float:
        span = math.log(self.high / self.low) or 1.0
        return _LEFT + 12 + math.log(joules / self.low) / span * (_WIDTH - _LEFT - _RIGHT - 24)

    def y(self, accuracy: float) -> float:
        return _HEIGHT - _BOTTOM - accuracy / self.top * (_HEIGHT - _TOP - _BOTTOM)


def to_svg(found: Thinking) -> str:
    """Selected accuracy (coverage where nothing selects) with its interval at every k, of variants that have joules."""
    lines = [[(point, _shown(point)) for point in line.points if point.joules] for line in found.lines]
    joules = [point.joules.value for line in lines for point, _ in line if point.joules]
    top = max(interval.high for line in lines for _, interval in line)
    axes = _Axes(min(joules), max(joules), min(1.0, 1.05 * top) or 1.0)
    bottom = _HEIGHT - _BOTTOM
    parts = [
        straight(_LEFT, _TOP, _LEFT, bottom),
        straight(_LEFT, bottom, _WIDTH - _RIGHT, bottom),
        *(label(axes.x(each), bottom + 16, humanize(each, "J"), "middle") for each in _ticks(axes)),
        *(
            label(_LEFT - 6, axes.y(share * axes.top) + 4, f"{100 * share * axes.top:.0f} %", "end")
            for share in (0, 0.5, 1)
        ),
        label((_LEFT + _WIDTH - _RIGHT) / 2, bottom + 36, "modelled joules a question (log scale)", "middle"),
        label(_LEFT, _TOP - 10, f"{accuracy_word(found)}; each point has twice the samples of the one before"),
    ]
    for place, line in enumerate(lines):
        parts += _drawn(axes, line, place, found.label(place)) if line else []
    if found.watermark:
        parts.append(label(_WIDTH / 2, 14, found.watermark, "middle"))
    return picture(_WIDTH, _HEIGHT, f"{accuracy_word(found)} against joules a question", parts)


def _shown(point: Point) -> Interval:
    return point.coverage if point.selected is None else point.selected


def _ticks(axes: _Axes) -> list[float]:
    return sorted({axes.low, math.sqrt(axes.low * axes.high), axes.high})


def _drawn(axes: _Axes, line: list[tuple[Point, Interval]], place: int, name: str) -> list[str]:
    colour = _COLOURS[place % len(_COLOURS)]
    dashes = _DASHES[place // len(_COLOURS) % len(_DASHES)]
    places = [(axes.x(point.joules.value), shown) for point, shown in line if point.joules]
    ends = " ".join(f"{x:.1f},{axes.y(shown.value):.1f}" for x, shown in places)
    parts = [
        f'<polyline points="{ends}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-dasharray="{dashes}">'
        f"{hint(name)}</polyline>"
    ]
    for x, shown in places:
        low, high = axes.y(max(0.0, shown.low)), axes.y(min(axes.top, shown.high))
        parts.append(f'<circle cx="{x:.1f}" cy="{axes.y(shown.value):.1f}" r="3" fill="{colour}"/>')
        parts.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}" opacity="0.5"/>')
    row = _TOP + 16 * place
    right = _WIDTH - _RIGHT + 16
    parts.append(f'<path d="M{right} {row}h18" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>')
    return [*parts, label(right + 24, row + 4, name)]
