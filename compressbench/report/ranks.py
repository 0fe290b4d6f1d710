"""Ranks of contenders by one figure: intervals of ranks and letters, because a bare rank claims more than data can show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from compressbench.core.ranking import Method, RankInterval, ranking
from compressbench.report.figures import Contender
from compressbench.report.positions import Position, Scale, standing


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
    found = standing(contenders, name)
    places = list(found.positions)
    positions = [found.positions[at] for at in places]
    ranked = ranking([each.value for each in positions], [each.error for each in positions])
    by_place = {
        at: Rank(*each) for at, each in zip(places, zip(ranked.intervals, ranked.letters, strict=True), strict=True)
    }
    ranks = [by_place.get(at) or Rank(None, reason=found.absent[at]) for at in range(len(contenders))]
    return Ranks(name, found.scale, ranked.method, found.positions, tuple(ranks))
