from __future__ import annotations

import math
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument, Window
from compressbench.meters.edges import REAL_TIME
from compressbench.meters.energy_rapl import EnergyRapl, RaplEnergy
from compressbench.meters.powercap import Machine
from compressbench.testing.event_clock import EventClock
from compressbench.testing.fakes import FakeClock
from compressbench.testing.nvml_device import Power
from compressbench.testing.powercap import SMALL_RANGE_UJ, FakeDomain, FakePowercap


def package(watts: Power = 120.0, **more: Any) -> FakeDomain:
    return FakeDomain("intel-rapl:0", "package-0", watts, **more)


def core(watts: float = 60.0) -> FakeDomain:
    return FakeDomain("intel-rapl:0:0", "core", watts)


def dram(watts: float = 9.0, **more: Any) -> FakeDomain:
    return FakeDomain("intel-rapl:0:1", "dram", watts, **more)


def near_the_top(joules: float, range_uj: int = SMALL_RANGE_UJ) -> dict[str, int]:
    return {"range_uj": range_uj, "start_uj": range_uj - round(joules * 1e6)}


def make_tree(folder: Path, *domains: FakeDomain, clock: FakeClock | None = None) -> FakePowercap:
    return FakePowercap(folder, domains or [package()], clock or EventClock())


def measure(meter: RaplEnergy, tree: FakePowercap, seconds: float) -> tuple[Window, float]:
    """A window, and the true joules of the first package in it."""
    meter.start()
    begin_s = tree.now_s
    tree.clock.advance(seconds)
    end_s = tree.now_s
    meter.stop()
    return meter.collect()[-1], tree.domains[0].true_joules(begin_s, end_s)


@pytest.mark.parametrize("tick_s", [0.001, 0.01])
def test_joules_are_power_times_time_within_the_stated_uncertainty(tmp_path: Path, tick_s: float) -> None:
    tree = make_tree(tmp_path, package(tick_s=tick_s))
    meter = RaplEnergy(tree.machine)
    rng = random.Random(0)
    errors = []
    for _ in range(300):
        tree.clock.advance(rng.uniform(0.0, 0.05))
        window, true_j = measure(meter, tree, rng.uniform(0.1, 1.0) * tick_s * 1e3)
        assert window.uncertainties["energy_j"] == pytest.approx(120 * tick_s / math.sqrt(6), rel=0.1)
        errors.append((window.values["energy_j"] - true_j) / window.uncertainties["energy_j"])
    # the difference of two uniform lags has a triangular distribution
    assert max(map(abs, errors)) < math.sqrt(6) * 1.1
    assert sum(error**2 for error in errors) / len(errors) == pytest.approx(1.0, abs=0.25)
    assert 0.5 < sum(abs(error) < 1 for error in errors) / len(errors) < 0.8


def test_packages_are_added_parts_and_platform_are_not_and_memory_stands_for_itself(tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path,
        package(120.0),
        core(60.0),
        dram(9.0),
        FakeDomain("intel-rapl:1", "package-1", 80.0, start_uj=70_000_000_000),
        FakeDomain("intel-rapl:1:0", "dram", 6.0),
        FakeDomain("intel-rapl:2", "psys", 400.0),
    )
    meter = RaplEnergy(tree.machine)
    window, _ = measure(meter, tree, 2.0)
    assert window.values == pytest.approx({"energy_j": 400.0, "dram_energy_j": 30.0}, rel=1e-3)
    expected_j = math.hypot(120, 80) * 1e-3 / math.sqrt(6)
    assert window.uncertainties["energy_j"] == pytest.approx(expected_j, rel=0.05)
    assert "package-0 (intel-rapl:0), package-1 (intel-rapl:1)" in meter.provenances["energy_j"].source


def test_the_provenance_says_what_is_known_of_the_counter(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, package(), dram())
    meter: Instrument = (rapl := RaplEnergy(tree.machine))
    how, memory = meter.provenances["energy_j"], meter.provenances["dram_energy_j"]
    assert (how.kind, how.boundary) == ("measured", "cpu package (whole machine)")
    assert how.source.startswith("RAPL (a model in the silicon)")
    assert how.relative_uncertainty is None
    assert "Khan 2018" in how.uncertainty_reason
    assert "Fahad 2019" in how.uncertainty_reason
    assert how.tick_s == pytest.approx(1e-3, rel=0.02)
    assert memory.boundary == "memory (whole machine)"
    assert "Desrochers 2016" in memory.uncertainty_reason
    assert meter.min_window_s == pytest.approx(100 * rapl.tick_s)


