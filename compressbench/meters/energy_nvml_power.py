"""`energy-nvml-power`: energy of an NVIDIA GPU as the integral of the power that NVML reports, sampled beside the run.

For GPUs without an energy counter, and as a check on it. What is reported is not momentary power: an average over 1 s
(nvmlDeviceGetPowerUsage, from Ampere on), or over a short part of each update (A100 and H100 sample 25 % of the time,
arXiv:2312.02741). So only those samples count whose average lies within the window: nothing from before it enters.

How often the power is updated is seen from when it changes, again in every window. Power that changed before and then stays
the same for many updates is not measured any more: it voids the window. Power that never changed may be constant.
"""

from __future__ import annotations

import math
import statistics
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

from compressbench.core.errors import CompressbenchError, MeterError
from compressbench.core.protocols import Instrument, Provenance, Window
from compressbench.core.spec import Spec
from compressbench.core.statistics import t_quantile
from compressbench.meters.edges import REAL_TIME, Fault, Timing
from compressbench.meters.marks import Marks
from compressbench.meters.nvml_device import NvmlDevice, cuda_uuid, measured

MAX_SAMPLES = 1 << 17
PROBE_CHANGES = 20
PROBE_LIMIT_S = 3.0
MIN_INDEPENDENT = 3
STUCK_TICKS = 20
STILL_TICKS, TIMES_EVER_BEFORE, MAX_SHARE_STILL = 10, 3, 0.1
MIN_UPDATES, SLOWER = 4, 1.5
ASSUMED_TICK_S = 0.1
_PROBE_POLL_S = 1e-3
_W_PER_MW = 1e-3
_NS = 1e-9
_Z95 = 1.959963984540054
_INSTANT, _USAGE = "NVML_FI_DEV_POWER_INSTANT", "nvmlDeviceGetPowerUsage"
_DUTY = "A100 and H100 sample only 25 % of the run time (arXiv:2312.02741): work in step with the updates is misread"


class EnergyNvmlPower(Spec):
    """Joules of blocks of calls on an NVIDIA GPU, integrated from the power that NVML reports."""

    scope: ClassVar[str] = "block"

    def open(self, device: str) -> Instrument:
        """Raises MeterError if `device` isn't an NVIDIA GPU ("cuda", "cuda:1") whose power can be read."""
        return NvmlPower(cuda_uuid(device))


class Sample(NamedTuple):
    at_ns: int
    watts: float


