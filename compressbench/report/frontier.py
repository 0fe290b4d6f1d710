"""Diminishing returns of a family of models: what every step to a dearer one gains, and after which nothing more is shown.

Rows of one baseline stand by their paired differences from it, so a step between two candidates adds both errors as if
they were independent: that can only widen it. A rival of another model stands by its own values and their intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from compressbench.core.curve_fits import Fits, fit_curves, why_no_fit
from compressbench.core.errors import InputError, MissingMeasurementError
from compressbench.core.names import one_line
from compressbench.core.returns import Point, Returns, returns_of
from compressbench.report.catalog import Catalog
from compressbench.report.cost_words import full_name
from compressbench.report.figures import HIGHER_IS_BETTER, Contender, names_in
from compressbench.report.frontier_checks import Checks, checks_of
from compressbench.report.frontier_levels import RATES, Scale
from compressbench.report.frontier_rivals import (
    Behind,
    Member,
    Unplaced,
    behind_of,
    of_rivals,
    rivals_of,
    smaller_dense,
)
from compressbench.report.pareto import Front, commonest, front_of
from compressbench.report.positions import standing
from compressbench.report.repeatability import with_spread

SEED = 0


class Asked(NamedTuple):
    """Words of the metric ("": the first task's) and the cost ("": energy, or size where there is none); recipes of rivals,
    and of those that were made for this task alone; the smallest gain of interest (None: the declared margin), of a metric
    on a log scale (perplexity) as a fraction; whether curves are fitted to all rows or to those on the front.
    """

    metric: str = ""
    cost: str = ""
    rivals: tuple[str, ...] = ()
    task_rivals: tuple[str, ...] = ()
    smallest_gain: float | None = None
    all_rows: bool = False


class Frontier(NamedTuple):
    """`returns` speaks of places among `members`, which are the cheapest first. `front` is the Pareto front of the family.

    `is_log`: quality is a (negative) logarithm. `margin_source` says where the smallest gain comes from. `smaller` are
    places of the family's own smaller dense models; `rivals_behind` are by place those and the rivals that aren't on
    the front.
    """

    front: Front
    metric: str
    cost: str
    is_log: bool
    smallest_gain: float | None
    margin_source: str
    members: tuple[Member, ...]
    unplaced: tuple[Unplaced, ...]
    returns: Returns
    smaller: tuple[int, ...]
    rivals_behind: Mapping[int, Behind]
    fits: Fits | None
    why_no_fit: str
    all_rows: bool
    cost_note: str
    checks: Checks

    @property
    def points(self) -> list[Point]:
        return [member.point for member in self.members]

    @property
    def rivals(self) -> list[Member]:
        return [member for member in self.members if member.rival]


def frontier(catalog: Catalog, contenders: Sequence[Contender], asked: Asked, watermark: str = "") -> Frontier:
    """Of contenders that are ranked together, with the costs that `asked` may mean.

    Raises UnknownNameError for a word that is no name, InputError for a number that is no cost, and
    MissingMeasurementError if no row has both numbers.
    """
    metric = _metric(contenders, asked.metric)
    rival_of = rivals_of(catalog, contenders, asked.rivals, asked.task_rivals)
    family = [each for each in contenders if each.at not in rival_of]
    cost, cost_note = _cost(family, asked.cost)
    if rival_of:
        contenders, spread_note = with_spread(catalog, contenders, cost)
        family = [each for each in contenders if each.at not in rival_of]
        cost_note = " ".join(filter(None, (cost_note, spread_note)))
    front = front_of(family, (metric, cost), watermark, catalog.row(contenders[0].at).conditions)
    scale = Scale.of(front)
    placed, unplaced = _of_family(front, scale)
    others, more = of_rivals(contenders, rival_of, scale, family=placed)
    members = sorted([*placed, *others], key=_order)
    if not members:
        raise _nobody(metric, cost, [*unplaced, *more])
    smallest, source = _smallest_gain(family, metric, scale.is_log, asked.smallest_gain)
    points = [member.point for member in members]
    returns = returns_of(points, smallest or 0.0)
    smaller = smaller_dense(catalog, members)
    chosen = tuple(range(len(points))) if asked.all_rows else returns.front
    fits, why = _fits([points[at] for at in chosen])
    return Frontier(
        front=front,
        metric=metric,
        cost=cost,
        is_log=scale.is_log,
        smallest_gain=smallest,
        margin_source=source,
        members=tuple(members),
        unplaced=(*unplaced, *more),
        returns=returns,
        smaller=smaller,
        rivals_behind=behind_of(members, returns, smaller),
        fits=fits,
        why_no_fit=why,
        all_rows=asked.all_rows,
        cost_note=cost_note,
        checks=checks_of(catalog, members, scale, fits, chosen, seed=SEED),
    )


def _fits(points: Sequence[Point]) -> tuple[Fits | None, str]:
    costs = [each.cost for each in points]
    why = why_no_fit(costs)
    if why:
        return None, why
    fits = fit_curves(costs, [each.quality for each in points], [each.quality_error for each in points], seed=SEED)
    return (fits, "") if fits.is_decided else (None, fits.why_undecided)


def _order(member: Member) -> tuple[float, float, str, str, str]:
    contender, point = member.contender, member.point
    return (point.cost, -point.quality, contender.recipe, contender.candidate, contender.run_id)


def _metric(contenders: Sequence[Contender], word: str) -> str:
    metrics = names_in(contenders)
    if not metrics:
        raise MissingMeasurementError("no row was asked any task", do="Returns need a metric of quality.")
    name = full_name(word, contenders) if word else metrics[0]
    if name not in metrics:
        raise InputError("this is a cost and no quality", got=one_line(name), do="Ask for it with --cost.")
    return name


def _cost(family: Sequence[Contender], word: str) -> tuple[str, str]:
    """Its name, and what is to be said of the choice."""
    if word:
        name = full_name(word, family)
        if name in names_in(family) or name in HIGHER_IS_BETTER - RATES:
            raise InputError(
                "it is no cost", got=f"'{one_line(name)}'", do="Choose energy, latency, memory, size or bits."
            )
        return name, ""
    energy = full_name("energy", family)
    if _num_placed(family, energy) >= 2:
        return energy, ""
    return "disk_bytes", "Energy was not measured of two rows or more, so the cost is the size on disk."


def _num_placed(family: Sequence[Contender], name: str) -> int:
    found = standing(family, name)
    return sum(family[at].figures[name].value is not None for at in found.positions)


def _of_family(front: Front, scale: Scale) -> tuple[list[Member], list[Unplaced]]:
    placed = []
    unplaced = [Unplaced(each.label, "", each.name, each.reason) for each in front.left_out]
    for entry in front.entries:
        point = scale.paired_point(entry.contender, *entry.positions)
        if point is None:
            reason = entry.contender.figures[scale.cost].reason or "what it costs by itself is not known"
            unplaced.append(Unplaced(entry.label, "", scale.cost, reason))
        else:
            placed.append(Member(entry.contender, entry.label, "", point, entry.probability))
    return placed, unplaced


def _smallest_gain(
    family: Sequence[Contender], metric: str, is_log: bool, asked: float | None
) -> tuple[float | None, str]:
    """On the scale of quality, and where it comes from."""
    if asked is not None:
        if not asked >= 0 or not math.isfinite(asked):
            raise InputError("a smallest gain is a number of at least 0", got=f"{asked:g}")
        return (math.log1p(asked) if is_log else asked), "asked for"
    declared = [each.figures[metric].margin for each in family if metric in each.figures]
    margins = [margin for margin in declared if margin is not None]
    if not margins:
        return None, ""
    return (math.log1p(min(margins)) if is_log else min(margins)), "the margin that the recipe declared"


def _nobody(metric: str, cost: str, unplaced: Sequence[Unplaced]) -> MissingMeasurementError:
    return MissingMeasurementError(
        f"no row has both {one_line(metric)} and {one_line(cost)}",
        got=commonest((each.name, each.reason) for each in unplaced),
        do="Choose others with --metric and --cost, or measure again.",
    )
