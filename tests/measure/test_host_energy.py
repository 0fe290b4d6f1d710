"""Joules of a server by a GPU's counter that must not be read while it answers."""

from __future__ import annotations

import pytest
from nvml_bench import Bench

from compressbench.core.reading import Reading
from compressbench.measure.host_energy import HostEnergy
from compressbench.testing.nvml import FakeGpu

IDLE_W, BUSY_W = 120.0, 500.0


def measured(read_s: float, seconds: float) -> tuple[Reading, int]:
    """The reading of a load, and how often the counter was read within."""
    bench = Bench(FakeGpu(power=IDLE_W, jitter=0.01), read_s=read_s).open()
    host = HostEnergy({"energy": bench.meter}, clock=bench.clock, sleep=bench.clock.advance)
    found = list[Reading]()
    with host.around(found):
        before = bench.nvml.num_reads
        bench.nvml.set_power(BUSY_W)
        bench.clock.advance(seconds)
        bench.nvml.set_power(IDLE_W)
        within = bench.nvml.num_reads - before
    assert host.absent == ""
    (reading,) = found
    return reading, within


@pytest.mark.parametrize("seconds", [1.0, 1.07, 12.34])
def test_the_counter_is_not_read_while_the_server_answers_and_what_is_idle_is_not_charged(seconds: float) -> None:
    reading, within = measured(3.2e-3, seconds)
    assert within == 0
    assert reading.value == pytest.approx(BUSY_W * seconds, rel=0.01 / seconds)
    assert reading.boundary == "host: device"


def test_a_counter_that_is_quick_to_read_is_read_within() -> None:
    reading, within = measured(1e-4, 2.0)
    assert within > 10
    assert reading.value == pytest.approx(BUSY_W * 2.0, rel=0.01)
