"""How a Pareto front reads: its heading, what stands in a cell, and the notes that say how it was obtained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from compressbench.core.dominance import num_draws_for
from compressbench.core.names import listed
from compressbench.core.ranking import written
from compressbench.core.units import three_digits
from compressbench.report.catalog import Catalog
from compressbench.report.figures import Figure
from compressbench.report.pareto import SEED, Entry, Front
from compressbench.report.quality_words import signed
from compressbench.report.ranks import Rank
from compressbench.report.rows import Cell, Row
from compressbench.report.words import DASH, title, value_text

MOST_SHOWN = 500
"""So many rows of a front are read by people at most, those that are likeliest to be on it."""


class Line(NamedTuple):
    """One row of a front in words: `cells` are by metric a value, what it is against the baseline ("" if absolute), and a
    rank with letters.
    """

    label: str
    front: str
    dominator: str
    cells: list[tuple[str, str, str]]


def heading(front: Front) -> str:
    """Under which conditions a group's rows may be ranked together."""
    contenders = [*(each.contender for each in front.entries), *(each.contender for each in front.left_out)]
    conditions = front.conditions
    hardware = conditions.get("hardware", "").partition(" (")[0]
    parts = [
        _several([each.recipe for each in contenders]),
        _several([each.model for each in contenders]),
        hardware,
        conditions.get("workload", ""),
        front.key and f"key {front.key}",
    ]
    return " · ".join(part for part in parts if part)


def lines(catalog: Catalog, front: Front) -> list[Line]:
    return [
        Line(
            label=entry.label,
            front=f"{entry.membership}, {chance(entry.probability)}",
            dominator=f"{chance(entry.dominated_with)} behind {entry.dominator}" if entry.dominator else "",
            cells=[_cell(front, entry, at, row) for at in range(len(front.names))],
        )
        for entry, row in _with_rows(catalog, front)
    ]


def _with_rows(catalog: Catalog, front: Front) -> Iterator[tuple[Entry, Row]]:
    """Those that are shown, each with its whole row."""
    shown = front.entries[:MOST_SHOWN]
    return zip(shown, catalog.rows(entry.contender.at for entry in shown), strict=True)


def _cell(front: Front, entry: Entry, at: int, row: Row) -> tuple[str, str, str]:
    name = front.names[at]
    cell = row.cells[name]
    is_relative = front.scales[at] == "against the baseline" and not entry.contender.is_baseline
    against = _against(entry.contender.figures[name], cell) if is_relative else ""
    return value_text(name, cell), against, rank_text(entry.ranks[at])


def _against(figure: Figure, cell: Cell) -> str:
    """`+0.13` points of a fraction, a difference in the metric's unit, `0.603x` the baseline's, or `same`."""
    if figure.difference is not None and not figure.is_log:
        scale = 100 if cell.unit == "fraction" else 1
        low, high = figure.difference_low, figure.difference_high
        half = 0.0 if low is None or high is None else scale * (high - low) / 2
        return signed(scale * figure.difference, half)
    if figure.ratio is None:
        return ""
    if figure.ratio == figure.ratio_low == figure.ratio_high == 1:
        return "same"
    # near 1 two decimals would show nothing
    return f"{figure.ratio:.4f}x" if 0.99 < figure.ratio < 1.01 else f"{three_digits(figure.ratio)}x"


def rank_text(rank: Rank) -> str:
    """`1-3 ab`: an interval of ranks, then the letters."""
    if rank.interval is None:
        return DASH
    low, high = rank.interval
    return f"#{low if low == high else f'{low}-{high}'} {short_letters(rank)}".strip()


def short_letters(rank: Rank) -> str:
    """As many as fit into a cell; a row between many has many."""
    most = 6
    return written(rank.letters) if len(rank.letters) <= most else f"{written(rank.letters[:most])}…"


def chance(probability: float) -> str:
    """In percent, finer where it decides; never a certainty that a simulation can't have.

    >>> chance(1.0), chance(0.4321), chance(0.0512), chance(0.0)
    ('> 99 %', '43 %', '5.1 %', '< 1 %')
    """
    if probability > 0.99:
        return "> 99 %"
    digits = 0 if 0.1 < probability < 0.9 else 1
    return "< 1 %" if probability < 0.01 else f"{100 * probability:.{digits}f} %"


def notes(catalog: Catalog, front: Front) -> Iterator[str]:
    """Who was left out and why, what the words mean, and how it all was obtained."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in front.left_out:
        reasons.setdefault((each.name, each.reason), []).append(each.label)
    for (name, reason), labels in reasons.items():
        yield f"NOT RANKED {_several(labels)}: {f'{title(name)}: ' if name else ''}{reason}"
    if not front.entries:
        return
    if len(front.entries) > MOST_SHOWN:
        left = len(front.entries) - MOST_SHOWN
        yield f"{left:,} more rows are not shown; --format json and csv always have them all."
    rows = list(_with_rows(catalog, front))
    for name in front.names:
        cells = [(each.label, row.cells[name]) for each, row in rows]
        yield from (f"{DASH} {label}: {title(name)}: {cell.reason}" for label, cell in cells if cell.value is None)
        for source in sorted({cell.source for _, cell in cells if cell.kind in ("estimated", "modelled")}):
            yield f"{title(name)}: not measured; {source}"
    yield from _how(front)


def _how(front: Front) -> Iterator[str]:
    titles = [title(name) for name in front.names]
    draws = num_draws_for(len(front.entries), len(front.names))
    yield (
        "On the front: with 95 % or more no other row is at least as good in all of these and better in one. Dominated: "
        "with less than 5 %. Behind: so probably that row is at least as good in all and better in one. "
        f"From {draws:,} draws of independent normal errors (seed {SEED}); counted numbers are exact."
    )
    if front.method == "pairwise tests":
        yield (
            "#: ranks among these rows by z-tests of all pairs, all intervals together 95 % (Holm). "
            "Rows that share a letter can't be told apart."
        )
    else:
        yield (
            "#: ranks among these rows, all intervals together 95 %: before a row are those whose intervals lie wholly "
            "below its own (so many rows have no letters)."
        )
    for scale, meaning in (
        ("against the baseline", "ranked by the difference from the baseline or the ratio to it, which stands below"),
        ("absolute", "ranked by the value, not paired with one baseline"),
    ):
        those = [name for name, each in zip(titles, front.scales, strict=True) if each == scale]
        if those:
            yield f"{', '.join(those)}: {meaning}."


def _several(names: list[str]) -> str:
    return listed(list(dict.fromkeys(name for name in names if name)))
