"""What else the machine did during a block: read before and after it, outside of the timed calls.

Reading before and after costs about 90 microseconds together on two cores; /proc/stat grows with cores and interrupts.
What the kernel doesn't have, or gives as garbage, is absent with its reason and never 0.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Clock
from compressbench.measure.cpu_counters import (
    UNREADABLE,
    Frequency,
    Pressure,
    RunQueueWaits,
    Switches,
    Throttling,
    close_all,
    longest_wait,
)
from compressbench.measure.machine_times import machine_shares, open_machine
from compressbench.records.evidence import Column, Evidence

_DIGITS = 6
_NO_STEAL = "not counted here, or never since the machine started: then 0 says nothing on a virtual machine"
_ROOT = Path("/")
# which columns are lost with which source
_COLUMNS = {
    "machine": ("foreign_share", "steal_share", "share_resolution"),
    "waits": ("run_queue_wait_share",),
    "pressure": ("pressure_share",),
    "throttled": ("throttled_share",),
    "switches": ("num_involuntary_switches",),
    "frequency": ("cpu_frequency_hz",),
}
_CPU_COLUMNS = ("cpu_share", *(name for names in _COLUMNS.values() for name in names))


class GpuEvidence(NamedTuple):
    """Columns of `Evidence`, why some are missing, and settings of the device."""

    columns: Mapping[str, Column]
    unread: Mapping[str, str]
    notes: tuple[str, ...]


class WatchesGpu(Protocol):
    """compressbench.measure.gpu_evidence.GpuWatcher, or a fake of it."""

    def before(self) -> None: ...

    def after(self) -> None: ...

    def evidence(self) -> GpuEvidence: ...

    def close(self) -> None: ...


class _Reading(NamedTuple):
    clock_ns: int
    process_ns: int
    values: Mapping[str, Any]


class Watcher:
    """Make it on the thread that measures, call `before` and `after` around every block, and `evidence` at any time.

    `root` is where /proc and /sys are looked for. Child processes count as foreign while they run,
    unless `process_clock` counts them. `gpu` is watched in
    the same blocks.
    """

    def __init__(
        self,
        root: Path = _ROOT,
        *,
        clock: Clock = time.perf_counter_ns,
        process_clock: Clock = time.process_time_ns,
        gpu: WatchesGpu | None = None,
    ) -> None:
        self._clock, self._process_clock, self._gpu = clock, process_clock, gpu
        self._unread: dict[str, str] = {}
        self._rows: list[dict[str, float | None]] = []
        self._before: _Reading | None = None
        thread_id = threading.get_native_id()
        makers: dict[str, Callable[[], Any]] = {
            "machine": lambda: open_machine(root),
            "waits": lambda: RunQueueWaits(root, thread_id),
            "pressure": lambda: Pressure(root),
            "throttled": lambda: Throttling(root),
            "switches": Switches,
            "frequency": lambda: Frequency(root, thread_id),
        }
        opened = {name: self._read(name, make) for name, make in makers.items()}
        self._sources = {name: source for name, source in opened.items() if source is not None}

    def before(self) -> None:
        """Begin a block. One that was begun before and not ended (its call failed) is forgotten."""
        if self._gpu is not None:
            self._gpu.before()
        waits = self._sources.get("waits")
        if waits is not None:
            self._read("waits", waits.refresh)
        values = self._read_all("frequency")
        process_ns = self._process_clock()
        self._before = _Reading(self._clock(), process_ns, values)

    def after(self) -> None:
        """End a block: one more value in every column. Raises MeterError without a `before`."""
        if self._before is None:
            raise MeterError("the watcher was told that a block ended which never began", do="Call before() first.")
        clock_ns, process_ns = self._clock(), self._process_clock()
        after = _Reading(clock_ns, process_ns, self._read_all())
        if self._gpu is not None:
            self._gpu.after()
        self._rows.append(self._row(self._before, after))
        self._before = None

    def evidence(self) -> Evidence:
        """Of all blocks so far, in their order."""
        columns = {name: tuple(row.get(name) for row in self._rows) for name in _CPU_COLUMNS}
        read = {name: column for name, column in columns.items() if any(value is not None for value in column)}
        unread = {name: reason for name, reason in self._unread.items() if None in columns[name] or not columns[name]}
        if self._gpu is None:
            return Evidence(**read, unread=unread)
        gpu = self._gpu.evidence()
        return Evidence(**read, **gpu.columns, unread={**unread, **gpu.unread}, notes=gpu.notes)

    def close(self) -> None:
        close_all(self._sources.values())
        if self._gpu is not None:
            self._gpu.close()

    def _read(self, name: str, read: Callable[[], Any]) -> Any:
        """None if it can't be read, with the reason kept."""
        try:
            return read()
        except UNREADABLE as error:
            self._unread.update(dict.fromkeys(_COLUMNS[name], _in_words(error)))
            return None

    def _read_all(self, but: str = "") -> dict[str, Any]:
        return {name: self._read(name, source.read) for name, source in self._sources.items() if name != but}

    def _row(self, before: _Reading, after: _Reading) -> dict[str, float | None]:
        wall_ns, own_ns = after.clock_ns - before.clock_ns, after.process_ns - before.process_ns
        if wall_ns <= 0:
            return {}
        row: dict[str, float | None] = {
            "cpu_share": own_ns / wall_ns,
            "num_involuntary_switches": self._grown("switches", before, after),
            "cpu_frequency_hz": after.values.get("frequency"),
        }
        for name in ("waits", "pressure", "throttled"):
            grown_ns = self._grown(name, before, after)
            row[_COLUMNS[name][0]] = None if grown_ns is None else grown_ns / wall_ns
        row |= self._shares(before, after, wall_ns, own_ns)
        return {name: None if value is None else round(value, _DIGITS) for name, value in row.items()}

    def _shares(self, before: _Reading, after: _Reading, wall_ns: float, own_ns: float) -> dict[str, float | None]:
        machine, old, new = self._sources.get("machine"), before.values.get("machine"), after.values.get("machine")
        if machine is None or old is None or new is None:
            return {}
        shares = self._read("machine", lambda: machine_shares(machine, (old, new), wall_ns, own_ns)) or {}
        if shares and shares["steal_share"] is None:
            self._unread["steal_share"] = _NO_STEAL
        return shares

    def _grown(self, name: str, before: _Reading, after: _Reading) -> float | None:
        """By how much a counter grew in the block, None where it can't be read or went backwards."""
        old, new = before.values.get(name), after.values.get(name)
        if old is None or new is None:
            return None
        grown = longest_wait(old, new) if name == "waits" else new - old
        if grown < 0:
            self._unread[_COLUMNS[name][0]] = "the counter went backwards"
            return None
        return float(grown)


def _in_words(error: Exception) -> str:
    """Without folders: those of a cgroup may name a container or a user."""
    if isinstance(error, OSError):
        return f"{Path(error.filename).name}: {error.strerror}" if error.filename else str(error.strerror)
    return str(error)
