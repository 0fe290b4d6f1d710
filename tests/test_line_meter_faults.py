"""Every fault of a meter down the whole line: an exit status, a reason in record and table, no wrong number of energy, and
all other numbers as ever. Meters are the real ones on fake hardware in real time, and faults come in timed blocks.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kernel_stand_in import KernelStandIn
from line_parts import open_with, recipe_data, without_limits, write_data, write_model, write_recipe

from compressbench.cli.main import call
from compressbench.core.protocols import Instrument
from compressbench.measure import blocks, calls, schedule
from compressbench.measure.gpu_evidence import GpuWatcher
from compressbench.measure.interference import Watcher
from compressbench.measure.steady_state import WarmUpRule
from compressbench.meters.crosscheck import Chosen
from compressbench.meters.edges import REAL_TIME
from compressbench.meters.energy_nvml import NvmlEnergy
from compressbench.meters.energy_rapl import RaplEnergy
from compressbench.meters.powercap import Machine
from compressbench.records.record import Record
from compressbench.records.store import read_records
from compressbench.report.policy import why_no_energy
from compressbench.testing import FakeClock, ReplayInstrument
from compressbench.testing.event_clock import EventClock
from compressbench.testing.nvml import FakeGpu, FakeNvml
from compressbench.testing.powercap import FakeDomain, FakePowercap

WINDOW_S, NVML_WINDOW_S, NVML_TICK_S = 0.04, 0.12, 0.01
WORKLOAD = {"tier": "smoke", "sequence_length": 8, "rounds": 1, "block_s": WINDOW_S, "num_threads": 1}
ENERGY = ("energy_j_per_inference", "energy_wh_per_1000_queries", "energy_net_j_per_inference", "energy_j_per_correct")
THERMAL = 0x20


class RealClock(FakeClock):
    """Of the machine. What is to take time on it takes as long as it takes."""

    def __call__(self) -> int:
        return time.perf_counter_ns()

    def advance(self, seconds: float) -> None:
        pass


class Ran(NamedTuple):
    code: int
    row: dict[str, Any]
    record: Record

    @property
    def energy(self) -> dict[str, Any]:
        found: dict[str, Any] = self.row["cells"]["energy_j_per_inference"]
        return found


class Line:
    """Runs a recipe of one baseline with one meter of energy."""

    def __init__(self, recipe: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._recipe, self._out, self._capsys = recipe, out, capsys

    def run(self) -> Ran:
        code = call(["run", str(self._recipe), "--out", str(self._out), "--json"])
        (row,), (record,) = json.loads(self._capsys.readouterr().out), read_records([self._out])[0]
        return Ran(code, row, record)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("parts")
    return write_model(folder / "model"), write_data(folder / "data")


@pytest.fixture
def line(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Line:
    without_limits(monkeypatch)
    quick = schedule.TIERS["smoke"]._replace(warm_up=WarmUpRule(min_s=0.02, max_s=0.06), idle_s=WINDOW_S)
    monkeypatch.setitem(schedule.TIERS, "smoke", quick)
    data = recipe_data(*parts, [], meters=["latency", "energy"], workload=WORKLOAD)
    return Line(write_recipe(tmp_path / "r.yaml", data), tmp_path / "out", capsys)


def in_every_block(monkeypatch: pytest.MonkeyPatch, do: Callable[[], None], first: int = 0) -> None:
    """At the beginning of every timed block, or from the n-th on, when meter and watcher have begun."""
    time_calls, seen = calls.time_calls, list[int]()

    def disturbed(*arguments: Any) -> tuple[int, ...]:
        seen.append(1)
        if len(seen) > first:
            do()
        return time_calls(*arguments)

    monkeypatch.setattr(blocks, "time_calls", disturbed)


def check_only_energy_is_missing(found: Ran, *words: str) -> None:
    cells = found.row["cells"]
    assert (found.code, found.row["status"], found.record.status) == (0, "ok", "ok")
    assert [cells[name]["value"] for name in ENERGY] == [None] * len(ENERGY)
    for word in words:
        assert word in found.energy["reason"]
    assert cells["throughput_per_s"]["value"] > 0
    assert cells["accuracy"]["value"] is not None
    assert found.record.measurement is not None
    kept = [block for block in found.record.measurement.blocks if block.arm == "baseline" and block.raw]
    assert not kept
    said = [*found.record.absent.values(), *(why for b in found.record.measurement.blocks for why in b.void.values())]
    assert any(words[0] in reason for reason in said), "the record says it, too"
    assert why_no_energy(found.record, "modelled"), "and where energy is required, that is exit code 4"


def rapl(tmp_path: Path, *domains: FakeDomain) -> FakePowercap:
    return FakePowercap(tmp_path / "tree", domains or [FakeDomain("intel-rapl:0", "package-0", 100.0)], RealClock())


def open_rapl(tree: FakePowercap) -> Instrument:
    meter = RaplEnergy(tree.machine._replace(timing=REAL_TIME))
    meter.min_window_s = WINDOW_S
    return meter


def open_nvml(monkeypatch: pytest.MonkeyPatch, **gpu: Any) -> FakeNvml:
    """The meter `energy` is NVML's counter, with windows as short as its short ticks let them be."""
    nvml = FakeNvml(time.perf_counter_ns, FakeGpu(tick_s=NVML_TICK_S, **gpu))

    def made() -> Instrument:
        meter = NvmlEnergy(0, nvml=nvml)
        meter.min_window_s = NVML_WINDOW_S
        return meter

    monkeypatch.setattr("compressbench.meters.edges.MIN_SPACING_S", NVML_TICK_S)
    open_with(monkeypatch, made)
    return nvml


