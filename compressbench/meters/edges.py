"""The edges of a slow energy counter, logged beside the run by a thread that is asleep for most of a tick.

A counter that moves every 1 to 100 ms says how much energy was used up to its last increment, not up to now. So only the
increments are logged: between which two readings each happened, and what the counter then said. `edge_energy` makes
windows of them.

Nothing here knows what is read: a function that returns joules which never fall. It may raise; that voids the windows
that it touches, and the sampler goes on.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import takewhile
from typing import NamedTuple

from compressbench.core.errors import CompressbenchError, MeterError
from compressbench.core.protocols import Clock
from compressbench.meters.probe import MIN_SPACING_S, Edge, Probe, summary
from compressbench.meters.rhythm import Rhythm

MAX_EDGES = 1 << 17
MAX_FAULTS = 100
MAX_READINGS = 1 << 10
_MIN_RETRY_S, _MAX_RETRY_S = 1e-3, 0.5
_PAUSED_S = 0.02
_NS = 1e-9

Step = Callable[[], float]
"""One reading; returns the seconds to sleep until the next."""


class Fault(NamedTuple):
    """Between these two moments the counter can't be trusted."""

    earliest_ns: int
    latest_ns: int
    reason: str


class EdgeLog(NamedTuple):
    """What is known of a counter from `begins_ns` to `read_until_ns`, in the order of time.

    `name` is how reasons call it, `resolution_j` the unit in which it counts, `tick_s` how far apart its edges are, lately.
    `readings` are the last ones, from when to when.
    """

    edges: tuple[Edge, ...]
    faults: tuple[Fault, ...]
    begins_ns: int
    read_until_ns: int
    tick_s: float
    resolution_j: float
    name: str
    readings: tuple[tuple[int, int], ...] = ()


def in_thread(step: Step) -> Callable[[], None]:
    """Call `step` again and again in a thread, asleep in between for as long as it says. Returns what ends the thread."""
    done = threading.Event()

    def loop() -> None:
        while not done.wait(step()):
            pass

    def end() -> None:
        done.set()
        thread.join(timeout=2.0)

    thread = threading.Thread(target=loop, name="compressbench-edges", daemon=True)
    thread.start()
    return end


class Timing(NamedTuple):
    """Where time comes from, and who calls a sampler's steps; a simulation puts its own clock in all three places."""

    clock: Clock = time.perf_counter_ns
    sleep: Callable[[float], None] = time.sleep
    background: Callable[[Step], Callable[[], None]] = in_thread


REAL_TIME = Timing()


