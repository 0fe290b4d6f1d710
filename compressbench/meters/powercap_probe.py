"""What RAPL's counters are like on this machine: their tick and its jitter, what a reading costs, which can be trusted."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

from compressbench.core.errors import MeterError
from compressbench.meters.powercap import Domain, Machine, Reading, Role, read

NUM_EDGES, MIN_EDGES = 20, 3
LIMIT_S, SLEEP_S = 5.0, 1e-4


class Probed(NamedTuple):
    """The domains that count with their ticks, and those that don't with the reason.

    `jitter_s` is the standard deviation of the slowest package's tick, `read_s` what a reading of all counters takes.
    """

    ticks_s: dict[Domain, float]
    left_out: dict[Domain, str]
    jitter_s: float
    read_s: float

    def tick_s(self, role: Role) -> float:
        """The slowest tick of the counters of one role."""
        return max(tick_s for domain, tick_s in self.ticks_s.items() if domain.role == role)


def probe(machine: Machine, domains: Sequence[Domain], max_rate_uj: float) -> Probed:
    """Watch the counters for 20 ticks (20 ms; at most 5 s). `max_rate_uj` is the most that one can count per second.

    Raises MeterError if a package's counter can't be read, or stands still.
    """
    first = read(machine, domains)
    if first.failures:
        raise MeterError("a RAPL energy counter can't be read", got="; ".join(first.failures))
    readings = _watch(machine, domains, first)
    gaps = [_gaps(readings, index) for index in range(len(domains))]
    left_out: dict[Domain, str] = {}
    for index, domain in enumerate(domains):
        reason = _trouble(domain, readings, index, len(gaps[index]))
        if not reason and domain.role != "package":
            reason = _unevenness(gaps[index])
        if reason and domain.role == "package":
            raise MeterError(f"the RAPL energy counter of {domain} {reason}", do="Look at its energy_uj file.")
        if reason:
            left_out[domain] = reason
    slowest = max((gaps[index] for index, one in enumerate(domains) if one.role == "package"), key=statistics.median)
    left_out |= _mirrors(domains, readings, max_rate_uj, _typical(slowest))
    ticks_s = {one: _typical(gaps[index]) for index, one in enumerate(domains) if one not in left_out}
    read_s = statistics.median(reading.after_s - reading.before_s for reading in readings)
    return Probed(ticks_s, left_out, statistics.pstdev(slowest), read_s)


def _watch(machine: Machine, domains: Sequence[Domain], first: Reading) -> list[Reading]:
    """Readings until each package has moved often enough."""
    readings, num_moves = [first], [0] * len(domains)
    packages = [index for index, domain in enumerate(domains) if domain.role == "package"]
    while min(num_moves[index] for index in packages) <= NUM_EDGES:
        machine.timing.sleep(SLEEP_S)
        readings.append(read(machine, domains))
        for index in range(len(domains)):
            num_moves[index] += readings[-1].raws[index] != readings[-2].raws[index]
        if readings[-1].after_s > first.before_s + LIMIT_S:
            break
    return readings


def _gaps(readings: Sequence[Reading], index: int) -> list[float]:
    """Seconds between the moves of one counter."""
    moves = [after.middle_s for before, after in pairwise(readings) if before.raws[index] != after.raws[index]]
    return [after - before for before, after in pairwise(moves)]


def _typical(gaps: Sequence[float]) -> float:
    """The mean gap, without those in which increments were missed: readings are a tenth of a tick apart, and a median
    would be one of few multiples of that."""
    near = _near_median(gaps)
    return statistics.fmean(near) if near else statistics.median(gaps)


def _near_median(gaps: Sequence[float]) -> list[float]:
    median = statistics.median(gaps)
    return [gap for gap in gaps if abs(gap - median) < median / 2]


def _unevenness(gaps: Sequence[float]) -> str:
    """Why nothing can be called the tick of a part: it draws so little that it doesn't count something in every one."""
    if 2 * len(_near_median(gaps)) > len(gaps):
        return ""
    return f"moves unevenly: {len(gaps) + 1} times, {min(gaps) * 1e3:.3g} to {max(gaps) * 1e3:.3g} ms apart"


def _trouble(domain: Domain, readings: Sequence[Reading], index: int, num_gaps: int) -> str:
    raws = [reading.raws[index] for reading in readings]
    texts = [raw for raw in raws if isinstance(raw, str)]
    if texts:
        return f"could not be read every time: {texts[0]}"
    outside = [raw for raw in raws if isinstance(raw, int) and raw > domain.largest_uj]
    if outside:
        return f"is beyond its range of {domain.largest_uj} uJ (got {outside[0]})"
    if num_gaps + 1 < MIN_EDGES:
        seconds = readings[-1].after_s - readings[0].before_s
        return f"is stuck: it moved {num_gaps + 1 if num_gaps else 'at most once'} in {seconds:.3g} s, at {raws[-1]} uJ"
    return ""


def _mirrors(
    domains: Sequence[Domain], readings: Sequence[Reading], max_rate_uj: float, tick_s: float
) -> dict[Domain, str]:
    """Packages that show the counter of another one: some kernels have one per die, all with the socket's value."""
    found: dict[Domain, str] = {}
    packages = [(index, domain) for index, domain in enumerate(domains) if domain.role == "package"]
    for (one, original), (two, copy) in combinations(packages, 2):
        # what can have been counted from reading one to reading the other
        apart_uj = [max_rate_uj * (reading.after_s - reading.before_s + tick_s) for reading in readings]
        pairs = [(reading.raws[one], reading.raws[two]) for reading in readings]
        if original not in found and all(map(_is_equal, pairs, apart_uj)):
            found[copy] = f"is the same counter as {original}"
    return found


def _is_equal(raws: tuple[int | str, int | str], apart_uj: float) -> bool:
    first, second = raws
    return isinstance(first, int) and isinstance(second, int) and abs(first - second) <= apart_uj
