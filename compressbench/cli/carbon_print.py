"""Sheets of carbon on a terminal, in Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from compressbench.core.names import json_text, one_line
from compressbench.lifecycle.account import Account
from compressbench.lifecycle.balance_terminal import LONGEST_NAME, fold_name
from compressbench.lifecycle.carbon import Terms
from compressbench.lifecycle.carbon_words import Sheet, notes, sheets, to_data
from compressbench.report.plain import escape, inert, markdown_line
from compressbench.report.recommend_words import print_lines


def print_terminal(accounts: Sequence[Account], terms: Terms, console: Console) -> None:
    for sheet in sheets(accounts):
        console.print(Text(sheet.title, style="bold"))
        console.print(_table(sheet))
        console.print()
    print_lines(console, notes(accounts, terms), "dim", 0)


def _table(sheet: Sheet) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for at, (name, label) in enumerate(zip(sheet.header, sheet.labels, strict=True)):
        head = Text.assemble((name, "bold"), *([(f"\n{label}", "dim italic")] if label else []))
        # numbers may move to further lines, names are folded already
        table.add_column(head, justify="right" if at else "left", overflow="fold", no_wrap=at == 0)
    for row in sheet.rows:
        table.add_row(*(_cell(lines, 0 if at else LONGEST_NAME) for at, lines in enumerate(row)))
    return table


def _cell(lines: Sequence[str], longest: int) -> Text:
    head, *others = map(one_line, lines)
    style = "yellow" if head == "partial" else "bold"
    folded = [Text(each, style) for each in (fold_name(head, longest) if longest else [head])]
    return Text("\n").join([*folded, *(Text(each, "dim") for each in others)])


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