@pytest.mark.parametrize("tick_s", [0.001, 0.01, 0.1])
def test_the_tick_is_found(tmp_path: Path, tick_s: float) -> None:
    meter = RaplEnergy(make_tree(tmp_path, package(tick_s=tick_s)).machine)
    assert meter.tick_s == pytest.approx(tick_s, rel=0.02)
    assert f"tick {meter.tick_s * 1e3:.3g} ms" in meter.provenances["energy_j"].notes[0]


def test_the_tick_is_that_of_the_slowest_package(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, package(), FakeDomain("intel-rapl:1", "package-1", 50.0, start_uj=7, tick_s=0.01))
    assert RaplEnergy(tree.machine).tick_s == pytest.approx(0.01, rel=0.02)


def test_memory_may_have_a_tick_of_its_own(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, package(), dram(9.0, tick_s=0.005))
    meter = RaplEnergy(tree.machine)
    assert meter.provenances["energy_j"].tick_s == pytest.approx(0.001, rel=0.02)
    assert meter.provenances["dram_energy_j"].tick_s == pytest.approx(0.005, rel=0.02)
    window, _ = measure(meter, tree, 1.0)
    assert window.uncertainties["dram_energy_j"] == pytest.approx(9 * 0.005 / math.sqrt(6), rel=0.1)


def test_many_wraps_in_one_window_are_all_counted(tmp_path: Path) -> None:
    """At 225 W a counter of 65.5 kJ wraps every 291 s; who looks at it twice in 600 s sees 3,936 J of 135,000."""
    tree = make_tree(tmp_path, package(225.0, range_uj=SMALL_RANGE_UJ), core(100.0))
    window, true_j = measure(RaplEnergy(tree.machine), tree, 600.0)
    assert true_j == pytest.approx(135_000)
    assert window.values["energy_j"] == pytest.approx(true_j, abs=3 * window.uncertainties["energy_j"])
    assert window.uncertainties["energy_j"] < 0.2


@pytest.mark.parametrize("seed", range(5))
def test_a_wrap_of_a_lone_counter_is_counted_and_its_doubt_is_stated(tmp_path: Path, seed: int) -> None:
    tree = make_tree(tmp_path, package(150.0, **near_the_top(random.Random(seed).uniform(100.0, 600.0))))
    meter = RaplEnergy(tree.machine)
    window, true_j = measure(meter, tree, 5.0)
    edges_j = 150 * 1e-3 / math.sqrt(6)
    assert window.values["energy_j"] == pytest.approx(true_j, abs=3 * edges_j)
    # two readings some 5 ms apart enclose the wrap: at most 1 kW times that and two ticks can be wrong
    assert 1.0 < window.uncertainties["energy_j"] < 1000 * 0.012 / math.sqrt(3)
    after, _ = measure(meter, tree, 5.0)
    assert after.uncertainties["energy_j"] == pytest.approx(edges_j, rel=0.1)


def test_a_part_that_went_on_proves_that_it_was_a_wrap(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, package(150.0, **near_the_top(300.0)), core())
    window, true_j = measure(RaplEnergy(tree.machine), tree, 5.0)
    assert window.values["energy_j"] == pytest.approx(true_j, abs=3 * window.uncertainties["energy_j"])
    assert window.uncertainties["energy_j"] == pytest.approx(150 * 1e-3 / math.sqrt(6), rel=0.1)


def test_a_wrap_that_could_be_a_reset_by_half_of_the_joules_is_void(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, package(5.0, **near_the_top(2.5)))
    window, _ = measure(RaplEnergy(tree.machine), tree, 1.0)
    assert "ambiguous wrap" in window.reason