def raised(error: Exception) -> Instrument:
    raise error


def test_rapl_has_a_number_where_nothing_is_wrong(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what the faults below take away was there. NVML's is in the test of what slows a GPU down."""
    tree = rapl(tmp_path)
    open_with(monkeypatch, lambda: open_rapl(tree))
    found = line.run()
    assert found.code == 0
    assert found.energy["value"] > 0
    assert found.energy["kind"] == "measured"
    assert why_no_energy(found.record, "measured") == ""


def test_a_meter_that_is_not_there(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Machine(tmp_path / "no" / "powercap")
    open_with(monkeypatch, lambda: RaplEnergy(nowhere))
    check_only_energy_is_missing(line.run(), "no RAPL energy counter of a processor package was found")


def test_a_meter_that_raises_something_of_its_own_when_it_is_opened(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_with(monkeypatch, lambda: raised(AttributeError("this pynvml has no nvmlInit")))
    check_only_energy_is_missing(line.run(), "AttributeError: this pynvml has no nvmlInit")


def test_rapl_without_permission(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = rapl(tmp_path)
    tree.fail("package-0", "denied")
    open_with(monkeypatch, lambda: open_rapl(tree))
    check_only_energy_is_missing(line.run(), "Permission denied", "sudo chmod a+r")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("vanished", ("RAPL energy counter has disappeared", "No such device")),
        ("stuck", ("stuck: it did not move",)),
        ("garbage", ("gave no number",)),
    ],
)
def test_rapl_that_fails_in_the_first_round(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any, words: tuple[str, ...]
) -> None:
    tree = rapl(tmp_path)
    open_with(monkeypatch, lambda: open_rapl(tree))
    # once: a counter that is told again to stand still has gone on until then
    in_every_block(monkeypatch, lambda: None if tree["package-0"].fault else tree.fail("package-0", fault))
    check_only_energy_is_missing(line.run(), *words)


@pytest.mark.parametrize(
    ("move", "word"),
    [
        (lambda tree: tree.reset(), "counter_reset"),
        (lambda tree: tree.suspend(100.0), "suspended"),
    ],
)
def test_rapl_that_is_reset_in_every_block(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: Callable[[FakePowercap], None], word: str
) -> None:
    tree = rapl(tmp_path)
    open_with(monkeypatch, lambda: open_rapl(tree))
    in_every_block(monkeypatch, lambda: move(tree))
    check_only_energy_is_missing(line.run(), word)


def _lost(nvml: FakeNvml) -> None:
    nvml.gpus[0].lost_at_s = nvml.now_s


def _stuck(nvml: FakeNvml) -> None:
    nvml.gpus[0].stuck_at_s = min(nvml.gpus[0].stuck_at_s, nvml.now_s)


def _back(nvml: FakeNvml) -> None:
    nvml.gpus[0].offset_mj -= 500_000


def _reset(nvml: FakeNvml) -> None:
    nvml.gpus[0].reset_at_s = nvml.now_s


def _no_number(nvml: Any) -> None:
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: "[N/A]"


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (_lost, "GPU is lost"),
        (_stuck, "is stuck: 0 increments"),
        (_back, "back"),
        (_reset, "back"),
        (_no_number, "something else than millijoules"),
    ],
)
def test_an_nvml_counter_that_fails_in_the_first_round(
    line: Line, monkeypatch: pytest.MonkeyPatch, fault: Callable[[FakeNvml], None], word: str
) -> None:
    nvml = open_nvml(monkeypatch)
    in_every_block(monkeypatch, lambda: fault(nvml))
    check_only_energy_is_missing(line.run(), word)


