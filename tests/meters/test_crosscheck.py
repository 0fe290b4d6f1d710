"""A second meter beside the first: its values, its failures, and when the two are said to disagree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from record_builder import measurement

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument, Provenance, Window
from compressbench.meters.crosscheck import Chosen
from compressbench.meters.energy_nvml import NvmlEnergy
from compressbench.meters.energy_nvml_power import NvmlPower
from compressbench.records.crosscheck import disagreement, meters_disagree
from compressbench.records.measurement import Block, Idle, Measurement
from compressbench.testing import ReplayInstrument
from compressbench.testing.event_clock import EventClock
from compressbench.testing.nvml import FakeGpu, FakeNvml

Answer = Mapping[str, float] | str | Exception


def meter(*windows: Answer) -> ReplayInstrument:
    made = ReplayInstrument(windows)
    how = Provenance(kind="measured", source="replayed", boundary="device", relative_uncertainty=0.0, tick_s=0.001)
    made.provenances = {"energy_j": how, **made.provenances}
    return made


def run(instrument: Instrument, count: int) -> list[Window]:
    for _ in range(count):
        instrument.start()
        instrument.stop()
    return instrument.collect()


def values(windows: Sequence[Window]) -> list[dict[str, float]]:
    return [dict(window.values) for window in windows]


def test_both_are_marked_for_the_same_windows_the_second_around_the_first() -> None:
    order: list[str] = []

    class Logged(ReplayInstrument):
        def __init__(self, name: str) -> None:
            super().__init__([{"energy_j": 1.0}])
            self.name = name

        def start(self) -> None:
            order.append(f"{self.name} start")

        def stop(self) -> None:
            order.append(f"{self.name} stop")

    chosen = Chosen(Logged("first"), Logged("second"))
    chosen.start()
    chosen.stop()
    assert order == ["second start", "first start", "first stop", "second stop"]


def test_values_stand_side_by_side_with_a_provenance_each() -> None:
    first, second = meter({"energy_j": 10.0, "dram_energy_j": 1.0}), meter({"energy_j": 9.0, "ram_energy_j": 7.0})
    chosen = Chosen(first, second)
    assert values(run(chosen, 2)) == [{"energy_j": 10.0, "dram_energy_j": 1.0, "crosscheck_energy_j": 9.0}] * 2
    assert set(chosen.provenances) == {"energy_j", "dram_energy_j", "crosscheck_energy_j"}


def test_alone_it_is_the_first_meter_with_notes() -> None:
    chosen = Chosen(meter({"energy_j": 10.0}), notes=["RAPL: no powercap tree"])
    assert values(run(chosen, 1)) == [{"energy_j": 10.0}]
    assert chosen.provenances["energy_j"].notes == ("RAPL: no powercap tree",)
    assert "crosscheck_energy_j" not in chosen.provenances


def test_it_asks_for_the_window_of_the_first_meter() -> None:
    first, second = meter({"energy_j": 1.0}), meter({"energy_j": 1.0})
    first.min_window_s, second.min_window_s = 0.5, 30.0
    assert Chosen(first, second).min_window_s == 0.5


def test_a_void_window_of_the_first_stays_void() -> None:
    chosen = Chosen(meter("counter_reset", {"energy_j": 10.0}), meter({"energy_j": 9.0}))
    void, good = run(chosen, 2)
    assert (void.values, void.reason) == ({}, "counter_reset")
    assert good.values == {"energy_j": 10.0, "crosscheck_energy_j": 9.0}


def test_a_void_window_of_the_second_is_missing_and_noted() -> None:
    chosen = Chosen(meter({"energy_j": 10.0}), meter("counter_reset", {"energy_j": 9.0}, {"energy_j": 9.1}))
    assert values(run(chosen, 3)) == [
        {"energy_j": 10.0},
        {"energy_j": 10.0, "crosscheck_energy_j": 9.0},
        {"energy_j": 10.0, "crosscheck_energy_j": 9.1},
    ]
    assert chosen.provenances["crosscheck_energy_j"].notes == ("1 windows without a value: counter_reset",)


class Failing(ReplayInstrument):
    """Raises where it is told to."""

    def __init__(self, where: str, error: Exception) -> None:
        super().__init__([{"energy_j": 9.0}])
        self._where, self._error = where, error

    def _call(self, name: str) -> Any:
        if name == self._where:
            raise self._error
        return getattr(super(), name)()

    def start(self) -> None:
        self._call("start")

    def stop(self) -> None:
        self._call("stop")

    def collect(self) -> list[Window]:
        found: list[Window] = self._call("collect")
        return found

    def close(self) -> None:
        self._call("close")


@pytest.mark.parametrize("error", [MeterError("GPU is lost"), ZeroDivisionError("division by zero")])
@pytest.mark.parametrize("where", ["start", "stop", "collect"])
def test_a_second_that_fails_costs_the_first_nothing(where: str, error: Exception) -> None:
    first, second = meter({"energy_j": 10.0}), Failing(where, error)
    chosen = Chosen(first, second)
    assert values(run(chosen, 3)) == [{"energy_j": 10.0}] * 3
    assert chosen.provenances["crosscheck_energy_j"].notes == (f"failed: {error}",)
    chosen.close()
    assert first.calls[-1] == second.calls[-1] == "close"


def test_a_second_with_other_windows_than_the_first_is_dropped() -> None:
    first, second = meter({"energy_j": 10.0}), meter({"energy_j": 9.0})
    chosen = Chosen(first, second)
    second.start()
    second.stop()
    assert values(run(chosen, 2)) == [{"energy_j": 10.0}] * 2
    assert "other windows than the first (got 3 for 2)" in chosen.provenances["crosscheck_energy_j"].notes[0]


def test_a_second_that_can_not_be_closed_does_no_harm() -> None:
    first = meter({"energy_j": 10.0})
    Chosen(first, Failing("close", MeterError("gone"))).close()
    assert first.calls == ["close"]


@pytest.mark.parametrize("where", ["start", "stop", "collect", "close"])
def test_a_first_that_fails_says_so_and_the_second_is_closed(where: str) -> None:
    second = meter({"energy_j": 9.0})
    chosen = Chosen(Failing(where, MeterError("unplugged")), second)

    def use() -> None:
        run(chosen, 1)
        chosen.close()

    with pytest.raises(MeterError, match="unplugged"):
        use()
    if where == "close":
        assert second.calls[-1] == "close"
    if where == "stop":
        assert second.calls == ["start", "stop"]


@pytest.mark.parametrize(
    ("primary", "second", "flag"),
    [
        (100.0, 100.0, ""),
        (100.0, 105.0, ""),
        (100.0, 95.0, ""),
        (100.0, 105.1, "+5.1%"),
        (100.0, 94.9, "-5.1%"),
        (187.0, 327.0, "+74.9%"),
        (100.0, 0.0, "-100.0%"),
        (0.0, 1.0, "can't be compared"),
        (-1.0, 1.0, "can't be compared"),
        (float("nan"), 1.0, "can't be compared"),
        (1.0, float("inf"), "can't be compared"),
    ],
)
def test_more_than_5_percent_apart_is_a_flag(primary: float, second: float, flag: str) -> None:
    said = meters_disagree(primary, second)
    assert (flag in said) if flag else (said == "")


def measured(kind: Any, *raws: dict[str, float]) -> Measurement:
    first = Provenance(kind="measured", source="counter", boundary="gpu", relative_uncertainty=0.05, tick_s=0.1)
    second = Provenance(kind=kind, source="power", boundary="gpu", relative_uncertainty=0.05, tick_s=0.1)
    blocks = tuple(Block(round=0, position=0, arm="baseline", latencies_ns=(1,), raw=raw) for raw in raws)
    how = {"energy_j": first, "crosscheck_energy_j": second}
    return measurement().model_copy(update={"blocks": blocks, "provenance": how})


def pair(first: float, second: float) -> dict[str, float]:
    return {"energy_j": first, "crosscheck_energy_j": second}


def test_all_windows_that_both_have_are_compared_together() -> None:
    noisy = (pair(10.0, 11.0), pair(10.0, 9.0))
    assert disagreement(measured("measured", *noisy)) == ""
    assert "20 J, but the second read 22 J" in disagreement(measured("measured", pair(10, 11), pair(10, 11)))
    assert disagreement(measured("measured", *noisy, {"energy_j": 500.0})) == ""


def test_idle_windows_count_because_blocks_may_be_too_short_for_the_second() -> None:
    """Zeus' issue 181: 187 J and 327 J for the same 5 s of idling."""
    idle = Idle(when="before", seconds=5.0, raw=pair(187.0, 327.0), uncertainties=pair(1.0, 1.0))
    made = measured("measured", {"energy_j": 10.0})
    assert disagreement(made) == ""
    assert "+74.9%" in disagreement(made.model_copy(update={"idle": (idle,)}))


