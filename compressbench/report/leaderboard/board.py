"""A leaderboard as data: groups of comparable rows, each row with its place, its badges and the answer of its group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from compressbench.report.rows import Row

Badge = Literal[
    "measured", "estimated", "modelled", "contended", "unsteady", "implausible", "false claim", "failed", "baseline"
]


class Place(NamedTuple):
    """One row of a group. `rank_low` and `rank_high` enclose its rank by the group's headline metric, None if it has none,
    and then `not_ranked` says why. Rows that share one of `letters` can't be told apart. `front` has, by cost, how probable
    it is that no other row is better in both the headline metric and that cost.
    """

    id: str
    at: int
    row: Row
    rank_low: int | None
    rank_high: int | None
    letters: str
    not_ranked: str
    badges: tuple[Badge, ...]
    front: Mapping[str, float]


class Group(NamedTuple):
    """Rows of one comparability key; `metric` is the headline one, `answer` what may be deployed, in a sentence or two."""

    key: str
    title: str
    conditions: Mapping[str, str]
    metric: str
    metrics: tuple[str, ...]
    costs: tuple[str, ...]
    places: tuple[Place, ...]
    answer: str


class Board(NamedTuple):
    title: str
    groups: tuple[Group, ...]
    unreadable: tuple[str, ...]
