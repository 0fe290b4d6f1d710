"""Tables for other programs and for documents: JSON, CSV, Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic_core import to_json as to_json_bytes

from compressbench.core.names import one_line, printable_json
from compressbench.core.units import unit_of
from compressbench.report.figures import is_timed
from compressbench.report.own_baseline import Baselines, baselines_of
from compressbench.report.rows import CELL_NAMES, Row
from compressbench.report.words import cell_lines, columns, footnotes, title

_MARKDOWN_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\|*_`[]<>~&$#"})


def to_json(rows: Sequence[Row]) -> str:
    """A list of rows with recipe, candidate, status, key, cells and against_baseline; a missing value is null."""
    return "".join(json_list(json_item(row) for row in rows))


def json_item(row: Row) -> str:
    """One row as it stands in the list."""
    return printable_json(to_json_bytes([row], indent=1)[2:-2].decode())


def json_list(items: Iterable[str]) -> Iterator[str]:
    """The list, in pieces."""
    separator = "[\n"
    for item in items:
        yield f"{separator}{item}"
        separator = ",\n"
    yield "[]" if separator == "[\n" else "\n]"


def to_csv(rows: Sequence[Row]) -> str:
    """One line per row; each number with its bounds, unit, kind and reason, and its verdict with ratio and bounds."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    return "".join(csv_lines(metrics, ((row.metrics, csv_parts(row)) for row in rows)))


def csv_lines(metrics: Sequence[str], rows: Iterable[tuple[Sequence[str], str]]) -> Iterator[str]:
    """A header and a line per row, of each row's own metrics and its parts. `metrics` are those of all rows."""
    head = ["recipe", "candidate", "role", "status", "key", "run_id", "steps"]
    yield _joined([*head, *_headers(metrics), *_headers(CELL_NAMES), *_score_headers(metrics)]) + "\n"
    lacking = {name: [_joined(_absent(name)), _joined(_no_scores())] for name in metrics}
    for own, parts in rows:
        first, costs, *of_metrics = parts.split("\n")
        found = {**lacking, **{name: of_metrics[2 * at : 2 * at + 2] for at, name in enumerate(own)}}
        cells, scores = [found[name][0] for name in metrics], [found[name][1] for name in metrics]
        yield ",".join([first, *cells, costs, *scores]) + "\n"


def csv_parts(row: Row) -> str:
    """A row's line in parts that don't depend on other rows, one a line: what it is, its costs, and of each of its metrics
    the cell and what scores have beyond it.
    """
    first = [row.recipe, row.candidate, row.role, row.status, row.key, row.run_id, row.steps]
    of_metrics = [part for name in row.metrics for part in (_values(row, [name]), _score_values(row, [name]))]
    return "\n".join(map(_joined, (first, _values(row, CELL_NAMES), *of_metrics)))


def _joined(values: Sequence[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow([inert(value) for value in values])
    return buffer.getvalue()


def _headers(names: Sequence[str]) -> list[str]:
    parts = ("", "_low", "_high", "_unit", "_kind", "_reason", "_verdict", "_ratio", "_ratio_low", "_ratio_high")
    return [inert(f"{name}{part}") for name in names for part in (*parts, *_more_parts(name))]


def _more_parts(name: str) -> tuple[str, ...]:
    """What a clock or a meter took has its baseline's value beside it: that ran again beside every candidate."""
    return ("_baseline_value",) if name in CELL_NAMES and is_timed(name) else ()


_OF_SCORES = (
    "difference", "difference_low", "difference_high", "p_adjusted", "p_equivalent", "smallest_detectable",
    "num_samples_needed", "num_harmful", "num_beneficial",
)  # fmt: skip
_OF_FIDELITY = ("agreement", "same_top_1", "kl_mean", "kl_median", "kl_p99", "kl_max", "cosine_mean", "length_ratio")


def _score_headers(metrics: Sequence[str]) -> list[str]:
    return [inert(f"{name}_{part}") for name in metrics for part in (*_OF_SCORES, *_OF_FIDELITY, "calibration_error")]


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
        if cell is None:
            values += _absent(name)
            continue
        values += [cell.value, cell.low, cell.high, cell.unit, cell.kind, cell.reason]
        values += [None] * 4 if verdict is None else [verdict.verdict, verdict.ratio, verdict.low, verdict.high]
        values += [None if verdict is None else verdict.baseline_value for _ in _more_parts(name)]
    return values


def _absent(name: str) -> list[Any]:
    return [
        None,
        None,
        None,
        unit_of(name),
        "",
        "not asked",
        None,
        None,
        None,
        None,
        *(None for _ in _more_parts(name)),
    ]


def _no_scores() -> list[None]:
    return [None] * (len(_OF_SCORES) + len(_OF_FIDELITY) + 1)


def inert(value: Any) -> Any:
    """Text on one line; what a spreadsheet would run as a formula gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def to_markdown(rows: Sequence[Row], *, full: bool = False) -> str:
    """A GitHub table: the value, and below it in the same cell what may be claimed against the baseline."""
    names = columns(rows, full=full)
    seen = baselines_of(rows)
    lines = [markdown_line(["candidate", *(escape(title(name)) for name in names)]), "|---|" + "---:|" * len(names)]
    lines += [
        markdown_line([f"**{escape(row.candidate)}**", *(_cell(row, name, seen) for name in names)]) for row in rows
    ]
    notes = [f"- {escape(note)}" for note in footnotes(rows, names)]
    return "\n".join([*lines, "", *notes]).rstrip() + "\n"


def markdown_line(cells: Sequence[str]) -> str:
    """A row of a table; the cells are escaped already."""
    return "| " + " | ".join(cells) + " |"


def _cell(row: Row, name: str, seen: Baselines) -> str:
    return "<br>".join(escape(line) for line in cell_lines(row, name, seen))


def escape(text: str) -> str:
    """Text that stays text: no markup, no link, no new cell, no new line."""
    escaped = one_line(text).translate(_MARKDOWN_SPECIAL).replace("://", ":\\/\\/").replace("www.", "www\\.")
    return " ".join(escaped.split())
