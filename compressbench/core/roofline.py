"""How near a measured time comes to what the device can do at most: MBU, MFU, ideal time, overhead. Pure arithmetic.

The roofline of Williams, Waterman and Patterson (2009): work needs at least the time to read its bytes at the measured
bandwidth, and at least the time to multiply at the measured matrix rate. Whatever a pass takes beyond the longer of the
two is overhead of the stack: launches, unpacking, activations, Python.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from compressbench.core.statistics import Interval, t_quantile

OVERHEAD_BOUND = 0.5
"""A share of overhead above this marks a row: differences in latency and energy say more of the stack than of the model."""
_SMALLEST_FIT = 4

CACHED = "weights fit the last-level cache; copy bandwidth of memory is not the limit"
ABOVE_CEILING = "above the measured ceiling: part of it stayed in a cache, or the ceiling was measured under load"
OVERHEAD = "overhead-bound: energy and latency deltas reflect the stack"


class Ceilings(NamedTuple):
    """Measured limits of a device. `flops_per_s` by data type; `cache_bytes` of its last-level cache, None if unknown."""

    bytes_per_s: float
    flops_per_s: Mapping[str, float]
    cache_bytes: int | None = None


class Demand(NamedTuple):
    """What a pass needs at least: bytes to read, and operations by the data type in which they are done."""

    num_bytes: float
    flops: Mapping[str, float]


class Roof(NamedTuple):
    """A measured time under the roof. None where it isn't known, and then `notes` say why.

    `mbu` and `mfu` are the shares of the bandwidth and of the matrix rate; the larger is the share of the limit.
    `overhead_share` is what the ideal time leaves of the measured one, a lower bound where weights fit the cache.
    """

    mbu: float
    mfu: float | None
    ideal_s: float | None
    bound: Literal["memory", "compute"] | None
    overhead_share: float | None
    is_overhead_bound: bool | None
    notes: tuple[str, ...]


class Affine(NamedTuple):
    """seconds = overhead_s + bytes / bytes_per_s, with 95 % intervals; no bandwidth if time doesn't grow with bytes."""

    overhead_s: Interval
    seconds_per_byte: Interval

    @property
    def bytes_per_s(self) -> Interval | None:
        """An upper end that the data don't bound is infinite."""
        slope, low, high = self.seconds_per_byte
        return Interval(1 / slope, 1 / high, 1 / low if low > 0 else math.inf) if slope > 0 else None

    def seconds_at(self, num_bytes: float) -> float:
        return self.overhead_s.value + num_bytes * self.seconds_per_byte.value

    def is_overhead_bound_at(self, num_bytes: float) -> bool:
        """Whether the constant part is more than half of the time there."""
        return self.overhead_s.value > OVERHEAD_BOUND * self.seconds_at(num_bytes)


def mbu(num_bytes: float, seconds: float, bytes_per_s: float) -> float:
    """Model bandwidth utilisation: bytes per measured second, over the bandwidth that was measured."""
    return num_bytes / _positive(seconds, "seconds") / _positive(bytes_per_s, "bytes_per_s")


def mfu(flops: float, seconds: float, flops_per_s: float) -> float:
    """Model FLOPs utilisation: operations per measured second, over the matrix rate of the same data type."""
    return flops / _positive(seconds, "seconds") / _positive(flops_per_s, "flops_per_s")


def memory_seconds(demand: Demand, ceilings: Ceilings) -> float:
    return demand.num_bytes / _positive(ceilings.bytes_per_s, "bytes_per_s")


def compute_seconds(demand: Demand, ceilings: Ceilings) -> float | None:
    """The time that all products take one after the other at their types' rates; None if a rate is missing."""
    if missing_rates(demand, ceilings):
        return None
    return math.fsum(
        flops / _positive(ceilings.flops_per_s[dtype], "flops_per_s") for dtype, flops in demand.flops.items() if flops
    )


def missing_rates(demand: Demand, ceilings: Ceilings) -> list[str]:
    """Data types in which products are done and whose rate was not measured."""
    return [dtype for dtype, flops in demand.flops.items() if flops and dtype not in ceilings.flops_per_s]


def ideal_seconds(demand: Demand, ceilings: Ceilings) -> float | None:
    """The longer of reading and multiplying, which can overlap; None if a matrix rate is missing."""
    compute_s = compute_seconds(demand, ceilings)
    return None if compute_s is None else max(memory_seconds(demand, ceilings), compute_s)


def fits_cache(demand: Demand, ceilings: Ceilings) -> bool:
    return ceilings.cache_bytes is not None and demand.num_bytes <= ceilings.cache_bytes


