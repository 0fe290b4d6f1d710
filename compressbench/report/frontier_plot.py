"""Pictures of diminishing returns: text for a terminal, and a small SVG that fits dark and light pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple, cast

from compressbench.core.returns import Point
from compressbench.report.catalog import Catalog
from compressbench.report.frontier import Frontier
from compressbench.report.frontier_levels import RATES
from compressbench.report.frontier_numbers import Words
from compressbench.report.frontier_rivals import SMALLER_DENSE, Member
from compressbench.report.pareto import Entry
from compressbench.report.pareto_plot import plot
from compressbench.report.rows import Row
from compressbench.report.svg_parts import hint, label, picture, straight
from compressbench.report.words import title

_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 24, 40, 56
_Z95 = 1.959963984540054
_LONGEST = 40
_TICKS = 5


def text_plot(catalog: Catalog, found: Frontier, width: int) -> list[str]:
    """As report/pareto_plot.py draws fronts: quality upwards, cost to the right, rivals among them."""
    place_of = {member.contender.at: at for at, member in enumerate(found.members)}
    placed = [entry for entry in found.front.entries if entry.contender.at in place_of]
    rivals = [_entry(found, at, member) for at, member in enumerate(found.members) if member.rival]
    front = found.front._replace(entries=(*placed, *rivals))
    return plot(cast(Catalog, _Placed(catalog, found, place_of)), front, width)


class _Placed(NamedTuple):
    """The catalog with the costs that rows were placed by: a row's own time isn't the baseline's times its paired ratio."""

    catalog: Catalog
    found: Frontier
    place_of: Mapping[int, int]

    def row(self, at: int) -> Row:
        row, cost = self.catalog.row(at), self.found.points[self.place_of[at]].cost
        value = 1 / cost if self.found.cost in RATES else cost
        cell = row.cells[self.found.cost].model_copy(update={"value": value})
        return row.model_copy(update={"cells": {**row.cells, self.found.cost: cell}})

    def rows(self, places: Iterable[int]) -> Iterator[Row]:
        return map(self.row, places)


def _entry(found: Frontier, at: int, member: Member) -> Entry:
    word = "on the front" if at in found.returns.front else "dominated"
    return Entry(member.contender, member.label, (), (), 0.0, word)  # type: ignore[arg-type]


