"""Rows of a catalog into a leaderboard: split into groups by themselves, ranked by intervals, with badges and fronts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from compressbench.core.dominance import front_probabilities
from compressbench.core.ranking import ranking
from compressbench.core.spec import content_hash
from compressbench.core.units import unit_of
from compressbench.records.store import stem_of
from compressbench.report.catalog import Catalog
from compressbench.report.figures import Contender, is_timed, names_in
from compressbench.report.groups import groups_of
from compressbench.report.leaderboard.answer import LABELS, NEEDED, answer_of
from compressbench.report.leaderboard.badges import badges_of, kind_of
from compressbench.report.leaderboard.board import Board, Group, Place, Rank
from compressbench.report.leaderboard.cell_text import CellText, cell_text
from compressbench.report.leaderboard.group_title import subtitle_of, title_of
from compressbench.report.own_baseline import bounds, told_apart
from compressbench.report.positions import Standing, standing
from compressbench.report.rows import NOT_ASKED
from compressbench.report.words import ranges_note

_SPEEDS = ("throughput_per_s", "max_rate_per_s", "latency_p50_s", "ttft_p50_s", "tpot_p50_s")
_ENERGIES = ("energy_j_per_output_token", "energy_j_per_inference")
_SIZES = ("peak_memory_bytes", "disk_bytes")
COSTS = tuple(dict.fromkeys((*_SPEEDS, *_ENERGIES, *_SIZES, *NEEDED)))
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,200}")
# a probability then has an error of at most 0.05, and a hundred thousand rows a front in two seconds
_MANY_ROWS, _FEW_DRAWS = 20_000, 100


def board_of(catalog: Catalog, title: str, *, recipe: str = "") -> Board:
    """Groups with the newest run first. `recipe` keeps only its rows."""
    contenders = catalog.contenders(COSTS, recipe=recipe)
    ids, found = _ids(contenders), groups_of(contenders)
    newest = sorted(found, key=lambda key: max(each.run_id for each in found[key]), reverse=True)
    groups = tuple(_group(found[key], catalog, ids) for key in newest)
    return Board(title, groups, tuple(each.reason for each in catalog.unreadable), catalog.num_older)


def _group(contenders: Sequence[Contender], catalog: Catalog, ids: Mapping[int, str]) -> Group:
    # the conditions are those of all; units and the scenario are best read from a row that succeeded
    at = next((each.at for each in contenders if each.status == "ok"), contenders[0].at)
    row = catalog.row(at)
    metrics = tuple(names_in(contenders))
    costs = costs_of(contenders, row.scenario)
    units = {name: row.cells[name].unit if name in row.cells else "" for name in metrics}
    metric = metrics[0] if metrics else ""
    standings = {name: standing(contenders, name) for name in (*metrics, *costs)}
    places = _places(contenders, units, standings, _plots(costs), ids)
    answer = answer_of(catalog, contenders)
    return Group(
        key=contenders[0].comparability_key,
        title=title_of(contenders),
        subtitle=subtitle_of(contenders, next(catalog.texts("heading", [at]))),
        conditions=row.conditions,
        metric=metric,
        metrics=metrics,
        costs=costs,
        plots=_plots(costs),
        units=units,
        paired=tuple(name for name, found in standings.items() if found.scale == "against the baseline"),
        places=tuple(sorted(places, key=lambda place: _order(place, metric))),
        answer=answer.sentence,
        answer_id="" if answer.at is None else ids[answer.at],
        answer_label=LABELS[answer.verdict],
        answer_rule=answer.rule,
        notes=tuple(_notes(contenders, costs)),
    )


def costs_of(contenders: Sequence[Contender], scenario: str) -> tuple[str, ...]:
    """What is asked of a row of this scenario: its speed, its energy, its memory and its size."""
    there = {name for each in contenders for name, figure in each.figures.items() if figure.value is not None}
    generates = "ttft_p50_s" in there
    speeds = {"offline": ["throughput_per_s"], "server": ["max_rate_per_s", "latency_p50_s"]}.get(
        scenario, ["latency_p50_s"]
    )
    speeds += ["ttft_p50_s", "tpot_p50_s"] if generates else []
    energy = _ENERGIES[0] if generates and _ENERGIES[0] in there else _ENERGIES[1]
    return tuple(name for name in (*speeds, energy, *_SIZES) if _is_asked(contenders, name))


def _is_asked(contenders: Sequence[Contender], name: str) -> bool:
    """A row that failed says nothing of what was asked, unless all did."""
    asked = [each for each in contenders if each.status == "ok"] or contenders
    return any(name in each.figures and not each.figures[name].reason.startswith(NOT_ASKED) for each in asked)


def _plots(costs: Sequence[str]) -> tuple[str, ...]:
    """At most four of them: the first speed, the energy, the memory and the size."""
    speeds = [name for name in costs if name in _SPEEDS]
    return (*speeds[:1], *(name for name in costs if name not in speeds))


def _notes(contenders: Sequence[Contender], costs: Sequence[str]) -> list[str]:
    """Over what the baseline ranges, where it ran again beside each candidate and took another time."""
    seen = _baselines(contenders)
    found: dict[str, tuple[float, float]] = {}
    for name in costs:
        own = [each.figures[name].baseline_value for each in contenders if name in each.figures]
        if any(_own(each, name, seen) is not None for each in contenders):
            found[name] = bounds([*own, *(_value(each, name) for each in seen.values())])
    return ranges_note(found, {name: unit_of(name) for name in found})


def _own(contender: Contender, name: str, seen: Mapping[tuple[str, str], Contender]) -> float | None:
    figure = contender.figures.get(name)
    if figure is None or figure.value is None:
        return None
    return told_apart(figure.baseline_value, _value(seen.get((contender.run_id, contender.recipe)), name))


def _baselines(contenders: Sequence[Contender]) -> dict[tuple[str, str], Contender]:
    """By run and recipe."""
    return {(each.run_id, each.recipe): each for each in contenders if each.is_baseline}


def _value(contender: Contender | None, name: str) -> float | None:
    return None if contender is None or name not in contender.figures else contender.figures[name].value


def _order(place: Place, metric: str) -> tuple[int, int, int]:
    rank = place.ranks.get(metric)
    return (0, rank.low, rank.high) if rank is not None else (1, 0, 0)


def _places(
    contenders: Sequence[Contender], units: Mapping[str, str], standings: Mapping[str, Standing], plots: Sequence[str],
    ids: Mapping[int, str],
) -> list[Place]:  # fmt: skip
    """`units` are those of the metrics, `standings` of metrics and costs."""
    pairs = [(metric, cost) for metric in units for cost in plots]
    costs = [name for name in standings if name not in units]
    with ThreadPoolExecutor(max_workers=1) as pool:  # numpy sorts draws while texts are made
        waiting = {pair: pool.submit(_front, *(standings[name] for name in pair)) for pair in pairs}
        seen = _baselines(contenders)
        texts = [_texts(each, seen.get((each.run_id, each.recipe)), units, standings) for each in contenders]
        ranks = {metric: _ranks(standings[metric]) for metric in units}
        fronts = {pair: each.result() for pair, each in waiting.items()}
    return [
        Place(
            id=ids[each.at],
            contender=each,
            kind=kind_of(each),
            badges=badges_of(each, costs),
            ranks={metric: found[at] for metric, found in ranks.items() if at in found},
            not_ranked=_reasons(each, at, standings),
            front={pair: found[at] for pair, found in fronts.items() if at in found},
            texts=texts[at],
        )
        for at, each in enumerate(contenders)
    ]


def _texts(
    contender: Contender, baseline: Contender | None, units: Mapping[str, str], names: Iterable[str]
) -> dict[str, CellText]:
    figures = contender.figures
    return {name: cell_text(name, figures[name], units, _value(baseline, name)) for name in names if name in figures}


def _reasons(contender: Contender, at: int, standings: Mapping[str, Standing]) -> dict[str, str]:
    """Why it has no place by a quantity; what wasn't asked of it is no reason to tell."""
    found = {name: each.absent[at] for name, each in standings.items() if at in each.absent}
    unsteady = {name: contender.unsteady[0] for name in standings if contender.unsteady and _timed(contender, name)}
    return {**unsteady, **found}