def test_an_estimate_is_not_held_against_a_counter() -> None:
    assert disagreement(measured("estimated", pair(10.0, 30.0))) == ""
    assert disagreement(measured("measured", pair(10.0, 30.0))) != ""


def test_without_a_second_meter_there_is_nothing_to_disagree_with() -> None:
    assert disagreement(measured("measured", {"energy_j": 10.0})) == ""
    assert disagreement(measurement()) == ""


def gpu_meters(clock: EventClock, power_gain: float, **gpu: Any) -> tuple[Chosen, FakeNvml]:
    """The energy counter of a simulated GPU, checked by its power, whose gain is another."""
    counter = FakeNvml(clock, FakeGpu(power=[(0.0, 300.0)], **gpu))
    power = FakeNvml(clock, FakeGpu(power=[(0.0, 300.0)], gain=power_gain, **gpu))
    first = NvmlEnergy(0, nvml=counter, timing=clock.timing)
    return Chosen(first, NvmlPower(0, nvml=power, timing=clock.timing)), counter


@pytest.mark.parametrize(
    ("power_gain", "flag"), [(1.0, False), (0.96, False), (1.04, False), (0.9, True), (1.75, True)]
)
def test_power_of_another_gain_than_the_counter_is_flagged(power_gain: float, flag: bool) -> None:
    """1.75 is what Zeus' issue 181 reports of a real card."""
    clock = EventClock()
    chosen, nvml = gpu_meters(clock, power_gain)
    begin_ns = clock.now_ns
    for _ in range(3):
        chosen.start()
        clock.advance(10.0)
        chosen.stop()
    end_ns, windows = clock.now_ns, chosen.collect()
    chosen.close()
    joules = [sum(window.values[name] for window in windows) for name in ("energy_j", "crosscheck_energy_j")]
    assert joules[0] == pytest.approx(nvml.joules_between(begin_ns, end_ns), rel=2e-3)
    assert joules[1] == pytest.approx(power_gain * nvml.joules_between(begin_ns, end_ns), rel=0.01)
    assert bool(meters_disagree(*joules)) == flag


