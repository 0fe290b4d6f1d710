from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from codecarbon.core.cpu import IntelRAPL
from codecarbon.core.units import Time

from compressbench.core.units import JOULES_PER_KWH
from compressbench.testing.event_clock import EventClock
from compressbench.testing.powercap import INTEL_RANGE_UJ, SMALL_RANGE_UJ, FakeDomain, FakePowercap

UNIT_UJ = {INTEL_RANGE_UJ: 61.04, SMALL_RANGE_UJ: 15.26}


def make_tree(folder: Path, *domains: FakeDomain) -> FakePowercap:
    return FakePowercap(folder, domains or [FakeDomain("intel-rapl:0", "package-0")], EventClock())


def shown(tree: FakePowercap, path: str) -> int:
    tree.refresh()
    return int((tree.root / path / "energy_uj").read_text())


@pytest.mark.parametrize("range_uj", [INTEL_RANGE_UJ, SMALL_RANGE_UJ])
def test_the_counter_is_the_integral_of_the_power_up_to_its_last_tick(tmp_path: Path, range_uj: int) -> None:
    tree = make_tree(tmp_path, FakeDomain("intel-rapl:0", "package-0", 120.0, range_uj=range_uj, start_uj=500))
    tree.clock.advance(2.0)
    tree.set_power(40.0)
    tree.clock.advance(0.5007)
    joules = 2.0 * 120 + 0.5 * 40
    assert shown(tree, "intel-rapl:0") == pytest.approx(500 + joules * 1e6, abs=UNIT_UJ[range_uj] + 1)
    assert tree["package-0"].true_joules(1.0, tree.now_s) == pytest.approx(2.0 * 120 + 0.5007 * 40)


@pytest.mark.parametrize("tick_s", [0.001, 0.01])
def test_the_counter_stands_still_between_its_ticks(tmp_path: Path, tick_s: float) -> None:
    tree = make_tree(tmp_path, FakeDomain("intel-rapl:0", "package-0", tick_s=tick_s))
    values = []
    for _ in range(100):
        tree.clock.advance(tick_s / 10)
        values.append(shown(tree, "intel-rapl:0"))
    assert len(set(values)) == 11


def test_the_counter_goes_on_at_zero_after_its_range(tmp_path: Path) -> None:
    domain = FakeDomain(
        "intel-rapl:0", "package-0", 100.0, range_uj=SMALL_RANGE_UJ, start_uj=SMALL_RANGE_UJ - 9_999_999
    )
    tree = make_tree(tmp_path, domain)
    tree.clock.advance(0.3)
    assert shown(tree, "intel-rapl:0") == pytest.approx(20e6, abs=16)
    assert int((tree.root / "intel-rapl:0" / "max_energy_range_uj").read_text()) == SMALL_RANGE_UJ


def test_a_reset_sets_all_counters_and_energy_goes_on(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, FakeDomain("intel-rapl:0", "package-0"), FakeDomain("intel-rapl:0:0", "dram", 5.0))
    tree.clock.advance(3.0)
    tree.reset(to_uj=1000)
    tree.clock.advance(1.0)
    assert shown(tree, "intel-rapl:0") == pytest.approx(100e6 + 1000, abs=62)
    assert shown(tree, "intel-rapl:0:0") == pytest.approx(5e6 + 1000, abs=62)
    assert tree["dram"].true_joules(1.0, 5.0) == pytest.approx(20.0)


def test_the_tree_has_the_layout_of_the_kernel(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, FakeDomain("intel-rapl:0", "package-0"), FakeDomain("intel-rapl:0:0", "core"))
    assert (tree.root / "intel-rapl:0:0").is_symlink()
    assert (tree.root / "intel-rapl" / "intel-rapl:0" / "intel-rapl:0:0" / "name").read_text() == "core\n"
    assert (tree.root / "intel-rapl:0" / "name").read_text() == "package-0\n"


@pytest.mark.parametrize(
    ("fault", "error"), [("denied", PermissionError), ("unreadable", OSError), ("vanished", FileNotFoundError)]
)
def test_faults_of_access_are_those_of_the_kernel(tmp_path: Path, fault: Any, error: type[OSError]) -> None:
    tree = make_tree(tmp_path)
    opened = tree.machine.open(tree.root / "intel-rapl:0" / "energy_uj")
    tree.fail("package-0", fault)
    with pytest.raises(OSError, match=r"Permission denied|Input/output error|No such device"):
        tree.machine.pread(opened, 64, 0)
    os.close(opened)
    tree.refresh()
    path = tree.root / "intel-rapl:0" / "energy_uj"
    if fault == "vanished" or os.geteuid() != 0:  # root may read everything that is there
        with pytest.raises(error):
            path.read_text()


def test_a_counter_fails_and_recovers(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    path = tree.root / "intel-rapl:0" / "energy_uj"
    before = shown(tree, "intel-rapl:0")
    for fault, text in {"stuck": f"{before}\n", "garbage": "<unknown>\n", "empty": ""}.items():
        tree.fail("package-0", fault)  # type: ignore[arg-type]
        tree.refresh()
        assert path.read_text() == text
        if fault == "stuck":
            tree.clock.advance(1.0)
            tree.refresh()
            assert path.read_text() == text
    tree.fail("package-0", "")
    assert shown(tree, "intel-rapl:0") == pytest.approx(before + 100e6, abs=62)


def test_a_suspension_stops_the_clock_and_resets(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    tree.clock.advance(1.0)
    before_ns = tree.clock()
    tree.suspend(3600.0)
    assert tree.clock() == before_ns
    assert tree.machine.suspended_ns() == 3600 * 10**9
    assert shown(tree, "intel-rapl:0") == 0


def test_codecarbon_reads_the_tree_and_is_right_where_nothing_goes_wrong(tmp_path: Path) -> None:
    """A peer that finds and reads the files by itself: the packages once each, no parts, no platform."""
    tree = make_tree(
        tmp_path,
        FakeDomain("intel-rapl:0", "package-0", 120.0, start_uj=5_000_000_000),
        FakeDomain("intel-rapl:0:0", "core", 60.0),
        FakeDomain("intel-rapl:0:1", "dram", 8.0),
        FakeDomain("intel-rapl:1", "package-1", 80.0, start_uj=90_000_000_000),
        FakeDomain("intel-rapl:2", "psys", 300.0),
    )
    peer = IntelRAPL(rapl_dir=str(tree.root))
    rng = random.Random(0)
    for _ in range(5):
        tree.refresh()
        peer.start()
        seconds = rng.uniform(1.0, 5.0)
        tree.clock.advance(seconds)
        tree.refresh()
        details = peer.get_cpu_details(Time.from_seconds(seconds))
        joules = sum(kwh for name, kwh in details.items() if "Energy" in name) * JOULES_PER_KWH
        assert joules == pytest.approx(200.0 * seconds, abs=0.4)
