"""The windows of an instrument that is one sampled counter: marked beside the sampler, and read from its log."""

from __future__ import annotations

from collections.abc import Callable

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Window
from compressbench.meters.edge_energy import energy_window, quiet_window, sharp
from compressbench.meters.edges import EdgeSampler
from compressbench.meters.marks import Marks

_MIN_WAIT_S = 2.0
_NS = 1e-9


class EdgeWindows:
    """The `start`, `stop` and `collect` of an instrument that is one sampled counter. `name` is that of its value.

    The sampler of one that `rests` reads only while a window needs it.
    """

    def __init__(self, sampler: EdgeSampler, name: str = "energy_j", *, rests: bool = False) -> None:
        self._sampler, self._name, self._marks = sampler, name, Marks(sampler.timing.clock)
        self._is_led, self._quiet, self._rests = False, list[bool](), rests
        if rests:
            sampler.pause()

    def lead(self, *, before: bool) -> Callable[[], bool]:
        """Says whether the counter has moved since this call. `before`: the window that is started next is quiet, the
        sampler doesn't read while it is open.
        """
        self._require_open()
        self._sampler.resume()
        self._is_led, asked_ns = before, self._sampler.timing.clock()
        return lambda: self._sampler.has_edge_since(asked_ns)

    def start(self) -> None:
        """Raises MeterError if the sampler has been closed."""
        self._require_open()
        if self._is_led:
            self._sampler.pause()
        else:
            self._sampler.resume()
        self._marks.start()

    def stop(self) -> None:
        self._marks.stop()
        self._quiet.append(self._is_led)
        self._sampler.resume()
        self._is_led = False

    def collect(self) -> list[Window]:
        """The windows since the last call. Waits until the counter has been read after the end of the last one."""
        self._is_led = self._is_led and self._marks.is_open  # a lead whose window never began
        marks, quiet = self._marks.take(), self._quiet
        self._quiet = []
        if marks:
            self._wait_until_read(marks[-1].end_ns)
            if quiet[-1]:
                self._wait(lambda: self._sampler.has_edge_since(marks[-1].end_ns))
        log = self._sampler.log()
        windows = [
            (quiet_window if is_quiet else energy_window)(log, mark.begin_ns, mark.end_ns, self._name)
            for mark, is_quiet in zip(marks, quiet, strict=True)
        ]
        self._sampler.forget(self._marks.needed_since_ns())
        if self._rests and not self._marks.is_open:
            self._sampler.pause()
        return windows

    def series(self, begin_ns: int, end_ns: int) -> list[tuple[int, float]]:
        """The counter's increments in that time, when and to how many joules. Call it before `collect`, which forgets.

        Without those that the sampler slept over: when they happened is known only to a tick.
        """
        log = self._sampler.log()
        found = [(round(edge.at_ns), edge.joules) for edge in sharp(log.edges, log.tick_s)]
        return [(at_ns, joules) for at_ns, joules in found if begin_ns <= at_ns <= end_ns]

    def _require_open(self) -> None:
        if not self._sampler.is_running:
            raise MeterError("this meter has been closed", do="Open it again.")

    def _wait_until_read(self, moment_ns: int) -> None:
        self._wait(lambda: self._sampler.read_until_ns >= moment_ns)

    def _wait(self, is_done: Callable[[], bool]) -> None:
        timing, tick_s = self._sampler.timing, self._sampler.tick_s or 0.0
        deadline_ns = timing.clock() + (_MIN_WAIT_S + 2 * tick_s) / _NS
        while not is_done() and timing.clock() < deadline_ns:
            timing.sleep(max(1e-3, min(tick_s, 0.1) / 4))
