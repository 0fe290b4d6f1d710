"""Whether a series of durations has settled: where its beginning ends, and whether what follows still drifts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from operator import mul
from typing import NamedTuple

from compressbench.core.statistics import t_quantile

FEWEST_JUDGED = 5
CALLS_PER_BLOCK = 5
_FEWEST_BLOCKS = 10
_MOST_GROUPS = 32
_MOST_SHARED = 0.8
_GROUPS_OF_A_LINE = 6


class DriftRule(NamedTuple):
    """Drift is a change from the first half of the judged calls to the second of more than `tolerance`, and more than
    chance brings about at `significance`; or of half the tolerance, with a trend that Kendall's test finds.

    Nothing seen is worth something if a drift of `resolution` would have been seen in 90 % of cases: at 5 % instead of
    3 %, a warm-up of 1.5 s and 30 % under noise of 5 % is let through in 80 % of cases instead of 8 %. At a significance
    of 5 % (two standard errors) 5 to 6 % of steady but noisy series are called unsteady, at 1 % at most 1.5 %.
    """

    tolerance: float = 0.01
    significance: float = 0.01
    resolution: float = 0.03


class Steadiness(NamedTuple):
    """What can be said of the calls after the truncated beginning.

    `drift` says what still moves, "" if nothing is seen to. `resolution` is the relative change from half to half that
    would have been seen in 90 % of cases, `change` the one there is. `num_kept` calls were judged; `typical` is the
    median of their later half.
    """

    drift: str
    change: float
    resolution: float
    num_kept: int
    typical: float


class Kendall(NamedTuple):
    tau: float
    p_value: float


class _Noise(NamedTuple):
    """Scatter of groups around what drifts, and by how much what neighbours share inflates the variance of a mean."""

    sd: float
    inflation: float


def judge(durations: Sequence[float], width: int, rule: DriftRule) -> Steadiness:
    """Durations of calls (`width` 1), or medians of `width` neighbouring calls; at least five of them.

    MSER may leave too much of a long warm-up in (its criterion weighs noise, not trend). So what drifts is looked at
    again without the first half of all. That counts if it is sharp enough to show a drift that just went on: half of the
    change that was seen.
    """
    state = _assess(durations[_beginning(durations, width) :], width, rule)
    if not state.drift or len(durations) < 2 * FEWEST_JUDGED:
        return state
    later = _assess(durations[len(durations) // 2 :], width, rule)
    is_sharp = later.resolution <= max(rule.resolution, abs(state.change) / 2)
    return later if is_sharp and not later.drift else state


def mser_truncation(blocks: Sequence[float]) -> int:
    """How many values at the beginning to leave out, at most half of them: MSER (White 1997; White, Cobb & Spratt 2000).

    Minimizes the squared standard error of the mean of what is left. On means, or here medians, of five: MSER-5.
    """
    shift = statistics.fmean(blocks)
    total = squares = 0.0
    best, found = math.inf, 0
    for index in range(len(blocks) - 1, -1, -1):
        value = blocks[index] - shift
        total += value
        squares += value * value
        left = len(blocks) - index
        score = (squares - total * total / left) / (left * left)
        if index <= len(blocks) // 2 and score <= best:
            best, found = score, index
    return found


def kendall(values: Sequence[float], inflation: float = 1.0) -> Kendall:
    """Kendall's tau-b of the values with their order, and its two-sided p by the normal approximation (Kendall 1970).

    `inflation` multiplies the variance under the null hypothesis, for values that resemble their neighbours (Hamed &
    Rao 1998). Compares all pairs: for at most a few hundred values.
    """
    count, score = len(values), 0
    for index, value in enumerate(values):
        for later in values[index + 1 :]:
            score += (later > value) - (later < value)
    ties = [values.count(value) for value in set(values)]
    pairs = count * (count - 1) / 2
    untied = pairs - sum(each * (each - 1) / 2 for each in ties)
    variance = (2 * pairs * (2 * count + 5) - sum(each * (each - 1) * (2 * each + 5) for each in ties)) / 18
    if variance <= 0 or untied <= 0:
        return Kendall(0.0, 1.0)
    p_value = math.erfc(abs(score) / math.sqrt(2 * variance * inflation))
    return Kendall(score / math.sqrt(pairs * untied), p_value)


def _beginning(durations: Sequence[float], width: int) -> int:
    """Where what is judged begins: by blocks of five calls, or by calls if there are fewer than ten blocks."""
    if width > 1 or len(durations) < CALLS_PER_BLOCK * _FEWEST_BLOCKS:
        return min(mser_truncation(durations), len(durations) - FEWEST_JUDGED)
    return CALLS_PER_BLOCK * mser_truncation(medians_of(durations, CALLS_PER_BLOCK))


def medians_of(durations: Sequence[float], size: int) -> list[float]:
    """Medians of neighbours; what does not fill a group is left out at the beginning."""
    return [statistics.median(durations[at : at + size]) for at in range(len(durations) % size, len(durations), size)]


def _assess(kept: Sequence[float], width: int, rule: DriftRule) -> Steadiness:
    """In at most 32 groups: close calls resemble each other, and tests of trend suppose that they don't."""
    groups = medians_of(kept, -(-len(kept) // _MOST_GROUPS))
    num_kept, middle = width * len(kept), len(groups) // 2
    before, after = statistics.fmean(groups[:middle]), statistics.fmean(groups[middle:])
    typical = statistics.median(groups[middle:])
    if before <= 0:
        return Steadiness(f"the last {num_kept} calls are too short for the clock", 0.0, math.inf, num_kept, typical)
    noise, freedom, change = _noise(groups), len(groups) - 2, after / before - 1
    error = noise.sd * math.sqrt(noise.inflation * (1 / middle + 1 / (len(groups) - middle))) / before
    certain = t_quantile(1 - rule.significance / 2, freedom) * error
    drift = _drift(change, max(rule.tolerance, certain), kendall(groups, noise.inflation), rule)
    text = f"the last {num_kept} calls {drift}" if drift else ""
    return Steadiness(text, change, certain + t_quantile(0.95, freedom) * error, num_kept, typical)


def _noise(groups: Sequence[float]) -> _Noise:
    """From the residuals of a line through each half, or of one line through few groups.

    One line would take the bend of a warm-up for noise that resembles its neighbours, and see no drift in it.
    """
    middle = len(groups) // 2
    parts = [groups[:middle], groups[middle:]] if middle >= _GROUPS_OF_A_LINE else [groups]
    residuals = [residual for part in parts for residual in _around_a_line(part)]
    squares = math.fsum(map(mul, residuals, residuals))
    if squares <= 0:
        return _Noise(0.0, 1.0)
    # the lag-one autocorrelation of residuals of a line through n independent values is too low by about 2 / n
    fitted = 2 * len(parts)
    shared = math.fsum(early * late for early, late in pairwise(residuals)) / squares + fitted / len(groups)
    shared = min(max(shared, 0.0), _MOST_SHARED)
    return _Noise(math.sqrt(squares / (len(groups) - fitted)), (1 + shared) / (1 - shared))


def _around_a_line(values: Sequence[float]) -> list[float]:
    line = statistics.linear_regression(range(len(values)), values)
    return [value - line.intercept - line.slope * index for index, value in enumerate(values)]


def _drift(change: float, limit: float, trend: Kendall, rule: DriftRule) -> str:
    """A trend that is certain but below half the tolerance is none: the thermal drift of a quiet machine."""
    moved = f"{abs(change):.1%} {'slower' if change > 0 else 'faster'} from their first half to their second"
    if abs(change) > limit:
        return f"became {moved} (limit {limit:.1%})"
    if abs(change) > rule.tolerance / 2 and trend.p_value <= rule.significance:
        return f"still become {moved} (Kendall's tau {trend.tau:.2f}, p = {trend.p_value:.1g})"
    return ""
