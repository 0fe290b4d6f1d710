"""Joules of a window of time from the edges of a counter, with a standard uncertainty or a reason why there are none.

Between the first and the last edge inside the window the energy is known. The two ends, each under a tick, are charged
at the power that the nearest segments between edges predict; nothing outside the window enters. Whether the mean of all
segments or rather the nearest ones predict better is tried on the segments themselves, and how wrong these predictions
were is the uncertainty of the ends. Constant power needs none of this, and wandering power can't be had without.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise

from compressbench.core.instruments import SPREAD_OF_A_TICK
from compressbench.core.protocols import Between, Window
from compressbench.core.statistics import t_quantile
from compressbench.meters.edges import EdgeLog
from compressbench.meters.probe import Edge

MIN_EDGES = 3
MIN_TICKS = 10
STUCK_TICKS, LOST_TICKS = 5, 2
_RECENCY = 0.6  # weight of the nearest segment where the nearer ones predict better than the mean
_FEW = 10  # segments
_NS = 1e-9
_Z95 = 1.959963984540054


def min_window_s(tick_s: float) -> float:
    """Windows should be this long: at constant power within 1 % then, whatever the window's place between the ticks."""
    return max(0.5, MIN_TICKS * tick_s)


def energy_window(log: EdgeLog, begin_ns: int, end_ns: int, name: str = "energy_j") -> Window:
    """Joules between two moments under `name`, without the counter's gain; or why they can't be known."""
    seconds = (end_ns - begin_ns) * _NS
    inside = _inside(log, begin_ns, end_ns)
    edges = sharp(inside, log.tick_s)
    if reason := _trouble(log, begin_ns, end_ns) or _gap(log, inside, edges, begin_ns, end_ns):
        return Window(seconds=seconds, reason=reason)
    joules, uncertainty_j = _estimate(edges, begin_ns, end_ns, log.resolution_j)
    between = _between(edges, begin_ns, end_ns, log.resolution_j)
    return Window(seconds=seconds, values={name: joules}, uncertainties={name: uncertainty_j}, between=between)


def quiet_window(log: EdgeLog, begin_ns: int, end_ns: int, name: str = "energy_j") -> Window:
    """Joules between two moments between which the counter was not read, while the same work went on before and after.

    Between the last edge before and the first one after all energy is known; the two ends are charged at the mean power.
    The counter may have been read there: launches that waited for that are uncertainty, too.
    """
    seconds = (end_ns - begin_ns) * _NS
    edges = [edge for edge in log.edges if edge.is_sharp(log.tick_s)]
    place = bisect.bisect_right(edges, begin_ns, key=lambda edge: edge.latest_ns)
    later = bisect.bisect_left(edges, end_ns, key=lambda edge: edge.earliest_ns)
    if place == 0 or later == len(edges):
        return Window(seconds=seconds, reason=f"{log.name} was not seen to move before and after the window")
    before, after = edges[place - 1], edges[later]
    if reason := _trouble(log, before.earliest_ns, after.earliest_ns) or _far(log, before, after, begin_ns, end_ns):
        return Window(seconds=seconds, reason=reason)
    head_s, tail_s = (begin_ns - before.at_ns) * _NS, (after.at_ns - end_ns) * _NS
    covered_s, covered_j = (after.at_ns - before.at_ns) * _NS, after.joules - before.joules
    watts = covered_j / covered_s
    timing_j = watts * math.hypot(before.width_ns, after.width_ns) * _NS / math.sqrt(12)
    reading_j = watts * (_reading_s(log, before, begin_ns) + _reading_s(log, after, end_ns))
    known_j = math.hypot(timing_j, log.resolution_j / math.sqrt(6), reading_j)
    uncertainty_j = math.hypot(known_j, SPREAD_OF_A_TICK * watts * math.hypot(head_s, tail_s))
    between = Between(-head_s, tail_s, covered_j, known_j)
    return Window(seconds=seconds, values={name: watts * seconds}, uncertainties={name: uncertainty_j}, between=between)


