from __future__ import annotations

import inspect
import logging
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument
from compressbench.meters import energy_codecarbon
from compressbench.meters.energy_codecarbon import SETTINGS, make_tracker
from compressbench.meters.energy_estimate import EstimatedEnergy, Moment

HIJACK = """[codecarbon]
force_cpu_power = 5000
force_ram_power = 900
pue = 3
emissions_endpoint = http://localhost:9/
gpu_ids = 0,1
output_methods = csv
tracking_mode = machine
force_mode_cpu_load = true
rapl_include_dram = true
"""


class CPU:
    """codecarbon's hardware object with a given answer; named like the original."""

    def __init__(self, kilowatt_hours: object = 1e-6, mode: str = "cpu_load") -> None:
        self.kilowatt_hours, self._mode, self._tdp, self._cpu_count = kilowatt_hours, mode, 8, 2
        self._intel_interface = SimpleNamespace(_rapl_files=[SimpleNamespace(sample_skipped=False)])

    def start(self) -> None:
        pass

    def measure_power_and_energy(self, last_duration: float) -> Any:
        assert last_duration > 0
        if isinstance(self.kilowatt_hours, Exception):
            raise self.kilowatt_hours
        return (None, SimpleNamespace(kWh=self.kilowatt_hours))


class RAM(CPU):
    pass


START = Moment(monotonic_s=10.0, system_s=1000.0, own_cpu_s=1.0, ended_children_cpu_s=0.0)
STOP = Moment(monotonic_s=11.0, system_s=1001.0, own_cpu_s=1.9, ended_children_cpu_s=0.0)


def meter_with(cpu: CPU, stop: Moment = STOP, ram: RAM | None = None) -> EstimatedEnergy:
    moments = iter([START, stop])
    hardware = [cpu] if ram is None else [ram, cpu]
    return EstimatedEnergy(SimpleNamespace(_hardware=hardware), read=lambda: next(moments))


def window_of(cpu: CPU, stop: Moment = STOP, ram: RAM | None = None) -> dict[str, float]:
    meter = meter_with(cpu, stop, ram)
    meter.start()
    return meter.stop()


def test_kilowatt_hours_become_joules() -> None:
    assert window_of(CPU(2e-6), ram=RAM(1e-6)) == {
        "energy_j": pytest.approx(7.2),
        "ram_energy_j": pytest.approx(3.6),
    }


def test_without_a_number_for_the_memory_its_name_is_absent() -> None:
    assert window_of(CPU(2e-6)) == {"energy_j": pytest.approx(7.2)}
    assert window_of(CPU(2e-6), ram=RAM(0.0)) == {"energy_j": pytest.approx(7.2)}


@pytest.mark.parametrize(
    ("mode", "kind", "boundary"),
    [
        ("intel_rapl", "measured", "cpu package (whole machine)"),
        ("windows_emi", "measured", "cpu package (whole machine)"),
        ("cpu_load", "estimated", "cpu (this process)"),
        ("constant", "estimated", "cpu (whole machine)"),
        ("a new mode", "estimated", "cpu (whole machine)"),
    ],
)
def test_the_mode_decides_the_kind(mode: str, kind: str, boundary: str) -> None:
    meter: Instrument = (estimate := meter_with(CPU(mode=mode)))
    assert (meter.provenance.kind, meter.provenance.boundary) == (kind, boundary)
    assert mode in meter.provenance.source
    assert meter.provenance.relative_uncertainty is None
    assert meter.provenance.uncertainty_reason
    assert estimate.provenances["energy_j"] == meter.provenance
    assert estimate.provenances["ram_energy_j"].kind == "modelled"


def test_the_source_names_the_assumed_watts() -> None:
    assert "8 W assumed for 2 busy threads" in meter_with(CPU()).provenance.source


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "TypeError"),
        (RuntimeError("the file vanished"), "the file vanished"),
        (-1e-6, "impossible energy"),
        (float("nan"), "impossible energy"),
        (float("inf"), "impossible energy"),
        (0.0, "0 J for a window of 1 s with 0.9 s of CPU time"),
    ],
)
@pytest.mark.parametrize("mode", ["cpu_load", "intel_rapl", "constant"])
def test_no_answer_never_becomes_a_number(answer: object, reason: str, mode: str) -> None:
    with pytest.raises(MeterError, match=reason):
        window_of(CPU(answer, mode))


def test_a_failing_start_says_why() -> None:
    cpu = CPU()
    cpu.start = lambda: 1 / 0  # type: ignore[method-assign, assignment]
    with pytest.raises(MeterError, match=r"starting a window .got ZeroDivisionError"):
        meter_with(cpu).start()


@pytest.mark.parametrize("step_s", [-0.5, 0.02, 3600.0])
def test_a_step_of_the_system_clock_voids_an_estimate(step_s: float) -> None:
    stop = replace(STOP, system_s=STOP.system_s + step_s)
    with pytest.raises(MeterError, match="system clock"):
        window_of(CPU(), stop)
    assert window_of(CPU(mode="intel_rapl"), stop)["energy_j"] > 0


