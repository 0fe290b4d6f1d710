"""Windows of doing nothing, and net energy above them."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from typing import Any

import pytest
from record_builder import measurement

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument, Provenance
from compressbench.measure.idle import read_idle
from compressbench.meters.energy_nvml import NvmlEnergy
from compressbench.records.idle_power import IdlePower, idle_power, net_energy, net_of
from compressbench.records.measurement import Block, Idle
from compressbench.testing import BrokenInstrument, FakeClock, ReplayInstrument
from compressbench.testing.event_clock import EventClock
from compressbench.testing.nvml import FakeGpu, FakeNvml

MEASURED = Provenance(kind="measured", source="a counter", boundary="gpu", relative_uncertainty=0.05, tick_s=0.1)


def read(seconds: float = 2.0, **instruments: ReplayInstrument) -> Idle:
    clock = FakeClock()
    return read_idle(instruments, seconds, "before", clock.sleep, clock)


def test_one_window_of_sleep_is_read_on_all_instruments() -> None:
    gpu, cpu = ReplayInstrument([{"energy_j": 60.0}]), ReplayInstrument([{"package_j": 3.0}])
    found = read(gpu=gpu, cpu=cpu)
    assert found.when == "before"
    assert found.seconds == pytest.approx(2.0)
    assert found.raw == {"energy_j": 60.0, "package_j": 3.0}
    assert found.uncertainties == {"energy_j": 0.0, "package_j": 0.0}
    assert gpu.calls == cpu.calls == ["collect", "start", "stop", "collect"]


def test_it_lasts_as_long_as_the_slowest_instrument_asks_for() -> None:
    slow = ReplayInstrument([{"energy_j": 60.0}])
    slow.min_window_s = 5.0
    assert read(0.5, gpu=slow).seconds == pytest.approx(5.0)


def test_what_was_left_marked_before_is_not_taken_for_idle() -> None:
    gpu = ReplayInstrument([{"energy_j": 999.0}, {"energy_j": 60.0}])
    gpu.start()
    gpu.stop()
    assert read(gpu=gpu).raw == {"energy_j": 60.0}


def test_a_void_window_and_a_broken_instrument_have_their_reasons() -> None:
    found = read(gpu=BrokenInstrument(0, {}), cpu=ReplayInstrument(["below resolution: 0 s of CPU time"]))
    assert found.raw == {}
    assert found.void == {"gpu": "the instrument was unplugged", "cpu": "below resolution: 0 s of CPU time"}


def test_an_interrupted_sleep_leaves_no_window_behind() -> None:
    gpu = ReplayInstrument([{"energy_j": 60.0}])

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_idle({"gpu": gpu}, 1.0, "after", interrupt, FakeClock())
    assert gpu.calls == ["collect", "start", "stop", "collect"]


def idle(when: Any, joules: float, uncertainty_j: float = 0.0, seconds: float = 2.0) -> Idle:
    return Idle(when=when, seconds=seconds, raw={"energy_j": joules}, uncertainties={"energy_j": uncertainty_j})


def test_idle_power_lies_between_before_and_after_and_is_uncertain_by_the_drift() -> None:
    found = idle_power([idle("before", 60.0, 0.4), idle("after", 66.0, 0.6)], MEASURED)
    assert found.watts == pytest.approx(31.5)
    assert found.drift_w == pytest.approx(3.0)
    assert found.uncertainty_w == pytest.approx(math.sqrt((0.2**2 + 0.3**2) / 4 + 3.0**2 / 12))


def test_several_windows_of_one_time_count_by_their_length() -> None:
    before = [idle("before", 10.0, 0.3, seconds=1.0), idle("before", 60.0, 0.4, seconds=3.0)]
    found = idle_power([*before, idle("after", 35.0, 0.0)], MEASURED)
    assert found.watts == pytest.approx(17.5)
    assert found.uncertainty_w == pytest.approx(0.5 / 4 / 2)


def test_the_stated_uncertainty_is_the_spread_that_a_simulation_finds() -> None:
    """A power that lies anywhere between the two idle powers, read with errors of known size."""
    chance, before_w, after_w, window_w = random.Random(1), 30.0, 33.0, 0.4
    errors: list[float] = []
    for _ in range(20_000):
        read_w = [each + chance.gauss(0, window_w) for each in (before_w, after_w)]
        errors.append(sum(read_w) / 2 - chance.uniform(before_w, after_w))
    found = idle_power([idle("before", 60.0, 0.8), idle("after", 66.0, 0.8)], MEASURED)
    assert found.uncertainty_w == pytest.approx(statistics.pstdev(errors), rel=0.02)


def test_net_is_gross_minus_idle_power_times_time() -> None:
    net = net_energy(400.0, 3.0, 4.0, IdlePower(30.0, 1.0, 0.5))
    assert net.joules == pytest.approx(280.0)
    assert net.uncertainty_j == pytest.approx(math.hypot(3.0, 4.0))
    assert net.reason == ""


@pytest.mark.parametrize("gross_j", [100.0, 120.0, 129.9])
def test_a_net_that_is_not_told_apart_from_idle_is_no_number(gross_j: float) -> None:
    net = net_energy(gross_j, 3.0, 4.0, IdlePower(30.0, 1.0, 0.5))
    assert net.joules is None
    assert "not told apart from idle" in net.reason
    assert net_energy(130.1, 3.0, 4.0, IdlePower(30.0, 1.0, 0.5)).joules == pytest.approx(10.1)


PROCESS = Provenance(kind="estimated", source="codecarbon", boundary="cpu (this process)", tick_s=0.01)
WHOLE = Provenance(kind="modelled", source="codecarbon", boundary="cpu (whole machine)")
BOTH = (idle("before", 60.0), idle("after", 60.0))


@pytest.mark.parametrize(
    ("idles", "how", "reason"),
    [
        (BOTH, None, "no energy was read"),
        (BOTH, PROCESS, "only this process is counted, whose idle power is nothing by construction"),
        (BOTH, WHOLE, "idle power can't be modelled"),
        (BOTH[:1], MEASURED, "idle was not read after the blocks"),
        (BOTH[1:], MEASURED, "idle was not read before the blocks"),
        ((), MEASURED, "idle was not read before the blocks"),
        (
            (BOTH[0], Idle(when="after", seconds=2.0, void={"energy": "counter_reset"})),
            MEASURED,
            "idle was not read after the blocks: counter_reset",
        ),
    ],
)
def test_without_an_idle_power_there_is_a_reason_and_no_net(
    idles: Sequence[Idle], how: Provenance | None, reason: str
) -> None:
    found = idle_power(idles, how)
    assert found.watts is None
    assert found.reason.startswith(reason)
    net = net_energy(400.0, 1.0, 4.0, found)
    assert (net.joules, net.reason) == (None, found.reason)


def block(joules: float | None, seconds: float = 2.0) -> Block:
    raw = {} if joules is None else {"energy_j": joules}
    return Block(
        round=0, position=0, arm="baseline", latencies_ns=(1,), seconds=seconds, raw=raw,
        uncertainties=dict.fromkeys(raw, 3.0),
    )  # fmt: skip


def test_the_net_of_blocks_leaves_out_those_without_a_value_with_their_time() -> None:
    made = measurement().model_copy(update={"idle": BOTH, "provenance": {"energy_j": MEASURED}})
    net = net_of(made, [block(200.0), block(None, 50.0), block(180.0, 1.0)])
    assert net.joules == pytest.approx(380.0 - 30.0 * 3.0)
    assert net.uncertainty_j == pytest.approx(math.hypot(3.0, 3.0))
    assert net_of(made, [block(None)]).reason == "no block has 'energy_j'"


def test_a_broken_instrument_may_be_read_again_afterwards() -> None:
    class Once(ReplayInstrument):
        def start(self) -> None:
            super().start()
            if self.calls.count("start") == 1:
                raise MeterError("the driver was busy")

    meter = Once([{"energy_j": 5.0}])
    assert read(gpu=meter).void == {"gpu": "the driver was busy"}
    assert read(gpu=meter).raw == {"energy_j": 5.0}


@pytest.mark.parametrize("drift_w", [-6.0, 0.0, 6.0])
def test_gross_and_net_of_a_simulated_gpu_hold_the_truth(drift_w: float) -> None:
    """Idle power drifts evenly under work of 340 W; every window is read from a counter of 100 ms."""
    clock = EventClock()
    begins_s, ends_s = 10.0, 40.0

    def power_w(at_s: float) -> float:
        idle_w = 60.0 + drift_w * min(1.0, max(0.0, (at_s - begins_s) / (ends_s - begins_s)))
        return idle_w + (340.0 if begins_s <= at_s < ends_s else 0.0)

    nvml = FakeNvml(clock, FakeGpu(power=power_w))
    meter = NvmlEnergy(0, nvml=nvml, timing=clock.timing)
    instruments: dict[str, Instrument] = {"energy": meter}
    clock.advance(begins_s - 4.0 - nvml.now_s)
    before = read_idle(instruments, 4.0, "before", clock.sleep, clock)
    clock.advance(begins_s - nvml.now_s)
    begin_ns = clock.now_ns
    meter.start()
    clock.advance(ends_s - nvml.now_s)
    meter.stop()
    end_ns = clock.now_ns
    after = read_idle(instruments, 4.0, "after", clock.sleep, clock)
    meter.close()
    gross = nvml.joules_between(begin_ns, end_ns)
    found = idle_power([before, after], MEASURED)
    net = net_energy(gross, 0.0, (end_ns - begin_ns) / 1e9, found)
    assert before.raw["energy_j"] / before.seconds == pytest.approx(60.0, rel=2e-3)
    assert found.drift_w == pytest.approx(drift_w, abs=0.1)
    assert net.joules is not None
    assert net.uncertainty_j is not None
    assert net.joules == pytest.approx(340.0 * (end_ns - begin_ns) / 1e9, abs=2 * net.uncertainty_j)
    assert net.uncertainty_j <= (abs(drift_w) / math.sqrt(12) + 0.1) * 30.0
