"""The table on a terminal: never squeezed, columns that don't fit stand in a further block below."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from compressbench.core.names import one_line
from compressbench.report.heading import wrapped
from compressbench.report.own_baseline import Baselines, baselines_of
from compressbench.report.rows import Row
from compressbench.report.verdict import Verdict
from compressbench.report.words import cell_lines, columns, footnotes, title, verdict_of

_GOOD, _BAD = {"faster", "lower", "improved", "equivalent"}, {"slower", "degraded", "higher"}
_GOOD_IF_HIGHER = {"throughput_per_s", "output_tokens_per_s", "max_rate_per_s"}
LONGEST_NAME = 40
_GAP = "  "


def _width(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)


Lines = list[tuple[str, str]]
"""The lines of one cell, each with its style."""


class TableColumn(NamedTuple):
    header: list[str]
    cells: list[Lines]
    width: int

    @classmethod
    def of(cls, header: str, cells: list[Lines]) -> TableColumn:
        """As wide as its widest cell; the header is wrapped to that."""
        words = [*header.split(), *(text for lines in cells for text, _ in lines)]
        width = max(map(_width, words), default=0)
        return cls(textwrap.wrap(header, max(1, width)), cells, width)


class Grid(NamedTuple):
    """A name column and right-aligned columns, in as many blocks as the width asks for."""

    names: TableColumn
    columns: list[TableColumn]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        names = ("bold", "dim", "red", "green", "yellow") if console.color_system else ()
        styles = {name: console.get_style(name) for name in names}
        for block in self._blocks(options.max_width):
            yield from _joined(_block(self.names, block, styles))

    def _blocks(self, max_width: int) -> list[list[TableColumn]]:
        blocks: list[list[TableColumn]] = []
        free = 0
        for column in self.columns:
            needed = len(_GAP) + column.width
            if not blocks or needed > free:
                blocks.append([])
                free = max_width - self.names.width
            blocks[-1].append(column)
            free -= needed
        return blocks


def _joined(segments: Iterator[Segment]) -> Iterator[Segment]:
    """The same text in fewer pieces: thousands of rows are slow in small ones."""
    for style, run in itertools.groupby(segments, key=lambda segment: segment.style):
        yield Segment("".join(segment.text for segment in run), style)


def _block(names: TableColumn, block: list[TableColumn], styles: dict[str, Style]) -> Iterator[Segment]:
    shown = [names, *block]
    headers: list[Lines] = [[(line, "bold") for line in column.header] for column in shown]
    height = max(map(len, headers))
    yield Segment.line()
    # headers stand on the rule
    yield from _lines(shown, [[("", "")] * (height - len(lines)) + lines for lines in headers], styles)
    yield Segment("─" * (sum(column.width + len(_GAP) for column in shown) - len(_GAP)))
    yield Segment.line()
    for cells in zip(*(column.cells for column in shown), strict=True):
        yield from _lines(shown, cells, styles)
    yield Segment.line()


def _lines(shown: Sequence[TableColumn], cells: Sequence[Lines], styles: dict[str, Style]) -> Iterator[Segment]:
    for number in range(max(map(len, cells))):
        unstyled = ""
        for position, (column, lines) in enumerate(zip(shown, cells, strict=True)):
            text, style = lines[number] if number < len(lines) else ("", "")
            blank = " " * (column.width - _width(text))
            unstyled += f"{_GAP}{blank}" if position else ""
            if style in styles:
                yield from (Segment(unstyled), Segment(text, styles[style]))
                unstyled, text = "", ""
            unstyled += text if position else f"{text}{blank}"
        yield Segment(f"{unstyled.rstrip()}\n")


def _table(rows: Sequence[Row], *, full: bool = False) -> RenderableType:
    """Rows with the value on one line and the paired claim below it, and footnotes that say why a dash is a dash."""
    names = columns(rows, full=full)
    seen = baselines_of(rows)
    grid = Grid(
        TableColumn.of("candidate", [_name(row) for row in rows]),
        [TableColumn.of(one_line(title(name)), [_cell(row, name, seen) for row in rows]) for name in names],
    )
    notes = [Text(one_line(note), style="dim") for note in footnotes(rows, names)]
    return Group(grid, *notes)


def print_table(rows: Sequence[Row], heading: str = "", *, full: bool = False, console: Console | None = None) -> None:
    console = console or Console()
    for line in wrapped(one_line(heading), console.width):
        console.print(Text(line, style="bold"))
    console.print(_table(rows, full=full), crop=False)


def _name(row: Row) -> Lines:
    status = [] if row.status == "ok" else [(one_line(row.status), "red")]
    return name_lines(row.candidate) + status


def name_lines(name: str) -> Lines:
    """A long name in several lines."""
    shown = one_line(name)
    return [(shown[at : at + LONGEST_NAME], "bold") for at in range(0, max(1, len(shown)), LONGEST_NAME)]


def _cell(row: Row, name: str, seen: Baselines) -> Lines:
    lines = cell_lines(row, name, seen)
    styles = ("", _style(name, verdict_of(row, name)), *["dim"] * len(lines))
    return list(zip(lines, styles, strict=False))


def _style(name: str, verdict: Verdict | None) -> str:
    word = "" if verdict is None else verdict.verdict
    is_good = word in (_GOOD - {"lower"} | {"higher"} if name in _GOOD_IF_HIGHER else _GOOD)
    return "green" if is_good else "red" if word in _BAD | {"lower"} else "dim"