def test_a_child_process_that_ended_voids_an_estimate() -> None:
    with pytest.raises(MeterError, match="child processes ended"):
        window_of(CPU(), replace(STOP, ended_children_cpu_s=0.4))


def test_a_counter_that_could_not_be_read_voids_the_window() -> None:
    cpu = CPU(mode="intel_rapl")
    cpu._intel_interface._rapl_files[0].sample_skipped = True
    with pytest.raises(MeterError, match="dropped the interval"):
        window_of(cpu)


def test_a_counter_that_may_have_wrapped_twice_voids_the_window() -> None:
    with pytest.raises(MeterError, match="wrapped more than once"):
        window_of(CPU(mode="intel_rapl"), replace(STOP, monotonic_s=300.0))


def test_a_counter_that_was_reset_voids_the_window() -> None:
    with pytest.raises(MeterError, match="161844 J in 1 s is implausible"):
        window_of(CPU(161_844 / 3.6e6, mode="intel_rapl"))


def test_a_window_needs_a_start_of_its_own() -> None:
    with pytest.raises(MeterError, match="before it was started"):
        meter_with(CPU()).stop()
    meter = meter_with(CPU())
    meter.start()
    meter.close()
    with pytest.raises(MeterError, match="before it was started"):
        meter.stop()


def test_a_machine_without_a_cpu_in_codecarbon_is_an_error() -> None:
    with pytest.raises(MeterError, match="tracks no CPU"):
        EstimatedEnergy(SimpleNamespace(_hardware=[]))


@pytest.mark.parametrize("part", ["CPU", "RAM"])
def test_hardware_of_other_makers_says_its_part(part: str) -> None:
    board = [SimpleNamespace(chip_part="RAM"), SimpleNamespace(chip_part="CPU")]
    if part == "CPU":
        assert EstimatedEnergy(SimpleNamespace(_hardware=board)).provenance.kind == "estimated"
    else:
        with pytest.raises(MeterError, match="tracks no CPU"):
            EstimatedEnergy(SimpleNamespace(_hardware=board[:1]))


def test_without_codecarbon_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "codecarbon"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(MeterError, match=r"pip install .codecarbon"):
        EstimatedEnergy()


# From here on the installed codecarbon is used: these tests fail when a new version moves what is relied on.


@pytest.fixture(scope="module")
def tracker() -> Any:
    return make_tracker([])