class EdgeSampler:
    """Logs the edges of the counter that `read` returns, in joules. `probe`, then `start`, then `log` as often as wanted.

    A step back, a rise faster than `max_w`, and whatever `read` raises become faults of the log.
    """

    def __init__(
        self,
        read: Callable[[], float],
        *,
        name: str,
        resolution_j: float = 0.0,
        max_w: float = math.inf,
        timing: Timing = REAL_TIME,
    ) -> None:
        """`name` is how reasons call the counter, e.g. "the NVML energy counter"; it counts in units of `resolution_j`."""
        self._read, self._name, self._resolution_j, self._max_w = read, name, resolution_j, max_w
        self.timing = timing
        self._edges: deque[Edge] = deque(maxlen=MAX_EDGES)
        self._faults: list[Fault] = []
        self._readings: deque[tuple[int, int]] = deque(maxlen=MAX_READINGS)
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None
        self._begins_ns = self._read_until_ns = timing.clock()
        self._rhythm = Rhythm(self._begins_ns, MIN_SPACING_S)
        self._last: tuple[int, float] | None = None
        self._risen_ns: int | None = None
        self._out_since_ns: int | None = None
        self._is_paused = self._is_back = False
        self._has_base = True

    @property
    def tick_s(self) -> float | None:
        """The counter's tick as the last few edges have it; None before there were any."""
        with self._lock:
            return self._rhythm.tick_s

    def probe(self, num_edges: int = 20, limit_s: float = 5.0) -> Probe:
        """Watch the counter until it has moved so many times, at most for `limit_s`. Call it before `start`.

        Raises MeterError if it can't be read, not even when tried once more, or moved less than 3 times.
        """
        begin_ns, costs_ns, first = self.timing.clock(), list[int](), len(self._edges)
        may_fail = True
        while len(self._edges) - first < num_edges and self.timing.clock() - begin_ns < limit_s / _NS:
            before_ns = self.timing.clock()
            pause_s = self.step()
            costs_ns.append(self.timing.clock() - before_ns)
            if self._faults and not (may_fail and self._out_since_ns is not None):
                raise MeterError(f"{self._name} can't be used", got=self._faults[-1].reason)
            if self._faults:
                # no window is open yet that this one could touch
                self._faults.clear()
                self._out_since_ns, may_fail = None, False
            self.timing.sleep(pause_s)
        edges = list(self._edges)[first:]
        if len(edges) < 3:
            got = f"{len(edges)} increments in {limit_s:g} s"
            raise MeterError(f"{self._name} is stuck", got=got, do="Look at the driver.")
        found = summary(edges, costs_ns)
        self._rhythm.reading_s = found.read_s
        return found

    def start(self) -> None:
        """Go on in the background until `close`. A second call does nothing."""
        if self.is_running:
            return
        self._rhythm.may_sleep = True
        self._end = self.timing.background(self.step)

    def close(self) -> None:
        if self._end is not None:
            self._end()
            self._end = None

    def pause(self) -> None:
        """Don't read until `resume`."""
        self._is_paused = True

    def resume(self) -> None:
        """Go on, asleep until the next increment is due, which is caught."""
        with self._lock:
            if self._is_paused:
                self._is_paused, self._is_back = False, True

    def has_edge_since(self, moment_ns: int) -> bool:
        """Whether the counter has risen after this moment, and it is known when, as far as it has been read."""
        with self._lock:
            since = takewhile(lambda edge: edge.earliest_ns >= moment_ns, reversed(self._edges))
            return any(edge.is_sharp(self._apart_s) for edge in since)

    @property
    def is_running(self) -> bool:
        return self._end is not None

    @property
    def read_until_ns(self) -> int:
        """Whatever happened up to this moment is in the log."""
        return self._read_until_ns

    def log(self) -> EdgeLog:
        """Everything that is remembered; as long as nobody calls `forget`, at most `MAX_EDGES` edges."""
        with self._lock:
            edges, faults, until_ns = tuple(self._edges), tuple(self._faults), self._read_until_ns
            apart_s, readings = self._apart_s, tuple(self._readings)
        begins_ns = edges[0].earliest_ns if len(edges) == MAX_EDGES else self._begins_ns
        return EdgeLog(edges, faults, begins_ns, until_ns, apart_s, self._resolution_j, self._name, readings)

    @property
    def _apart_s(self) -> float:
        """How far apart increments are that are waited for."""
        return max(MIN_SPACING_S, self._rhythm.tick_s or math.inf)

    def forget(self, before_ns: int) -> None:
        """Drop what was logged before this moment, but for the last two edges before it."""
        with self._lock:
            while len(self._edges) > 2 and self._edges[2].latest_ns < before_ns:
                self._edges.popleft()
            if len(self._edges) and self._edges[0].earliest_ns < before_ns:
                self._begins_ns = max(self._begins_ns, self._edges[0].earliest_ns)
            is_out = self._out_since_ns is not None
            old = [fault for fault in self._faults if fault.latest_ns < before_ns]
            # the last one is still growing during an outage
            self._faults = [
                fault for fault in self._faults if fault not in old or (is_out and fault is self._faults[-1])
            ]

    def step(self) -> float:
        """Read the counter once; returns the seconds until it should be read again. Never raises."""
        if self._is_paused:
            return _PAUSED_S
        asked_ns = self.timing.clock()
        if self._is_back:
            with self._lock:
                self._is_back = self._has_base = False
                self._rhythm.resume(asked_ns)
                return self._rhythm.pause_s(asked_ns)
        try:
            joules = self._read()
            if not math.isfinite(joules):
                raise MeterError(f"{self._name} gave something else than joules", got=repr(joules))
        except Exception as error:  # noqa: BLE001 -- nobody would see it in a thread; it voids the windows it touches
            return self._lost(asked_ns, self.timing.clock(), error)
        got_ns = self.timing.clock()
        with self._lock:
            return self._take(asked_ns, got_ns, joules)

    def _take(self, asked_ns: int, got_ns: int, joules: float) -> float:
        self._readings.append((asked_ns, got_ns))
        previous, self._last = self._last, (asked_ns, joules)
        if previous is None:
            self._recover(got_ns)
        elif reason := self._implausible(previous, got_ns, joules):
            self._add_fault(Fault(previous[0], got_ns, reason))
            self._begin_anew(got_ns)
        elif not self._has_base:
            # it has moved, how often and when nobody knows: the next one counts
            self._risen_ns = previous[0]
            self._rhythm.base(got_ns)
        elif joules > previous[1]:
            self._risen_ns = previous[0]
            if self._rhythm.rise(previous[0], got_ns):
                self._edges.append(Edge(previous[0], got_ns, joules))
        else:
            self._rhythm.no_rise()
        self._read_until_ns, self._has_base = asked_ns, True
        return self._rhythm.pause_s(got_ns)

    def _implausible(self, previous: tuple[int, float], got_ns: int, joules: float) -> str:
        before_ns, before_j = previous
        if joules < before_j:
            return f"{self._name} went backwards, from {before_j:.6g} to {joules:.6g} J"
        tick_s = self._rhythm.tick_s or 1.0
        # the first rise after a pause holds energy of up to a tick before it; one that comes late is followed closely
        since_ns = before_ns - tick_s / _NS if self._risen_ns is None else self._risen_ns
        seconds = max((got_ns - since_ns) * _NS, tick_s / 2)
        if joules - before_j > self._max_w * seconds:
            rise_j = joules - before_j
            return f"{self._name} rose by {rise_j:.6g} J in {seconds:.3g} s, which would be {rise_j / seconds:.6g} W"
        return ""

    def _recover(self, now_ns: int) -> None:
        if self._out_since_ns is not None:
            self._faults[-1] = self._faults[-1]._replace(latest_ns=now_ns)
            self._out_since_ns = None
        self._begin_anew(now_ns)

    def _begin_anew(self, now_ns: int) -> None:
        self._risen_ns = None
        self._rhythm.restart(now_ns)

    def _lost(self, asked_ns: int, now_ns: int, error: Exception) -> float:
        """A reading failed: one fault for all of an outage, from the last good reading to the next."""
        with self._lock:
            if self._out_since_ns is None:
                reason = str(error) if isinstance(error, CompressbenchError) else f"{type(error).__name__}: {error}"
                self._out_since_ns = asked_ns
                self._add_fault(Fault(asked_ns if self._last is None else self._last[0], now_ns, reason))
            else:
                self._faults[-1] = self._faults[-1]._replace(latest_ns=now_ns)
            self._last, self._read_until_ns = None, asked_ns
            return min(max((now_ns - self._out_since_ns) * _NS / 10, _MIN_RETRY_S), _MAX_RETRY_S)

    def _add_fault(self, fault: Fault) -> None:
        if len(self._faults) >= MAX_FAULTS:  # widen the last one rather than forget any
            fault = fault._replace(earliest_ns=self._faults.pop().earliest_ns)
        self._faults.append(fault)