def roof(demand: Demand, ceilings: Ceilings, seconds: float) -> Roof:
    """Put a measured time under the roof. Raises ValueError for a time that isn't positive."""
    memory_s, compute_s = memory_seconds(demand, ceilings), compute_seconds(demand, ceilings)
    used = mbu(demand.num_bytes, seconds, ceilings.bytes_per_s)
    is_cached = fits_cache(demand, ceilings)
    ideal_s = None if compute_s is None else max(memory_s, compute_s)
    # of the time that is surely needed, and of the most that can be
    low, high = _floor(memory_s, compute_s, is_cached=is_cached)
    is_bound = _is_overhead_bound(low, high, seconds)
    notes = [
        *([CACHED] if is_cached else []),
        *(f"no matrix rate of {dtype} was measured" for dtype in missing_rates(demand, ceilings)),
        *([ABOVE_CEILING] if max(used, (compute_s or 0) / seconds) > 1 and not is_cached else []),
        *([OVERHEAD] if is_bound else []),
    ]
    return Roof(
        mbu=used,
        mfu=None if compute_s is None else compute_s / seconds,
        ideal_s=ideal_s,
        bound=_bound(memory_s, compute_s, is_cached=is_cached),
        overhead_share=None if ideal_s is None else max(0.0, 1 - ideal_s / seconds),
        is_overhead_bound=is_bound,
        notes=tuple(notes),
    )


def _floor(memory_s: float, compute_s: float | None, *, is_cached: bool) -> tuple[float, float]:
    """Between which two times the true lower limit lies: a cache is faster than memory, by an unknown factor."""
    low = max(0.0 if is_cached else memory_s, compute_s or 0.0)
    return low, math.inf if compute_s is None else max(memory_s, compute_s)


def _is_overhead_bound(floor_low_s: float, floor_high_s: float, seconds: float) -> bool | None:
    if 1 - floor_high_s / seconds > OVERHEAD_BOUND:
        return True
    return False if 1 - floor_low_s / seconds <= OVERHEAD_BOUND else None


def _bound(memory_s: float, compute_s: float | None, *, is_cached: bool) -> Literal["memory", "compute"] | None:
    if compute_s is None:
        return None
    if compute_s > memory_s:
        return "compute"
    return None if is_cached else "memory"


def ideal_speed_up(baseline: Demand, candidate: Demand, ceilings: Ceilings) -> float | None:
    """The ratio of ideal times: that of the bytes where both are memory-bound. None if a matrix rate is missing."""
    ours, theirs = ideal_seconds(candidate, ceilings), ideal_seconds(baseline, ceilings)
    return theirs / _positive(ours, "ideal seconds") if ours is not None and theirs is not None else None


def attained_share(speed_up: float, ideal: float) -> float:
    """The measured speed-up over the ideal one. Of memory-bound passes it is the ratio of both MBUs."""
    return _positive(speed_up, "speed_up") / _positive(ideal, "ideal speed-up")


def line_through(num_bytes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope of the least-squares line. Raises ValueError for fewer than two different abscissae."""
    if len(set(num_bytes)) < 2:
        raise ValueError(f"a line needs two different numbers of bytes (got {sorted(set(num_bytes))})")
    mean_x, mean_y = math.fsum(num_bytes) / len(num_bytes), math.fsum(seconds) / len(seconds)
    around = [x - mean_x for x in num_bytes]
    slope = math.fsum(x * (y - mean_y) for x, y in zip(around, seconds, strict=True)) / math.fsum(x * x for x in around)
    return mean_y - slope * mean_x, slope


def fit_affine(num_bytes: Sequence[float], seconds: Sequence[float]) -> Affine:
    """Least squares with Student's intervals, over at least four sizes. Raises ValueError below that.

    The intervals suppose errors of equal size in the seconds; models of different kernels don't lie on one line.
    """
    count = len(num_bytes)
    if count < _SMALLEST_FIT:
        raise ValueError(f"a fit needs at least {_SMALLEST_FIT} points (got {count})")
    intercept, slope = line_through(num_bytes, seconds)
    left = math.fsum((y - intercept - slope * x) ** 2 for x, y in zip(num_bytes, seconds, strict=True))
    mean = math.fsum(num_bytes) / count
    spread = math.fsum((x - mean) ** 2 for x in num_bytes)
    sd = math.sqrt(left / (count - 2))
    reach = t_quantile(0.975, count - 2) * sd
    at_zero, per_byte = reach * math.sqrt(1 / count + mean**2 / spread), reach / math.sqrt(spread)
    return Affine(
        Interval(intercept, intercept - at_zero, intercept + at_zero),
        Interval(slope, slope - per_byte, slope + per_byte),
    )


def _positive(value: float, name: str) -> float:
    if not value > 0 or math.isinf(value):
        raise ValueError(f"{name} has to be positive and finite (got {value})")
    return value
