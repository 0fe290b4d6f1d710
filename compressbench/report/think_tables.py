"""Test-time compute on a terminal: the answer, every variant at several numbers of samples, and the equal-energy table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from compressbench.core.names import one_line
from compressbench.core.units import humanize
from compressbench.report.recommend_words import print_lines
from compressbench.report.terminal import Grid, Lines, TableColumn, name_lines
from compressbench.report.think import Pair, Thinking
from compressbench.report.think_words import (
    accuracy_word,
    answer,
    budget_cells,
    fit_sentences,
    heading,
    notes,
    point_cells,
    point_headers,
)

_STYLES = {"better": "green", "worse": "red"}


def print_thinking(found: Thinking, console: Console | None = None) -> None:
    console = console or Console(highlight=False)
    if found.watermark:
        console.print(Text(one_line(found.watermark), style="bold red"))
    first, *more = answer(found)
    print_lines(console, [heading(found), "", first], "bold", 0)
    print_lines(console, more, "", 0)
    console.print(_samples(found), crop=False)
    against = [pair for pair in found.pairs if found.lines[pair.reference].variant.is_baseline]
    for at in dict.fromkeys(pair.reference for pair in against):
        _print_against(found, [pair for pair in against if pair.reference == at], console)
    print_lines(console, fit_sentences(found), "", 0)
    print_lines(console, notes(found), "dim", 0)


def _samples(found: Thinking) -> Grid:
    """A line for every number of samples, which stands with the name: a narrow terminal splits the other columns."""
    names: list[Lines] = []
    cells: list[list[list[str]]] = []
    for line in found.lines:
        for number, point in enumerate(line.points):
            samples, *rest = point_cells(point, found)
            shown = [(f"k = {samples[0]}", "dim")]
            names.append([*name_lines(line.variant.label), *shown] if number == 0 else shown)
            cells.append(rest)
    return _grid("candidate", names, point_headers(found)[1:], cells)


def _print_against(found: Thinking, pairs: Sequence[Pair], console: Console) -> None:
    ours = found.label(pairs[0].reference)
    gained = f"its {accuracy_word(found)} less {ours}'s, in points"
    text = f"For the joules of k samples of {ours}: samples of the other, {gained}"
    print_lines(console, [text], "bold", 0)
    budgets = pairs[0].budgets
    headers = [f"k = {each.num_reference}, {humanize(each.joules, 'J')}" for each in budgets]
    names = [name_lines(found.label(pair.other)) for pair in pairs]
    cells = [[budget_cells(each) for each in pair.budgets] for pair in pairs]
    console.print(_grid("candidate", names, headers, cells), crop=False)


def _grid(name: str, names: list[Lines], headers: Sequence[str], cells: Sequence[Sequence[Sequence[str]]]) -> Grid:
    columns = [
        TableColumn.of(
            header,
            [[(text, _STYLES.get(text, "dim" if row else "")) for row, text in enumerate(line[at])] for line in cells],
        )
        for at, header in enumerate(headers)
    ]
    return Grid(TableColumn.of(name, names), columns)
