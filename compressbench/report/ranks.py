"""Ranks of contenders by one figure: intervals of ranks and letters, because a bare rank claims more than data can show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from compressbench.core.ranking import Method, RankInterval, ranking
from compressbench.report.figures import Contender, Figure
from compressbench.report.positions import Position, Scale, Standing, standing


class Rank(NamedTuple):
    """`interval` encloses the rank among all that have one; rows that share a letter can't be told apart.

    Without an interval `reason` says why it isn't ranked. There are no letters where more than 200 rows are ranked.
    """

    interval: RankInterval | None
    letters: tuple[str, ...] = ()
    reason: str = ""


class Ranks(NamedTuple):
    """By place among the contenders. `method` is how rows were told apart, `scale` on which they stand."""

    name: str
    scale: Scale
    method: Method
    positions: Mapping[int, Position]
    ranks: tuple[Rank, ...]


def ranks_by(contenders: Sequence[Contender], name: str) -> Ranks:
    """Contenders are of one comparability group, or whoever asks says that they aren't."""
    found = finite_standing(contenders, name)
    places = list(found.positions)
    positions = [found.positions[at] for at in places]
    ranked = ranking([each.value for each in positions], [each.error for each in positions])
    by_place = {
        at: Rank(*each) for at, each in zip(places, zip(ranked.intervals, ranked.letters, strict=True), strict=True)
    }
    ranks = [by_place.get(at) or Rank(None, reason=found.absent[at]) for at in range(len(contenders))]
    return Ranks(name, found.scale, ranked.method, found.positions, tuple(ranks))


def finite_standing(contenders: Sequence[Contender], name: str) -> Standing:
    """Positions of those that have one. A position that is no finite number is none.

    A baseline without a value stands nowhere if nobody was paired with it.
    """
    found = standing(contenders, name)
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