def test_power_that_can_not_be_read_for_a_while_costs_the_counter_nothing() -> None:
    clock = EventClock()
    counter = FakeNvml(clock, FakeGpu())
    power = FakeNvml(clock, FakeGpu(lost_at_s=30.0, back_at_s=35.0))
    first = NvmlEnergy(0, nvml=counter, timing=clock.timing)
    chosen = Chosen(first, NvmlPower(0, nvml=power, timing=clock.timing))
    for _ in range(5):
        chosen.start()
        clock.advance(10.0)
        chosen.stop()
    windows = chosen.collect()
    chosen.close()
    assert all(window.values["energy_j"] == pytest.approx(4000.0, rel=2e-3) for window in windows)
    has_second = ["crosscheck_energy_j" in window.values for window in windows]
    assert has_second.count(False) in (1, 2)
    assert has_second[-1]
    assert any("GPU is lost" in note for note in chosen.provenances["crosscheck_energy_j"].notes)


def test_the_series_of_the_first_meter_is_given_on_if_it_keeps_one() -> None:
    class Keeping(ReplayInstrument):
        def series(self, begin_ns: int, end_ns: int) -> list[tuple[int, float]]:
            return [(begin_ns, 1.0), (end_ns, 2.0)]

    window = [{"energy_j": 1.0}]
    assert Chosen(Keeping(window), ReplayInstrument(window)).series(5, 9) == [(5, 1.0), (9, 2.0)]
    assert Chosen(ReplayInstrument(window), Keeping(window)).series(5, 9) is None


def test_the_lead_is_that_of_the_first_meter() -> None:
    class Leading(ReplayInstrument):
        wants_lead = True

        def lead(self, *, before: bool) -> Callable[[], bool]:
            return lambda: before

    window = [{"energy_j": 1.0}]
    chosen = Chosen(Leading(window), ReplayInstrument(window))
    assert chosen.wants_lead
    assert chosen.lead(before=True)()
    assert not chosen.lead(before=False)()
    assert not Chosen(ReplayInstrument(window), Leading(window)).wants_lead
