"""Ranks of uncertain numbers: intervals of ranks, and letters that rows share if they can't be told apart.

Two rows differ if a z-test says so, adjusted by Holm for all pairs at 5 %. With 95 % confidence no pair is then said to
differ in the wrong direction, and all intervals of ranks hold together (Mogstad, Romano, Shaikh & Wilhelm 2023, "Inference
for ranks"). Many rows are told apart where their intervals don't overlap, as LMArena does; but theirs are of 95 % each, of
which many fail in a long table, and ours of 95 % together (Klein, Wright & Wieczorek 2020, "A joint confidence region for
an overall ranking of populations").
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from compressbench.core.statistics import normal_quantile, normal_upper_tail

MOST_PAIRED = 200
"""With more rows than these the intervals decide: all pairs would take their square."""
MOST_GROUPS = 702
_ALPHA = 0.05

Method = Literal["pairwise tests", "joint intervals"]


class RankInterval(NamedTuple):
    """Of the rank, 1 for the best: from one more than how many are surely better to all but those surely worse."""

    low: int
    high: int


class Ranking(NamedTuple):
    """By row. `letters` are empty where so many rows stand that intervals decide."""

    method: Method
    intervals: list[RankInterval]
    letters: list[tuple[str, ...]]


def ranking(values: Sequence[float], errors: Sequence[float]) -> Ranking:
    """Rank intervals and letters of one and the same set of tests; arguments as of `rank_intervals`."""
    _check(values, errors)
    if rank_method(len(values)) == "joint intervals":
        return Ranking("joint intervals", _by_intervals(values, errors), [()] * len(values))
    better = better_rows(values, errors)
    order = sorted(range(len(values)), key=lambda at: values[at])
    return Ranking("pairwise tests", _by_pairs(better), group_letters(_differing(better), order))


def rank_intervals(values: Sequence[float], errors: Sequence[float]) -> list[RankInterval]:
    """Of every row. Lower values are better; `errors` are standard errors, 0 for exact values, which tie if they are equal.

    `rank_method` says how they are found. Raises ValueError for numbers that aren't finite and errors below zero.
    """
    _check(values, errors)
    if rank_method(len(values)) == "joint intervals":
        return _by_intervals(values, errors)
    return _by_pairs(better_rows(values, errors))


def rank_method(num_rows: int) -> Method:
    return "pairwise tests" if num_rows <= MOST_PAIRED else "joint intervals"


def better_rows(values: Sequence[float], errors: Sequence[float]) -> list[int]:
    """By row the significantly better ones, as bits: bit j of entry i says that row j is better than row i.

    Two-sided z-tests of all pairs, the family of Holm; two exact values are no test and are just compared.
    """
    better = [0] * len(values)
    tests: list[tuple[float, int, int]] = []
    for i, (value, error) in enumerate(zip(values, errors, strict=True)):
        for j in range(i):
            spread = math.hypot(error, errors[j])
            first, last = (i, j) if value < values[j] else (j, i)
            if spread > 0:
                tests.append((abs(value - values[j]) / spread, first, last))
            elif value != values[j]:
                better[last] |= 1 << first
    tests.sort(reverse=True)
    for rank, (z, first, last) in enumerate(tests):
        if 2 * normal_upper_tail(z) > _ALPHA / (len(tests) - rank):
            break
        better[last] |= 1 << first
    return better


def _check(values: Sequence[float], errors: Sequence[float]) -> None:
    if len(values) != len(errors):
        raise ValueError(f"{len(values)} values and {len(errors)} errors")
    if not all(map(math.isfinite, (*values, *errors))) or min(errors, default=0.0) < 0:
        raise ValueError("ranks need finite values, and errors of at least 0")


def _by_pairs(better: Sequence[int]) -> list[RankInterval]:
    worse = _turned(better)
    return [
        RankInterval(1 + ahead.bit_count(), len(better) - behind.bit_count())
        for ahead, behind in zip(better, worse, strict=True)
    ]


def _by_intervals(values: Sequence[float], errors: Sequence[float]) -> list[RankInterval]:
    """One more than how many upper bounds lie below the own lower bound; O(M log M)."""
    z = joint_z(sum(error > 0 for error in errors))
    bounds = [(value - z * error, value + z * error) for value, error in zip(values, errors, strict=True)]
    lows, highs = sorted(low for low, _ in bounds), sorted(high for _, high in bounds)
    return [RankInterval(1 + bisect.bisect_left(highs, low), bisect.bisect_right(lows, high)) for low, high in bounds]


def joint_z(num_intervals: int) -> float:
    """So many standard errors to both sides hold all of these true values together in 95 % or more (Sidak 1967)."""
    return normal_quantile((1 + (1 - _ALPHA) ** (1 / max(1, num_intervals))) / 2)


def _turned(better: Sequence[int]) -> list[int]:
    worse = [0] * len(better)
    for at, bits in enumerate(better):
        for first in _places(bits):
            worse[first] |= 1 << at
    return worse


def _differing(better: Sequence[int]) -> list[int]:
    return [ahead | behind for ahead, behind in zip(better, _turned(better), strict=True)]


def _places(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def group_letters(different: Sequence[int], order: Sequence[int] | None = None) -> list[tuple[str, ...]]:
    """By row its letters; two rows share one exactly if they don't differ. The compact letter display of Piepho (2004).

    `different` has by row the rows that it differs from, as bits, and is symmetric. `order` says which row comes first
    (the best), so that it has the letter a; after z come aa, ab, ... Each letter's rows are a largest set without a
    difference. Where there would be more than 702 letters (26 + 26 * 26), only as many are kept as all pairs need, found
    greedily (a clique cover: Gramm et al. 2007, "Algorithms for compact letter displays").
    """
    rows = list(range(len(different)) if order is None else order)
    place = {row: at for at, row in enumerate(rows)}
    edges = [sum(1 << place[other] for other in _places(different[row])) for row in rows]
    groups = _inserted_and_absorbed(edges) or _covering(edges)
    groups.sort(key=lambda group: (group & -group, group))
    found: list[tuple[str, ...]] = [()] * len(rows)
    for number, group in enumerate(groups):
        for at in _places(group):
            found[rows[at]] += (letter(number),)
    return found


def letter(number: int) -> str:
    """a to z for 0 to 25, then aa, ab, ... as spreadsheets count columns."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