def _timed(contender: Contender, name: str) -> bool:
    return name in contender.figures and is_timed(name, contender.metrics)


def _ranks(found: Standing) -> dict[int, Rank]:
    places = list(found.positions)
    positions = [found.positions[at] for at in places]
    ranked = ranking([each.value for each in positions], [each.error for each in positions])
    return {
        at: Rank(interval.low, interval.high, tuple(letters))
        for at, interval, letters in zip(places, ranked.intervals, ranked.letters, strict=True)
    }


def _front(metric: Standing, cost: Standing) -> dict[int, float]:
    places = [at for at in metric.positions if at in cost.positions]
    points = [(metric.positions[at], cost.positions[at]) for at in places]
    draws = _FEW_DRAWS if len(points) > _MANY_ROWS else None
    return dict(zip(places, front_probabilities(points, num_draws=draws), strict=True)) if points else {}


def _ids(contenders: Sequence[Contender]) -> dict[int, str]:
    """By place in the catalog: the name of the record's file where it is plain, so that people can read a link, else a
    hash of the same.
    """
    found: dict[int, str] = {}
    seen: dict[str, int] = {}
    for each in contenders:
        stem = stem_of(each.recipe, each.candidate, each.run_id)
        name = stem if _PLAIN.fullmatch(stem) else content_hash([each.recipe, each.candidate, each.run_id])
        seen[name] = seen.get(name, 0) + 1
        # one run and candidate in two files, which only a copy with changes can be
        found[each.at] = name if seen[name] == 1 else f"{name}.{seen[name]}"
    return found
