"""Counters of the kernel that tell how much CPU somebody else had: kept open, because they are read between blocks.

Every source raises one of `UNREADABLE` if the kernel doesn't have it or gives something else than the number asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from compressbench.core.errors import MeterError
from compressbench.records.environment import cgroup_folders

UNREADABLE = (OSError, ValueError, IndexError, MeterError)
MAX_THREADS = 32
FIRST_BYTES = 4096
_NS_PER_US = 1000


class KernelFile:
    """A file of /proc or /sys, opened once and read from its beginning every time."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY)

    def read(self, num_bytes: int = FIRST_BYTES) -> bytes:
        return os.pread(self._fd, num_bytes, 0)

    def close(self) -> None:
        os.close(self._fd)


class RunQueueWaits:
    """By thread of this process: nanoseconds it waited, ready to run, for a CPU (second number of schedstat).

    With more than `MAX_THREADS` threads only the measuring one is read, because each costs a system call per block.
    """

    def __init__(self, root: Path, thread_id: int) -> None:
        self._folder, self._thread_id = root / "proc/self/task", thread_id
        self._files: dict[int, KernelFile] = {}
        self.refresh()
        self._wait(self._files[thread_id])

    def refresh(self) -> None:
        """Take over threads that have begun or ended; call it before a block, `read` after."""
        numbers = {int(name) for name in os.listdir(self._folder)}
        if len(numbers) > MAX_THREADS or self._thread_id not in numbers:
            numbers = {self._thread_id}
        for number in self._files.keys() - numbers:
            self._files.pop(number).close()
        for number in numbers - self._files.keys():
            try:
                self._files[number] = KernelFile(self._folder / str(number) / "schedstat")
            except OSError:
                if number == self._thread_id:
                    raise

    def read(self) -> dict[int, int]:
        """The measuring thread has to be readable; another one may have ended."""
        waits = {}
        for number, file in self._files.items():
            try:
                waits[number] = self._wait(file)
            except OSError:
                if number == self._thread_id:
                    raise
        return waits

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _wait(self, file: KernelFile) -> int:
        running, waited, _ = (int(field) for field in file.read(64).split())
        if running <= 0 or waited < 0:
            raise MeterError(f"the kernel keeps no statistics of its scheduler (schedstat is {running} {waited})")
        return waited


def longest_wait(before: Mapping[int, int], after: Mapping[int, int]) -> int:
    """Of one thread between two readings, in ns. A thread that began in between is left out.

    The longest and not the sum: work that is split evenly waits for its last part, and the short waits of waking up, once
    per thread and parallel region, would add up to a share that disturbs nobody.
    """
    return max(after[number] - before[number] for number in after if number in before)


class Throttling:
    """Nanoseconds that CPU quotas took from this process's cgroup and those above, summed over cores (cpu.stat)."""

    def __init__(self, root: Path) -> None:
        paths = [folder / "cpu.stat" for folder in cgroup_folders(root)]
        self._files = [KernelFile(path) for path in dict.fromkeys(paths) if path.is_file()]
        found = [file for file in self._files if _throttled_ns(file.read()) is not None]
        for file in self._files:
            if file not in found:
                file.close()
        self._files = found
        if not found:
            raise MeterError("no cpu.stat of a cgroup says how long it was throttled")

    def read(self) -> float:
        values = [_throttled_ns(file.read()) for file in self._files]
        if None in values:
            raise MeterError("a cgroup's cpu.stat no longer says how long it was throttled")
        return sum(value for value in values if value is not None)

    def close(self) -> None:
        for file in self._files:
            file.close()


def _throttled_ns(text: bytes) -> float | None:
    """`throttled_usec` of version 2, `throttled_time` (ns) of version 1."""
    found = re.search(rb"^throttled_(usec|time) (\d+)$", text, re.MULTILINE)
    return None if found is None else int(found[2]) * (_NS_PER_US if found[1] == b"usec" else 1)


class Pressure:
    """Nanoseconds in which some process of the machine waited for a CPU (/proc/pressure/cpu)."""

    def __init__(self, root: Path) -> None:
        self._file = KernelFile(root / "proc/pressure/cpu")
        self.read()

    def read(self) -> float:
        found = re.match(rb"some .*\btotal=(\d+)", self._file.read(256))
        if not found:
            raise MeterError("/proc/pressure/cpu has no total")
        return int(found[1]) * _NS_PER_US

    def close(self) -> None:
        self._file.close()


class Switches:
    """How often this process lost a CPU that it still wanted (involuntary context switches)."""

    def __init__(self) -> None:
        try:
            import resource
        except ImportError as error:
            raise MeterError("this system has no getrusage") from error
        self._resource = resource

    def read(self) -> int:
        return self._resource.getrusage(self._resource.RUSAGE_SELF).ru_nivcsw

    def close(self) -> None:
        pass


class Frequency:
    """Of the core that ran the measuring thread last, in Hz, as cpufreq knows it; virtual machines rarely do.

    /proc/cpuinfo isn't asked: without cpufreq it repeats a nominal value, and on many cores it takes milliseconds.
    """

    def __init__(self, root: Path, thread_id: int) -> None:
        self._cores, self._files = root / "sys/devices/system/cpu", dict[int, KernelFile]()
        self._stat = KernelFile(root / "proc/self/task" / str(thread_id) / "stat")
        self.read()

    def read(self) -> float:
        core = int(self._stat.read().rpartition(b")")[2].split()[36])  # field 39 of proc(5), counted from the third
        if core not in self._files:
            self._files[core] = KernelFile(self._cores / f"cpu{core}/cpufreq/scaling_cur_freq")
        kilohertz = int(self._files[core].read(64))
        if kilohertz <= 0:
            raise MeterError("cpufreq gives no frequency", got=str(kilohertz))
        return kilohertz * 1e3

    def close(self) -> None:
        for file in (self._stat, *self._files.values()):
            file.close()


def close_all(sources: Iterable[Any]) -> None:
    for source in sources:
        source.close()
