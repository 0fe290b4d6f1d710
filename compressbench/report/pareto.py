"""Pareto fronts of contenders under uncertainty: who may be on the front, how probably, and who dominates the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from compressbench.core.dominance import Membership, front_probabilities, likeliest_dominators, membership
from compressbench.core.errors import InputError, MissingMeasurementError, UnknownNameError
from compressbench.core.names import one_line
from compressbench.core.ranking import Method
from compressbench.report.catalog import Catalog
from compressbench.report.cost_words import full_name, names_for
from compressbench.report.figures import Contender, names_in
from compressbench.report.groups import groups_of, one_group
from compressbench.report.positions import Position, Scale, standing
from compressbench.report.ranks import Rank, ranks_by

SPEEDS = {"offline": "throughput_per_s", "server": "max_rate_per_s"}
"""What a scenario is about; latency_p50_s in others."""
_DEFAULTS = ("latency_p50_s", *SPEEDS.values(), "disk_bytes")
SEED = 0
_ORDER: dict[Membership, int] = {"on the front": 0, "possibly": 1, "dominated": 2}


class Entry(NamedTuple):
    """A contender with all metrics; `positions` and `ranks` are by metric, ranks among the entries of its front.

    `probability` is that of being on the front. `dominator` is the label of the row that most probably dominates it, ""
    where it is on the front or none does.
    """

    contender: Contender
    label: str
    positions: tuple[Position, ...]
    ranks: tuple[Rank, ...]
    probability: float
    membership: Membership
    dominator: str = ""
    dominated_with: float = 0.0


class LeftOut(NamedTuple):
    """Who isn't on the table, and why: `name` is the first metric that it has no place in, "" if the row is at fault."""

    contender: Contender
    label: str
    name: str
    reason: str


class Front(NamedTuple):
    """One comparability group, or with a `watermark` several that were mixed. `scales` are by metric; `method` is how rows
    were told apart. Entries on the front come first, the best by the first metric first.
    """

    key: str
    conditions: Mapping[str, str]
    watermark: str
    names: tuple[str, ...]
    scales: tuple[Scale, ...]
    method: Method
    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]


def asked_for(words: Sequence[str]) -> list[str]:
    """The costs that contenders need for `fronts`; metrics of tasks they have anyway."""
    return names_for(words) or list(_DEFAULTS)


def fronts(
    catalog: Catalog, contenders: Sequence[Contender], words: Sequence[str] = (), *, force: bool = False
) -> list[Front]:
    """A front per comparability group, with `force` one of all that carries a watermark.

    `words` are names or short words, none for the first task's metric, the scenario's speed and the size. Raises
    UnknownNameError for a word that is no name in any group, InputError for fewer than two metrics and
    MissingMeasurementError if no contender has all of them.
    """
    watermark = one_group(catalog, contenders, force=True) if force else ""
    groups = [list(contenders)] if force else list(groups_of(contenders).values())
    for word in words:
        full_name(word, contenders)
    found = [
        front_of(group, _names(catalog, group, words, contenders), watermark, catalog.row(group[0].at).conditions)
        for group in groups
    ]
    if not any(front.entries for front in found):
        raise _nobody(found)
    return found


def front_of(
    contenders: Sequence[Contender],
    names: Sequence[str],
    watermark: str = "",
    conditions: Mapping[str, str] | None = None,
) -> Front:
    """Of contenders that are ranked together, by two metrics or more."""
    if len(names) < 2:
        raise InputError("a front needs at least two metrics", got=", ".join(map(one_line, names)), do="Add --metric.")
    label = labels(contenders)
    absent: dict[int, tuple[str, str]] = {}
    for name in names:
        for at, reason in standing(contenders, name).absent.items():
            absent.setdefault(at, ("" if contenders[at].faults else name, reason))
    # once more without those that are left out: a rank is one among the rows that are shown
    whole = [contender for at, contender in enumerate(contenders) if at not in absent]
    by_metric = [ranks_by(whole, name) for name in names]
    points = [tuple(each.positions[at] for each in by_metric) for at in range(len(whole))]
    ranks = [tuple(each.ranks[at] for each in by_metric) for at in range(len(whole))]
    return Front(
        key="" if watermark or not contenders else contenders[0].comparability_key,
        conditions={} if watermark else conditions or {},
        watermark=watermark,
        names=tuple(names),
        scales=tuple(each.scale for each in by_metric),
        method=by_metric[0].method,
        entries=tuple(_entries(whole, points, ranks, label)),
        left_out=tuple(LeftOut(contenders[at], label(contenders[at]), *absent[at]) for at in sorted(absent)),
    )


def labels(contenders: Sequence[Contender]) -> Callable[[Contender], str]:
    """A contender's name that is no other's: with its recipe or run where candidates are called alike."""
    names = Counter(each.candidate for each in contenders)
    recipes = Counter((each.recipe, each.candidate) for each in contenders)

    def label(contender: Contender) -> str:
        if names[contender.candidate] == 1:
            return contender.candidate
        if recipes[contender.recipe, contender.candidate] == 1:
            return f"{contender.candidate} of {contender.recipe}"
        return f"{contender.candidate} of {contender.recipe} {contender.run_id}"

    return label


def _entries(
    contenders: Sequence[Contender],
    points: Sequence[tuple[Position, ...]],
    ranks: Sequence[tuple[Rank, ...]],
    label: Callable[[Contender], str],
) -> list[Entry]:
    probabilities = front_probabilities(points, SEED)
    dominators = likeliest_dominators(points, probabilities)
    found: list[Entry] = []
    for at, probability in enumerate(probabilities):
        word, by = membership(probability), dominators[at]
        entry = Entry(contenders[at], label(contenders[at]), points[at], ranks[at], probability, word)
        if by is not None and word != "on the front":
            entry = entry._replace(dominator=label(contenders[by.at]), dominated_with=by.probability)
        found.append(entry)
    return sorted(found, key=lambda entry: (_ORDER[entry.membership], [each.value for each in entry.positions]))


def _names(
    catalog: Catalog, group: Sequence[Contender], words: Sequence[str], everyone: Sequence[Contender]
) -> list[str]:
    if words:
        # a word may be another metric in each group, and no other group's metric is missing without being named
        return list(dict.fromkeys(_name(word, group, everyone) for word in words))
    return [*names_in(group)[:1], SPEEDS.get(catalog.row(group[0].at).scenario, "latency_p50_s"), "disk_bytes"]


def _name(word: str, group: Sequence[Contender], everyone: Sequence[Contender]) -> str:
    try:
        return full_name(word, group)
    except UnknownNameError:
        return full_name(word, everyone)


def commonest(reasons: Iterable[tuple[str, str]], most: int = 3) -> str:
    """`4 x energy: no meter`: what keeps most rows out, each a name ("" for all of it) and why."""
    counted = Counter(reasons).most_common(most)
    return "; ".join(f"{number} x {one_line(f'{name}: {why}' if name else why)}" for (name, why), number in counted)


def _nobody(found: Sequence[Front]) -> MissingMeasurementError:
    left = [each for front in found for each in front.left_out]
    names = list(dict.fromkeys(one_line(name) for front in found for name in front.names))
    return MissingMeasurementError(
        f"no row can be ranked by all of {', '.join(names)}",
        got=commonest((each.name, each.reason) for each in left),
        do="Choose others with --metric, or measure again.",
    )
