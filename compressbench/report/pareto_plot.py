"""Two metrics of a Pareto front as a picture of text, turned so that the best corner is the upper left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len

from compressbench.core.names import one_line
from compressbench.report.catalog import Catalog
from compressbench.report.pareto import Entry, Front
from compressbench.report.rows import Cell
from compressbench.report.words import title, value_text

HEIGHT, MOST_ROWS = 14, 40
_MARKS = {"on the front": "●", "possibly": "○", "dominated": "·"}
_STRENGTH = " ·○●"


def plot(catalog: Catalog, front: Front, width: int) -> list[str]:
    """The first metric upwards, the second to the right, in lines of at most `width` signs.

    None for fewer than three rows, more than 40, or values that are all equal. Rows without a value of their own (a
    baseline whose time isn't known) aren't in it.
    """
    up, right = front.names[:2]
    shown = [entry for entry in front.entries if None not in (_value(entry, up), _value(entry, right))]
    if not 3 <= len(shown) <= MOST_ROWS:
        return []
    cells = [row.cells for row in catalog.rows(entry.contender.at for entry in shown)]
    y, x = (_Axis.of(name, [found[name] for found in cells], shown[0]) for name in (up, right))
    margin = max(len(y.best), len(y.worst))
    num_columns = min(72, width - margin - 3)
    if num_columns < 30 or not (x.is_wide and y.is_wide):
        return []
    # from the upper left
    places = list(zip(x.places(num_columns), y.places(HEIGHT), strict=True))
    rows = _drawn(places, shown, num_columns)
    sides = [y.best, *[""] * (HEIGHT - 2), y.worst]
    by = f" (by all {len(front.names)} metrics)" if len(front.names) > 2 else ""
    return [
        f"{one_line(title(up))}, better above",
        *(f"{side:>{margin}} ┤{row}".rstrip() for side, row in zip(sides, rows, strict=True)),
        f"{'':>{margin}} └{'─' * num_columns}",
        f"{'':>{margin}}  {_ends(x.best, f'← better · {one_line(title(right))}', x.worst, num_columns)}",
        f"{'':>{margin}}  ● on the front  ○ possibly  · dominated{by}",
    ]


def _value(entry: Entry, name: str) -> float | None:
    return entry.contender.figures[name].value


class _Axis(NamedTuple):
    """Losses, the less the better, and what stands at both ends."""

    losses: list[float]
    best: str
    worst: str

    @classmethod
    def of(cls, name: str, cells: Sequence[Cell], entry: Entry) -> _Axis:
        sign = -1.0 if entry.contender.figures[name].direction == "higher" else 1.0
        losses = [sign * cell.value for cell in cells if cell.value is not None]
        best, worst = (_plain(name, cells[0], sign * pick(losses)) for pick in (min, max))
        return cls(losses, best, worst)

    @property
    def is_wide(self) -> bool:
        return max(self.losses) > min(self.losses)

    def places(self, number: int) -> list[int]:
        low, high = min(self.losses), max(self.losses)
        return [round((loss - low) / (high - low) * (number - 1)) for loss in self.losses]


def _plain(name: str, cell: Cell, value: float) -> str:
    return value_text(name, cell.model_copy(update={"value": value, "kind": ""}))


def _ends(left: str, middle: str, right: str, width: int) -> str:
    inside = f"{middle:^{max(0, width - len(left) - len(right))}}"
    return f"{left}{inside}{right}"


def _drawn(places: Sequence[tuple[int, int]], entries: Sequence[Entry], num_columns: int) -> list[str]:
    grid = [[" "] * num_columns for _ in range(HEIGHT)]
    marks = [_MARKS[entry.membership] for entry in entries]
    for (x, y), mark in zip(places, marks, strict=True):
        grid[y][x] = max(grid[y][x], mark, key=_STRENGTH.index)
    # the front's names first; a name that has no room is left out
    for at in sorted(range(len(entries)), key=lambda at: -_STRENGTH.index(marks[at])):
        x, y = places[at]
        _write(grid[y], x, one_line(entries[at].label))
    return ["".join(row) for row in grid]


def _write(row: list[str], x: int, text: str) -> None:
    if cell_len(text) != len(text):  # wide signs would shift the others
        return
    for start in (x + 2, x - 1 - len(text)):
        # one blank to both sides, so that names don't run into each other
        around = row[max(0, start - 1) : start + len(text) + 1]
        beside = row[x + 1 : start] if start > x else row[start + len(text) : x]
        is_inside = start >= 0 and start + len(text) <= len(row)
        others = [sign for at, sign in enumerate(around, max(0, start - 1)) if at != x]
        if is_inside and set(others) <= {" "} and set(beside) <= {" "}:
            row[start : start + len(text)] = text
            return
