from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import pytest
from codecarbon_stand_in import CPU, RAM, STOP, Bench, why_void

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument
from compressbench.meters.energy_estimate import EstimatedEnergy

CHILD = (4711, 12.5)


def test_an_estimate_is_watts_per_thread_times_cpu_seconds() -> None:
    window = Bench(CPU()).window()
    assert window.seconds == pytest.approx(1.0)
    assert window.values == {"energy_j": pytest.approx(8 / 2 * 0.9)}
    # two edges anywhere within a tick of 10 ms, one thread busy: sqrt(2) x 0.01 / sqrt(12) s at 4 W
    assert window.uncertainties == {"energy_j": pytest.approx(4 * math.sqrt(2) * 0.01 / math.sqrt(12))}


def test_more_busy_threads_have_more_edges_to_be_uncertain_about() -> None:
    window = Bench(CPU()).window(end=STOP._replace(own_cpu_s=1.0 + 8.0))
    assert window.values["energy_j"] == pytest.approx(32.0)
    assert window.uncertainties["energy_j"] == pytest.approx(8 * 4 * 0.01 / math.sqrt(6))


def test_the_memory_is_a_constant_power_and_says_that_it_is_modelled() -> None:
    bench = Bench(CPU(), RAM(5.0 / 3.6e6))
    window = bench.window(end=STOP._replace(monotonic_s=13.0))
    assert window.values == {"energy_j": pytest.approx(3.6), "ram_energy_j": pytest.approx(15.0)}
    assert window.uncertainties["ram_energy_j"] == 0
    assert bench.meter.provenances["ram_energy_j"].kind == "modelled"


@pytest.mark.parametrize("answer", [0.0, None, RuntimeError("no such process"), float("nan")])
def test_without_a_number_for_the_memory_its_name_is_absent(answer: object) -> None:
    assert Bench(CPU(), RAM(answer)).window().values == {"energy_j": pytest.approx(3.6)}
    assert set(Bench(CPU()).meter.provenances) == {"energy_j"}


def test_windows_come_in_their_order_and_only_once() -> None:
    bench = Bench(CPU())
    for cpu_s in (0.5, 0.25, 2.0):
        bench.mark(end=STOP._replace(own_cpu_s=1.0 + cpu_s))
    assert [window.values["energy_j"] for window in bench.meter.collect()] == pytest.approx([2.0, 1.0, 8.0])
    assert bench.meter.collect() == []


@pytest.mark.parametrize("mode", ["cpu_load", "constant"])
def test_codecarbon_is_not_asked_at_the_marks(mode: str) -> None:
    bench = Bench(CPU(mode=mode))
    bench.cpu.num_asked = 0
    bench.mark()
    assert bench.cpu.num_asked == 0


@pytest.mark.parametrize(
    ("mode", "kind", "boundary", "is_ticking"),
    [
        ("intel_rapl", "measured", "cpu package (whole machine)", True),
        ("windows_emi", "measured", "cpu package (whole machine)", True),
        ("cpu_load", "estimated", "cpu (this process)", True),
        ("constant", "modelled", "cpu (whole machine)", False),
    ],
)
def test_the_mode_decides_the_kind(mode: str, kind: str, boundary: str, is_ticking: bool) -> None:
    meter: Instrument = Bench(CPU(mode=mode)).meter
    how = meter.provenances["energy_j"]
    assert (how.kind, how.boundary) == (kind, boundary)
    assert mode in how.source
    assert how.relative_uncertainty is None
    assert how.uncertainty_reason
    assert (how.tick_s is not None) == is_ticking


@pytest.mark.parametrize("mode", ["intel_power_gadget", "apple_powermetrics", "a new mode"])
def test_a_mode_that_samples_another_time_than_the_window_is_refused(mode: str) -> None:
    with pytest.raises(MeterError, match=f"codecarbon's mode '{mode}' samples the power after a window"):
        Bench(CPU(mode=mode))


def test_the_source_names_the_assumed_watts() -> None:
    assert "8 W assumed for 2 busy threads" in Bench(CPU()).meter.provenances["energy_j"].source


