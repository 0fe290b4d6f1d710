"""The table on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from compressbench.report.against import Verdict
from compressbench.report.rows import Row
from compressbench.report.words import claim_lines, columns, footnotes, title, value_text

_GOOD, _BAD = {"faster", "lower", "improved"}, {"slower", "degraded", "higher"}
_GOOD_IF_HIGHER = {"throughput_per_s"}


def table(rows: Sequence[Row], heading: str = "", *, full: bool = False) -> RenderableType:
    """Rows with the value on one line and the paired claim below it, and footnotes that say why a dash is a dash."""
    names = columns(rows, full=full)
    grid = Table(title=Text(heading, style="bold"), title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    grid.add_column("candidate", no_wrap=True)
    for name in names:
        grid.add_column(title(name), justify="right")
    for row in rows:
        grid.add_row(_name(row), *(_cell(row, name) for name in names))
    return Group(grid, *(Text(note, style="dim") for note in footnotes(rows, names)))


def print_table(rows: Sequence[Row], heading: str = "", *, full: bool = False, console: Console | None = None) -> None:
    (console or Console()).print(table(rows, heading, full=full))


def _name(row: Row) -> Text:
    text = Text(row.candidate, style="bold")
    if row.status != "ok":
        text.append(f"\n{row.status}", style="red")
    return text


def _cell(row: Row, name: str) -> Text:
    cell, verdict = row.cells.get(name), row.against_baseline.get(name)
    text = Text("" if cell is None else value_text(name, cell))
    for line, style in zip(claim_lines(name, verdict), (_style(name, verdict), "dim"), strict=False):
        text.append(f"\n{line}", style=style)
    return text


def _style(name: str, verdict: Verdict | None) -> str:
    word = "" if verdict is None else verdict.verdict
    is_good = word in (_GOOD - {"lower"} | {"higher"} if name in _GOOD_IF_HIGHER else _GOOD)
    return "green" if is_good else "red" if word in _BAD | {"lower"} else "dim"