class NvmlPower:
    """Joules of one whole GPU (`energy_j`) in windows that should last `min_window_s` or longer.

    `span_s` is over how long before a sample its power may have been averaged; so much is lost of every window.
    """

    def __init__(self, device: int | str, *, nvml: Any = None, timing: Timing = REAL_TIME) -> None:
        """`device` is a UUID ("GPU-...") or an index in NVML's order. `nvml` stands in for pynvml.

        Raises MeterError if the power can't be read, or is that of more than the device (MIG).
        """
        self._device, self._timing, self._marks = NvmlDevice(device, nvml), timing, Marks(timing.clock)
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)
        self._faults: deque[Fault] = deque(maxlen=MAX_SAMPLES)
        self._lock = threading.Lock()
        self._is_moving, self._longest_s = True, 0.0
        try:
            self._source, self._watts, self._average_s = self._choose()
            self.tick_s, notes = self._probe()
        except MeterError:
            self._device.close()
            raise
        self.span_s = self._span_s(self.tick_s)
        self.min_window_s = _min_window_s(self.span_s)
        notes += (_DUTY, f"a sample covers up to {self.span_s:.3g} s before it; as much of each window isn't sampled")
        how = measured(self._source, self.tick_s, notes + self._device.shared_with())
        self.provenances: Mapping[str, Provenance] = {"energy_j": how}
        self._begins_ns = timing.clock()
        self._end: Callable[[], None] | None = timing.background(self.step)

    def start(self) -> None:
        """Mark the beginning of a window. Raises MeterError if one is open, or after `close`."""
        if self._end is None:
            raise MeterError("this meter has been closed", do="Open it again.")
        self._marks.start()

    def stop(self) -> None:
        """Mark its end. Raises MeterError if none is open."""
        self._marks.stop()

    def collect(self) -> list[Window]:
        """The windows since the last call, void with a reason if the power was lost, stuck, or too rarely sampled."""
        with self._lock:
            samples, faults = tuple(self._samples), tuple(self._faults)
        if len(samples) == MAX_SAMPLES:
            self._begins_ns = samples[0].at_ns
        windows = [self._window(mark.begin_ns, mark.end_ns, samples, faults) for mark in self._marks.take()]
        self._forget(self._marks.needed_since_ns())
        return windows

    def close(self) -> None:
        """End the thread and let go of NVML. A second call does nothing."""
        if self._end is not None:
            self._end()
            self._end = None
            self._device.close()

    def step(self) -> float:
        """Read the power once; returns the seconds until it should be read again. Never raises."""
        asked_ns = self._timing.clock()
        try:
            watts = self._watts()
        except Exception as error:  # noqa: BLE001 -- nobody would see it in a thread; it voids the windows it touches
            reason = str(error) if isinstance(error, CompressbenchError) else f"{type(error).__name__}: {error}"
            with self._lock:
                self._faults.append(Fault(asked_ns, self._timing.clock(), reason))
            return self.tick_s / 2
        with self._lock:
            self._samples.append(Sample((asked_ns + self._timing.clock()) // 2, watts))
        return self.tick_s / 2

    def _choose(self) -> tuple[str, Callable[[], float], float]:
        """The best power there is: its name, how to read it in watts, and over how long it is averaged (0: unknown)."""
        try:
            self._device.field(_INSTANT)
        except MeterError:
            average_s = 1.0 if self._device.is_averaging() else 0.0
            kind = "the mean of the last second" if average_s else "momentary"
            return f"NVML power ({_USAGE}, {kind}), integrated", self._usage_w, average_s
        return f"NVML power ({_INSTANT}, momentary), integrated", self._instant_w, 0.0

    def _instant_w(self) -> float:
        return self._device.field(_INSTANT) * _W_PER_MW

    def _usage_w(self) -> float:
        value = self._device.read(_USAGE)
        if not isinstance(value, int) or value < 0:
            raise MeterError("NVML gave something else than milliwatts", got=repr(value))
        return value * _W_PER_MW

    def _probe(self) -> tuple[float, tuple[str, ...]]:
        """The median time between two changes of the power; and what to say if it never changes."""
        clock, changes, last = self._timing.clock, list[int](), self._watts()
        deadline_ns = clock() + PROBE_LIMIT_S / _NS
        while len(changes) <= PROBE_CHANGES and clock() < deadline_ns:
            watts = self._watts()
            if watts != last:
                changes.append(clock())
            last = watts
            self._timing.sleep(_PROBE_POLL_S)
        self._is_moving = len(changes) >= MIN_INDEPENDENT
        if not self._is_moving:
            return ASSUMED_TICK_S, (f"its tick is assumed: the power didn't change within {PROBE_LIMIT_S:g} s",)
        apart_s = [(later - earlier) * _NS for earlier, later in pairwise(changes)]
        self._longest_s = max(apart_s)
        return statistics.median(apart_s), ()

    def _span_s(self, tick_s: float) -> float:
        return (self._average_s or tick_s) + tick_s

    def _window(self, begin_ns: int, end_ns: int, samples: Sequence[Sample], faults: Sequence[Fault]) -> Window:
        seconds = (end_ns - begin_ns) * _NS
        for fault in faults:
            if fault.earliest_ns <= end_ns and fault.latest_ns >= begin_ns:
                return Window(seconds=seconds, reason=fault.reason)
        read = [sample for sample in samples if begin_ns <= sample.at_ns <= end_ns]
        if reason := self._gap(read, begin_ns, end_ns):
            return Window(seconds=seconds, reason=reason)
        shown_s = _shown_s(read)
        span_s = self._span_s(self._tick_s_in(shown_s))
        inside = [sample for sample in read if begin_ns + span_s / _NS <= sample.at_ns]
        if reason := self._stillness(shown_s, seconds) or self._trouble(inside, seconds, span_s):
            return Window(seconds=seconds, reason=reason)
        mean_w, uncertainty_w = _mean(inside, span_s)
        return Window(
            seconds=seconds,
            values={"energy_j": mean_w * seconds},
            uncertainties={"energy_j": uncertainty_w * seconds},
        )

    def _tick_s_in(self, shown_s: Sequence[float]) -> float:
        """How far apart updates were in a window, at a random moment of it, if that is more than when it was opened."""
        whole = shown_s[1:-1]
        if len(whole) < MIN_UPDATES:
            return self.tick_s
        tick_s = math.fsum(one**2 for one in whole) / math.fsum(whole)
        return tick_s if tick_s > SLOWER * self.tick_s else self.tick_s

    def _gap(self, read: Sequence[Sample], begin_ns: int, end_ns: int) -> str:
        if begin_ns < self._begins_ns:
            return "the NVML power was not logged from the beginning of the window on: collect more often"
        moments = [begin_ns, *(sample.at_ns for sample in read), end_ns]
        longest_s = max(later - earlier for earlier, later in pairwise(moments)) * _NS
        if longest_s > max(5 * self.tick_s, 0.1 * (end_ns - begin_ns) * _NS):
            return f"the NVML power was not read for {longest_s:.3g} s of the window"
        return ""

    def _trouble(self, inside: Sequence[Sample], seconds: float, span_s: float) -> str:
        if seconds < (MIN_INDEPENDENT + 1) * span_s:
            return f"below resolution: {seconds:.3g} s; measure {_min_window_s(span_s):.3g} s or longer"
        watts = {sample.watts for sample in inside}
        if max(watts) == 0:
            return "NVML reports 0 W, which is not a power of a GPU that is on"
        if len(watts) == 1 and self._is_moving and seconds > STUCK_TICKS * self.tick_s + span_s:
            return f"the NVML power is stuck: {watts.pop():.6g} W throughout the window"
        return ""

    def _stillness(self, shown_s: Sequence[float], seconds: float) -> str:
        """Whether the power stayed the same, between others, for longer than its updates explain, and than ever before."""
        whole = shown_s[1:-1]
        tick_s = max(self.tick_s, statistics.median(whole) if len(whole) >= MIN_UPDATES else 0.0)
        most_s = max(STILL_TICKS * tick_s, TIMES_EVER_BEFORE * self._longest_s, MAX_SHARE_STILL * seconds)
        if self._is_moving and len(shown_s) > 1 and max(shown_s) > most_s:
            longest_s, tick_ms = max(shown_s), tick_s * 1e3
            return f"the NVML power stood still for {longest_s:.3g} s of the window, with a tick of {tick_ms:.3g} ms"
        return ""

    def _forget(self, before_ns: int) -> None:
        with self._lock:
            while self._samples and self._samples[0].at_ns < before_ns:
                self._samples.popleft()
            while self._faults and self._faults[0].latest_ns < before_ns:
                self._faults.popleft()


def _min_window_s(span_s: float) -> float:
    return max(2.0, 5 * span_s)


def _shown_s(samples: Sequence[Sample]) -> list[float]:
    """For how long each power was read before it changed; of the first and the last one it was at least so long."""
    changes = [after.at_ns for before, after in pairwise(samples) if after.watts != before.watts]
    moments = [*(sample.at_ns for sample in samples[:1]), *changes, *(sample.at_ns for sample in samples[-1:])]
    return [(later - earlier) * _NS for earlier, later in pairwise(moments)]


def _mean(samples: Sequence[Sample], span_s: float) -> tuple[float, float]:
    """The trapezoidal mean, and its standard uncertainty: samples further apart than `span_s` are independent.

    Widened for their number, so that 1.96 times it holds 95 % (Student).
    """
    covered_s = (samples[-1].at_ns - samples[0].at_ns) * _NS
    joules = math.fsum((a.watts + b.watts) / 2 * (b.at_ns - a.at_ns) * _NS for a, b in pairwise(samples))
    num_independent = max(2, math.floor(covered_s / span_s) + 1)
    spread_w = statistics.stdev([sample.watts for sample in samples])
    widened = t_quantile(0.975, num_independent - 1) / _Z95
    return joules / covered_s, max(spread_w / math.sqrt(num_independent) * widened, _W_PER_MW / math.sqrt(12))