def _reading_s(log: EdgeLog, edge: Edge, moment_ns: int) -> float:
    """Seconds that the counter was being read between an edge and the beginning or end of a window."""
    first_ns, last_ns = sorted((edge.at_ns, moment_ns))
    return sum(max(0.0, min(got, last_ns) - max(asked, first_ns)) for asked, got in log.readings) * _NS


def _far(log: EdgeLog, before: Edge, after: Edge, begin_ns: int, end_ns: int) -> str:
    """Why the edges around a quiet window can't carry it: too far away, or without any energy."""
    away_ns = max(begin_ns - before.latest_ns, after.earliest_ns - end_ns)
    if away_ns * _NS > STUCK_TICKS * log.tick_s:
        return f"{log.name} stood still for {away_ns * _NS:.3g} s beside the window, with a tick of {_ms(log.tick_s)}"
    if after.joules - before.joules <= 2 * log.resolution_j:
        return f"below resolution: {log.name} moved by {after.joules - before.joules:.3g} J"
    return ""


def _trouble(log: EdgeLog, begin_ns: int, end_ns: int) -> str:
    for fault in log.faults:
        if fault.earliest_ns <= end_ns and fault.latest_ns >= begin_ns:
            return fault.reason
    if begin_ns < log.begins_ns:
        return f"{log.name} was not logged from the beginning of the window on: collect more often"
    if log.read_until_ns < end_ns:
        missing_s = (end_ns - log.read_until_ns) * _NS
        return f"{log.name} was not read in the last {missing_s:.3g} s of the window"
    return ""


def _gap(log: EdgeLog, inside: Sequence[Edge], edges: Sequence[Edge], begin_ns: int, end_ns: int) -> str:
    """Why the edges inside, of which `edges` are sharp, don't carry the window: too few, or the counter stood still."""
    seconds = (end_ns - begin_ns) * _NS
    if len(inside) < MIN_EDGES:
        if seconds > (STUCK_TICKS + MIN_EDGES) * log.tick_s:
            return f"{log.name} is stuck: {len(inside)} increments in {seconds:.3g} s, with a tick of {_ms(log.tick_s)}"
        needed = (
            f"measure {min_window_s(log.tick_s):.3g} s or longer" if math.isfinite(log.tick_s) else "measure longer"
        )
        return f"below resolution: {log.name} moved {len(inside)} times in {seconds:.3g} s; {needed}"
    tick_ns = statistics.median(later.at_ns - earlier.at_ns for earlier, later in pairwise(edges))
    longest_ns = max(inside[0].earliest_ns - begin_ns, end_ns - inside[-1].latest_ns)
    mean_w = (edges[-1].joules - edges[0].joules) / (edges[-1].at_ns - edges[0].at_ns)
    for earlier, later in pairwise(inside):
        # a slow tick brings the energy of the time since the last one; a counter that stood still has lost it
        gap_ns = later.latest_ns - earlier.latest_ns
        if later.joules - earlier.joules < mean_w * gap_ns / 2:
            longest_ns = max(longest_ns, gap_ns)
    if longest_ns <= STUCK_TICKS * tick_ns:
        longest_ns = _longest_loss_ns(inside, LOST_TICKS * tick_ns)
    if longest_ns:
        return f"{log.name} stood still for {longest_ns * _NS:.3g} s of the window, with a tick of {_ms(tick_ns * _NS)}"
    return ""


def _longest_loss_ns(edges: Sequence[Edge], least_ns: float) -> int:
    """The longest gap over `least_ns` that brought less than half of what either power beside it makes; 0 without any."""
    watts, gaps_ns = _watts(edges), [later.earliest_ns - earlier.latest_ns for earlier, later in pairwise(edges)]
    beside_w = [min(watts[max(0, at - 1) : at] + watts[at + 1 : at + 2]) for at in range(len(watts))]
    lost = [gap_ns for gap_ns, here, beside in zip(gaps_ns, watts, beside_w, strict=True) if here < beside / 2]
    return max((gap_ns for gap_ns in lost if gap_ns > least_ns), default=0)


def _inside(log: EdgeLog, begin_ns: int, end_ns: int) -> Sequence[Edge]:
    first = bisect.bisect_left(log.edges, begin_ns, key=lambda edge: edge.earliest_ns)
    return log.edges[first : bisect.bisect_right(log.edges, end_ns, key=lambda edge: edge.latest_ns)]