def test_a_reset_voids_its_window_and_no_other(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    tree.clock.advance(500.0)
    meter = RaplEnergy(tree.machine)
    for is_reset in (False, True, False):
        meter.start()
        tree.clock.advance(1.0)
        if is_reset:
            tree.reset()
        tree.clock.advance(1.0)
        meter.stop()
    before, void, after = meter.collect()
    assert before.values["energy_j"] == pytest.approx(240.0, rel=1e-3)
    assert "counter_reset" in void.reason
    assert after.values["energy_j"] == pytest.approx(240.0, rel=1e-3)


def test_the_void_window_says_where_the_counter_jumped(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, package(), core())
    tree.clock.advance(500.0)
    meter = RaplEnergy(tree.machine)
    meter.start()
    tree.clock.advance(1.0)
    tree.reset()
    tree.clock.advance(1.0)
    meter.stop()
    (window,) = meter.collect()
    assert not window.values
    assert window.seconds == pytest.approx(2.0, abs=1e-3)
    assert "package-0 (intel-rapl:0): counter_reset: 61" in window.reason
    assert "core (intel-rapl:0:0): counter_reset" in window.reason


def test_a_reset_between_windows_touches_none(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    tree.clock.advance(500.0)
    meter = RaplEnergy(tree.machine)
    for _ in range(3):
        tree.reset()
        tree.clock.advance(1.0)
        window, true_j = measure(meter, tree, 1.0)
        assert window.values["energy_j"] == pytest.approx(true_j, rel=1e-3)


@pytest.mark.parametrize("to_uj", [0, None])
def test_a_suspension_voids_its_window_whether_the_counter_is_reset_or_not(tmp_path: Path, to_uj: int | None) -> None:
    tree = make_tree(tmp_path)
    meter = RaplEnergy(tree.machine)
    meter.start()
    tree.clock.advance(1.0)
    tree.suspend(3600.0, to_uj)
    tree.clock.advance(1.0)
    meter.stop()
    (void,) = meter.collect()
    assert void.reason == "package-0 (intel-rapl:0): the machine was suspended for 3.6e+03 s"
    after, true_j = measure(meter, tree, 1.0)
    assert after.values["energy_j"] == pytest.approx(true_j, rel=1e-3)


@pytest.mark.parametrize("seed", range(40))
def test_no_reset_gives_a_wrong_joule_even_where_it_looks_like_a_wrap(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    watts = rng.uniform(20.0, 400.0)
    tree = make_tree(tmp_path, package(watts, **near_the_top(rng.uniform(0.0, 2.0) * watts)))
    meter = RaplEnergy(tree.machine)
    meter.start()
    begin_s = tree.now_s
    tree.clock.advance(rng.uniform(0.0, 2.0))
    tree.reset()
    tree.clock.advance(rng.uniform(0.2, 1.0))
    end_s = tree.now_s
    meter.stop()
    (window,) = meter.collect()
    true_j = tree["package-0"].true_joules(begin_s, end_s)
    assert window.reason or abs(window.values["energy_j"] - true_j) <= 3 * window.uncertainties["energy_j"]


def test_without_the_polling_thread_a_long_window_is_void(tmp_path: Path) -> None:
    """As when the machine is so crowded that the thread gets no turn."""
    tree = make_tree(tmp_path, package(start_uj=50_000_000_000), clock=FakeClock())
    meter = RaplEnergy(tree.machine)
    window, true_j = measure(meter, tree, 1.5)
    assert window.values["energy_j"] == pytest.approx(true_j, rel=1e-3)
    window, _ = measure(meter, tree, 3.0)
    assert window.reason == "package-0 (intel-rapl:0): gap of 3 s between two readings: what happened in it is unknown"


def test_another_power_at_the_end_of_the_window_is_in_the_uncertainty(tmp_path: Path) -> None:
    """The last tick is missing, and it was not one of mean power."""
    errors = []
    for phase in range(10):
        (folder := tmp_path / str(phase)).mkdir()
        tree = make_tree(folder, package(10.0))
        meter = RaplEnergy(tree.machine)
        tree.clock.advance(1.0 + phase * 1e-4)
        meter.start()
        begin_s = tree.now_s
        tree.clock.advance(9.0)
        tree.set_power(400.0)
        tree.clock.advance(0.4 + phase * 3e-4)
        end_s = tree.now_s
        meter.stop()
        (window,) = meter.collect()
        error_j = window.values["energy_j"] - tree["package-0"].true_joules(begin_s, end_s)
        errors.append(error_j / window.uncertainties["energy_j"])
    assert max(map(abs, errors)) < 3
    assert max(map(abs, errors)) > 0.5


def test_a_window_of_a_few_ticks_is_below_resolution(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    window, _ = measure(RaplEnergy(tree.machine), tree, 0.005)
    assert window.reason.startswith("below_resolution: 0.005")


@pytest.mark.parametrize("fault", ["garbage", "empty", "unreadable", "denied"])
def test_a_reading_that_fails_within_a_window_voids_it_and_the_next_is_right(tmp_path: Path, fault: Any) -> None:
    tree = make_tree(tmp_path)
    meter = RaplEnergy(tree.machine)
    meter.start()
    tree.clock.advance(0.3)
    tree.fail("package-0", fault)
    tree.clock.advance(0.3)
    tree.fail("package-0", "")
    tree.clock.advance(0.4)
    meter.stop()
    meter.start()
    tree.clock.advance(1.0)
    meter.stop()
    void, good = meter.collect()
    assert "package-0 (intel-rapl:0)" in void.reason
    assert "gave no number" in void.reason or "could not be read" in void.reason
    assert good.values["energy_j"] == pytest.approx(120.0, rel=1e-3)


@pytest.mark.parametrize("fault", ["garbage", "unreadable", "vanished"])
def test_a_reading_that_fails_at_the_end_of_a_window_voids_it(tmp_path: Path, fault: Any) -> None:
    tree = make_tree(tmp_path, package(), dram())
    meter = RaplEnergy(tree.machine)
    meter.start()
    tree.clock.advance(0.2)
    tree.fail("package-0", fault)
    meter.stop()
    (window,) = meter.collect()
    assert window.reason
    assert not window.values


def test_a_counter_that_disappears_ends_the_measurement(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    meter = RaplEnergy(tree.machine)
    meter.start()
    tree.clock.advance(0.5)
    tree.fail("package-0", "vanished")
    tree.clock.advance(0.5)
    meter.stop()
    with pytest.raises(MeterError, match=r"has disappeared .*No such device"):
        meter.start()
    (window,) = meter.collect()
    assert "No such device" in window.reason


def test_a_counter_that_stands_still_gives_no_zero(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, package(), FakeDomain("intel-rapl:1", "package-1", 50.0, start_uj=99))
    meter = RaplEnergy(tree.machine)
    tree.fail("package-1", "stuck")
    measure(meter, tree, 1.0)  # which still has what was counted before it got stuck
    window, _ = measure(meter, tree, 1.0)
    assert window.reason == "package-1 (intel-rapl:1): stuck: it did not move in 1 s"


def test_memory_that_stands_still_is_left_out_of_the_window(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, package(), dram())
    meter = RaplEnergy(tree.machine)
    tree.fail("dram", "stuck")
    measure(meter, tree, 1.0)
    window, _ = measure(meter, tree, 1.0)
    assert window.values.keys() == {"energy_j"}


def test_no_tree_is_an_error_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match=r"no RAPL energy counter .*containers hide it"):
        RaplEnergy(Machine(root=tmp_path / "nothing"))


def test_a_platform_counter_alone_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match="no RAPL energy counter"):
        RaplEnergy(make_tree(tmp_path, FakeDomain("intel-rapl:0", "psys")).machine)


def test_no_permission_says_how_to_get_it(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    tree.fail("package-0", "denied")
    with pytest.raises(MeterError, match=r"can't be opened .*package-0: Permission denied.*Since Linux 5\.10"):
        RaplEnergy(tree.machine)


def test_a_part_without_permission_is_done_without(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, package(), dram())
    tree.fail("dram", "denied")
    assert RaplEnergy(tree.machine).provenances.keys() == {"energy_j"}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("garbage", "can't be read .*gave no number: b'<unknown>'"),
        ("empty", "gave no number: b''"),
        ("unreadable", "Input/output error"),
        ("stuck", "is stuck: it moved at most once in 5 s"),
    ],
)
def test_a_package_that_can_not_be_read_is_an_error(tmp_path: Path, fault: Any, message: str) -> None:
    tree = make_tree(tmp_path, package(), dram())
    tree.fail("package-0", fault)
    with pytest.raises(MeterError, match=message):
        RaplEnergy(tree.machine)


@pytest.mark.parametrize("text", ["", "many", "0", "-5"])
def test_a_range_that_is_no_number_is_an_error(tmp_path: Path, text: str) -> None:
    tree = make_tree(tmp_path)
    (tree.root / "intel-rapl:0" / "max_energy_range_uj").write_text(text)
    with pytest.raises(MeterError, match=r"range .*is no number"):
        RaplEnergy(tree.machine)


def test_a_counter_beyond_its_range_is_an_error(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    (tree.root / "intel-rapl:0" / "max_energy_range_uj").write_text("1000")
    with pytest.raises(MeterError, match="beyond its range of 1000 uJ"):
        RaplEnergy(tree.machine)


def test_memory_that_never_counts_is_left_out_with_the_reason(tmp_path: Path) -> None:
    meter = RaplEnergy(make_tree(tmp_path, package(), dram(0.0)).machine)
    assert meter.provenances.keys() == {"energy_j"}
    assert any(
        note.startswith("left out: dram (intel-rapl:0:1) is stuck") for note in meter.provenances["energy_j"].notes
    )


def uneven(second: float) -> float:
    """Of an idle part: it counts in three milliseconds of 22, close together and far apart."""
    return 5.0 if int(second * 1e3) % 22 in (2, 4, 15) else 0.0


@pytest.mark.parametrize("shift_ms", range(0, 22, 2))
def test_a_part_that_moves_a_few_times_and_unevenly_is_left_out_with_the_reason(tmp_path: Path, shift_ms: int) -> None:
    uncore = FakeDomain("intel-rapl:0:1", "uncore", lambda second: uneven(second + shift_ms / 1e3))
    tree = make_tree(tmp_path, package(20.0), uncore)
    meter = RaplEnergy(tree.machine)
    window, true_j = measure(meter, tree, 1.0)
    assert window.values["energy_j"] == pytest.approx(true_j, rel=1e-2)
    left_out = [note for note in meter.provenances["energy_j"].notes if note.startswith("left out")]
    if shift_ms == 16:  # gaps of 9 and 11 ms look like a tick
        assert left_out == []
    else:
        why = "is stuck: it moved 2 in 0.02" if shift_ms == 6 else "moves unevenly: 3 times, "
        assert left_out[0].startswith(f"left out: uncore (intel-rapl:0:1) {why}")


@pytest.mark.parametrize("seed", range(30))
def test_no_part_however_it_moves_keeps_the_packages_from_being_read(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    busy = {number for number in range(3000) if rng.random() < 1 / 6}
    uncore = FakeDomain("intel-rapl:0:1", "uncore", lambda second: 0.2 if int(second * 1e3) in busy else 0.0)
    tree = make_tree(tmp_path, package(20.0), uncore)
    window, true_j = measure(RaplEnergy(tree.machine), tree, 1.0)
    assert window.values["energy_j"] == pytest.approx(true_j, rel=1e-2)


def test_a_package_that_moves_unevenly_is_read_with_its_median_tick(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, package(lambda second: 20.0 if int(second * 1e3) % 22 in (2, 4, 15) else 0.0))
    assert RaplEnergy(tree.machine).tick_s == pytest.approx(7e-3, rel=0.5)


def test_a_second_die_that_mirrors_the_first_is_not_counted_twice(tmp_path: Path) -> None:
    dies = [FakeDomain(f"intel-rapl:{die}", f"package-0-die-{die}", 120.0) for die in range(3)]
    tree = make_tree(tmp_path, *dies)
    meter = RaplEnergy(tree.machine)
    window, true_j = measure(meter, tree, 1.0)
    assert window.values["energy_j"] == pytest.approx(true_j, rel=1e-3)
    notes = meter.provenances["energy_j"].notes
    assert sum("is the same counter as package-0-die-0 (intel-rapl:0)" in note for note in notes) == 2


def test_the_second_way_to_the_counters_is_taken_only_where_there_is_no_first(tmp_path: Path) -> None:
    mmio = FakeDomain("intel-rapl-mmio:0", "package-0", 120.0, start_uj=3)
    for name, domains in {"both": [package(), mmio], "one": [mmio]}.items():
        (folder := tmp_path / name).mkdir()
        tree = make_tree(folder, *domains)
        window, true_j = measure(RaplEnergy(tree.machine), tree, 1.0)
        assert window.values["energy_j"] == pytest.approx(true_j, rel=1e-3)


def test_windows_come_in_their_order_and_an_open_one_later(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    meter = RaplEnergy(tree.machine)
    for seconds in (1.0, 2.0, 3.0):
        meter.start()
        tree.clock.advance(seconds)
        meter.stop()
    meter.start()
    tree.clock.advance(4.0)
    assert [round(window.values["energy_j"]) for window in meter.collect()] == [120, 240, 360]
    assert meter.collect() == []
    tree.clock.advance(1.0)
    meter.stop()
    assert [round(window.values["energy_j"]) for window in meter.collect()] == [600]


def test_starting_twice_and_stopping_without_a_start_are_errors(tmp_path: Path) -> None:
    meter = RaplEnergy(make_tree(tmp_path).machine)
    with pytest.raises(MeterError, match="stopped before it was started"):
        meter.stop()
    meter.start()
    with pytest.raises(MeterError, match="started twice"):
        meter.start()


def test_a_poll_in_the_middle_of_a_mark_does_no_harm(tmp_path: Path) -> None:
    """The fake clock runs due polls while a reading takes its time, as a thread would."""
    tree = make_tree(tmp_path, package(), core(), clock=(clock := EventClock()))
    meter = RaplEnergy(tree.machine)
    fake, polled = tree.machine, list[int]()

    def interrupted(fd: int, size: int, offset: int) -> bytes:
        text = fake.pread(fd, size, offset)
        if not clock._is_running:
            clock._is_running = True
            polled.append(clock())
            clock.now_ns += 2_000_000  # the mark gets no turn for two ticks, then the poll does
            meter._poll()
            clock._is_running = False
        return text

    meter._machine = fake._replace(pread=interrupted)
    for _ in range(20):
        window, true_j = measure(meter, tree, 0.3)
        assert window.reason == ""
        assert window.values["energy_j"] == pytest.approx(true_j, abs=3 * window.uncertainties["energy_j"] + 0.5)
    assert len(polled) == 80


def test_a_mark_in_the_middle_of_a_poll_does_no_harm(tmp_path: Path) -> None:
    """The thread has read one counter, gets no turn while a window is marked, and reads the other one then."""
    tree = make_tree(tmp_path, package(), core(), clock=(clock := FakeClock()))
    meter = RaplEnergy(tree.machine)
    fake, marks = tree.machine, [meter.start]

    def interrupted(fd: int, size: int, offset: int) -> bytes:
        text = fake.pread(fd, size, offset)
        if marks:
            mark = marks.pop()
            clock.advance(0.002)
            mark()
            clock.advance(0.002)
        return text

    meter._machine = fake._replace(pread=interrupted)
    for _ in range(10):
        marks = [meter.start]
        meter._poll()
        clock.advance(0.3)
        marks = [meter.stop]
        meter._poll()
        (window,) = meter.collect()
        assert window.reason == ""
        assert window.values["energy_j"] == pytest.approx(120 * window.seconds, abs=0.2)


def test_the_thread_polls_and_ends_with_the_meter(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, clock=FakeClock())
    polled = threading.Event()
    fake = tree.machine

    def pread(fd: int, size: int, offset: int) -> bytes:
        if threading.current_thread() is not threading.main_thread():
            polled.set()
        return fake.pread(fd, size, offset)

    before = set(threading.enumerate())
    timing = fake.timing._replace(background=REAL_TIME.background)
    meter = RaplEnergy(fake._replace(timing=timing, pread=pread))
    assert polled.wait(10.0)
    assert len(set(threading.enumerate()) - before) == 1
    meter.close()
    meter.close()
    assert set(threading.enumerate()) == before
    with pytest.raises(MeterError, match="has been closed"):
        meter.start()


def test_the_recipe_word_opens_it_for_the_cpu_only() -> None:
    assert EnergyRapl.scope == "block"
    with pytest.raises(MeterError, match=r"not of this device \(got cuda:0\)"):
        EnergyRapl().open("cuda:0")
