"""After how many requests a candidate has paid for itself, as a strip of text: not yet, undecided, saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len

from compressbench.core.names import one_line
from compressbench.core.statistics import Interval
from compressbench.lifecycle.breakeven import net_saving

FIRST, LAST = 3, 9
"""Powers of ten that the strip reaches."""
NOT_YET, OPEN, SAVED = "·", "▒", "█"
_LONGEST_NAME, _MOST_COLUMNS, _LEAST_COLUMNS = 24, 60, 24


class Strip(NamedTuple):
    name: str
    cost: Interval
    saving: Interval


def strips(found: Sequence[Strip], width: int) -> list[str]:
    """Lines of at most `width` signs; none for nothing to draw or too little room."""
    if not found:
        return []
    names = [_cut(one_line(each.name)) for each in found]
    margin = max(map(cell_len, [*names, "requests"]))
    columns = min(_MOST_COLUMNS, width - margin - 2)
    if columns < _LEAST_COLUMNS:
        return []
    lines = [_row(name, margin, _strip(each, columns)) for name, each in zip(names, found, strict=True)]
    return [
        *lines,
        _row("requests", margin, _axis(columns)),
        _row("", margin, f"{NOT_YET} not yet   {OPEN} undecided   {SAVED} saved"),
    ]


def _row(name: str, margin: int, text: str) -> str:
    return f"{name}{' ' * (margin - cell_len(name))}  {text}".rstrip()


def _cut(name: str) -> str:
    while cell_len(name) > _LONGEST_NAME:
        name = name[:-2] + "…"
    return name


def _strip(each: Strip, columns: int) -> str:
    return "".join(_sign(net_saving(_requests(at, columns), each.cost, each.saving)) for at in range(columns))


def _requests(at: int, columns: int) -> float:
    return math.pow(10, FIRST + (LAST - FIRST) * at / (columns - 1))


def _sign(net: Interval) -> str:
    if net.low > 0:
        return SAVED
    return NOT_YET if net.high <= 0 else OPEN


def _axis(columns: int) -> str:
    line = [" "] * columns
    for power in range(FIRST, LAST + 1):
        label = f"1e{power}"
        at = round((columns - 1) * (power - FIRST) / (LAST - FIRST))
        start = min(at, columns - len(label))
        line[start : start + len(label)] = label
    return "".join(line)
