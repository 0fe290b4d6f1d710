"""The estimate on the installed codecarbon: these tests fail when a new version moves what is relied on."""

from __future__ import annotations

import errno
import inspect
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compressbench.core.errors import MeterError
from compressbench.meters import codecarbon_modes, energy_codecarbon
from compressbench.meters.cpu_time import Moment, read_children
from compressbench.meters.energy_codecarbon import SETTINGS, EnergyCodecarbon, make_tracker
from compressbench.meters.energy_estimate import EstimatedEnergy

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
    assert EstimatedEnergy().provenances["energy_j"].source


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
    notes = meter.provenances["energy_j"].notes
    assert not any("Multiple instances" in note for note in notes)  # which our own settings ask for
    assert again.provenances["energy_j"].notes == notes
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


def test_no_network_is_asked_for_and_none_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where codecarbon looks for the hardware for the first time."""
    pytest.importorskip("codecarbon.core.hardware_cache").clear_cache()
    monkeypatch.setattr(energy_codecarbon, "_said_at_detection", [])
    asked = list[Any]()

    def unreachable(*given: Any, **_: Any) -> Any:
        asked.append(given)
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, unreachable)
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, unreachable)
    meter = EstimatedEnergy()
    meter.start()
    meter.stop()
    (window,) = meter.collect()
    meter.close()
    assert window.values or window.reason
    assert asked == []


class Times:
    """psutil's process and the module `time` in one, for codecarbon's estimate."""

    def __init__(self) -> None:
        self.wall_s, self.system_s, self.cpu_s = 100.0, 1e9, 7.0

    def perf_counter(self) -> float:
        return self.wall_s

    def time(self) -> float:
        return self.system_s

    def cpu_times(self) -> SimpleNamespace:
        return SimpleNamespace(user=self.cpu_s, system=0.0)

    def children(self, recursive: bool) -> list[object]:
        assert recursive
        return []

    pid = 1

    def moment(self) -> Moment:
        return Moment(self.wall_s, self.cpu_s, 0.0)

    def work(self, wall_s: float, cpu_s: float) -> None:
        self.wall_s += wall_s
        self.system_s += wall_s
        self.cpu_s += cpu_s


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    clock = Times()
    monkeypatch.setattr(pytest.importorskip("codecarbon.external.hardware"), "time", clock)
    monkeypatch.setattr(codecarbon_modes, "time", clock)
    return clock


def cpu_of_8_watts(clock: Times) -> Any:
    hardware = pytest.importorskip("codecarbon.external.hardware")
    cpu = hardware.CPU(".", "cpu_load", "some processor", 8, tracking_mode="process")
    cpu._process, cpu._cpu_count = clock, 2
    return cpu


def estimate_of_8_watts(clock: Times) -> EstimatedEnergy:
    return EstimatedEnergy(SimpleNamespace(_hardware=[cpu_of_8_watts(clock)]), clock.moment, dict)


@pytest.mark.parametrize("wall_s", [0.05, 0.2, 1.0, 100.0])
@pytest.mark.parametrize("cpu_s", [0.05, 0.5, 20.0])
def test_our_joules_are_those_of_codecarbon_and_of_the_closed_form(times: Times, wall_s: float, cpu_s: float) -> None:
    meter, theirs = estimate_of_8_watts(times), cpu_of_8_watts(times)
    theirs.start()
    meter.start()
    times.work(wall_s, cpu_s)
    meter.stop()
    [window] = meter.collect()
    joules = theirs.measure_power_and_energy(wall_s)[1].kWh * 3.6e6
    assert window.values == {"energy_j": pytest.approx(8 / 2 * cpu_s)}
    assert joules == pytest.approx(8 / 2 * cpu_s)


def test_windows_add_up_and_leave_out_what_is_between_them(times: Times) -> None:
    meter = estimate_of_8_watts(times)
    for cpu_s in (0.1, 0.7, 0.05, 1.15):
        meter.start()
        times.work(0.9, cpu_s)
        meter.stop()
        times.work(5.0, 33.0)
    assert sum(window.values["energy_j"] for window in meter.collect()) == pytest.approx(8 / 2 * 2.0)


@pytest.mark.parametrize("step_s", [-3600.0, -0.5, 0.02, 3600.0])
def test_a_step_of_the_system_clock_spoils_codecarbons_number_and_not_ours(times: Times, step_s: float) -> None:
    meter, theirs = estimate_of_8_watts(times), cpu_of_8_watts(times)
    theirs.start()
    meter.start()
    times.work(1.0, 0.9)
    times.system_s += step_s
    meter.stop()
    [window] = meter.collect()
    assert window.values == {"energy_j": pytest.approx(3.6)}
    assert theirs.measure_power_and_energy(1.0)[1].kWh * 3.6e6 != pytest.approx(3.6, rel=0.01)


def test_codecarbon_reads_a_rapl_tree_and_drops_it_silently_when_it_vanishes(tmp_path: Path) -> None:
    hardware = pytest.importorskip("codecarbon.external.hardware")
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    for name, text in {"name": "package-0", "energy_uj": "1000000", "max_energy_range_uj": "65532610987"}.items():
        (package / name).write_text(text)
    cpu = hardware.CPU(".", "intel_rapl", "some processor", None, rapl_dir=str(tmp_path))
    moments = iter(range(1000))
    energy_uj = 1_000_000

    def read() -> Moment:
        nonlocal energy_uj
        energy_uj += 1000  # the counter moves at every reading of the time, which is a millisecond later each
        if (package / "energy_uj").exists():
            (package / "energy_uj").write_text(str(energy_uj))
        return Moment(next(moments) * 0.001, 0.0, 0.0)

    meter = EstimatedEnergy(SimpleNamespace(_hardware=[cpu]), read, dict)
    meter.start()
    energy_uj += 500_000
    meter.stop()
    meter.start()
    (package / "energy_uj").unlink()
    meter.stop()
    good, void = meter.collect()
    assert meter.provenances["energy_j"].kind == "measured"
    # the millisecond of the mark at the beginning came after the counter was read
    assert good.values == {"energy_j": pytest.approx(0.502)}
    assert "dropped the interval" in void.reason


def busy(seconds: float) -> float:
    """Compute for so much CPU time; how much it was."""
    before_s = time.process_time()
    while time.process_time() < before_s + seconds:
        sum(range(1000))
    return time.process_time() - before_s


def test_this_process_is_charged_for_its_cpu_time() -> None:
    opened = EnergyCodecarbon().open("cpu")
    how = opened.provenances["energy_j"]
    if how.kind != "estimated":
        pytest.skip(f"codecarbon reads {how.source} here")
    found = re.search(r"(\S+) W assumed for (\d+) busy threads", how.source)
    assert found is not None
    opened.start()
    used_s = busy(0.1)
    opened.stop()
    [window] = opened.collect()
    assert window.values["energy_j"] == pytest.approx(float(found[1]) / int(found[2]) * used_s, rel=0.02)
    assert window.values["ram_energy_j"] > 0


def test_the_estimate_of_a_gpu_is_refused() -> None:
    with pytest.raises(MeterError, match=r"the CPU only .got cuda:0"):
        EnergyCodecarbon().open("cuda:0")


def test_a_child_that_computes_is_seen() -> None:
    code = "import time\nwhile time.process_time() < 0.1: pass\nprint(flush=True)\nimport sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        seconds = {number: cpu_s for (number, _), cpu_s in read_children().items()}
        assert child.stdin is not None
        child.stdin.close()
    assert seconds[child.pid] >= 0.09
    assert child.pid not in {number for number, _ in read_children()}
