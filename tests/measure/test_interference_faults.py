"""Every source of evidence missing, garbage, backwards or standing still: absent with a reason, never 0, never a crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from kernel_stand_in import ALL, FREQUENCY, KernelStandIn, one_block

from compressbench.measure.interference import Watcher
from compressbench.records.evidence import NO_EVIDENCE, DisturbanceRule, Evidence, disturbances
from compressbench.testing import FakeClock


@pytest.fixture
def kernel(tmp_path: Path) -> KernelStandIn:
    return KernelStandIn(tmp_path)


class Fault(NamedTuple):
    file: str
    columns: tuple[str, ...]


FAULTS = [
    Fault("proc/stat", ("foreign_share", "steal_share", "share_resolution")),
    Fault("proc/self/task/TID/schedstat", ("run_queue_wait_share",)),
    Fault("proc/pressure/cpu", ("pressure_share",)),
    Fault("sys/fs/cgroup/ours/cpu.stat", ("throttled_share",)),
    Fault(FREQUENCY, ("cpu_frequency_hz",)),
]
GARBAGE = [
    *(b"", b"\n", b"\x00\xff\xfe", b"0\n", b"cpu  a b c d e f g h\ncpu0 -\n", b"some avg10=x total=\n"),
    *(b"some avg10=1.0", b"throttled_usec x\n", b"throttled_usec\n", b"-1 -1 -1\n"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.file)
def test_a_file_that_isnt_there_costs_its_columns_alone_and_says_so(kernel: KernelStandIn, fault: Fault) -> None:
    kernel.break_file(fault.file, None)
    check_absent(one_block(kernel), fault)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.file)
def test_garbage_from_the_beginning_is_absent_with_a_reason(
    kernel: KernelStandIn, fault: Fault, garbage: bytes
) -> None:
    kernel.break_file(fault.file, garbage)
    check_absent(one_block(kernel), fault)


def check_absent(found: Evidence, fault: Fault) -> None:
    assert set(found.unread) == set(fault.columns)
    for name in (*ALL, "share_resolution"):
        column = getattr(found, name)
        assert (column == ()) == (name in fault.columns)
        assert found.unread.get(name, "") if name in fault.columns else column[0] is not None


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.file)
def test_garbage_in_the_middle_of_a_run_costs_its_block_alone(
    kernel: KernelStandIn, fault: Fault, garbage: bytes
) -> None:
    watcher = kernel.watcher()
    kernel.block(watcher)
    watcher.before()
    kernel.run(1.0)
    kernel.break_file(fault.file, garbage)
    watcher.after()
    kernel.repair()
    kernel.write(FREQUENCY, "2600000\n")
    kernel.block(watcher)
    found = watcher.evidence()
    assert set(found.unread) == set(fault.columns)
    for name in fault.columns:
        assert [value is None for value in getattr(found, name)] == [False, True, False]


def _idle_for_user(core: dict[str, float]) -> dict[str, float]:
    """Idle time lost and time in programs won, so that the sum of all is as it should be."""
    return {"idle": core["idle"] - 9, "user": core["user"] + 9}


@pytest.mark.parametrize(
    ("move", "column"),
    [
        (lambda kernel: setattr(kernel, "pressure_s", 1.0), "pressure_share"),
        (lambda kernel: setattr(kernel, "throttled_s", 1.0), "throttled_share"),
        (lambda kernel: kernel.waits.update({kernel.tid: 1.0}), "run_queue_wait_share"),
        (lambda kernel: kernel.cores[0].update(idle=0.0), "foreign_share"),
        (lambda kernel: kernel.cores[0].update(_idle_for_user(kernel.cores[0])), "foreign_share"),
    ],
)
def test_a_counter_that_goes_backwards_gives_no_value(
    kernel: KernelStandIn, move: Callable[[KernelStandIn], None], column: str
) -> None:
    watcher = kernel.watcher()
    watcher.before()
    move(kernel)
    kernel.run(1.0)
    watcher.after()
    found = watcher.evidence()
    assert getattr(found, column) == ()
    assert found.unread[column]


def test_a_core_that_waits_for_a_disk_is_not_loaded(kernel: KernelStandIn) -> None:
    watcher = kernel.watcher()
    watcher.before()
    kernel.cores[1]["iowait"] += 0.5
    kernel.cores[1]["idle"] -= 0.5
    kernel.run(1.0)
    watcher.after()
    assert watcher.evidence().foreign_share == pytest.approx((0.0,), abs=0.01)


def test_cpu_times_that_stand_still_are_garbage_and_no_load(kernel: KernelStandIn) -> None:
    zeros = " 0 0 0 0 0 0 0 0 0 0\n"
    kernel.break_file("proc/stat", f"cpu{zeros}cpu0{zeros}cpu1{zeros}".encode())
    found = one_block(kernel)
    assert found.foreign_share == ()
    assert "don't keep up with the clock" in found.unread["foreign_share"]


def test_a_core_that_is_switched_off_in_the_middle_is_noticed(tmp_path: Path) -> None:
    kernel = KernelStandIn(tmp_path, num_cores=3, allowed="0-1")
    watcher = kernel.watcher()
    watcher.before()
    kernel.run(1.0)
    lines = kernel.path("proc/stat").read_text().splitlines()
    kernel.write("proc/stat", "\n".join(line for line in lines if not line.startswith("cpu1 ")) + "\n")
    watcher.after()
    assert watcher.evidence().foreign_share == ()
    assert "lacks cores" in watcher.evidence().unread["foreign_share"]


def test_a_block_too_short_for_the_ticks_has_no_shares_and_the_reason_says_from_when_on(kernel: KernelStandIn) -> None:
    found = one_block(kernel, 0.015, own=0.015)
    assert found.foreign_share == ()
    assert "too short" in found.unread["foreign_share"]
    assert "20 ms" in found.unread["foreign_share"]
    assert found.run_queue_wait_share == (0.0,)


def test_statistics_that_the_kernel_does_not_keep_are_not_0(kernel: KernelStandIn) -> None:
    kernel.break_file("proc/self/task/TID/schedstat", b"0 0 0\n")
    found = one_block(kernel)
    assert found.run_queue_wait_share == ()
    assert "schedstat is 0" in found.unread["run_queue_wait_share"]


def test_where_nothing_can_be_read_nothing_is_clean(tmp_path: Path) -> None:
    clock = FakeClock()
    watcher = Watcher(tmp_path, clock=clock, process_clock=clock)
    watcher.before()
    clock.advance(1.0)
    watcher.after()
    found = watcher.evidence()
    assert all(getattr(found, name) == () and found.unread[name] for name in ALL)
    assert disturbances(found, DisturbanceRule(), 1) == [(NO_EVIDENCE,)]


def test_reasons_name_no_folder_because_a_cgroup_may_be_called_after_a_user(kernel: KernelStandIn) -> None:
    for fault in FAULTS:
        kernel.break_file(fault.file, None)
    assert not [reason for reason in kernel.watcher().evidence().unread.values() if str(kernel.root) in reason]