@pytest.fixture
def hijacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, a home and an environment that all try to change codecarbon."""
    for folder in (tmp_path / "home", tmp_path / "work"):
        folder.mkdir()
        (folder / ".codecarbon.config").write_text(HIJACK)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CODECARBON_FORCE_CPU_POWER", "7000")
    monkeypatch.setenv("codecarbon_wue", "4")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.mark.usefixtures("hijacked")
def test_the_planted_configuration_would_change_an_unprotected_tracker() -> None:
    module = pytest.importorskip("codecarbon.emissions_tracker")
    config = module.get_hierarchical_config()
    assert (config["pue"], config["force_cpu_power"], config["wue"]) == ("3", "7000", "4")


def test_no_configuration_reaches_the_tracker(hijacked: Path, tracker: Any) -> None:
    ours = make_tracker([])
    assert (ours._pue, ours._wue) == (1.0, 0)
    assert (ours._force_cpu_power, ours._force_ram_power, ours._emissions_endpoint) == (None, None, None)
    assert (ours._output_methods, ours._output_handlers) == ([], [])
    assert ours._tracking_mode == "process"
    assert ours._conf["gpu_ids"] == tracker._conf["gpu_ids"]
    assert [getattr(one, "_tdp", 0) for one in ours._hardware] == [getattr(one, "_tdp", 0) for one in tracker._hardware]
    assert sorted(path.name for path in hijacked.iterdir()) == [".codecarbon.config"]
    assert os.environ["CODECARBON_FORCE_CPU_POWER"] == "7000"
    assert os.environ["codecarbon_wue"] == "4"  # noqa: SIM112 - codecarbon reads both spellings


def test_a_broken_configuration_file_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".codecarbon.config").write_text("no section\n%(")
    monkeypatch.chdir(tmp_path)
    assert EstimatedEnergy().mode


def test_every_setting_is_one_that_codecarbon_knows() -> None:
    module = pytest.importorskip("codecarbon.emissions_tracker")
    trackers = (module.BaseEmissionsTracker, module.OfflineEmissionsTracker)
    known = {name for tracker in trackers for name in inspect.signature(tracker.__init__).parameters}
    assert set(SETTINGS) - known == set()


def test_opening_says_nothing_starts_nothing_and_keeps_the_warnings(capfd: pytest.CaptureFixture[str]) -> None:
    threads = threading.enumerate()
    logger = logging.getLogger("codecarbon")
    meter = EstimatedEnergy()
    again = EstimatedEnergy()
    assert capfd.readouterr() == ("", "")
    assert threading.enumerate() == threads
    assert any("Multiple instances" in note for note in meter.notes)
    assert again.notes == meter.notes
    assert logger.level == logging.ERROR


def test_what_codecarbon_warns_about_while_it_looks_around_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("codecarbon.emissions_tracker")
    monkeypatch.setattr(energy_codecarbon, "_said_at_detection", [])

    def warn(tracker: object) -> None:  # noqa: ARG001
        logging.getLogger("codecarbon").warning("No CPU \n  tracking mode")

    monkeypatch.setattr(module.BaseEmissionsTracker, "_ensure_hardware_ready", warn)
    notes: list[str] = []
    make_tracker(notes)
    assert "No CPU tracking mode" in notes


def test_a_failing_detection_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("codecarbon.emissions_tracker")

    def fail(tracker: object) -> None:  # noqa: ARG001
        raise OSError("scontrol is missing")

    monkeypatch.setattr(module.BaseEmissionsTracker, "_ensure_hardware_ready", fail)
    with pytest.raises(MeterError, match=r"detecting the hardware .got OSError: scontrol is missing"):
        EstimatedEnergy()


class Times:
    """psutil's process and the module `time` in one, for codecarbon's estimate."""

    def __init__(self) -> None:
        self.wall_s, self.cpu_s = 100.0, 7.0

    def perf_counter(self) -> float:
        return self.wall_s

    time = perf_counter

    def cpu_times(self) -> SimpleNamespace:
        return SimpleNamespace(user=self.cpu_s, system=0.0)

    def children(self, recursive: bool) -> list[object]:
        assert recursive
        return []

    pid = 1

    def moment(self) -> Moment:
        return Moment(self.wall_s, self.wall_s, self.cpu_s, 0.0)


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    clock = Times()
    monkeypatch.setattr(pytest.importorskip("codecarbon.external.hardware"), "time", clock)
    return clock


def estimate_of_8_watts(clock: Times) -> EstimatedEnergy:
    hardware = pytest.importorskip("codecarbon.external.hardware")
    cpu = hardware.CPU(".", "cpu_load", "some processor", 8, tracking_mode="process")
    cpu._process, cpu._cpu_count = clock, 2
    return EstimatedEnergy(SimpleNamespace(_hardware=[cpu]), read=clock.moment)


@pytest.mark.parametrize("wall_s", [0.05, 0.2, 1.0, 100.0])
@pytest.mark.parametrize("cpu_s", [0.05, 0.5, 20.0])
def test_codecarbons_joules_are_watts_per_thread_times_cpu_seconds(times: Times, wall_s: float, cpu_s: float) -> None:
    meter = estimate_of_8_watts(times)
    meter.start()
    times.wall_s += wall_s
    times.cpu_s += cpu_s
    assert meter.stop() == {"energy_j": pytest.approx(8 / 2 * cpu_s)}


def test_codecarbons_windows_add_up_and_leave_out_what_is_between_them(times: Times) -> None:
    meter, joules = estimate_of_8_watts(times), 0.0
    for cpu_s in (0.1, 0.7, 0.05, 1.15):
        meter.start()
        times.wall_s += 0.9
        times.cpu_s += cpu_s
        joules += meter.stop()["energy_j"]
        times.cpu_s += 33.0
    assert joules == pytest.approx(8 / 2 * 2.0)


def test_codecarbon_reads_a_rapl_tree_and_drops_it_silently_when_it_vanishes(tmp_path: Path) -> None:
    hardware = pytest.importorskip("codecarbon.external.hardware")
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    for name, text in {"name": "package-0", "energy_uj": "1000000", "max_energy_range_uj": "65532610987"}.items():
        (package / name).write_text(text)
    cpu = hardware.CPU(".", "intel_rapl", "some processor", None, rapl_dir=str(tmp_path))
    moments = iter([START, STOP] * 2)
    meter = EstimatedEnergy(SimpleNamespace(_hardware=[cpu]), read=lambda: next(moments))
    meter.start()
    (package / "energy_uj").write_text("43000000")
    assert meter.provenance.kind == "measured"
    assert meter.stop() == {"energy_j": pytest.approx(42.0)}
    meter.start()
    (package / "energy_uj").unlink()
    with pytest.raises(MeterError, match="dropped the interval"):
        meter.stop()


def test_this_process_is_charged_for_its_cpu_time() -> None:
    meter = EstimatedEnergy()
    if meter.mode != "cpu_load":
        pytest.skip(f"codecarbon reads {meter.mode} here")
    watts_per_thread = meter._cpu._tdp / meter._cpu._cpu_count
    meter.start()
    before_s = time.process_time()
    while time.process_time() < before_s + 0.2:
        sum(range(1000))
    used_s = time.process_time() - before_s
    # the kernel counts in ticks of 10 ms, and asking takes some CPU time itself
    assert meter.stop()["energy_j"] == pytest.approx(watts_per_thread * used_s, abs=watts_per_thread * 0.05)