def test_a_part_of_a_gpu(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    open_nvml(monkeypatch, is_mig=True)
    check_only_energy_is_missing(line.run(), "MIG")


def test_windows_of_no_joules(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second one: too many for the others to stand for all."""
    open_with(monkeypatch, lambda: ReplayInstrument([{"energy_j": 0.0}, {"energy_j": 5.0}]))
    found = line.run()
    assert found.energy["value"] is None
    assert "below resolution: 0 J" in found.energy["reason"]
    assert found.row["cells"]["throughput_per_s"]["value"] > 0


def test_a_meter_that_raises_something_of_its_own(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = ReplayInstrument([{"energy_j": 5.0}])
    open_with(monkeypatch, lambda: meter)
    in_every_block(monkeypatch, lambda: setattr(meter, "stop", lambda: raised(OSError(5, "Input/output error"))), 2)
    check_only_energy_is_missing(line.run(), "OSError: [Errno 5] Input/output error")


def test_two_meters_that_disagree(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows which one is right: the number stays, and never without the flag."""
    first, second = (ReplayInstrument([{"energy_j": joules}]) for joules in (18.7, 32.7))
    open_with(monkeypatch, lambda: Chosen(first, second))
    found = line.run()
    assert (found.code, found.energy["kind"]) == (0, "measured")
    assert any("the meters disagree" in warning and "+74.9%" in warning for warning in found.row["warnings"])


@contextmanager
def watched_by(monkeypatch: pytest.MonkeyPatch, watcher: Watcher) -> Iterator[None]:
    @contextmanager
    def watching(*_: Any) -> Iterator[Watcher]:
        yield watcher

    monkeypatch.setattr("compressbench.measure.timing.watching", watching)
    yield
    watcher.close()


def check_contended(found: Ran, why: str) -> None:
    assert (found.code, found.row["status"]) == (0, "ok")
    assert [reason for reason in found.row["not_rankable"] if reason.startswith("contended: 0 of 6") and why in reason]
    assert found.row["cells"]["throughput_per_s"]["value"] > 0


def _quota(kernel: KernelStandIn) -> None:
    kernel.throttled_s += 0.2
    kernel.run(0.5, own=0.4)


@pytest.mark.parametrize(
    ("happens", "why"), [(lambda kernel: kernel.run(0.5, own=0.4, steal=0.3), "steal in 6"), (_quota, "CPU quota in 6")]
)
def test_a_cpu_that_others_had(
    line: Line,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    happens: Callable[[KernelStandIn], None],
    why: str,
) -> None:
    kernel = KernelStandIn(tmp_path / "kernel")
    open_with(monkeypatch, lambda: ReplayInstrument([{"energy_j": 5.0}]))
    in_every_block(monkeypatch, lambda: happens(kernel))
    with watched_by(monkeypatch, kernel.watcher()):
        check_contended(line.run(), why)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, "GPU throttled (SwThermalSlowdown) in 6"),
        ({"processes": [os.getpid(), 4242]}, "other processes on the GPU in 6"),
    ],
)
def test_a_gpu_that_slows_down_in_the_middle_of_blocks_or_is_shared(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], why: str
) -> None:
    clock, kernel, nvml = EventClock(), KernelStandIn(tmp_path / "kernel"), open_nvml(monkeypatch, **changed)
    (gpu,) = nvml.gpus

    def hot_for_a_while() -> None:
        kernel.run(0.5, own=0.5)
        gpu.event_reasons = 0 if changed else THERMAL
        clock.advance(0.2)
        gpu.event_reasons = 0

    in_every_block(monkeypatch, hot_for_a_while)
    watcher = kernel.watcher(gpu=GpuWatcher(0, nvml=nvml, background=clock.attach))
    with watched_by(monkeypatch, watcher):
        found = line.run()
    check_contended(found, why)
    assert found.energy["kind"] == "measured"
    assert found.record.measurement is not None
    notes = found.record.measurement.provenance["energy_j"].notes
    assert any("shared device" in note for note in notes) == bool(changed)
