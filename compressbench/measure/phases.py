"""Energy of prefill and of decode, told apart by when a counter moved: no subtraction of one run from another.

Every tick of the counter covers so many seconds of prefill (call to first token) and so many of decode. Over the ticks of
an arm that is a regression without intercept, E_k = P_prefill t_prefill,k + P_decode t_decode,k, whose coefficients are the
mean powers of the two phases. Where all ticks hold the same mixture, nothing can be told apart, and the result says so.
A meter that mustn't be read in timed blocks (design/0024) is read in some generations beside them.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from compressbench.measure.instruments import ENERGY
from compressbench.records.measurement import Arm, Block, PhaseEnergy

MIN_TICKS = 10
# the two columns of the regression must differ: 1 is orthogonal, 0 parallel
MIN_INDEPENDENCE = 0.02
# reading delays launches, which changes power by some percent; more than this is something else
MAX_FACTOR = 1.25
_WATTS = ("prefill_w", "decode_w", "prefill_uncertainty_w", "decode_uncertainty_w")
_Series = Sequence[tuple[int, float]]


class Spans(NamedTuple):
    """When each phase of an arm's calls began and ended, in nanoseconds, in time order and without overlap."""

    prefill: list[tuple[int, int]]
    decode: list[tuple[int, int]]


def spans_of(block: Block, begun_ns: int) -> Spans:
    """The phases of a block whose first call began at `begun_ns`; calls follow each other without a pause.

    What has no first token is decode: no phase is told from another.
    """
    spans, at = Spans([], []), begun_ns
    if not block.first_token_ns:
        return Spans([], [(begun_ns, begun_ns + sum(block.latencies_ns))])
    for latency, first in zip(block.latencies_ns, block.first_token_ns, strict=True):
        spans.prefill.append((at, at + first))
        spans.decode.append((at + first, at + latency))
        at += latency
    return spans


def joined(*parts: Spans) -> Spans:
    """All of them, in time order."""
    return Spans(
        sorted(span for each in parts for span in each.prefill), sorted(span for each in parts for span in each.decode)
    )


class Tick(NamedTuple):
    joules: float
    prefill_s: float
    decode_s: float


def ticks(series: _Series, spans: Spans, begun_ns: int, ended_ns: int) -> Iterator[Tick]:
    """The counter's steps (time in nanoseconds, joules so far) that lie wholly within a block."""
    first = bisect.bisect_left(series, (begun_ns, -math.inf))
    inside = list(itertools.takewhile(lambda edge: edge[0] <= ended_ns, series[first:]))
    for (begin, before), (end, after) in itertools.pairwise(inside):
        yield Tick(after - before, overlap_s(spans.prefill, begin, end), overlap_s(spans.decode, begin, end))


def phase_energy(found: Sequence[Tick], spans: Sequence[Spans]) -> PhaseEnergy:
    """Mean power of the two phases with standard errors, times the seconds spent in them; or why they can't be told."""
    prefill_s, decode_s = _seconds(spans)
    common = {"prefill_s": prefill_s, "decode_s": decode_s, "num_ticks": len(found)}
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


def phase_energy_beside(
    found: Sequence[Tick], spans: Sequence[Spans], known: Sequence[Spans], joules: float
) -> PhaseEnergy:
    """The same where the ticks lie beside the blocks: they say how the powers of the phases are to each other, and how
    high both are is said by the `joules` of the blocks whose phases are `known`.

    Without result, too, where the power beside the blocks was another one.
    """
    energy = phase_energy(found, spans).model_copy(update={"is_beside": True})
    if energy.prefill_w is None or energy.decode_w is None:
        return energy
    prefill_s, decode_s = _seconds(known)
    expected_j = energy.prefill_w * prefill_s + energy.decode_w * decode_s
    factor = joules / expected_j if expected_j > 0 else 0.0
    if not 1 / MAX_FACTOR <= factor <= MAX_FACTOR:
        reason = f"where the meter was read, the power was another one than in the blocks ({factor:.3g} times)"
        return energy.model_copy(update={**dict.fromkeys(_WATTS), "reason": reason})
    return energy.model_copy(update={name: factor * getattr(energy, name) for name in _WATTS})


class OfBlock(NamedTuple):
    """When the block at `place` of a run began, its phases, those of calls beside it, and the ticks in it."""

    place: int
    arm: Arm
    begun_ns: int
    spans: Spans
    beside: Spans
    ticks: list[Tick]


@dataclass
class PhaseLog:
    """The phases of a run's blocks and the meter's ticks that lie in them."""

    timed: list[OfBlock] = field(default_factory=list)

    def add(self, place: int, block: Block, begun_ns: int, beside: Spans, series: _Series) -> None:
        """Of the run's `place`-th block."""
        spans, ended_ns = spans_of(block, begun_ns), begun_ns + sum(block.latencies_ns)
        found = list(ticks(series, spans, begun_ns, ended_ns))
        self.timed.append(OfBlock(place, block.arm, begun_ns, spans, beside, found))

    def ticks(self, blocks: Sequence[Block]) -> dict[Arm, list[Tick]]:
        """By arm, those within blocks that have energy; `blocks` are all of the run."""
        found: dict[Arm, list[Tick]] = {}
        for each in self.timed:
            if ENERGY in blocks[each.place].raw:
                found.setdefault(each.arm, []).extend(each.ticks)
        return found

    def energies(self, blocks: Sequence[Block], beside: Mapping[Arm, Sequence[Tick]]) -> dict[Arm, PhaseEnergy]:
        """By arm, from the ticks `beside` its blocks if there are, else from those within that have energy.

        `blocks` are all of the run.
        """
        within, found = self.ticks(blocks), dict[Arm, PhaseEnergy]()
        for arm in {each.arm: None for each in self.timed if each.spans.prefill}:
            own = [each for each in self.timed if each.arm == arm]
            if beside and arm not in beside:
                continue
            good = [each for each in own if ENERGY in blocks[each.place].raw]
            spans = [each.spans for each in own]
            if arm in beside:
                joules = math.fsum(blocks[each.place].raw[ENERGY] for each in good)
                found[arm] = phase_energy_beside(beside[arm], spans, [each.spans for each in good], joules)
            else:
                found[arm] = phase_energy(within.get(arm, []), spans)
        return found


def _why_not(found: Sequence[Tick]) -> str:
    if len(found) < MIN_TICKS:
        return f"{len(found)} ticks of the meter lie within the calls that it was read in, and {MIN_TICKS} are needed"
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


def _seconds(spans: Sequence[Spans]) -> tuple[float, float]:
    """Of prefill and of decode."""
    prefill_ns = sum(end - begin for each in spans for begin, end in each.prefill)
    decode_ns = sum(end - begin for each in spans for begin, end in each.decode)
    return prefill_ns / 1e9, decode_ns / 1e9


def overlap_s(spans: Sequence[tuple[int, int]], begin: int, end: int) -> float:
    first = max(0, bisect.bisect_left(spans, (begin, 0)) - 1)
    total = 0
    for span_begin, span_end in itertools.islice(spans, first, None):
        if span_begin >= end:
            break
        total += max(0, min(end, span_end) - max(begin, span_begin))
    return total / 1e9
