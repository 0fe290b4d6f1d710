"""A deployment's whole life with each candidate: replicas, joules, grams and money, with what making it took.

Replicas are those that serve the peak: requests per second x peak factor / (throughput of one x utilisation), rounded up.
Throughput is measured on one machine; that so many of them serve so many times as much is assumed, so every total is
`modelled`. Replicas are reserved for the whole life; what they draw while they wait is counted if the user says how much.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from compressbench.core.statistics import Interval
from compressbench.core.units import JOULES_PER_KWH
from compressbench.lifecycle.breakeven import DAYS_PER_YEAR, net_saving
from compressbench.lifecycle.one_off import OneOff
from compressbench.lifecycle.savings import Saving, exact, scaled, total, weakest

SECONDS_PER_DAY = 86_400.0
NO_IDLE = "what replicas draw while they wait (--idle-watts)"
_HOURS_PER_DAY = 24.0


class Load(NamedTuple):
    """What is asked of the fleet, and at which prices; None where the user gave nothing."""

    requests_per_day: float
    lifetime_years: float
    utilisation: float = 1.0
    peak_factor: float = 1.0
    idle_watts: float | None = None
    grid_g_per_kwh: float | None = None
    price_per_kwh: float | None = None
    price_per_hour: float | None = None

    @property
    def requests(self) -> float:
        return self.requests_per_day * DAYS_PER_YEAR * self.lifetime_years


class Machine(NamedTuple):
    """One model on one machine: inferences per second and joules per inference; None where `reason` says why."""

    name: str
    throughput_per_s: Interval | None
    joules: Interval | None
    one_off: OneOff
    one_off_seconds: OneOff
    saving: Saving = Saving(None)
    kind: str = "measured"
    reason: str = ""
    no_joules: str = ""
    marks: tuple[str, ...] = ()


class Life(NamedTuple):
    """Totals over the life. `saved_joules` is against the baseline, paired, less the one-off cost."""

    name: str
    replicas: Interval | None
    joules: Interval | None
    grams: Interval | None
    money: Interval | None
    saved_joules: Interval | None
    kind: str = "modelled"
    missing: tuple[str, ...] = ()
    reason: str = ""
    marks: tuple[str, ...] = ()


def replicas_needed(load: Load, throughput_per_s: Interval) -> Interval:
    """Whole machines. More throughput needs fewer of them, at least one. Raises ValueError for what isn't above zero."""
    wanted = (load.requests_per_day, load.lifetime_years, load.utilisation, load.peak_factor, *throughput_per_s)
    if not all(each > 0 and math.isfinite(each) for each in wanted) or load.utilisation > 1 or load.peak_factor < 1:
        raise ValueError(
            f"loads and throughputs are above zero, utilisation at most and a peak at least 1 (got {wanted})"
        )
    peak = load.requests_per_day / SECONDS_PER_DAY * load.peak_factor
    value, low, high = (
        # what fits exactly must not be one more for a rounding error
        float(max(1, math.ceil(peak / (each * load.utilisation) * (1 - 1e-12))))
        for each in throughput_per_s
    )
    return Interval(value, high, low)


def life_of(machine: Machine, load: Load) -> Life:
    if machine.throughput_per_s is None:
        return Life(machine.name, None, None, None, None, None, reason=machine.reason, marks=machine.marks)
    if not (machine.throughput_per_s.low > 0 and math.isfinite(machine.throughput_per_s.high)):
        reason = "the interval of its throughput has no sound lower end"
        return Life(machine.name, None, None, None, None, None, reason=reason, marks=machine.marks)
    replicas = replicas_needed(load, machine.throughput_per_s)
    joules = _joules(machine, load, replicas)
    if joules is None:
        missing = [f"joules: {machine.no_joules or machine.one_off.reason or 'not recorded'}"]
    else:
        missing = [*([] if load.idle_watts is not None else [NO_IDLE]), *machine.one_off.missing]
    return Life(
        machine.name,
        replicas,
        joules,
        _times(joules, load.grid_g_per_kwh),
        _money(machine, load, replicas, joules),
        _saved(machine, load),
        weakest(["modelled", machine.kind, "assumed" if load.idle_watts is not None else ""]),
        tuple(dict.fromkeys(missing)),
        marks=machine.marks,
    )


def _joules(machine: Machine, load: Load, replicas: Interval) -> Interval | None:
    """Of all requests, of waiting, and of what was done once."""
    if machine.joules is None or machine.one_off.value is None or machine.throughput_per_s is None:
        return None
    parts = [scaled(machine.joules, load.requests), machine.one_off.value]
    if load.idle_watts is not None:
        parts.append(_waiting(load, replicas, machine.throughput_per_s))
    return total(parts)


def _waiting(load: Load, replicas: Interval, throughput_per_s: Interval) -> Interval:
    seconds = load.lifetime_years * DAYS_PER_YEAR * SECONDS_PER_DAY
    busy = Interval(*(load.requests / each for each in (throughput_per_s[0], throughput_per_s[2], throughput_per_s[1])))
    watts = load.idle_watts or 0.0
    waits = (
        max(0.0, replicas.value * seconds - busy.value),
        max(0.0, replicas.low * seconds - busy.high),
        max(0.0, replicas.high * seconds - busy.low),
    )
    return scaled(Interval(*waits), watts)


def _times(joules: Interval | None, per_kwh: float | None) -> Interval | None:
    return None if joules is None or per_kwh is None else scaled(joules, per_kwh / JOULES_PER_KWH)


def _money(machine: Machine, load: Load, replicas: Interval, joules: Interval | None) -> Interval | None:
    """Hours of reserved replicas and of what was done once, and kilowatt-hours; None if a priced part is not known."""
    parts: list[Interval] = []
    if load.price_per_hour is not None:
        if machine.one_off_seconds.value is None:
            return None
        hours = load.lifetime_years * DAYS_PER_YEAR * _HOURS_PER_DAY
        parts.append(scaled(replicas, hours * load.price_per_hour))
        parts.append(scaled(machine.one_off_seconds.value, load.price_per_hour / 3600))
    if load.price_per_kwh is not None:
        electricity = _times(joules, load.price_per_kwh)
        if electricity is None:
            return None
        parts.append(electricity)
    return total(parts) if parts else None


def _saved(machine: Machine, load: Load) -> Interval | None:
    if machine.saving.value is None or machine.one_off.value is None:
        return None
    return net_saving(load.requests, machine.one_off.value, machine.saving.value)


def baseline_cost() -> OneOff:
    """A baseline is there already."""
    return OneOff(exact(0.0), "measured")