class _Axes(NamedTuple):
    """Logarithmic in cost where the costs span more than a factor of four."""

    costs: tuple[float, float]
    qualities: tuple[float, float]
    is_log: bool

    @classmethod
    def of(cls, costs: Sequence[float], qualities: Sequence[float]) -> _Axes:
        low, high = min(costs), max(costs)
        bottom, top = min(qualities), max(qualities)
        room = 0.06 * (top - bottom) or 1.0
        return cls((low, high), (bottom - room, top + room), 0 < 4 * low < high)

    def x(self, cost: float) -> float:
        low, high, at = (*self.costs, cost)
        if self.is_log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        share = 0.5 if high == low else (at - low) / (high - low)
        return _LEFT + 12 + share * (_WIDTH - _LEFT - _RIGHT - 24)

    def ticks(self) -> tuple[list[float], list[float]]:
        """Costs and qualities at equal distances on the picture, the ends among them."""
        low, high = self.costs
        shares = [place / (_TICKS - 1) for place in range(_TICKS)] if high > low else [0.0]
        costs = [low * (high / low) ** share if self.is_log else low + share * (high - low) for share in shares]
        bottom, top = self.qualities
        return costs, [bottom + place / (_TICKS - 1) * (top - bottom) for place in range(_TICKS)]

    def y(self, quality: float) -> float:
        low, high = self.qualities
        return _HEIGHT - _BOTTOM - (quality - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def to_svg(catalog: Catalog, found: Frontier) -> str:
    """Rows with their intervals, steps along the front, the curve with its band, and where returns stop."""
    words = Words.of(found, catalog)
    curve = found.fits.curve if found.fits else ()
    points = found.points
    bars = [end for point in points for end in _bar(point)]
    qualities = [*bars, *(each.quality for each in curve)]
    axes = _Axes.of([point.cost for point in points], qualities)
    stop = axes.x(points[found.returns.stop].cost)
    parts = [*_frame(axes, words), *_curve(axes, found), *_lines(axes, found)]
    if found.returns.beyond:
        parts.append(straight(stop, _TOP, stop, _HEIGHT - _BOTTOM, "4 4"))
        anchor = "start" if stop < _WIDTH / 2 else "end"
        parts.append(label(stop + (4 if anchor == "start" else -4), _HEIGHT - _BOTTOM - 6, "returns stop", anchor))
    parts += [part for at in range(len(points)) for part in _row(axes, found, at)]
    parts += _names(axes, found)
    if found.rivals or found.smaller:
        kinds = dict.fromkeys([*(each.rival for each in found.rivals), *([SMALLER_DENSE] if found.smaller else [])])
        parts.append(label(_LEFT, _HEIGHT - 2, f"squares: {', '.join(kinds)}", opacity=0.8))
    if found.front.watermark:
        parts.append(label(_WIDTH / 2, 14, found.front.watermark, "middle"))
    return picture(_WIDTH, _HEIGHT, f"{title(found.metric)} against {words.cost_title}", parts)


def _bar(point: Point) -> tuple[float, float]:
    """The ends of its interval: of its own value for a rival, else of its difference from the baseline."""
    half = _Z95 * point.quality_error
    return point.quality - half, point.quality + half


def _frame(axes: _Axes, words: Words) -> list[str]:
    bottom = _HEIGHT - _BOTTOM
    costs, levels = axes.ticks()
    scale = " (log scale)" if axes.is_log else ""
    return [
        straight(_LEFT, _TOP, _LEFT, bottom),
        straight(_LEFT, bottom, _WIDTH - _RIGHT, bottom),
        *(straight(axes.x(cost), bottom, axes.x(cost), bottom + 4) for cost in costs),
        *(label(axes.x(cost), bottom + 18, words.cost(cost), "middle") for cost in costs),
        *(straight(_LEFT, axes.y(level), _WIDTH - _RIGHT, axes.y(level), width=0.2) for level in levels[1:]),
        *(label(_LEFT - 6, axes.y(level) + 4, words.level(level), "end") for level in levels),
        label((_LEFT + _WIDTH - _RIGHT) / 2, bottom + 40, f"{words.cost_title}{scale}", "middle"),
        label(_LEFT, _TOP - 10, f"{title(words.found.metric)}, better above"),
    ]


def _curve(axes: _Axes, found: Frontier) -> list[str]:
    if found.fits is None:
        return []
    low, high = axes.qualities
    there = [f"{axes.x(each.cost):.1f},{axes.y(min(each.high, high)):.1f}" for each in found.fits.curve]
    back = [f"{axes.x(each.cost):.1f},{axes.y(max(each.low, low)):.1f}" for each in reversed(found.fits.curve)]
    middle = " ".join(f"{axes.x(each.cost):.1f},{axes.y(each.quality):.1f}" for each in found.fits.curve)
    return [
        f'<polygon points="{" ".join([*there, *back])}" opacity="0.12"/>',
        f'<polyline points="{middle}" fill="none" stroke="currentColor" stroke-width="1.5" opacity="0.7"/>',
        label(_WIDTH - _RIGHT, _TOP - 10, f"curve: {found.fits.chosen.form}, modelled", "end"),
    ]


def _lines(axes: _Axes, found: Frontier) -> list[str]:
    points = [found.points[at] for at in found.returns.front]
    ends = " ".join(f"{axes.x(point.cost):.1f},{axes.y(point.quality):.1f}" for point in points)
    return [f'<polyline points="{ends}" fill="none" stroke="currentColor" stroke-dasharray="1 3" opacity="0.6"/>']


def _row(axes: _Axes, found: Frontier, at: int) -> list[str]:
    """Filled on the front; a rival is a square, one of the family's own too."""
    member, point, is_on_front = found.members[at], found.points[at], at in found.returns.front
    x, y, is_rival = axes.x(point.cost), axes.y(point.quality), bool(member.rival) or at in found.smaller
    low, high = _bar(point)
    fill = "currentColor" if is_on_front else "none"
    shape = (
        f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"'
        if is_rival
        else f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"'
    )
    end = "</rect>" if is_rival else "</circle>"
    parts = [f'{shape} fill="{fill}" stroke="currentColor">{hint(_label_of(found, at))}{end}']
    if high > low:
        parts.append(straight(x, axes.y(low), x, axes.y(high)))
    return parts


def _label_of(found: Frontier, at: int) -> str:
    member = found.members[at]
    kind = member.rival or (SMALLER_DENSE if at in found.smaller else "")
    return f"{member.label} ({kind})" if kind else member.label


def _names(axes: _Axes, found: Frontier) -> list[str]:
    """The front's and rivals' first; one that has no room beside the others is left to its mark's hint."""
    taken: list[tuple[float, float, float, float]] = [
        (x - 5, x + 5, y - 5, y + 5) for x, y in ((axes.x(p.cost), axes.y(p.quality)) for p in found.points)
    ]
    parts = []
    is_first = [at in found.returns.front or bool(each.rival) or at in found.smaller
                for at, each in enumerate(found.members)]  # fmt: skip
    for at in sorted(range(len(found.members)), key=lambda at: not is_first[at]):
        name = found.members[at].label
        shown = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        x, y, width = axes.x(found.points[at].cost), axes.y(found.points[at].quality), 6.0 * len(shown)
        sides = (True, False) if x < _WIDTH / 2 else (False, True)
        for is_right, below in product(sides, (-7, 4, 15, -19, 27)):
            start = x + 8 if is_right else x - 8 - width
            box = (start, start + width, y + below - 9, y + below + 2)
            if _fits(box) and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                edge = x + 8 if is_right else x - 8
                parts.append(label(edge, y + below, shown, "start" if is_right else "end", 1 if is_first[at] else 0.6))
                break
    return parts


def _fits(box: tuple[float, float, float, float]) -> bool:
    left, right, top, bottom = box
    return left >= _LEFT + 2 and right <= _WIDTH and top >= _TOP - 4 and bottom <= _HEIGHT - _BOTTOM - 2


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