@pytest.mark.parametrize("factor", [0.5, 0.98, 1.02, 2.0])
def test_a_codecarbon_that_counts_otherwise_is_refused_when_opened(factor: float) -> None:
    with pytest.raises(MeterError, match=r"is not watts per thread x CPU-seconds .got \d+ J where 2000 J"):
        Bench(CPU(factor=factor))


@pytest.mark.parametrize(("name", "value"), [("_tdp", None), ("_cpu_count", 0), ("_cpu_count", "many")])
def test_a_codecarbon_that_has_no_watts_is_refused_when_opened(name: str, value: object) -> None:
    cpu = CPU()
    setattr(cpu, name, value)
    with pytest.raises(MeterError, match="asking for its watts"):
        Bench(cpu)


IMPOSSIBLE = [
    (None, "TypeError"),
    (RuntimeError("the file vanished"), "the file vanished"),
    (-1e-6, "impossible energy"),
    (float("nan"), "impossible energy"),
    (float("inf"), "impossible energy"),
]


@pytest.mark.parametrize(("answer", "reason"), [*IMPOSSIBLE, (0.0, "the counter that codecarbon reads is stuck")])
def test_a_counter_without_an_answer_is_an_error_when_opened(answer: object, reason: str) -> None:
    with pytest.raises(MeterError, match=reason):
        Bench(CPU(answer, "intel_rapl"))


@pytest.mark.parametrize(("answer", "reason"), [*IMPOSSIBLE, (0.0, "0 J for a window of 1 s")])
@pytest.mark.parametrize("mode", ["intel_rapl", "windows_emi"])
def test_an_answer_that_a_counter_does_not_give_voids_its_window_only(answer: object, reason: str, mode: str) -> None:
    bench = Bench(CPU(2e-6, mode))
    bench.mark()
    bench.cpu.kilowatt_hours = answer
    bench.mark()
    bench.cpu.kilowatt_hours = 3e-6
    bench.mark()
    before, void, after = bench.meter.collect()
    assert before.values == {"energy_j": pytest.approx(7.2)}
    assert after.values == {"energy_j": pytest.approx(10.8)}
    assert reason in void.reason


@pytest.mark.parametrize(("answer", "reason"), IMPOSSIBLE)
def test_a_constant_without_a_number_breaks_the_meter(answer: object, reason: str) -> None:
    bench = Bench(CPU(answer, "constant"))
    bench.mark()
    with pytest.raises(MeterError, match=reason):
        bench.meter.collect()


def test_a_constant_of_nothing_is_no_number() -> None:
    assert why_void(Bench(CPU(0.0, "constant"))) == "codecarbon assumes 0 W for this processor"


def test_a_counter_is_uncertain_by_its_tick_at_both_edges() -> None:
    bench = Bench(CPU(2e-6, "intel_rapl"))
    how, window = bench.meter.provenances["energy_j"], bench.window()
    assert how.tick_s == pytest.approx(0.001)  # the watch above goes on by a millisecond per reading
    assert window.uncertainties["energy_j"] == pytest.approx(7.2 / 1.0 * 0.001 / math.sqrt(6))


def test_a_counter_that_can_not_be_started_says_why() -> None:
    bench = Bench(CPU(mode="intel_rapl"))
    bench.cpu.start = lambda: 1 / 0  # type: ignore[method-assign, assignment]
    with pytest.raises(MeterError, match=r"starting a window .got ZeroDivisionError"):
        bench.meter.start()


def test_a_process_that_did_nothing_is_below_resolution_and_not_0_j() -> None:
    assert "below resolution: 0.004 s of CPU time in a window of 1 s" in why_void(
        Bench(CPU()), end=STOP._replace(own_cpu_s=1.004)
    )


@pytest.mark.parametrize("ended_s", [0.031, 0.4])
def test_a_child_process_that_ended_voids_an_estimate(ended_s: float) -> None:
    assert "child processes ended" in why_void(Bench(CPU()), end=STOP._replace(ended_children_cpu_s=ended_s))


