"""Pareto fronts for people: on a terminal, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.text import Text

from compressbench.core.names import one_line
from compressbench.report.catalog import Catalog
from compressbench.report.heading import wrapped
from compressbench.report.pareto import Front
from compressbench.report.pareto_plot import plot
from compressbench.report.pareto_words import Line, heading, lines, notes
from compressbench.report.plain import escape, markdown_line
from compressbench.report.terminal import LONGEST_NAME, Grid, Lines, TableColumn
from compressbench.report.words import title

_STYLES = {"on the front": "green", "dominated": "red"}


def print_fronts(catalog: Catalog, fronts: Sequence[Front], console: Console | None = None) -> None:
    console = console or Console(highlight=False)
    for number, front in enumerate(fronts):
        if number:
            console.print()
        console.print(_rendered(catalog, front, console.width), crop=False)


def _rendered(catalog: Catalog, front: Front, width: int) -> RenderableType:
    found = lines(catalog, front)
    head = [Text(one_line(front.watermark), style="bold red")] if front.watermark else []
    head += [Text(line, style="bold") for line in wrapped(one_line(heading(front)), width)]
    below = [Text(one_line(note), style="dim") for note in notes(catalog, front)]
    if not found:
        names = ", ".join(title(name) for name in front.names)
        return Group(*head, Text(one_line(f"No row can be ranked by all of {names}.")), *below)
    columns = [
        TableColumn.of(one_line(title(name)), [_cell(line.cells[at]) for line in found])
        for at, name in enumerate(front.names)
    ]
    grid = Grid(TableColumn.of("candidate", [_name(line) for line in found]), columns)
    drawn = plot(catalog, front, width)
    picture = [Text("\n".join([*drawn, ""]), no_wrap=True)] if drawn else []
    return Group(*head, grid, *picture, *below)


def _name(line: Line) -> Lines:
    style = next((style for word, style in _STYLES.items() if line.front.startswith(word)), "")
    return [
        *((part, "bold") for part in _parts(line.label)),
        (f"  {line.front}", style),
        *((f"  {part}", "dim") for part in textwrap.wrap(one_line(line.dominator), LONGEST_NAME)),
    ]


def _parts(text: str) -> list[str]:
    shown = one_line(text)
    return [shown[start : start + LONGEST_NAME] for start in range(0, len(shown), LONGEST_NAME)]


def _cell(cell: tuple[str, str, str]) -> Lines:
    value, against, rank = cell
    return [(value, ""), (rank, ""), *([(against, "dim")] if against else [])]


def to_markdown(catalog: Catalog, fronts: Sequence[Front]) -> str:
    """A heading, a GitHub table and notes for each front."""
    return "\n".join(_markdown(catalog, front) for front in fronts)


def _markdown(catalog: Catalog, front: Front) -> str:
    found = [f"### {escape(heading(front))}", ""]
    if front.watermark:
        found += [f"**{escape(front.watermark)}**", ""]
    if front.entries:
        found.append(markdown_line(["candidate", "front", *(escape(title(name)) for name in front.names)]))
        found.append("|---|---|" + "---:|" * len(front.names))
    for line in lines(catalog, front):
        cells = ["<br>".join(escape(part) for part in (v, rank, against) if part) for v, against, rank in line.cells]
        front_words = "<br>".join(escape(part) for part in (line.front, line.dominator) if part)
        found.append(markdown_line([f"**{escape(line.label)}**", front_words, *cells]))
    return "\n".join([*found, "", *(f"- {escape(note)}" for note in notes(catalog, front)), ""])
