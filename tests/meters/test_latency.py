from __future__ import annotations

import time

from compressbench.core.registry import meters
from compressbench.measure.blocks import Tools
from compressbench.meters.latency import Latency


def test_the_word_latency_asks_for_every_call_to_be_timed() -> None:
    assert meters.resolve("latency") is Latency
    assert Latency().scope == "call"


def test_the_clock_of_the_loop_cannot_be_set_back() -> None:
    assert Tools({}).clock is time.perf_counter_ns
    assert time.get_clock_info("perf_counter").monotonic
    assert not time.get_clock_info("perf_counter").adjustable
