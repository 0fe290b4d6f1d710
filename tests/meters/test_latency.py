from __future__ import annotations

import time

import pytest

from compressbench.core.protocols import Instrument, Meter
from compressbench.core.registry import meters
from compressbench.meters.latency import Latency, Stopwatch
from compressbench.testing import FakeClock, FakeSession


def test_the_word_latency_is_this_meter() -> None:
    meter: Meter = Latency()
    assert meters.resolve("latency") is Latency
    assert meter.scope == "call"
    instrument: Instrument = meter.open("cpu")
    assert instrument.min_window_s == 0.0
    assert instrument.provenance.kind == "measured"


def test_a_window_is_as_long_as_what_happened_in_it() -> None:
    clock = FakeClock()
    session = FakeSession(clock, [0.25, 1e-6, 3600.0])
    watch = Stopwatch(clock)
    found = []
    for _ in range(3):
        clock.advance(17.0)  # between windows
        watch.start()
        session({})
        found.append(watch.stop())
        clock.advance(17.0)
    assert [window["latency_s"] for window in found] == pytest.approx([0.25, 1e-6, 3600.0], rel=1e-12)
    assert all(window.keys() == {"latency_s"} for window in found)
    watch.close()


def test_a_window_starts_anew_every_time() -> None:
    clock = FakeClock()
    watch = Stopwatch(clock)
    watch.start()
    clock.advance(5.0)
    watch.start()
    clock.advance(1.0)
    assert watch.stop() == {"latency_s": 1.0}


def test_nanoseconds_are_not_lost_late_in_the_life_of_a_machine() -> None:
    clock = FakeClock(start_ns=10**18)  # thirty years; as a float, a step of the clock would be 128 ns
    watch = Stopwatch(clock)
    watch.start()
    clock.now_ns += 7
    assert watch.stop()["latency_s"] == 7 / 1e9


def test_the_clock_cannot_be_set_back() -> None:
    watch = Latency().open("cpu")
    assert watch.clock is time.perf_counter_ns
    assert time.get_clock_info("perf_counter").monotonic
    assert not time.get_clock_info("perf_counter").adjustable
