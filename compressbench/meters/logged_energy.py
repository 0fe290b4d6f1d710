"""Joules between two moments from samples of power, or of an energy counter, with a standard uncertainty or a reason.

A log that says the same again and again may have lost its meter. That counts as such where most of the samples before
differed from the one before them, and where it is more than three times as long as the log has stood still before and come
back, at least over 10 samples and 5 s of power, or 3 samples of a counter. So an analyser whose resolution is coarse may
say the same for long at a steady load; one that always did, before it froze, can't be told from it.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

MAX_GAP_PERIODS = 3.0
MIN_SAMPLES_INSIDE = 2
MAX_ZEROS = 1
MAX_SAME, MAX_SAME_S, MAX_STILL_PERIODS = 10, 5.0, 3.0
TIMES_EVER_BEFORE = 3
NUM_BEFORE, MIN_BEFORE = 1000, 10


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
    max_w: float = math.inf

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
    return _impossible(samples, first, last) or _frozen(samples, first, last)


def _impossible(samples: Samples, first: int, last: int) -> str:
    """Why what these samples say can't be."""
    values = samples.values[first : last + 1]
    if samples.is_counter and any(later < earlier for earlier, later in pairwise(values)):
        return "counter_reset: the log's energy counter went backwards in the window"
    watts = max(_steps_w(samples, first, last)) if samples.is_counter else max(values)
    if watts > samples.max_w:
        return f"the log has {watts:g} W in the window, more than max_w, {samples.max_w:g} W"
    if samples.is_counter:
        return ""
    if min(values) < 0:
        return f"the log has a negative power in the window: {min(values):g} W"
    num_zeros = max((until - since + 1 for since, until in _runs(values) if values[since] == 0), default=0)
    if max(values) > 0 and num_zeros > MAX_ZEROS:
        return f"the log has {num_zeros} samples of 0 W in a row in the window"
    return ""


def _frozen(samples: Samples, first: int, last: int) -> str:
    """Where the log says the same for too long; see above. It may have begun before the window, and ended after it."""
    begin, end = _same_around(samples.values, first, last)
    begin = max(0, begin - NUM_BEFORE)
    times, values, most_s = (
        samples.times[begin : end + 1],
        samples.values[begin : end + 1],
        _most_same_s(samples, first, last),
    )
    num_pairs, num_same, longest_s = 0, 0, 0.0
    for since, until in _runs(values):
        same_s, has_moved = times[until] - times[since], num_pairs >= MIN_BEFORE and 2 * num_same < num_pairs
        if not has_moved or same_s <= max(most_s, TIMES_EVER_BEFORE * longest_s):
            num_pairs, num_same = num_pairs + until - since + 1, num_same + until - since
            longest_s = max(longest_s, same_s)
        elif begin + until > first and begin + since < last:
            return f"the log stands still for {same_s:.3g} s, at {values[since]:g}, and it moved before"
    return ""


def _same_around(values: Sequence[float], first: int, last: int) -> tuple[int, int]:
    """From where on the first of these values was the same, and how long the last one stays so."""
    begin, end = first, last
    while begin > 0 and values[begin - 1] == values[first]:
        begin -= 1
    while end + 1 < len(values) and values[end + 1] == values[last]:
        end += 1
    return begin, end


def _most_same_s(samples: Samples, first: int, last: int) -> float:
    if not samples.is_counter:
        return max(MAX_SAME * samples.period_s, MAX_SAME_S)
    counted_j = samples.values[last] - samples.values[first]
    # a coarse counter at little power moves rarely
    per_count_s = (
        samples.resolution * (samples.times[last] - samples.times[first]) / counted_j if counted_j else math.inf
    )
    return max(MAX_STILL_PERIODS * samples.period_s, 2 * per_count_s)


def _runs(values: Sequence[float]) -> Iterator[tuple[int, int]]:
    """The first and the last of all values in a row that are the same."""
    since = 0
    for at in range(1, len(values) + 1):
        if at == len(values) or values[at] != values[since]:
            yield since, at - 1
            since = at


def _steps_w(samples: Samples, first: int, last: int) -> list[float]:
    """The power between the samples of a counter."""
    moves = zip(pairwise(samples.times[first : last + 1]), pairwise(samples.values[first : last + 1]), strict=True)
    return [(more - less) / (later - sooner) for (sooner, later), (less, more) in moves]


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
    return _steps_w(samples, first, last) if samples.is_counter else list(samples.values[first : last + 1])


def _scatter(watts: Sequence[float]) -> float:
    """Standard deviation from sample to sample, which a slow change of power does not enter (von Neumann)."""
    return math.sqrt(math.fsum((after - before) ** 2 for before, after in pairwise(watts)) / (2 * (len(watts) - 1)))
