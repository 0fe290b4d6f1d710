"""A leaderboard as data: groups of comparable rows, each row with its ranks, its badges and the answer of its group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from compressbench.report.figures import Contender
from compressbench.report.leaderboard.cell_text import CellText

Badge = Literal[
    "measured", "estimated", "modelled", "contended", "unsteady", "implausible", "false claim", "failed", "baseline"
]
Kind = Literal["baseline", "quantization", "pruning", "distillation", "combined", "other"]

ON_FRONT = 0.5
"""From this probability on a row is marked as one of a front."""


class Rank(NamedTuple):
    """`low` and `high` enclose a rank, 1 for the best. Rows that share one of `letters` can't be told apart."""

    low: int
    high: int
    letters: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}–{self.high}"


class Place(NamedTuple):
    """One row of a group. `ranks` are by metric; a metric that is not there has a reason in `not_ranked`, and a cost that
    may not be compared has one there too. `front` has, by metric and cost, how probable it is that no other row is
    better in both. `texts` say how its figures read. `id` is the same whenever a board is built of the same record.
    """

    id: str
    contender: Contender
    kind: Kind
    badges: tuple[Badge, ...]
    ranks: Mapping[str, Rank]
    not_ranked: Mapping[str, str]
    front: Mapping[tuple[str, str], float]
    texts: Mapping[str, CellText]


class Group(NamedTuple):
    """Rows of one comparability key, the best first. `metric` is the headline one, `plots` the costs that are drawn against
    it, `units` are those of the metrics. `paired` are the quantities in which all rows stand against one baseline, so that
    their ratios to it can be compared. `answer_id` is the row to deploy, "" if there is none, `answer` says why, under the
    heading `answer_label`, and `answer_rule` by which rule. `notes` are what all its numbers need to be read.
    """

    key: str
    title: str
    subtitle: str
    conditions: Mapping[str, str]
    metric: str
    metrics: tuple[str, ...]
    costs: tuple[str, ...]
    plots: tuple[str, ...]
    units: Mapping[str, str]
    paired: tuple[str, ...]
    places: tuple[Place, ...]
    answer: str
    answer_id: str
    answer_label: str
    answer_rule: str
    notes: tuple[str, ...] = ()

    @property
    def has_recipes(self) -> bool:
        """Whether a candidate's name needs its recipe's beside it."""
        return len({place.contender.recipe for place in self.places}) > 1

    @property
    def answer_name(self) -> str:
        """Of what to deploy, "" if there is none."""
        chosen = (place.contender for place in self.places if self.answer_id and place.id == self.answer_id)
        names = (f"{each.recipe}: {each.candidate}" if self.has_recipes else each.candidate for each in chosen)
        return next(names, "")

    @property
    def answer_text(self) -> str:
        """With the name of what to deploy in front."""
        return f"{self.answer_name}: {self.answer}" if self.answer_name else self.answer


class Board(NamedTuple):
    title: str
    groups: tuple[Group, ...]
    unreadable: tuple[str, ...]
    num_older: int = 0

    @property
    def num_rows(self) -> int:
        return sum(len(group.places) for group in self.groups)

    @property
    def first_shown(self) -> int:
        """The group that a reader sees first: of the most ranked rows, of as many the newest."""
        ranked = [sum(group.metric in place.ranks for place in group.places) for group in self.groups]
        return ranked.index(max(ranked)) if ranked else 0
