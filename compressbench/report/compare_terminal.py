"""Models side by side on a terminal: never squeezed, what doesn't fit stands in a further block beside the reference."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from compressbench.core.names import one_line
from compressbench.report.compare import Column, Comparison
from compressbench.report.compare_words import AUDIT, how_line, is_all_stored, lines_of, list_lines, notes_of
from compressbench.report.heading import wrapped
from compressbench.report.words import title

_GAP = "  "
_LONGEST_NAME = 24
_STYLES = {"better": "green", "worse": "red", "same": "dim", "undecided": "yellow", "": "dim"}

Lines = list[tuple[str, str]]
"""The lines of one cell, each with its style."""


class _Shown(NamedTuple):
    """A column: its header, then a cell per quantity."""

    cells: list[Lines]
    width: int

    @classmethod
    def of(cls, cells: list[Lines]) -> _Shown:
        return cls(cells, max(cell_len(text) for lines in cells for text, _ in lines or [("", "")]))


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """The watermark, if there is one, stands above and below."""
    console = console or Console(highlight=False)
    for line in _page(comparison, console.width):
        console.print(line, crop=False, soft_wrap=True)


def _page(comparison: Comparison, width: int) -> Iterator[Text]:
    mark = list(_wrapped(comparison.watermark, width, "bold red"))
    yield from mark
    yield from (Text(line, style="bold") for line in wrapped(one_line(comparison.title), width))
    yield Text()
    yield from _blocks(comparison, width)
    for column in comparison.candidates:
        yield from _lists(comparison, column, width)
    for note in notes_of(comparison):
        yield from _wrapped(note, width, "dim")
    yield from mark


def _blocks(comparison: Comparison, width: int) -> Iterator[Text]:
    names = (*comparison.names, AUDIT)
    titles = _Shown.of([[("", "")], *([(line, "") for line in _cut(title(name))] for name in names)])
    reference = _shown(comparison.reference, names)
    block: list[_Shown] = []
    for column in comparison.candidates:
        shown = _shown(column, names)
        used = titles.width + sum(len(_GAP) + each.width for each in (reference, *block, shown))
        if block and used > width:
            yield from _table([titles, reference, *block])
            block = []
        block.append(shown)
    yield from _table([titles, reference, *block])


def _shown(column: Column, names: Sequence[str]) -> _Shown:
    header: Lines = [(line, "bold") for line in _cut(column.label)]
    if column.row.status != "ok":
        header.append((one_line(column.row.status), "bold red"))
    return _Shown.of([header, *(_cell(column, name) for name in names)])


def _cell(column: Column, name: str) -> Lines:
    lines = [one_line(line) for line in lines_of(column, name)]
    if name == AUDIT:
        return [(lines[0], "bold red" if column.row.false_claims else "dim")]
    side = column.compared[name].side if name in column.compared else ""
    return list(zip(lines, ["", _STYLES[side], *["dim"] * len(lines)], strict=False))


def _cut(text: str) -> list[str]:
    return textwrap.wrap(one_line(text), _LONGEST_NAME) or [""]


def _table(columns: Sequence[_Shown]) -> Iterator[Text]:
    header, *rows = zip(*(column.cells for column in columns), strict=True)
    height = max(map(len, header))
    yield from _lines(columns, [[("", "")] * (height - len(lines)) + lines for lines in header])
    yield Text("─" * (sum(column.width + len(_GAP) for column in columns) - len(_GAP)))
    for cells in rows:
        yield from _lines(columns, cells)
    yield Text()


def _lines(columns: Sequence[_Shown], cells: Sequence[Lines]) -> Iterator[Text]:
    for number in range(max(map(len, cells))):
        line = Text()
        for place, (column, lines) in enumerate(zip(columns, cells, strict=True)):
            text, style = lines[number] if number < len(lines) else ("", "")
            blank = " " * (column.width - cell_len(text))
            line.append(f"{_GAP}{blank}" if place else "")
            line.append(text, style or None)
            line.append("" if place else blank)
        line.rstrip()
        yield line


def _lists(comparison: Comparison, column: Column, width: int) -> Iterator[Text]:
    yield from _wrapped(f"{column.label} against {comparison.reference.label}", width, "bold")
    for side, items in list_lines(column):
        if items:
            yield from _labelled(side, " · ".join(items), width, _STYLES[side])
    if not is_all_stored(comparison):
        yield from _labelled("how", how_line(column), width, "dim")
    yield from _labelled(AUDIT, column.audit, width, "bold red" if column.row.false_claims else "dim")
    yield Text()


def _labelled(label: str, text: str, width: int, style: str) -> Iterator[Text]:
    indent = 13
    lines = textwrap.wrap(one_line(text), max(20, width - indent), break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        yield Text.assemble((f"  {'' if number else label:<{indent - 2}}", style), line)


def _wrapped(text: str, width: int, style: str) -> Iterator[Text]:
    for line in textwrap.wrap(one_line(text), width):
        yield Text(line, style=style)
