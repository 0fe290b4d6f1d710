"""A deployment's whole life: whole machines for the peak, and totals that name what they lack."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from compressbench.core.statistics import Interval
from compressbench.lifecycle.breakeven import DAYS_PER_YEAR
from compressbench.lifecycle.fleet import NO_IDLE, Load, Machine, life_of, replicas_needed
from compressbench.lifecycle.one_off import OneOff
from compressbench.lifecycle.savings import Saving, exact


def machine(**changed: Any) -> Machine:
    once = OneOff(exact(3600.0), "measured")
    fields: dict[str, Any] = {"throughput_per_s": Interval(10.0, 8.0, 12.0), "joules": exact(2.0)}
    return Machine(**{"name": "int8", "one_off": once, "one_off_seconds": once, **fields, **changed})


@pytest.mark.parametrize(
    ("per_second", "throughput", "expected"),
    [(100, (10, 8, 12), (10, 9, 13)), (0.001, (10, 8, 12), (1, 1, 1)), (30, (0.1, 0.1, 0.1), (300, 300, 300))],
)
def test_whole_machines_serve_the_peak(per_second: float, throughput: Any, expected: Any) -> None:
    assert replicas_needed(Load(per_second * 86_400, 1), Interval(*map(float, throughput))) == expected


def test_more_load_needs_no_fewer_and_faster_machines_no_more() -> None:
    rng = np.random.default_rng(3)
    for _ in range(2000):
        rate, speed, used, peak = (float(each) for each in 10 ** rng.uniform([2, -2, -1, 0], [9, 4, 0, 1]))
        load, fast = Load(rate, 1, used, peak), exact(speed)
        found = replicas_needed(load, fast)
        assert found.value >= rate * peak / 86_400 / (speed * used) * (1 - 1e-9)
        assert found.value == 1 or (found.value - 1) * speed * used < rate * peak / 86_400
        assert replicas_needed(load._replace(requests_per_day=2 * rate), fast).value >= found.value
        assert replicas_needed(load, exact(2 * speed)).value <= found.value


def test_by_hand() -> None:
    """864,000 requests a day are 10 per second, at the peak 20: four machines of 10 at half their throughput."""
    load = Load(864_000, 2, 0.5, 2, idle_watts=50, grid_g_per_kwh=360, price_per_kwh=0.36, price_per_hour=1.5)
    found = life_of(machine(throughput_per_s=exact(10.0), saving=Saving(exact(1.0), "measured")), load)
    seconds, requests = 2 * DAYS_PER_YEAR * 86_400, 864_000 * 2 * DAYS_PER_YEAR
    joules = 2 * requests + 3600 + 50 * (4 * seconds - requests / 10)
    assert found.replicas is not None
    assert tuple(found.replicas) == (4, 4, 4)
    assert found.joules == pytest.approx((joules,) * 3)
    assert found.grams == pytest.approx((joules / 1e4,) * 3)
    assert found.money == pytest.approx((4 * seconds / 3600 * 1.5 + 1.5 + joules / 1e7,) * 3)
    assert found.saved_joules == pytest.approx((requests - 3600,) * 3)
    assert (found.missing, found.kind) == ((), "assumed")


def test_what_is_not_known_is_named() -> None:
    load = Load(1e6, 1, price_per_kwh=1)
    assert life_of(machine(), load).missing == (NO_IDLE,)
    assert life_of(machine(), load).kind == "modelled"
    cold = life_of(machine(joules=None, no_joules="no counter"), load)
    assert (cold.joules, cold.money, cold.missing) == (None, None, ("joules: no counter",))
    stuck = life_of(machine(throughput_per_s=None, reason="not steady"), load)
    assert (stuck.replicas, stuck.reason) == (None, "not steady")
    unsure = life_of(machine(throughput_per_s=Interval(10.0, 0.0, 20.0)), load)
    assert (unsure.replicas, "sound" in unsure.reason) == (None, True)


@pytest.mark.parametrize("wrong", [Load(0, 1), Load(1, 1, 1.5), Load(1, 1, 1, 0.5), Load(math.inf, 1)])
def test_impossible_loads_are_refused(wrong: Load) -> None:
    with pytest.raises(ValueError, match="above zero"):
        replicas_needed(wrong, exact(1.0))
