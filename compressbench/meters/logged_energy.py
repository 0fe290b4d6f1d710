"""Joules between two moments from samples of power, or of an energy counter, with a standard uncertainty or a reason."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

MAX_GAP_PERIODS = 3.0
MIN_SAMPLES_INSIDE = 2


class Samples(NamedTuple):
    """Times in seconds, strictly increasing, and watts (or, with `is_counter`, joules so far) at them.

    `faults` are (number of samples before it, reason), `period_s` is the median time between samples, `resolution` what
    the last decimal is worth, `clock_uncertainty_s` the standard uncertainty of the times as a whole.
    """

    times: Sequence[float]
    values: Sequence[float]
    is_counter: bool
    faults: Sequence[tuple[int, str]]
    period_s: float
    resolution: float
    clock_uncertainty_s: float

    @property
    def reach_s(self) -> float:
        """How far from a window's ends power can matter to it."""
        return self.period_s + 2 * self.clock_uncertainty_s


def why_void(samples: Samples, begin_s: float, end_s: float) -> str:
    """Why the samples say nothing certain about this window; "" if they do."""
    times = samples.times
    first, last = bisect.bisect_right(times, begin_s) - 1, bisect.bisect_left(times, end_s)
    faults = [reason for place, reason in samples.faults if first < place <= last]
    if first < 0:
        return f"the log begins {times[0] - begin_s:.3g} s after the window"
    if last >= len(times):
        late = f"the log ends {end_s - times[-1]:.3g} s before the window"
        return "; ".join([late, *faults[-1:]])
    if faults:
        return f"the log has {len(faults)} bad rows in the window: {faults[0]}"
    gap_s = max(later - earlier for earlier, later in pairwise(times[first : last + 1]))
    if gap_s > MAX_GAP_PERIODS * samples.period_s:
        return f"the log has a gap of {gap_s:.3g} s in the window, where samples are {samples.period_s:.3g} s apart"
    if last - first - 1 < MIN_SAMPLES_INSIDE:
        return f"below_resolution: {last - first - 1} samples in a window of {end_s - begin_s:.3g} s"
    values = samples.values[first : last + 1]
    if samples.is_counter and any(later < earlier for earlier, later in pairwise(values)):
        return "counter_reset: the log's energy counter went backwards in the window"
    if not samples.is_counter and min(values) < 0:
        return f"the log has a negative power in the window: {min(values):g} W"
    return ""


def energy(samples: Samples, begin_s: float, end_s: float) -> tuple[float, float]:
    """Joules and their standard uncertainty, of a window that nothing speaks against."""
    if samples.is_counter:
        joules = _value_at(samples, end_s) - _value_at(samples, begin_s)
        return joules, math.hypot(_ends(samples, begin_s, end_s), samples.resolution / math.sqrt(6))
    first, last = bisect.bisect_right(samples.times, begin_s), bisect.bisect_left(samples.times, end_s)
    inside = list(zip(samples.times[first:last], samples.values[first:last], strict=True))
    points = [(begin_s, _value_at(samples, begin_s)), *inside, (end_s, _value_at(samples, end_s))]
    joules = math.fsum((later - sooner) * (one + other) / 2 for (sooner, one), (later, other) in pairwise(points))
    sampling = _scatter([watts for _, watts in inside]) / math.sqrt(len(inside))
    rounding = samples.resolution / math.sqrt(12)
    return joules, math.hypot(_ends(samples, begin_s, end_s), (end_s - begin_s) * math.hypot(sampling, rounding))


def _value_at(samples: Samples, at_s: float) -> float:
    """On the straight line between the two samples around this moment."""
    after = min(max(bisect.bisect_left(samples.times, at_s), 1), len(samples.times) - 1)
    (sooner, later), (one, other) = samples.times[after - 1 : after + 1], samples.values[after - 1 : after + 1]
    return one + (other - one) * (at_s - sooner) / (later - sooner)


def _ends(samples: Samples, begin_s: float, end_s: float) -> float:
    """What the clocks, and a sample's unknown place within its period, can have moved into the window or out of it."""
    watts = [power for at_s in (begin_s, end_s) for power in _powers_around(samples, at_s)]
    return (max(watts) - min(watts)) * math.hypot(samples.clock_uncertainty_s, samples.period_s / math.sqrt(6))


def _powers_around(samples: Samples, at_s: float) -> list[float]:
    """The power around one end of a window: of the samples within reach and of the next one on either side."""
    first = max(bisect.bisect_left(samples.times, at_s - samples.reach_s) - 1, 0)
    last = min(bisect.bisect_right(samples.times, at_s + samples.reach_s), len(samples.times) - 1)
    times, values = samples.times[first : last + 1], samples.values[first : last + 1]
    if not samples.is_counter:
        return list(values)
    moves = zip(pairwise(times), pairwise(values), strict=True)
    return [(more - less) / (later - sooner) for (sooner, later), (less, more) in moves]


def _scatter(watts: Sequence[float]) -> float:
    """Standard deviation from sample to sample, which a slow change of power does not enter (von Neumann)."""
    return math.sqrt(math.fsum((after - before) ** 2 for before, after in pairwise(watts)) / (2 * (len(watts) - 1)))
