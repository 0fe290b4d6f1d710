"""Which of those that qualify to deploy: the best on one number, as far as the data can tell them apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from compressbench.core.equivalence import holm
from compressbench.core.statistics import normal_upper_tail
from compressbench.report.figures import Contender
from compressbench.report.positions import Position, Scale, Standing, standing

ALPHA = 0.05


class Field(NamedTuple):
    """Contenders that qualify, by their place, and where they stand on the objective (the less the better).

    `same` are those whose difference from their baseline is too small to matter, however sure it is.
    """

    contenders: Sequence[Contender]
    positions: Mapping[int, Position]
    absent: Mapping[int, str]
    scale: Scale
    same: frozenset[int] = frozenset()


class Choice(NamedTuple):
    """`deploy` is the place of the one; `leader` that of the best value. `tied` are the others that can't be told apart
    from the leader, `unproven` the candidates that are not shown to be better than their own baseline.
    """

    deploy: int
    leader: int
    tied: tuple[int, ...]
    unproven: tuple[int, ...]


def field_of(contenders: Sequence[Contender], objective: str) -> Field:
    """Raises nothing: whoever has no place is in `absent`, with the reason."""
    found: Standing = standing(contenders, objective)
    positions, absent = dict(found.positions), dict(found.absent)
    if found.scale == "against the baseline":
        # a baseline stands at nothing by definition, also where its own measurement was disturbed
        stands = [at for at in absent if contenders[at].is_baseline and not contenders[at].faults]
        positions |= dict.fromkeys(stands, Position(0.0, 0.0))
        absent = {at: why for at, why in absent.items() if at not in stands}
    figures = {at: contenders[at].figures.get(objective) for at in positions}
    same = frozenset(at for at, figure in figures.items() if figure is not None and figure.verdict == "same")
    return Field(contenders, positions, absent, found.scale, same)


def choose(field: Field, without: Sequence[int] = ()) -> Choice | None:
    """None if nobody is left.

    A candidate stands for election only if it is shown to be better than its own baseline, where that qualifies too: what
    can't be told from doing nothing isn't worth deploying. Of those the best value leads. Those whose difference from it is
    not significant (z-test of both standard errors, Holm) are tied with it; of the tied the one with the smallest loss of
    quality is deployed, then the smallest file, then the first of the recipe.
    """
    places = [at for at in field.positions if at not in without]
    if not places:
        return None
    unproven = _unproven(field, places)
    proven = [at for at in places if at not in unproven and not field.contenders[at].is_baseline]
    beaten = {field.contenders[at].baseline_id for at in proven}
    baselines = [at for at in places if field.contenders[at].is_baseline]
    running = [*proven, *(at for at in baselines if field.contenders[at].baseline_id not in beaten)]
    leader = min(running, key=lambda at: (field.positions[at].value, at))
    apart = _p_values(field, [(at, leader) for at in running if at != leader], two_sided_p)
    tied = [leader, *(at for (at, _), p in apart.items() if p >= ALPHA)]
    deploy = min(tied, key=lambda at: _preference(field, at))
    return Choice(deploy, leader, tuple(at for at in tied if at != deploy), tuple(sorted(unproven)))


def _unproven(field: Field, places: Sequence[int]) -> set[int]:
    baselines = {field.contenders[at].baseline_id: at for at in places if field.contenders[at].is_baseline}
    pairs = [
        (at, baselines[field.contenders[at].baseline_id])
        for at in places
        if not field.contenders[at].is_baseline and field.contenders[at].baseline_id in baselines
    ]
    found = _p_values(field, pairs, two_sided_p)
    return {
        at
        for (at, baseline), p in found.items()
        if p >= ALPHA or at in field.same or field.positions[at].value >= field.positions[baseline].value
    }


def _p_values(
    field: Field, pairs: Sequence[tuple[int, int]], p_value: Callable[[Position, Position], float]
) -> dict[tuple[int, int], float]:
    """Adjusted among all of them."""
    found = [p_value(field.positions[one], field.positions[other]) for one, other in pairs]
    return dict(zip(pairs, holm(found), strict=True))


def two_sided_p(one: Position, other: Position) -> float:
    """Of no difference. Without any error (both were counted) equal values are equal, and others are not."""
    difference, error = abs(one.value - other.value), math.hypot(one.error, other.error)
    if error == 0:
        return 0.0 if difference > 1e-9 else 1.0
    return min(1.0, 2 * normal_upper_tail(difference / error))


def _preference(field: Field, at: int) -> tuple[float, float, int]:
    contender = field.contenders[at]
    size = contender.figures.get("disk_bytes")
    num_bytes = math.inf if size is None or size.value is None else size.value
    return largest_loss(contender, field.scale), num_bytes, at


def largest_loss(contender: Contender, scale: Scale) -> float:
    """The most that the first metric may have lost (the bound of its interval); of models of different baselines how bad
    the metric itself may be. Infinity where nobody knows.
    """
    figure = contender.figures.get(contender.metrics[0]) if contender.metrics else None
    if figure is None:
        return math.inf
    is_higher_better = figure.direction == "higher"
    if scale == "absolute":
        low = figure.value if figure.low is None else figure.low
        high = figure.value if figure.high is None else figure.high
    elif contender.is_baseline:
        return 0.0
    else:
        low, high = figure.difference_low, figure.difference_high
    bound = low if is_higher_better else high
    return math.inf if bound is None else -bound if is_higher_better else bound
