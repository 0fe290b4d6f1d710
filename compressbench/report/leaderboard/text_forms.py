"""A leaderboard as text: Markdown, CSV and JSON, in groups, with rank intervals, values, intervals and verdicts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from compressbench.core.names import one_line
from compressbench.core.units import unit_of
from compressbench.report.catalog import older_words
from compressbench.report.figures import Figure
from compressbench.report.leaderboard.board import Board, Group, Place
from compressbench.report.leaderboard.cell_text import NOTHING, quantity_title
from compressbench.report.plain import escape, inert, markdown_line

_PARTS = ("value", "low", "high", "kind", "verdict", "ratio", "ratio_low", "ratio_high", "difference",
          "difference_low", "difference_high", "reason", "baseline_value")  # fmt: skip


def to_markdown(board: Board, most: int | None = None) -> str:
    """A heading, the answer and a table per group; what isn't ranked stands below it with its reason.

    Of more than `most` rows of a group the best, and how many were left out.
    """
    parts = [f"# {escape(board.title)}\n", *(_markdown_group(group, most) for group in board.groups)]
    older = older_words(board.num_older)
    left_out = [f"- {older}"] if older else []
    left_out += [f"- left out: {escape(reason)}" for reason in board.unreadable]
    return "\n".join([*parts, *left_out]).rstrip() + "\n"


def _markdown_group(group: Group, most: int | None) -> str:
    names = (*group.metrics, *group.costs)
    lines = [
        f"## {escape(group.title)}",
        "",
        escape(group.subtitle),
        "",
        f"**Answer:** {escape(group.answer_text)}",
        "",
    ]
    lines += [
        markdown_line(["rank", "candidate", *(escape(quantity_title(name)) for name in names)]),
        "|---:|---|" + "---:|" * len(names),
    ]
    shown = group.places[:most]
    ranked = [place for place in shown if group.metric in place.ranks]
    lines += [
        markdown_line([escape(rank_text(place, group.metric)), *_markdown_cells(place, names)]) for place in ranked
    ]
    unranked = [place for place in shown if group.metric not in place.ranks]
    lines += [""] + [
        f"- not ranked: **{escape(place.contender.candidate)}**: {escape(place.not_ranked.get(group.metric, ''))}"
        for place in unranked
    ]
    if len(shown) < len(group.places):
        lines.append(f"- {len(group.places) - len(shown)} more rows are not shown here")
    lines += [f"- {escape(note)}" for note in group.notes]
    conditions = [f"- {escape(name.replace('_', ' '))}: {escape(value)}" for name, value in group.conditions.items()]
    return "\n".join([*lines, "", f"Conditions (key {group.key}):", "", *conditions, ""])


def _markdown_cells(place: Place, names: Sequence[str]) -> Iterator[str]:
    found = place.contender
    yield f"**{escape(found.candidate)}**" + (f"<br>{escape(found.steps)}" if found.steps else "")
    for name in names:
        yield "<br>".join(escape(line) for line in lines_of(place, name))


def lines_of(place: Place, name: str) -> list[str]:
    """Value, its interval, the claim against the baseline, its interval; what isn't there is left out."""
    text = place.texts.get(name, NOTHING)
    return [part for part in (text.value, text.interval, f"{text.claim} {text.claim_interval}".strip()) if part]


def rank_text(place: Place, metric: str) -> str:
    """`1–3 a b`"""
    rank = place.ranks.get(metric)
    return "" if rank is None else " ".join([rank.text, *rank.letters])


def to_csv(board: Board) -> str:
    """One line per row, ranks by the group's headline metric; each number with its bounds, its verdict and its reason."""
    names = list(dict.fromkeys(name for group in board.groups for name in (*group.metrics, *group.costs)))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    head = ["group", "recipe", "candidate", "role", "status", "run_id", "id", "steps", "kind", "badges"]
    rank = ["metric", "rank_low", "rank_high", "letters", "not_ranked"]
    writer.writerow([*head, *rank, *(inert(f"{name}{_suffix(part)}") for name in names for part in _PARTS)])
    for group in board.groups:
        for place in group.places:
            writer.writerow([inert(value) for value in _csv_row(place, group, names)])
    return buffer.getvalue()


def _suffix(part: str) -> str:
    return "" if part == "value" else f"_{part}"


def _csv_row(place: Place, group: Group, names: Sequence[str]) -> list[Any]:
    found, rank = place.contender, place.ranks.get(group.metric)
    head = [group.key, found.recipe, found.candidate, found.role, found.status, found.run_id, place.id, found.steps]
    values: list[Any] = [*head, place.kind, "; ".join(place.badges), group.metric]
    values += [None, None, ""] if rank is None else [rank.low, rank.high, " ".join(rank.letters)]
    values.append("" if rank else place.not_ranked.get(group.metric, ""))
    for name in names:
        figure = found.figures.get(name)
        values += [None] * len(_PARTS) if figure is None else [getattr(figure, part) for part in _PARTS]
    return values


def to_json(board: Board) -> str:
    """Groups with their conditions, their answer and their rows, a row on each line; a missing value is null."""
    head = {"title": one_line(board.title), "unreadable": list(board.unreadable), "num_older": board.num_older}
    groups = ",\n".join(_json_group(group) for group in board.groups)
    return f'{json.dumps(head)[:-1]}, "groups": [\n{groups}]}}\n'


def _json_group(group: Group) -> str:
    head = {
        "key": group.key,
        "title": group.title,
        "subtitle": group.subtitle,
        "conditions": dict(group.conditions),
        "metric": group.metric,
        "metrics": list(group.metrics),
        "costs": list(group.costs),
        "answer": group.answer,
        "answer_id": group.answer_id or None,
        "answer_rule": group.answer_rule,
        "notes": list(group.notes),
    }
    rows = ",\n".join(json.dumps(_json_row(place, group), allow_nan=False) for place in group.places)
    return f'{json.dumps(head)[:-1]}, "rows": [\n{rows}]}}'


def _json_row(place: Place, group: Group) -> dict[str, Any]:
    found = place.contender
    return {
        "id": place.id,
        "recipe": found.recipe,
        "candidate": found.candidate,
        "role": found.role,
        "status": found.status,
        "run_id": found.run_id,
        "model": found.model,
        "steps": found.steps,
        "kind": place.kind,
        "badges": list(place.badges),
        "ranks": {
            metric: {"low": rank.low, "high": rank.high, "letters": list(rank.letters)}
            for metric, rank in place.ranks.items()
        },
        "not_ranked": dict(place.not_ranked),
        "front": {metric: _front(place, metric) for metric in group.metrics},
        "figures": {name: _json_figure(name, figure, group) for name, figure in _shown(place, group)},
    }


def _front(place: Place, metric: str) -> dict[str, float]:
    return {cost: found for (name, cost), found in place.front.items() if name == metric}


def _shown(place: Place, group: Group) -> Iterator[tuple[str, Figure]]:
    for name in (*group.metrics, *group.costs):
        if name in place.contender.figures:
            yield name, place.contender.figures[name]


def _json_figure(name: str, figure: Figure, group: Group) -> dict[str, Any]:
    """What is known of it; its value also where there is none."""
    found = figure._asdict()
    known = {key: value for key, value in found.items() if value not in (None, "") or key == "value"}
    return {**known, "unit": group.units.get(name, unit_of(name))}
