"""Tables of balances and fleets on a terminal: columns as wide as there is room for, and notes that wrap below them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from compressbench.core.names import one_line
from compressbench.lifecycle import fleet_words as words
from compressbench.lifecycle.accounts import Unit
from compressbench.lifecycle.breakeven_plot import Strip, strips
from compressbench.lifecycle.breakeven_words import HEADERS, Sheet, heading, how, notes, rows
from compressbench.lifecycle.fleet_words import FleetSheet

_STYLES = {"reached": "green", "never": "red", "undetermined": "yellow"}
_PAYS = 3
_GAP = 2
LONGEST_NAME = 18


def print_sheet(sheet: Sheet, console: Console) -> None:
    """Per unit a table and the strips of the net saving, then why something is missing and how all was computed."""
    for unit in sheet.units():
        console.print(Text(heading(sheet, unit), style="bold"))
        shown = [[_cell(row.cells, at, row.outcome) for at in range(len(row.cells))] for row in rows(sheet, unit)]
        print_table(console, HEADERS, shown)
        console.print()
        _print_strips(sheet, unit, console)
    print_notes(console, notes(sheet), how(sheet))


def print_table(console: Console, names: Sequence[str], shown: Sequence[Sequence[Text]]) -> None:
    """The first column to the left, all others to the right; where there is no room an interval stands below its value."""
    widths = [max(_width(row[at]) for row in shown) for at in range(len(names))] if shown else []
    if sum(widths) + _GAP * (len(widths) - 1) > console.width:
        shown = [[_fold_first(row[0]), *(Text("\n[").join(each.split(" [")) for each in row[1:])] for row in shown]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for at, name in enumerate(names):
        table.add_column(Text(name), justify="right" if at else "left", overflow="fold")
    for cells in shown:
        table.add_row(*cells)
    console.print(table)


def _width(text: Text) -> int:
    return max((line.cell_len for line in text.split("\n")), default=0)


def _fold_first(text: Text) -> Text:
    """A long name goes on below itself, after a hyphen if it has one."""
    head, *others = text.split("\n")
    folded = [Text(line, head.style) for line in fold_name(head.plain, LONGEST_NAME + 2)]
    return Text("\n").join([*folded, *others])


def fold_name(name: str, longest: int) -> list[str]:
    """Pieces of at most so many signs; `4-layers-distilled-int8` breaks after a hyphen."""
    if len(name) <= longest:
        return [name]
    at = name.rfind("-", longest // 2, longest) + 1 or longest
    return [name[:at], *fold_name(name[at:], longest)]


def print_notes(console: Console, found: Iterable[tuple[str, Sequence[str]]], how_computed: Sequence[str]) -> None:
    for name, lines in found:
        console.print(Text(one_line(name), style="bold"))
        for line in lines:
            _print_wrapped(console, one_line(line), "", 2)
    console.print()
    for line in how_computed:
        _print_wrapped(console, one_line(line), "dim", 0)


def _cell(cells: Sequence[Sequence[str]], at: int, outcome: str) -> Text:
    """The first line as the column wants it, those below dim."""
    first, *others = [one_line(line) for line in cells[at]]
    style = "bold" if at == 0 else _STYLES.get(outcome, "") if at == _PAYS else ""
    style = style if outcome else "dim"
    found = Text(first, style=style)
    for line in others:
        found.append(f"\n{line}", style="not bold dim")
    return found


def _print_strips(sheet: Sheet, unit: Unit, console: Console) -> None:
    known = [
        Strip(sheet.name(case), cost, each.saving.value)
        for case, each in sheet.of(unit)
        if (cost := each.cost.value) is not None and each.saving.value is not None and each.per == sheet.per
    ]
    lines = strips(known, console.width)
    for line in lines:
        console.print(Text(line))
    if lines:
        console.print()


def _print_wrapped(console: Console, text: str, style: str, indent: int) -> None:
    for line in Text(text).wrap(console, max(1, console.width - indent), overflow="fold"):
        console.print(Text(f"{' ' * indent}{line.plain.rstrip()}", style=style))


def print_fleet(sheet: FleetSheet, console: Console) -> None:
    if sheet.watermark:
        console.print(Text(one_line(sheet.watermark), style="bold red"))
    console.print(Text("FLEET (modelled)", style="bold"))
    shown = [
        [Text(one_line(cell), style="" if at else "bold") for at, cell in enumerate(row)] for row in words.rows(sheet)
    ]
    print_table(console, words.headers(sheet), shown)
    console.print()
    print_notes(console, words.notes(sheet), words.how(sheet))
