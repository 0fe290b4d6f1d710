"""Rivals of a family: rows of other models, and smaller dense models of the family itself; who beats them for no more.

A rival of another model stands by its own values and their intervals; rows of the family by their paired differences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from compressbench.core.returns import Point, Returns, gain_between
from compressbench.core.statistics import Interval
from compressbench.report.catalog import Catalog
from compressbench.report.figures import Contender
from compressbench.report.frontier_levels import Scale
from compressbench.report.pareto import labels
from compressbench.report.positions import why_not_ranked

TASK_SPECIFIC = "task-specific small model"
SMALLER_DENSE = "smaller dense model"
_DENSE_BITS, _NO_ZEROS = 15.9, 0.01
"""Fewer bits a weight, or more zeros among them, are no dense model's."""


class Member(NamedTuple):
    """A row with both numbers. `rival` says of which kind a row of another model is. `probability` is that of being on the
    front of the family (report/pareto.py), None of a rival.
    """

    contender: Contender
    label: str
    rival: str
    point: Point
    probability: float | None


class Unplaced(NamedTuple):
    label: str
    rival: str
    name: str
    reason: str


class Behind(NamedTuple):
    """The dearest row of the front that costs no more than a rival, by place, and what it has over the rival in quality."""

    at: int
    gain: Interval


def rivals_of(
    catalog: Catalog, contenders: Sequence[Contender], rivals: Sequence[str], task_rivals: Sequence[str]
) -> dict[int, str]:
    """By row's place what kind of rival it is, of rows of another model than the family's."""
    named = {*rivals, *task_rivals}
    own = [each for each in contenders if each.recipe not in named] or list(contenders)
    model = Counter(each.model for each in own).most_common(1)[0][0]
    size = next(
        (_cell(catalog, each, "num_parameters") for each in own if each.is_baseline and each.model == model), None
    )
    return {
        each.at: _kind_of_rival(each, size, _cell(catalog, each, "num_parameters"), task_rivals)
        for each in contenders
        if each.model != model
    }


def _kind_of_rival(contender: Contender, size: float | None, own: float | None, task_rivals: Sequence[str]) -> str:
    if contender.recipe in task_rivals:
        return TASK_SPECIFIC
    made = "dense" if contender.is_baseline or not contender.steps else "compressed"
    if size is None or own is None:
        return f"{made} model of unknown size"
    return f"{'smaller' if own < size else 'larger' if own > size else 'equally large'} {made} model"


def _cell(catalog: Catalog, contender: Contender, name: str) -> float | None:
    cell = catalog.row(contender.at).cells.get(name)
    return None if cell is None else cell.value


def baseline_among(members: Sequence[Member]) -> Member | None:
    """The family's cheapest baseline."""
    return next((each for each in members if not each.rival and each.contender.is_baseline), None)


def smaller_dense(catalog: Catalog, members: Sequence[Member]) -> tuple[int, ...]:
    """Places of the family's own smaller dense models, such as a distilled student: fewer parameters than the baseline's,
    none of them zeros, and none of fewer bits than a half-precision number has.
    """
    base = baseline_among(members)
    size = None if base is None else _cell(catalog, base.contender, "num_parameters")
    return tuple(
        at
        for at, each in enumerate(members)
        if size is not None and not each.rival and _is_dense(catalog, each.contender, size)
    )


def _is_dense(catalog: Catalog, contender: Contender, size: float) -> bool:
    number, bits, zeros = (_cell(catalog, contender, name) for name in ("num_parameters", "effective_bits", "sparsity"))
    is_whole = bits is not None and bits >= _DENSE_BITS and (zeros or 0.0) < _NO_ZEROS
    return is_whole and number is not None and number < size


def of_rivals(
    contenders: Sequence[Contender], rival_of: Mapping[int, str], scale: Scale, *, family: Sequence[Member]
) -> tuple[list[Member], list[Unplaced]]:
    """By their own values, which are placed only if every row of the family has an interval of its own to hold against."""
    label = labels(contenders)
    lacking = [name for name in (scale.metric, scale.cost) if any(scale.lacks(each.contender, name) for each in family)]
    placed, unplaced = [], []
    for each in contenders:
        if each.at not in rival_of:
            continue
        kind, name, reason = rival_of[each.at], "", ""
        for name in (scale.metric, scale.cost):
            reason = why_not_ranked(each, name) or scale.lacks(each, name)
            if not reason and name in lacking:
                reason = (
                    "rows of this family have no interval of their own, which another model's could be compared with"
                )
            if reason:
                break
        if reason:
            unplaced.append(Unplaced(label(each), kind, "" if each.faults else name, reason))
        else:
            placed.append(Member(each, label(each), kind, scale.own_point(each), None))
    return placed, unplaced


def behind_of(members: Sequence[Member], returns: Returns, smaller: Sequence[int]) -> dict[int, Behind]:
    points = [member.point for member in members]
    found: dict[int, Behind] = {}
    for at, member in enumerate(members):
        if at in returns.front or not (member.rival or at in smaller):
            continue
        cheaper = [place for place in returns.front if points[place].cost <= member.point.cost]
        if cheaper:
            found[at] = Behind(cheaper[-1], gain_between(points, at, cheaper[-1]))
    return found
