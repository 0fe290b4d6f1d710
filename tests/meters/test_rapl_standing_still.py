"""A RAPL counter that stands still for a part of a window, or whose tick becomes slower, gives no wrong number."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from compressbench.meters import powercap_log
from compressbench.meters.energy_rapl import RaplEnergy
from compressbench.testing.event_clock import EventClock
from compressbench.testing.powercap import FakeDomain, FakePowercap


class Bench:
    """A meter of one package of 100 W, and one of memory of 9 W, in simulated time."""

    def __init__(self, folder: Path, **package: Any) -> None:
        domains = [
            FakeDomain("intel-rapl:0", "package-0", 100.0, **package),
            FakeDomain("intel-rapl:0:1", "dram", 9.0),
        ]
        self.tree = FakePowercap(folder, domains, EventClock())
        self.meter = RaplEnergy(self.tree.machine)

    def advance(self, seconds: float) -> None:
        self.tree.clock.advance(seconds)

    def stand_still(self, seconds: float, name: str = "package-0", *, loses: bool = True) -> None:
        """What is used meanwhile is lost, or comes with the next increment."""
        domain = self.tree[name]
        shown_uj = domain.raw_uj(self.tree.now_s)
        self.tree.fail(name, "stuck")
        self.advance(seconds)
        self.tree.fail(name, "")
        if loses:
            domain.reset(self.tree.now_s, shown_uj)

    def reason(self) -> str:
        (window,) = self.meter.collect()
        assert bool(window.values) != bool(window.reason)
        return window.reason


@pytest.mark.parametrize("loses", [True, False])
@pytest.mark.parametrize(("before_s", "still_s", "after_s"), [
    (0.5, 0.5, 0.0),
    (0.2, 2.8, 0.0),
    (0.0, 0.5, 0.5),
    (0.5, 2.0, 0.5),
    (0.03, 0.06, 0.03),
    (5.0, 0.1, 5.0),
])  # fmt: skip
def test_a_counter_that_stands_still_for_a_part_of_a_window_voids_it(
    tmp_path: Path, before_s: float, still_s: float, after_s: float, loses: bool
) -> None:
    bench = Bench(tmp_path)
    bench.meter.start()
    bench.advance(before_s)
    bench.stand_still(still_s, loses=loses)
    bench.advance(after_s)
    bench.meter.stop()
    # what comes all at once looks like a reset
    assert re.search(r"package-0 \(intel-rapl:0\)(: counter_reset| stood still for .* of the window)", bench.reason())
    bench.advance(1.0)
    bench.meter.start()
    bench.advance(1.0)
    bench.meter.stop()
    assert bench.reason() == ""


def test_a_counter_that_stood_still_before_or_after_the_window_does_not_void_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.stand_still(1.0)
    bench.advance(0.002)
    bench.meter.start()
    bench.advance(1.0)
    bench.meter.stop()
    bench.advance(0.001)
    bench.stand_still(1.0)
    assert bench.reason() == ""


@pytest.mark.parametrize("still_s", [0.03, 0.1, 0.4, 1.0])
def test_a_counter_that_has_just_come_back_is_not_slow(tmp_path: Path, still_s: float) -> None:
    bench = Bench(tmp_path)
    bench.stand_still(still_s)
    bench.advance(0.01)
    bench.meter.start()
    bench.advance(0.1)
    bench.meter.stop()
    assert bench.reason() == ""


def test_memory_that_stands_still_for_a_part_of_the_window_is_left_out_of_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.meter.start()
    bench.advance(0.5)
    bench.stand_still(0.5, "dram")
    bench.advance(0.5)
    bench.meter.stop()
    (window,) = bench.meter.collect()
    assert window.values == pytest.approx({"energy_j": 150.0}, rel=2e-3)


@pytest.mark.parametrize("seed", range(10))
def test_a_tick_that_gets_ten_times_slower_voids_the_windows_whose_uncertainty_it_would_belie(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    bench = Bench(tmp_path)
    bench.tree["package-0"].tick_s = 0.01
    bench.advance(0.5 + rng.uniform(0.0, 0.01))
    for _ in range(6):
        bench.advance(rng.uniform(0.0, 0.1))
        bench.meter.start()
        bench.advance(rng.uniform(0.1, 0.4))
        bench.meter.stop()
        assert "package-0 (intel-rapl:0) " in bench.reason()


def test_a_tick_that_was_slow_from_the_beginning_is_none_that_has_changed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, tick_s=0.1)
    for seconds in (10.0, 20.0):
        bench.meter.start()
        bench.advance(seconds)
        bench.meter.stop()
        assert bench.reason() == ""


def test_an_increment_that_comes_late_now_and_then_voids_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.meter.start()
    for _ in range(20):
        bench.advance(0.2)
        bench.stand_still(0.006, loses=False)
    bench.advance(0.2)
    bench.meter.stop()
    assert bench.reason() == ""


def test_the_counter_is_read_at_least_four_times_in_the_shortest_window(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    before = len(bench.meter._log._polls)
    bench.advance(bench.meter.min_window_s)
    assert 8 <= len(bench.meter._log._polls) - before <= 10


def test_readings_that_nobody_collects_become_rarer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(powercap_log, "MAX_POLLS", 100)
    bench = Bench(tmp_path)
    bench.advance(60.0)
    assert len(bench.meter._log._polls) < 100 + 60 / 0.25 + 2
