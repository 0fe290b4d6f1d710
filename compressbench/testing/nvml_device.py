"""A GPU as NVML shows it, true in time: power that is integrated, and a counter that only now and then says how far."""

from __future__ import annotations

import bisect
import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Steps = Sequence[tuple[float, float]]
Power = float | Steps | Callable[[float], float]
"""Watts: constant, as steps (since_s, watts), or as a function of the seconds since the fake was made."""

GRID_S = 1e-3


class PowerCurve:
    """Joules since time 0 of a power: exact for constants and steps; a function is constant over every millisecond,
    at its value in the middle, and joules are exact for that."""

    def __init__(self, power: Power) -> None:
        self._function = power if callable(power) else None
        steps = [(0.0, float(power))] if isinstance(power, int | float) else [] if callable(power) else list(power)
        self._since, self._watts, self._joules = list[float](), list[float](), [0.0]
        self._lock = threading.Lock()
        for since_s, watts in steps:
            self.set(since_s, watts)

    def set(self, since_s: float, watts: float) -> None:
        """From this moment on, later than all others, the power is `watts`."""
        if self._function is not None or (self._since and since_s < self._since[-1]):
            raise ValueError("power can only be set after what is known, and not where it is a function")
        if self._since and since_s == self._since[-1]:
            self._watts[-1] = watts
        elif self._since:
            self._joules.append(self._joules[-1] + self._watts[-1] * (since_s - self._since[-1]))
            self._since.append(since_s)
            self._watts.append(watts)
        else:
            self._since, self._watts = [since_s], [watts]

    def joules(self, until_s: float) -> float:
        if self._function is not None:
            return self._joules_of(self._function, until_s)
        place = bisect.bisect_right(self._since, until_s) - 1
        if place < 0:
            return 0.0
        return self._joules[place] + self._watts[place] * (until_s - self._since[place])

    def mean_w(self, begin_s: float, end_s: float) -> float:
        return (self.joules(end_s) - self.joules(begin_s)) / (end_s - begin_s)

    def _joules_of(self, function: Callable[[float], float], until_s: float) -> float:
        place = max(0, math.floor(until_s / GRID_S))
        with self._lock:
            while len(self._joules) <= place + 1:
                middle_s = (len(self._joules) - 0.5) * GRID_S
                self._joules.append(self._joules[-1] + function(middle_s) * GRID_S)
        low, high = self._joules[place], self._joules[place + 1]
        return low + (high - low) * max(0.0, until_s / GRID_S - place)


@dataclass
class FakeGpu:
    """One GPU; all times are seconds since its FakeNvml was made. Fields that end in `_at_s` are faults: never, if inf.

    The counter is updated every `tick_s`, each time off by up to half a `jitter` (fraction of a tick) and visible up to
    `lag_s` later, always to the true energy at the moment of its update times `gain`. Values that are a number or steps
    (since_s, value) may change over time. `unsupported` are names of functions and field constants that raise "Not
    Supported". Of an own process `processes` has its number.
    """

    power: Power = 400.0
    uuid: str = "GPU-00000000-0000-0000-0000-000000000001"
    name: str = "Fake H100"
    tick_s: float = 0.1
    jitter: float = 0.0
    lag_s: float = 0.0
    phase_s: float = 0.0
    gain: float = 1.0
    offset_mj: int = 5_000_000
    seed: int = 0
    lost_at_s: float = math.inf
    back_at_s: float = math.inf
    reset_at_s: float = math.inf
    stuck_at_s: float = math.inf
    unstuck_at_s: float = math.inf
    slow_at_s: float = math.inf
    slow_factor: float = 10.0
    unsupported: frozenset[str] = frozenset()
    power_average_s: float = 1.0
    power_instant_s: float = 0.025
    power_tick_s: float = 0.1
    is_mig: bool | None = None
    processes: Sequence[int] = field(default_factory=lambda: [os.getpid()])
    event_reasons: float | Steps = 0
    sm_clock_mhz: float | Steps = 1980
    memory_clock_mhz: float | Steps = 2619
    temperature_c: float | Steps = 45
    power_limit_w: float | Steps = 700.0
    default_power_limit_w: float = 700.0
    architecture: int = 9
    memory_bytes: int = 80 * 1024**3

    def __post_init__(self) -> None:
        self.curve = PowerCurve(self.power)

    def is_lost(self, now_s: float) -> bool:
        return self.lost_at_s <= now_s < self.back_at_s

    def counter_mj(self, now_s: float) -> int:
        """What the energy counter says at this moment."""
        shown_s = self.stuck_at_s if self.stuck_at_s <= now_s < self.unstuck_at_s else now_s
        updated_s = max(0.0, self._last_update(shown_s))
        if self.reset_at_s <= shown_s:
            joules = self.curve.joules(max(updated_s, self.reset_at_s)) - self.curve.joules(self.reset_at_s)
            return math.floor(self.gain * joules * 1e3)
        return self.offset_mj + math.floor(self.gain * self.curve.joules(updated_s) * 1e3)

    def average_mw(self, now_s: float) -> int:
        """Power of the last `power_average_s`, updated every `power_tick_s`; without an average the momentary one."""
        return self._power_mw(now_s, self.power_average_s or self.power_instant_s)

    def instant_mw(self, now_s: float) -> int:
        return self._power_mw(now_s, self.power_instant_s)

    def _power_mw(self, now_s: float, span_s: float) -> int:
        updated_s = math.floor(now_s / self.power_tick_s + 1e-9) * self.power_tick_s
        if updated_s <= 0.0:
            return round(self.gain * self.curve.mean_w(0.0, 1e-3) * 1e3)
        return round(self.gain * self.curve.mean_w(max(0.0, updated_s - span_s), updated_s) * 1e3)

    def _last_update(self, now_s: float) -> float:
        if now_s >= self.slow_at_s:
            updated_s = self._last_of(now_s, self.slow_at_s, self.tick_s * self.slow_factor)
            if updated_s > self.slow_at_s:
                return updated_s
        return self._last_of(min(now_s, self.slow_at_s), self.phase_s, self.tick_s)

    def _last_of(self, now_s: float, base_s: float, tick_s: float) -> float:
        number = math.floor((now_s - base_s) / tick_s) + 1
        while True:
            updated_s = base_s + tick_s * (number + self.jitter * (self._random(2 * number) - 0.5))
            if updated_s + self.lag_s * self._random(2 * number + 1) <= now_s:
                return updated_s
            number -= 1

    def _random(self, number: int) -> float:
        """The same for the same number, in [0, 1): splitmix64 (Steele, Lea & Flood 2014)."""
        mask = (1 << 64) - 1
        mixed = ((number + (self.seed << 32) + 1) * 0x9E3779B97F4A7C15) & mask
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
        return float((mixed ^ (mixed >> 31)) / 2**64)


def value_at(value: float | Steps, now_s: float) -> Any:
    """A constant, or the last of the steps (since_s, value) that has begun."""
    if isinstance(value, int | float):
        return value
    return [given for since_s, given in value if since_s <= now_s][-1]
