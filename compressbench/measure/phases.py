"""Energy of prefill and of decode, told apart by when a counter moved: no subtraction of one run from another.

Every tick of the counter covers so many seconds of prefill (call to first token) and so many of decode. Over the ticks of
an arm that is a regression without intercept, E_k = P_prefill t_prefill,k + P_decode t_decode,k, whose coefficients are the
mean powers of the two phases. Where all ticks hold the same mixture, nothing can be told apart, and the result says so.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from compressbench.records.measurement import Arm, Block, PhaseEnergy

MIN_TICKS = 10
# the two columns of the regression must differ: 1 is orthogonal, 0 parallel
MIN_INDEPENDENCE = 0.02
_Series = Sequence[tuple[int, float]]


class Spans(NamedTuple):
    """When each phase of an arm's calls began and ended, in nanoseconds, in time order and without overlap."""

    prefill: list[tuple[int, int]]
    decode: list[tuple[int, int]]


def spans_of(block: Block, begun_ns: int) -> Spans:
    """The phases of a block whose first call began at `begun_ns`; calls follow each other without a pause."""
    spans, at = Spans([], []), begun_ns
    for latency, first in zip(block.latencies_ns, block.first_token_ns, strict=True):
        spans.prefill.append((at, at + first))
        spans.decode.append((at + first, at + latency))
        at += latency
    return spans


class Tick(NamedTuple):
    joules: float
    prefill_s: float
    decode_s: float


def ticks(series: _Series, spans: Spans, begun_ns: int, ended_ns: int) -> Iterator[Tick]:
    """The counter's steps (time in nanoseconds, joules so far) that lie wholly within a block."""
    first = bisect.bisect_left(series, (begun_ns, -math.inf))
    inside = list(itertools.takewhile(lambda edge: edge[0] <= ended_ns, series[first:]))
    for (begin, before), (end, after) in itertools.pairwise(inside):
        yield Tick(after - before, _overlap_s(spans.prefill, begin, end), _overlap_s(spans.decode, begin, end))


def phase_energy(found: Sequence[Tick], spans: Sequence[Spans]) -> PhaseEnergy:
    """Mean power of the two phases with standard errors, times the seconds spent in them; or why they can't be told."""
    seconds = {
        name: sum((end - begin) / 1e9 for each in spans for begin, end in getattr(each, name))
        for name in ("prefill", "decode")
    }
    common = {"prefill_s": seconds["prefill"], "decode_s": seconds["decode"], "num_ticks": len(found)}
    reason = _why_not(found)
    if reason:
        return PhaseEnergy(reason=reason, **common)
    (prefill_w, decode_w), (prefill_u, decode_u) = _regression(found)
    if prefill_w <= 2 * prefill_u or decode_w <= 2 * decode_u:
        what = f"{prefill_w:.3g} ± {prefill_u:.2g} W and {decode_w:.3g} ± {decode_u:.2g} W"
        return PhaseEnergy(reason=f"the power of one phase isn't told apart from nothing ({what})", **common)
    return PhaseEnergy(
        prefill_w=prefill_w, decode_w=decode_w, prefill_uncertainty_w=prefill_u, decode_uncertainty_w=decode_u, **common
    )


@dataclass
class PhaseLog:
    """Ticks and phases of a run's blocks, by arm."""

    ticks: dict[Arm, list[Tick]] = field(default_factory=dict)
    spans: dict[Arm, list[Spans]] = field(default_factory=dict)

    def add(self, block: Block, begun_ns: int, series: Sequence[tuple[int, float]]) -> None:
        spans = spans_of(block, begun_ns)
        ended_ns = begun_ns + sum(block.latencies_ns)
        self.spans.setdefault(block.arm, []).append(spans)
        self.ticks.setdefault(block.arm, []).extend(ticks(series, spans, begun_ns, ended_ns))

    def energies(self) -> dict[Arm, PhaseEnergy]:
        return {arm: phase_energy(found, self.spans[arm]) for arm, found in self.ticks.items()}


def _why_not(found: Sequence[Tick]) -> str:
    if len(found) < MIN_TICKS:
        return f"{len(found)} ticks of the meter lie within the blocks, and {MIN_TICKS} are needed"
    pp, dd, pd = _products(found)
    if pp == 0 or dd == 0 or 1 - pd * pd / (pp * dd) < MIN_INDEPENDENCE:
        return "every tick of the meter holds the same mixture of prefill and decode"
    return ""


def _products(found: Sequence[Tick]) -> tuple[float, float, float]:
    return (
        math.fsum(tick.prefill_s**2 for tick in found),
        math.fsum(tick.decode_s**2 for tick in found),
        math.fsum(tick.prefill_s * tick.decode_s for tick in found),
    )


def _regression(found: Sequence[Tick]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Least squares through the origin with two columns: coefficients and their standard errors."""
    pp, dd, pd = _products(found)
    pe = math.fsum(tick.prefill_s * tick.joules for tick in found)
    de = math.fsum(tick.decode_s * tick.joules for tick in found)
    determinant = pp * dd - pd * pd
    prefill, decode = (pe * dd - de * pd) / determinant, (de * pp - pe * pd) / determinant
    residual = math.fsum((tick.joules - prefill * tick.prefill_s - decode * tick.decode_s) ** 2 for tick in found)
    variance = residual / (len(found) - 2)
    return (prefill, decode), (math.sqrt(variance * dd / determinant), math.sqrt(variance * pp / determinant))


def _overlap_s(spans: Sequence[tuple[int, int]], begin: int, end: int) -> float:
    first = max(0, bisect.bisect_left(spans, (begin, 0)) - 1)
    total = 0
    for span_begin, span_end in itertools.islice(spans, first, None):
        if span_begin >= end:
            break
        total += max(0, min(end, span_end) - max(begin, span_begin))
    return total / 1e9
