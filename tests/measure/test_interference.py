"""Evidence of what else the machine did, on a /proc of our own whose truth is known."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from kernel_stand_in import ALL, BARE_METAL, FIELDS, TICK_S, KernelStandIn, one_block

from compressbench.core.errors import MeterError
from compressbench.measure.cpu_counters import MAX_THREADS
from compressbench.measure.interference import GpuEvidence, Watcher
from compressbench.measure.machine_times import SystemTimes, machine_shares
from compressbench.records.evidence import DisturbanceRule, disturbances


@pytest.fixture
def kernel(tmp_path: Path) -> KernelStandIn:
    return KernelStandIn(tmp_path)


def test_what_others_had_is_what_was_neither_idle_nor_stolen_nor_ours(kernel: KernelStandIn) -> None:
    found = one_block(kernel, own=1.0, foreign={0: 0.1, 1: 0.3}, steal=0.1)
    assert found.cpu_share == pytest.approx((1.0,))
    assert found.foreign_share == pytest.approx((0.2,), abs=TICK_S / 2)
    assert found.steal_share == pytest.approx((0.05,), abs=TICK_S / 2)
    assert found.share_resolution == pytest.approx((TICK_S / 2,))


def test_shares_are_within_their_resolution_of_the_truth_whatever_the_phase_of_the_ticks(tmp_path: Path) -> None:
    draw = random.Random(1)
    for number in range(200):
        kernel = KernelStandIn(tmp_path / str(number), num_cores=draw.choice([1, 2, 4]), seed=number)
        seconds, cores = draw.uniform(0.06, 1.0), len(kernel.cores)
        own, foreign = draw.uniform(0, seconds / 2), {cores - 1: draw.uniform(0, seconds / 3)}
        found = one_block(kernel, seconds, own=own, foreign=foreign)
        (share,), (resolution,) = found.foreign_share, found.share_resolution
        assert share is not None
        assert resolution is not None
        assert abs(share - foreign[cores - 1] / (cores * seconds)) <= resolution + 2e-6


@pytest.mark.parametrize("allowed", ["", "0"])
def test_a_quiet_machine_is_never_called_disturbed_by_rounding(tmp_path: Path, allowed: str) -> None:
    for number in range(100):
        kernel = KernelStandIn(tmp_path / str(number), seed=number, allowed=allowed)
        found = one_block(kernel, 0.25 + 0.0001 * number, own=0.2 if not allowed else 0.0)
        assert disturbances(found, DisturbanceRule(), 1) == [()]


def test_a_process_that_has_a_core_to_itself_is_always_seen(tmp_path: Path) -> None:
    for number in range(50):
        kernel = KernelStandIn(tmp_path / str(number), seed=number)
        found = one_block(kernel, 0.25, own=0.25, foreign={1: 0.125})
        assert disturbances(found, DisturbanceRule(), 1) == [("foreign load",)]


def test_only_the_cores_that_we_may_run_on_are_looked_at(tmp_path: Path) -> None:
    kernel = KernelStandIn(tmp_path, num_cores=12, allowed="1-2,10")
    elsewhere = one_block(kernel, 1.0, foreign=dict.fromkeys((0, 3, 4, 5, 11), 0.9))
    assert elsewhere.foreign_share == pytest.approx((0.0,), abs=0.01)
    assert elsewhere.share_resolution == pytest.approx((1.5 * 3**0.5 * TICK_S / 3,), rel=1e-4)
    here = one_block(kernel, 1.0, foreign={1: 0.6, 10: 0.3})
    assert here.foreign_share == pytest.approx((0.3,), abs=0.01)


def test_under_a_quota_alone_all_cores_are_looked_at_since_any_may_run_us(tmp_path: Path) -> None:
    kernel = KernelStandIn(tmp_path, num_cores=8)
    kernel.write("sys/fs/cgroup/ours/cpu.max", "200000 100000\n")
    found = one_block(kernel, 1.0, own=2.0, foreign={7: 0.5})
    assert found.foreign_share == pytest.approx((0.5 / 8,), abs=0.002)


def test_cores_of_every_thread_count_because_openmp_may_have_tied_the_first_to_one(tmp_path: Path) -> None:
    kernel = KernelStandIn(tmp_path, num_cores=4, allowed="0")
    kernel.write("proc/self/task/99/status", "Cpus_allowed_list:\t1\n")
    kernel.write("proc/self/task/99/schedstat", "1 0 0\n")
    found = one_block(kernel, 1.0, foreign={1: 0.5, 3: 1.0})
    assert found.foreign_share == pytest.approx((0.25,), abs=0.01)


def test_a_hundred_cores_are_all_read_although_their_lines_are_long(tmp_path: Path) -> None:
    kernel = KernelStandIn(tmp_path, num_cores=200, allowed="0-198")
    for core in kernel.cores:
        core.update({name: core[name] + 1e14 for name in FIELDS[:2]})
    kernel.show()
    found = one_block(kernel, 1.0, foreign={198: 1.0, 199: 1.0})
    assert found.foreign_share == pytest.approx((1 / 199,), abs=0.12 / 199)


def test_the_thread_that_waited_longest_counts(kernel: KernelStandIn) -> None:
    for tid in (101, 102):
        kernel.waits[tid] = 1.0
    kernel.show()
    watcher = kernel.watcher()
    watcher.before()
    kernel.waits[kernel.tid] += 0.01
    kernel.waits[101] += 0.03
    kernel.waits[102] += 0.02
    kernel.run(1.0)
    watcher.after()
    assert watcher.evidence().run_queue_wait_share == pytest.approx((0.03,))


def test_a_thread_that_began_since_the_last_block_is_taken_over_and_one_that_ended_forgotten(
    kernel: KernelStandIn,
) -> None:
    kernel.waits[101] = 1.0
    kernel.show()
    watcher = kernel.watcher()
    kernel.block(watcher)
    (kernel.path("proc/self/task/101/schedstat")).unlink()
    kernel.path("proc/self/task/101").rmdir()
    del kernel.waits[101]
    kernel.waits[102] = 7.0
    kernel.show()
    watcher.before()
    kernel.waits[102] += 0.5
    kernel.run(1.0)
    watcher.after()
    assert watcher.evidence().run_queue_wait_share == pytest.approx((0.0, 0.5))


def test_with_very_many_threads_only_the_measuring_one_is_read(kernel: KernelStandIn) -> None:
    others = range(kernel.tid + 1, kernel.tid + 1 + MAX_THREADS)
    kernel.waits.update(dict.fromkeys(others, 0.0))
    kernel.show()
    watcher = kernel.watcher()
    watcher.before()
    kernel.waits.update(dict.fromkeys(others, 0.5))
    kernel.waits[kernel.tid] += 0.001
    kernel.run(1.0)
    watcher.after()
    assert watcher.evidence().run_queue_wait_share == pytest.approx((0.001,))


def test_pressure_throttling_and_frequency_are_read(kernel: KernelStandIn) -> None:
    watcher = kernel.watcher()
    watcher.before()
    kernel.pressure_s += 0.4
    kernel.throttled_s += 0.1
    kernel.run(2.0)
    watcher.after()
    found = watcher.evidence()
    assert found.pressure_share == pytest.approx((0.2,))
    assert found.throttled_share == pytest.approx((0.05,))
    assert found.cpu_frequency_hz == (2.6e9,)
    assert found.num_involuntary_switches[0] is not None
    assert not found.unread


def test_a_quota_of_version_1_counts_nanoseconds_and_those_above_count_too(kernel: KernelStandIn) -> None:
    kernel.write("proc/self/cgroup", "2:cpuacct:/\n1:cpu,cpuacct:/box/inner\n")
    kernel.write("sys/fs/cgroup/cpu/cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n")
    kernel.write("sys/fs/cgroup/cpu/box/cpu.stat", "nr_periods 5\nthrottled_time 1000\n")
    kernel.write("sys/fs/cgroup/cpu/box/inner/cpu.stat", "throttled_time 5000\n")
    watcher = kernel.watcher()
    watcher.before()
    kernel.write("sys/fs/cgroup/cpu/box/cpu.stat", f"nr_periods 5\nthrottled_time {1000 + 200_000_000}\n")
    kernel.write("sys/fs/cgroup/cpu/box/inner/cpu.stat", f"throttled_time {5000 + 50_000_000}\n")
    kernel.run(1.0)
    watcher.after()
    assert watcher.evidence().throttled_share == pytest.approx((0.25,))


def test_steal_that_was_never_counted_on_a_virtual_machine_is_unknown_and_not_0(tmp_path: Path) -> None:
    kernel = KernelStandIn(tmp_path)
    for core in kernel.cores:
        core["steal"] = 0.0
    kernel.show()
    found = one_block(kernel)
    assert found.steal_share == ()
    assert "0 says nothing" in found.unread["steal_share"]
    assert found.foreign_share == pytest.approx((0.0,), abs=0.01)
    kernel.write("proc/cpuinfo", BARE_METAL)
    assert one_block(kernel).steal_share == (0.0,)


def test_there_is_a_value_per_block_at_any_time(kernel: KernelStandIn) -> None:
    watcher = kernel.watcher()
    assert watcher.evidence().foreign_share == ()
    for number in range(1, 4):
        kernel.block(watcher)
        assert len(watcher.evidence().foreign_share) == len(watcher.evidence().cpu_share) == number


def test_a_block_that_failed_is_forgotten_when_the_next_begins(kernel: KernelStandIn) -> None:
    watcher = kernel.watcher()
    watcher.before()
    kernel.run(1.0, foreign={0: 1.0})
    kernel.block(watcher, own=0.5)
    assert watcher.evidence().foreign_share == pytest.approx((0.0,), abs=0.01)


def test_an_end_without_a_beginning_is_an_error(kernel: KernelStandIn) -> None:
    watcher = kernel.watcher()
    kernel.block(watcher)
    with pytest.raises(MeterError, match="never began"):
        watcher.after()


def test_a_clock_that_did_not_move_gives_no_shares(kernel: KernelStandIn) -> None:
    watcher = kernel.watcher()
    watcher.before()
    watcher.after()
    kernel.block(watcher)
    assert watcher.evidence().cpu_share == (None, 0.0)


def test_the_gpu_is_watched_in_the_same_blocks(kernel: KernelStandIn) -> None:
    calls: list[str] = []
    gpu = SimpleNamespace(
        before=lambda: calls.append("before"),
        after=lambda: calls.append("after"),
        close=lambda: calls.append("close"),
        evidence=lambda: GpuEvidence({"gpu_sm_clock_hz": (1e9,)}, {"gpu_temperature_c": "none"}, ("ECC: on",)),
    )
    watcher = kernel.watcher(gpu=gpu)
    kernel.block(watcher)
    found = watcher.evidence()
    watcher.close()
    assert calls == ["before", "after", "close"]
    assert found.gpu_sm_clock_hz == (1e9,)
    assert found.notes == ("ECC: on",)
    assert found.unread == {"gpu_temperature_c": "none"}


def test_without_a_gpu_nothing_is_said_of_one(kernel: KernelStandIn) -> None:
    found = one_block(kernel)
    assert not found.notes
    assert not [name for name in found.unread if name.startswith("gpu")]


def test_systems_without_proc_are_read_through_psutil() -> None:
    times = [SimpleNamespace(idle=100.0), SimpleNamespace(idle=100.9)]
    counted = iter([Times(100.0, 50.0), Times(100.9, 51.1)])
    machine = SystemTimes(SimpleNamespace(cpu_count=lambda: 2, cpu_times=lambda: next(counted)))
    found = machine_shares(machine, (machine.read(), machine.read()), wall_ns=1e9, own_ns=0.5e9)
    assert times[1].idle - times[0].idle == pytest.approx(0.9)
    assert found["foreign_share"] == pytest.approx((2.0 - 0.9 - 0.5) / 2)
    assert found["steal_share"] is None


class Times(NamedTuple):
    idle: float
    user: float


def test_the_real_machine_gives_a_value_or_a_reason_for_everything() -> None:
    watcher = Watcher()
    for _ in range(2):
        watcher.before()
        sum(range(1000))
        watcher.after()
    found = watcher.evidence()
    watcher.close()
    for name in (*ALL, "num_involuntary_switches"):
        column = getattr(found, name)
        assert len(column) == 2 or (column == () and found.unread[name])