def test_a_negligible_child_that_ended_is_part_of_the_uncertainty() -> None:
    window = Bench(CPU()).window(end=STOP._replace(ended_children_cpu_s=0.02))
    assert window.uncertainties["energy_j"] == pytest.approx(4 * math.hypot(0.01 / math.sqrt(6), 0.02))


def test_a_living_child_that_computes_voids_the_windows_since_the_last_look() -> None:
    bench = Bench(CPU())
    bench.children = {CHILD: 7.0}
    bench.meter.collect()
    assert bench.window().values == {"energy_j": pytest.approx(3.6)}
    bench.children = {CHILD: 7.5}
    bench.mark()
    bench.mark()
    assert [window.reason for window in bench.meter.collect()] == [
        "child processes used 0.5 s of CPU time, and when can't be said"
    ] * 2
    assert bench.window().values == {"energy_j": pytest.approx(3.6)}


def test_a_new_child_under_a_used_number_is_charged_in_full() -> None:
    bench = Bench(CPU())
    bench.children = {CHILD: 7.0}
    bench.meter.collect()
    bench.children = {(CHILD[0], 99.0): 6.0}
    assert "used 6 s" in why_void(bench)


def test_counters_do_not_care_for_children() -> None:
    bench = Bench(CPU(2e-6, "intel_rapl"))
    bench.children = {CHILD: 7.0}
    assert bench.window(end=STOP._replace(ended_children_cpu_s=3.0)).values["energy_j"] == pytest.approx(7.2)


def test_a_counter_that_could_not_be_read_voids_the_window() -> None:
    bench = Bench(CPU(mode="intel_rapl"))
    bench.cpu._intel_interface._rapl_files[0].sample_skipped = True
    assert "dropped the interval" in why_void(bench)


def test_a_counter_that_may_have_wrapped_twice_voids_the_window() -> None:
    long = STOP._replace(monotonic_s=300.0)
    assert "wrapped more than once in a window of 290 s" in why_void(Bench(CPU(mode="intel_rapl")), end=long)
    assert Bench(CPU(mode="windows_emi")).window(end=long).values


def test_a_counter_that_was_reset_voids_the_window() -> None:
    assert "161844 J in 1 s is implausible" in why_void(Bench(CPU(161_844 / 3.6e6, mode="intel_rapl")))


@pytest.mark.parametrize(("mode", "most_w"), [("intel_rapl", 1000.0), ("windows_emi", 5000.0)])
def test_more_than_the_processor_can_draw_is_a_reset(mode: str, most_w: float) -> None:
    assert "implausible" in why_void(Bench(CPU(1.01 * most_w / 3.6e6, mode)))
    assert Bench(CPU(0.99 * most_w / 3.6e6, mode)).window().values["energy_j"] == pytest.approx(0.99 * most_w)


def test_a_window_needs_a_start_of_its_own() -> None:
    meter = Bench(CPU()).meter
    with pytest.raises(MeterError, match="before it was started"):
        meter.stop()
    meter.start()
    meter.close()
    with pytest.raises(MeterError, match="before it was started"):
        meter.stop()


def test_a_machine_without_a_cpu_in_codecarbon_is_an_error() -> None:
    with pytest.raises(MeterError, match="tracks no CPU"):
        EstimatedEnergy(SimpleNamespace(_hardware=[]))


def test_hardware_of_other_makers_says_its_part_and_is_refused() -> None:
    board = [SimpleNamespace(chip_part="RAM"), SimpleNamespace(chip_part="CPU")]
    with pytest.raises(MeterError, match="samples the power after a window"):
        EstimatedEnergy(SimpleNamespace(_hardware=board))
    with pytest.raises(MeterError, match="tracks no CPU"):
        EstimatedEnergy(SimpleNamespace(_hardware=board[:1]))


def test_without_codecarbon_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "codecarbon"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(MeterError, match=r"pip install .codecarbon"):
        EstimatedEnergy()
