"""Tables for other programs and for documents: JSON, CSV, Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json as to_json_bytes

from compressbench.core.names import one_line, printable_json
from compressbench.core.units import unit_of
from compressbench.report.rows import CELL_NAMES, Row
from compressbench.report.words import cell_lines, columns, footnotes, title

_MARKDOWN_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\|*_`[]<>~&$#"})


def to_json(rows: Sequence[Row]) -> str:
    """A list of rows with recipe, candidate, status, key, cells and against_baseline; a missing value is null."""
    return printable_json(to_json_bytes(list(rows), indent=1).decode())


def to_csv(rows: Sequence[Row]) -> str:
    """One line per row; each number with its bounds, unit, kind and reason, and its verdict with ratio and bounds."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    names = [*metrics, *CELL_NAMES]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["recipe", "candidate", "role", "status", "key", "run_id", "steps", *_headers(names), *_score_headers(metrics)]
    )
    for row in rows:
        head: list[Any] = [row.recipe, row.candidate, row.role, row.status, row.key, row.run_id, row.steps]
        values = [*head, *_values(row, names), *_score_values(row, metrics)]
        writer.writerow([_inert(value) for value in values])
    return buffer.getvalue()


def _headers(names: Sequence[str]) -> list[str]:
    parts = ("", "_low", "_high", "_unit", "_kind", "_reason", "_verdict", "_ratio", "_ratio_low", "_ratio_high")
    return [_inert(f"{name}{part}") for name in names for part in parts]


_OF_SCORES = (
    "difference", "difference_low", "difference_high", "p_adjusted", "p_equivalent", "smallest_detectable",
    "num_samples_needed", "num_harmful", "num_beneficial",
)  # fmt: skip
_OF_FIDELITY = ("agreement", "same_top_1", "kl_mean", "kl_median", "kl_p99", "kl_max", "cosine_mean", "length_ratio")


def _score_headers(metrics: Sequence[str]) -> list[str]:
    return [_inert(f"{name}_{part}") for name in metrics for part in (*_OF_SCORES, *_OF_FIDELITY, "calibration_error")]


def _score_values(row: Row, metrics: Sequence[str]) -> list[Any]:
    """What scores have and costs don't: the difference and its tests, and how far the answers are from the baseline's."""
    values: list[Any] = []
    for name in metrics:
        verdict, found = row.against_baseline.get(name), row.fidelity.get(name)
        values += [getattr(verdict, part, None) for part in _OF_SCORES]
        values += [getattr(found, part, None) for part in _OF_FIDELITY]
        values.append(row.calibration_error.get(name))
    return values


def _values(row: Row, names: Sequence[str]) -> list[Any]:
    values: list[Any] = []
    for name in names:
        cell, verdict = row.cells.get(name), row.against_baseline.get(name)
        values += (
            [None] * 3 + [unit_of(name), "", "not asked"]
            if cell is None
            else [cell.value, cell.low, cell.high, cell.unit, cell.kind, cell.reason]
        )
        values += [None] * 4 if verdict is None else [verdict.verdict, verdict.ratio, verdict.low, verdict.high]
    return values


def _inert(value: Any) -> Any:
    """Text on one line; what a spreadsheet would run as a formula gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def to_markdown(rows: Sequence[Row], *, full: bool = False) -> str:
    """A GitHub table: the value, and below it in the same cell what may be claimed against the baseline."""
    names = columns(rows, full=full)
    lines = [_line(["candidate", *(_escape(title(name)) for name in names)]), "|---|" + "---:|" * len(names)]
    lines += [_line([f"**{_escape(row.candidate)}**", *(_cell(row, name) for name in names)]) for row in rows]
    notes = [f"- {_escape(note)}" for note in footnotes(rows, names)]
    return "\n".join([*lines, "", *notes]).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(row: Row, name: str) -> str:
    return "<br>".join(_escape(line) for line in cell_lines(row, name))


def _escape(text: str) -> str:
    """Text that stays text: no markup, no link, no new cell, no new line."""
    escaped = one_line(text).translate(_MARKDOWN_SPECIAL).replace("://", ":\\/\\/").replace("www.", "www\\.")
    return " ".join(escaped.split())
