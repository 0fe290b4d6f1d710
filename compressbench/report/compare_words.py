"""How models side by side read: cells, the lists of what is better and worse, notes, and the same as JSON and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import to_json as to_json_bytes

from compressbench.core.names import printable_json
from compressbench.report.compare import Column, Compared, Comparison, Outcome
from compressbench.report.pairing import COUNTED, STORED, THROUGH_BASELINE
from compressbench.report.plain import escape, markdown_line
from compressbench.report.quality_words import WORST
from compressbench.report.rows import Row
from compressbench.report.verdict import Verdict
from compressbench.report.words import cell_lines, footnotes, title

SIDES: tuple[Outcome, ...] = ("better", "worse", "same", "undecided")
AUDIT = "audit"


def lines_of(column: Column, name: str) -> list[str]:
    """The value, then what may be said of it against the reference."""
    if name == AUDIT:
        return [column.audit]
    return cell_lines(as_row(column), name)


def as_row(column: Column) -> Row:
    """The row with what it is compared with in the place of its own baseline."""
    found = {name: each.verdict for name, each in column.compared.items() if each.verdict is not None}
    is_stored = all(each.how in (STORED, COUNTED, "") for each in column.compared.values())
    # how far answers are from the baseline's says nothing of another reference
    changed: dict[str, Any] = {"against_baseline": found, **({} if is_stored else {"fidelity": {}})}
    if WORST in found and column.row.strata:
        worst = column.row.strata[0].model_copy(update={"verdict": found[WORST]})
        changed["strata"] = (worst, *column.row.strata[1:])
    return column.row.model_copy(update=changed)


def list_lines(column: Column) -> list[tuple[Outcome, list[str]]]:
    """What is better, worse, the same and undecided, each with its numbers; one reason for several stands once."""
    return [(side, _items(column, side)) for side in SIDES]


def _items(column: Column, side: Outcome) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for name in column.names_on(side):
        each = column.compared[name]
        by_reason.setdefault(each.reason, []).append(_claim(column, name, each))
    return [
        text
        for reason, claims in by_reason.items()
        for text in ([f"{', '.join(claims)}: {reason}"] if reason else claims)
    ]


def _claim(column: Column, name: str, each: Compared) -> str:
    """`latency p50 1.64x faster [1.60, 1.68]`."""
    said = [] if each.verdict is None else lines_of(column, name)[1:3]
    if each.verdict is not None and each.verdict.num_samples_needed:
        said.append(f"(n needed = {each.verdict.num_samples_needed:,})")
    if name == WORST and column.row.strata:
        said.insert(0, f"({column.row.strata[0].name})")
    return " ".join([title(name), *(text for text in said if text not in SIDES)])


def how_line(column: Column) -> str:
    """`accuracy paired by sample; latency p50 through the baseline; size on disk counted`."""
    names: dict[str, list[str]] = {}
    for name, each in column.compared.items():
        if each.how and each.verdict is not None:
            names.setdefault(each.how, []).append(title(name))
    return "; ".join(f"{', '.join(each)} {how}" for how, each in names.items())


def is_all_stored(comparison: Comparison) -> bool:
    """Whether every claim is one of the run itself."""
    found = [each.how for column in comparison.candidates for each in column.compared.values() if each.verdict]
    return all(how in (STORED, COUNTED) for how in found)


def notes_of(comparison: Comparison) -> list[str]:
    """Why a dash is a dash, what the marks mean, which claims are false, and how costs were compared."""
    reference = comparison.reference.row.model_copy(update={"against_baseline": {}, "fidelity": {}})
    rows = [_quiet(row) for row in (reference, *map(as_row, comparison.candidates))]
    if is_all_stored(comparison):
        return [*footnotes(rows, comparison.names), *comparison.notes]
    lines = footnotes([_without_noise(row) for row in rows], comparison.names)
    hows = {each.how for column in comparison.candidates for each in column.compared.values()}
    if THROUGH_BASELINE in hows:
        lines.append(
            "Through the baseline: the ratio of the ratios to the baseline that both were measured against; errors added "
            "in squares, noise of both schedules. Intervals are 95 %."
        )
    return [*lines, *comparison.notes]


def _quiet(row: Row) -> Row:
    """Without what the lists say already."""
    found = {name: each.model_copy(update={"reason": ""}) for name, each in row.against_baseline.items()}
    is_candidate = row.role == "candidate"
    return row.model_copy(update={"against_baseline": found, **({"not_rankable": ()} if is_candidate else {})})


def _without_noise(row: Row) -> Row:
    """The noise of ratios that were chained is not that of one run."""
    found = {
        name: each if name in row.metrics else each.model_copy(update={"noise": None})
        for name, each in row.against_baseline.items()
    }
    return row.model_copy(update={"against_baseline": found})


def to_json(comparison: Comparison) -> str:
    """`watermark`, `reference` and `candidates`, each with cells, verdicts and how they were obtained, and the lists."""
    reference = comparison.reference
    found = {
        "watermark": comparison.watermark,
        "title": comparison.title,
        "comparability_key": reference.row.comparability_key,
        "names": comparison.names,
        "reference": _facts(reference, comparison.names),
        "candidates": [_with_claims(each, comparison.names) for each in comparison.candidates],
        "notes": notes_of(comparison),
    }
    return printable_json(to_json_bytes(found, indent=1).decode())


def _facts(column: Column, names: Sequence[str]) -> dict[str, Any]:
    row = column.row
    of_row = ("recipe", "candidate", "role", "status", "key", "run_id", "model", "steps", "comparability_key")
    return {
        "label": column.label,
        **{name: getattr(row, name) for name in of_row},
        "conditions": dict(row.conditions),
        "faults": column.faults,
        "unsteady": column.unsteady,
        "audit": column.audit,
        "cells": {name: row.cells[name] for name in names if name in row.cells},
    }


def _with_claims(column: Column, names: Sequence[str]) -> dict[str, Any]:
    claims = {
        name: {**(each.verdict or Verdict(verdict="undecided", reason=each.reason)).model_dump(), "how": each.how}
        for name, each in column.compared.items()
        if each.side
    }
    lists: dict[str, Any] = {side: column.names_on(side) for side in SIDES}
    return {**_facts(column, names), "against_reference": claims, **lists}


def to_markdown(comparison: Comparison) -> str:
    """A GitHub table, one column per model, and a list per candidate; a watermark stands above and below."""
    columns = [comparison.reference, *comparison.candidates]
    heads = [f"**{escape(each.label)}**" for each in columns]
    lines = [markdown_line(["", *heads]), "|---|" + "---:|" * len(heads)]
    for name in (*comparison.names, AUDIT):
        cells = ["<br>".join(map(escape, lines_of(each, name))) for each in columns]
        lines.append(markdown_line([escape(title(name)), *cells]))
    for column in comparison.candidates:
        lines += ["", f"**{escape(column.label)}** against **{escape(comparison.reference.label)}**", ""]
        lines += [f"- {side}: {'; '.join(map(escape, items))}" for side, items in list_lines(column) if items]
        lines += [] if is_all_stored(comparison) else [f"- how: {escape(how_line(column))}"]
    notes = [f"- {escape(note)}" for note in notes_of(comparison)]
    mark = [f"**{escape(comparison.watermark)}**"] if comparison.watermark else []
    return _joined([mark, [escape(comparison.title)], lines, notes, mark])


def _joined(parts: Iterable[Sequence[str]]) -> str:
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"
