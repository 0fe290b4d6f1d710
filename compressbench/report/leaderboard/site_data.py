"""A board as data for its page: ASCII scripts, small enough for ten thousand rows, with nothing that could run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from compressbench.core.names import one_line
from compressbench.core.units import unit_of
from compressbench.report.figures import HIGHER_IS_BETTER, Figure
from compressbench.report.leaderboard.badges import BADGE_MEANINGS
from compressbench.report.leaderboard.board import ON_FRONT, Board, Group, Place
from compressbench.report.leaderboard.cell_text import NOTHING, quantity_title

_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def script_of(call: str, *values: object) -> str:
    """`call(value, ...);` with the values as JSON: a script that can only hand over data."""
    return f"{call}({','.join(json_of(value) for value in values)});\n"


def json_of(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def ascii_json(text: str) -> str:
    """JSON with every sign above 127 escaped; what stands in strings only can't end a script nor break a line."""
    return text if text.isascii() else _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)


def index_data(board: Board) -> dict[str, Any]:
    """What the page knows before it has read any rows."""
    return {
        "title": one_line(board.title),
        "onFront": ON_FRONT,
        "badges": BADGE_MEANINGS,
        "first": board.first_shown,
        "groups": [_head(group) for group in board.groups],
    }


def _head(group: Group) -> dict[str, Any]:
    return {
        "key": group.key,
        "title": group.title,
        "subtitle": group.subtitle,
        "conditions": [[name.replace("_", " "), one_line(value)] for name, value in group.conditions.items()],
        "metrics": [_quantity(name, group) for name in group.metrics],
        "costs": [_quantity(name, group) for name in group.costs],
        "plots": [group.costs.index(name) for name in group.plots],
        "answer": one_line(group.answer),
        "answerId": group.answer_id,
        "answerLabel": group.answer_label,
        "answerRule": one_line(group.answer_rule),
        "answerName": one_line(group.answer_name),
        "notes": [one_line(note) for note in group.notes],
        "numRows": len(group.places),
        "newest": max(date_of(each.contender.run_id) for each in group.places),
    }


def _quantity(name: str, group: Group) -> dict[str, Any]:
    is_metric = name in group.units
    figures = [each.contender.figures[name] for each in group.places if name in each.contender.figures]
    direction = next((each.direction for each in figures if each.verdict or each.value is not None), "lower")
    return {
        "title": quantity_title(name),
        "unit": group.units[name] if is_metric else unit_of(name),
        "isPaired": name in group.paired,
        "isHigherBetter": direction == "higher" if is_metric else name in HIGHER_IS_BETTER,
    }


def group_data(group: Group) -> dict[str, Any]:
    """The rows of a group. Reasons stand once in `strings`, and by their place there in the rows."""
    strings: dict[str, int] = {}
    rows = [_row(place, group, strings, group.has_recipes) for place in group.places]
    return {"rows": rows, "strings": list(strings)}


def _row(place: Place, group: Group, strings: dict[str, int], has_recipes: bool) -> dict[str, Any]:
    found = place.contender
    row: dict[str, Any] = {
        "id": place.id,
        "name": _name(place),
        "kind": place.kind,
        "steps": one_line(found.steps),
        "date": date_of(found.run_id),
        "badges": list(place.badges),
        "ranks": [_rank(place, metric, strings) for metric in group.metrics],
        "metrics": [_cell(place, name, strings) for name in group.metrics],
        "costs": [_cell(place, name, strings) for name in group.costs],
        "front": [[_probability(place, metric, cost) for cost in group.plots] for metric in group.metrics],
    }
    return row | {"recipe": one_line(found.recipe)} if has_recipes else row


def _name(place: Place) -> str:
    return one_line(place.contender.candidate)


def date_of(run_id: str) -> str:
    """`2026-11-27` of a run's name."""
    day = run_id[:8]
    return f"{day[:4]}-{day[4:6]}-{day[6:]}" if day.isdigit() and len(day) == 8 else ""


def _rank(place: Place, metric: str, strings: dict[str, int]) -> list[Any] | int:
    """Low, high and letters; or where in the strings the reason stands."""
    rank = place.ranks.get(metric)
    if rank is None:
        return _at(place.not_ranked.get(metric, "it was not asked"), strings)
    return [rank.low, rank.high, " ".join(rank.letters)]


def _probability(place: Place, metric: str, cost: str) -> float | None:
    found = place.front.get((metric, cost))
    return None if found is None else round(found, 3)


def _cell(place: Place, name: str, strings: dict[str, int]) -> list[Any]:
    """Value and bounds, how they read, what is claimed, how it is coloured, ratio and bounds, and a reason's place."""
    figure = place.contender.figures.get(name, Figure(None, reason="it was not asked"))
    text = place.texts.get(name, NOTHING)
    why = place.not_ranked.get(name, "") if figure.value is not None else figure.reason or "it was not recorded"
    cell: list[Any] = [
        *_short((figure.value, figure.low, figure.high)),
        text.value,
        text.interval,
        text.claim,
        text.claim_interval,
        text.tone,
        figure.verdict,
        *_short((figure.ratio, figure.ratio_low, figure.ratio_high)),
        _at(why, strings) if why else None,
    ]
    while cell and cell[-1] in (None, ""):
        cell.pop()
    return cell


def _short(values: Sequence[float | None]) -> list[float | None]:
    """Six digits: enough to sort by and to draw."""
    return [None if value is None else float(f"{value:.6g}") for value in values]


def _at(reason: str, strings: dict[str, int]) -> int:
    return strings.setdefault(one_line(reason), len(strings))
