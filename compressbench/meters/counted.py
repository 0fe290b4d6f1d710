"""What the meters share that are one sampled counter (`edges`): windows, and work that leads in and out of them."""

from __future__ import annotations

from collections.abc import Callable

from compressbench.core.protocols import Window
from compressbench.meters.edge_energy import min_window_s
from compressbench.meters.edge_windows import EdgeWindows
from compressbench.meters.edges import EdgeSampler
from compressbench.meters.probe import Probe, is_slow_to_read


class Counted:
    """The windows of a sampler that has been probed, which goes on in the background from now on.

    Where one reading takes long it delays what is launched meanwhile (3 ms on an H200): then the meter `wants_lead`, and
    the counter is read only for windows, and not in those that have one.
    """

    def __init__(self, sampler: EdgeSampler, probe: Probe) -> None:
        self.min_window_s, self.wants_lead = min_window_s(probe.tick_s), is_slow_to_read(probe)
        self._sampler, self._windows = sampler, EdgeWindows(sampler, rests=self.wants_lead)
        sampler.start()

    def lead(self, *, before: bool) -> Callable[[], bool]:
        """Look for the counter's next increment, before a window that is to be quiet or after one: whether it came.

        Raises MeterError after `close`.
        """
        return self._windows.lead(before=before)

    def start(self) -> None:
        """Mark the beginning of a window. Raises MeterError if one is open, or after `close`."""
        self._windows.start()

    def stop(self) -> None:
        """Mark its end. Raises MeterError if none is open."""
        self._windows.stop()

    def collect(self) -> list[Window]:
        """The windows since the last call, void with a reason if the counter was lost, stuck, reset, or too slow.

        Waits until the counter has been read after the end of the last one, a tick or two.
        """
        return self._windows.collect()

    def series(self, begin_ns: int, end_ns: int) -> list[tuple[int, float]]:
        """When the counter moved, and to how many joules."""
        return self._windows.series(begin_ns, end_ns)