def written(letters: Sequence[str]) -> str:
    """`abc`, with commas where a letter is longer than one sign."""
    return "".join(letters) if all(len(each) == 1 for each in letters) else ",".join(letters)


def _inserted_and_absorbed(edges: Sequence[int]) -> list[int]:
    """All largest sets of rows without a difference, none if they get too many.

    A row's differences are inserted at once: what holds the row and others that it differs from splits into a set without
    the row and one without the others. Sets inside another are absorbed.
    """
    groups = [(1 << len(edges)) - 1] if edges else []
    for at, differing in enumerate(edges):
        split = [group for group in groups if group >> at & 1 and group & differing]
        if not split:
            continue
        kept = [group for group in groups if not (group >> at & 1 and group & differing)]
        pieces = {piece for group in split for piece in (group & ~(1 << at), group & ~differing)}
        for piece in sorted(pieces, key=int.bit_count, reverse=True):
            if not any(piece & group == piece for group in kept):
                kept.append(piece)
        if len(kept) > MOST_GROUPS:
            return []
        groups = kept
    return groups


def _covering(edges: Sequence[int]) -> list[int]:
    """Largest sets without a difference, one for each pair that no earlier one holds."""
    everyone = (1 << len(edges)) - 1
    together = [0] * len(edges)
    groups: list[int] = []
    for at, differing in enumerate(edges):
        alike = everyone & ~differing & ~((1 << at) - 1)
        while missing := alike & ~together[at]:
            group = _grown(at, missing, edges)
            groups.append(group)
            for member in _places(group):
                together[member] |= group
    return groups


def _grown(at: int, first: int, edges: Sequence[int]) -> int:
    """A largest set that holds row `at`, filled from the rows of `first` before any others."""
    group, free = 0, ((1 << len(edges)) - 1) & ~edges[at]
    for wanted in (1 << at, first, free):
        for member in _places(wanted):
            if free >> member & 1:
                group |= 1 << member
                free &= ~edges[member] & ~(1 << member)
    return group