def _watts(edges: Sequence[Edge]) -> list[float]:
    """Of each segment between two edges."""
    return [
        (later.joules - earlier.joules) / ((later.at_ns - earlier.at_ns) * _NS) for earlier, later in pairwise(edges)
    ]


def sharp(edges: Sequence[Edge], tick_s: float) -> Sequence[Edge]:
    """Leave out the edges that the sampler slept over: what they counted is in the next one too."""
    if len(edges) <= MIN_EDGES:
        return edges
    widest_ns = max(2 * statistics.median(edge.width_ns for edge in edges), 0.1 * tick_s / _NS)
    sharp = [edge for edge in edges if edge.width_ns <= widest_ns]
    return sharp if len(sharp) >= MIN_EDGES else edges


def _between(edges: Sequence[Edge], begin_ns: int, end_ns: int, resolution_j: float) -> Between:
    """What is known without a guess about the ends."""
    first, last = edges[0], edges[-1]
    covered_j = last.joules - first.joules
    timing_j = covered_j / (last.at_ns - first.at_ns) * math.hypot(first.width_ns, last.width_ns) / math.sqrt(12)
    known_j = math.hypot(timing_j, resolution_j / math.sqrt(6))
    return Between((first.at_ns - begin_ns) * _NS, (last.at_ns - end_ns) * _NS, covered_j, known_j)


def _estimate(edges: Sequence[Edge], begin_ns: int, end_ns: int, resolution_j: float) -> tuple[float, float]:
    """Joules of the window and their standard uncertainty: edge timing, quantisation, and power at the ends."""
    first, last = edges[0], edges[-1]
    covered_s, covered_j = (last.at_ns - first.at_ns) * _NS, last.joules - first.joules
    head_s, tail_s = (first.at_ns - begin_ns) * _NS, (end_ns - last.at_ns) * _NS
    watts = _watts(edges)
    segment_s, scale = covered_s / len(watts), (head_s + covered_s + tail_s) / covered_s
    predict, error_w = _best_predictor(watts)
    joules = covered_j + predict(watts[::-1])[-1] * head_s + predict(watts)[-1] * tail_s
    # of uneven power it is luck, too, where within its ups and downs the edges and the marks fall: one segment's worth
    ends_s2 = head_s * max(head_s, segment_s) + tail_s * max(tail_s, segment_s) + segment_s**2
    timing_j = covered_j / covered_s * scale * math.hypot(first.width_ns, last.width_ns) * _NS / math.sqrt(12)
    rounding_j = resolution_j * scale / math.sqrt(6)
    return joules, math.hypot(timing_j, rounding_j, error_w * math.sqrt(ends_s2))


def _best_predictor(watts: list[float]) -> tuple[Callable[[Sequence[float]], list[float]], float]:
    """What predicts a segment's power best from those on one side of it, and its error (k = 1, in watts).

    Tried in both directions, and not where few segments are left to predict from. The error is widened for their number,
    so that 1.96 times it holds 95 % (Student).
    """
    num_skipped = (len(watts) - 1) // 3
    found = []
    for predict in (_means, _recent_means):
        errors = [
            predicted - actual
            for series in (watts, watts[::-1])
            for predicted, actual in zip(predict(series)[num_skipped:-1], series[num_skipped + 1 :], strict=True)
        ]
        found.append((math.sqrt(math.fsum(error**2 for error in errors) / len(errors)), predict))
    error_w, predict = found[0] if found[0][0] <= 1.05 * found[1][0] else found[1]
    if len(watts) < _FEW:
        error_w = max(error for error, _ in found)  # the better one of two may have been lucky
    return predict, error_w * t_quantile(0.975, len(watts) - 1) / _Z95


def _means(series: Sequence[float]) -> list[float]:
    """Of the first, the first two, the first three, ..."""
    total, means = 0.0, []
    for count, value in enumerate(series, 1):
        total += value
        means.append(total / count)
    return means


def _recent_means(series: Sequence[float]) -> list[float]:
    """The same, forgetting exponentially."""
    mean, means = series[0], []
    for value in series:
        mean += _RECENCY * (value - mean)
        means.append(mean)
    return means


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
