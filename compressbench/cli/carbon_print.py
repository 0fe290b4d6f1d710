"""Sheets of carbon on a terminal, in Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from compressbench.core.names import json_text, one_line
from compressbench.lifecycle.account import Account
from compressbench.lifecycle.carbon import Terms
from compressbench.lifecycle.carbon_words import Sheet, notes, sheets, to_data
from compressbench.report.heading import wrapped
from compressbench.report.plain import escape, inert, markdown_line
from compressbench.report.recommend_words import print_lines
from compressbench.report.terminal import Grid, Lines, TableColumn, name_lines


def print_terminal(accounts: Sequence[Account], terms: Terms, console: Console) -> None:
    for sheet in sheets(accounts):
        for line in wrapped(sheet.title, console.width):
            console.print(Text(line, style="bold"))
        console.print(_grid(sheet), crop=False)
    print_lines(console, notes(accounts, terms), "dim", 0)


def _grid(sheet: Sheet) -> Grid:
    heads = [f"{name} {label}".strip() for name, label in zip(sheet.header, sheet.labels, strict=True)]
    names, *columns = (
        TableColumn.of(head, [_lines(row[at], is_name=at == 0) for row in sheet.rows]) for at, head in enumerate(heads)
    )
    return Grid(names, columns)


def _lines(lines: Sequence[str], *, is_name: bool) -> Lines:
    head, *others = map(one_line, lines)
    first = name_lines(head) if is_name else [(head, "yellow" if head == "partial" else "")]
    return [*first, *((each, "dim") for each in others)]


def to_markdown(accounts: Sequence[Account], terms: Terms) -> str:
    lines: list[str] = []
    for sheet in sheets(accounts):
        lines += [f"### {escape(sheet.title)}", "", markdown_line(list(_heads(sheet)))]
        lines += ["|---|" + "---:|" * (len(sheet.header) - 1)]
        lines += [markdown_line(["<br>".join(map(escape, cell)) for cell in row]) for row in sheet.rows]
        lines.append("")
    return "\n".join([*lines, *(f"- {escape(note)}" for note in notes(accounts, terms))]).rstrip() + "\n"


def _heads(sheet: Sheet) -> Iterator[str]:
    for name, label in zip(sheet.header, sheet.labels, strict=True):
        yield escape(name) + (f"<br>*{escape(label)}*" if label else "")


def to_json_text(accounts: Sequence[Account], terms: Terms) -> str:
    return json_text(to_data(accounts, terms))


def to_csv(accounts: Sequence[Account], terms: Terms) -> str:
    """A line per row: each number with its bounds and kind, in grams, litres and the currency."""
    rows = [dict(_flat(each)) for each in to_data(accounts, terms)["candidates"]]
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[inert(row.get(name)) for name in names] for row in rows])
    return buffer.getvalue()


def _flat(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in ("recipe", "candidate", "role", "run_id", "hardware", "boundary"):
        yield name, row[name]
    for unit, score in {**row["consumer"], "provider": row["provider"] or {}}.items():
        for part in ("operational", "embodied", "end_of_life", "total"):
            yield from _number(f"{unit}_{part}_g", score.get(part, {}))
    for what in ("water", "cost"):
        for unit, amount in row[what].items():
            yield from _number(f"{what}_{unit}", amount)
    for what, ratio in row["against_baseline"].items():
        yield from ((f"{what}_ratio{part}", ratio[name]) for part, name in _PARTS.items())


_PARTS = {"": "value", "_low": "low", "_high": "high", "_reason": "reason"}


def _number(name: str, amount: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for part, field in {**_PARTS, "_kind": "kind"}.items():
        yield f"{name}{part}", amount.get(field)
