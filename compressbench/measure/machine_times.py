"""How much CPU time everybody else had in a block: the machine's times less our own, and what the ticks leave uncertain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from compressbench.core.errors import MeterError
from compressbench.measure.cpu_counters import FIRST_BYTES, KernelFile

# what ticks can make up beyond this share says nothing: the block is too short for them
MAX_RESOLUTION = 0.25
_BYTES_PER_CORE = 160
_TICK_NS = 10_000_000  # /proc/stat counts in 1/100 s (USER_HZ) on every architecture that Linux runs on today


class MachineTimes(NamedTuple):
    """Of all usable cores since they were started. `steal_ns` is None where nobody counts it."""

    idle_ns: float
    steal_ns: float | None
    all_ns: float


class Machine(Protocol):
    """`resolution_ns`: what rounding may add to or take from the difference of two readings."""

    num_cores: int
    resolution_ns: float

    def read(self) -> MachineTimes: ...

    def close(self) -> None: ...


def open_machine(root: Path) -> Machine:
    """/proc/stat, or what psutil says where there is none (macOS, Windows)."""
    if (root / "proc/stat").exists():
        return ProcStat(root)
    if root != Path("/"):
        raise MeterError("there is no /proc/stat")
    import psutil

    return SystemTimes(psutil)


class ProcStat:
    """The cores that this process may run on, from /proc/stat; in a container that's the machine's, not the container's.

    The line of all cores is rounded once, that of each core once per core. Under a quota of 2 of 64 cores all 64 are
    looked at, since any of them may run us; under an affinity of 2 of 64 those two.
    """

    def __init__(self, root: Path) -> None:
        self._file = KernelFile(root / "proc/stat")
        self._is_bare_metal = _is_bare_metal(root)
        there = {name for name, _ in self._lines(1 << 20)} - {"cpu"}
        usable = there & {f"cpu{number}" for number in usable_cores(root)}
        if not usable:
            raise MeterError("/proc/stat has none of the cores that this process may run on", got=str(len(there)))
        self._names = {"cpu"} if usable == there else usable
        self.num_cores = len(usable)
        # each difference of two rounded counters is off by less than a tick; over n independent ones 1.5 sqrt(n) ticks
        # are 3.6 standard deviations
        self.resolution_ns = _TICK_NS * min(len(self._names), 1.5 * len(self._names) ** 0.5)
        highest = max(int(name[3:]) for name in usable)
        self._num_bytes = FIRST_BYTES if usable == there else FIRST_BYTES + _BYTES_PER_CORE * (highest + 1)

    def read(self) -> MachineTimes:
        """Steal is None on a virtual machine that has never counted any: that 0 says nothing."""
        idle = steal = everything = num_lines = 0
        for name, fields in self._lines(self._num_bytes):
            if name in self._names:
                user, nice, system, idling, iowait, irq, softirq, stolen = (int(field) for field in fields[:8])
                idle += idling + iowait
                steal += stolen
                everything += user + nice + system + idling + iowait + irq + softirq + stolen
                num_lines += 1
        if num_lines != len(self._names):
            raise MeterError("/proc/stat lacks cores that it had", got=f"{num_lines} of {len(self._names)} lines")
        is_counted = steal > 0 or self._is_bare_metal
        return MachineTimes(idle * _TICK_NS, steal * _TICK_NS if is_counted else None, everything * _TICK_NS)

    def close(self) -> None:
        self._file.close()

    def _lines(self, num_bytes: int) -> Iterator[tuple[str, list[bytes]]]:
        for line in self._file.read(num_bytes).split(b"\n")[:-1]:
            name, *fields = line.split() or [b""]
            if not name.startswith(b"cpu"):
                return
            yield name.decode("ascii", "replace"), fields


class SystemTimes:
    """The same of a system without /proc, from psutil: all cores, and no steal."""

    resolution_ns = 2.0 * _TICK_NS  # Windows counts in 1/64 s

    def __init__(self, psutil: Any) -> None:
        self._psutil, self.num_cores = psutil, int(psutil.cpu_count())

    def read(self) -> MachineTimes:
        times = self._psutil.cpu_times()
        return MachineTimes(times.idle * 1e9, None, sum(times) * 1e9)

    def close(self) -> None:
        pass


def usable_cores(root: Path) -> set[int]:
    """Those that any thread of this process may run on: OpenMP may have tied the first one to a single core."""
    cores: set[int] = set()
    for status in (root / "proc/self/task").glob("*/status"):
        try:
            found = re.search(r"^Cpus_allowed_list:\s*(\S+)", status.read_text(errors="replace"), re.MULTILINE)
        except OSError:  # that thread has ended meanwhile
            continue
        cores.update(_cores_in(found[1]) if found else ())
    if not cores:
        raise MeterError("the cores that this process may run on can't be read from /proc/self/task")
    return cores


def _cores_in(listed: str) -> Iterator[int]:
    """Of a list such as 0-3,8."""
    for part in listed.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _is_bare_metal(root: Path) -> bool:
    try:
        with (root / "proc/cpuinfo").open("rb") as file:
            text = file.read(FIRST_BYTES)
    except OSError:
        return False
    return b"\nflags" in text and b" hypervisor" not in text


def machine_shares(
    machine: Machine, times: tuple[MachineTimes, MachineTimes], wall_ns: float, own_ns: float
) -> dict[str, float | None]:
    """Foreign and stolen time per second of all cores, and what rounding can make up of them.

    Foreign is what is neither idle nor stolen nor ours. Idle time is taken and not the sum of busy times, which the kernel
    samples at its timer's ticks. Raises MeterError if the counters went backwards, or don't keep up with the clock, or the
    block is too short for them.
    """
    old, new = times
    cores_ns = machine.num_cores * wall_ns
    resolution = machine.resolution_ns / cores_ns
    idle_ns, all_ns = new.idle_ns - old.idle_ns, new.all_ns - old.all_ns
    # the sum has eight rounded numbers; a machine that was paused may have missed many of its ticks
    slack_ns = 0.5 * cores_ns + 8 * machine.resolution_ns
    if idle_ns < -2 * machine.resolution_ns or not -slack_ns <= all_ns - cores_ns <= slack_ns:
        raise MeterError(
            "the machine's CPU times don't keep up with the clock",
            got=f"{all_ns / 1e9:g} s, {idle_ns / 1e9:g} s of it idle, in {cores_ns / 1e9:g} s of all cores",
        )
    if resolution > MAX_RESOLUTION:
        raise MeterError(
            f"a block of {wall_ns / 1e6:.3g} ms is too short for the ticks of the machine's CPU times",
            do=f"From {machine.resolution_ns / machine.num_cores / MAX_RESOLUTION / 1e6:.3g} ms on they can be used.",
        )
    steal_ns = None if old.steal_ns is None or new.steal_ns is None else max(0.0, new.steal_ns - old.steal_ns)
    foreign_ns = cores_ns - idle_ns - (steal_ns or 0.0) - own_ns
    return {
        "foreign_share": max(0.0, foreign_ns / cores_ns),
        "steal_share": None if steal_ns is None else steal_ns / cores_ns,
        "share_resolution": resolution,
    }
