"""CPU energy through codecarbon: a hardware counter where it reads one, else watts x CPU-seconds of this process.

codecarbon's tasks (`start_task`/`stop_task`) are not used. They do their own bookkeeping inside the window (+9 % at 50 ms
of work on one thread, +0.8 % at 500 ms) and run a thread that walks all processes every second. The hardware object
behind them takes 1.2 ms, because it looks for child processes, so that it isn't asked at the marks either: in process mode
its number is watts per thread x CPU-seconds. codecarbon is asked for that rate when the meter is opened, and shown
made-up CPU times to see that it keeps to it; the marks read the CPU time of this process (2 µs). A step of the system
clock, which codecarbon divides by, then changes nothing.

CPU time of children isn't seen by the marks. If they used more than 1 % of what this process did since the last `collect`,
or if some ended, the window is void.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Provenance, Window
from compressbench.meters.codecarbon_modes import NAME, Span, joules_of, mode_of
from compressbench.meters.cpu_time import Child, Children, Moment, read_children, read_moment
from compressbench.meters.energy_codecarbon import find_hardware, make_tracker

MIN_WINDOW_S = 0.25
RAM_NAME = "ram_energy_j"


class EstimatedEnergy:
    """Joules of the CPU (`energy_j`) and, as a guess of its own kind, of the memory (`ram_energy_j`) in a window.

    Opening takes about 2 s the first time in a process. What codecarbon warned about is in the provenance's notes.
    `collect` looks for child processes (1 to 2 ms), so call it right before the first window, too.
    """

    min_window_s = MIN_WINDOW_S

    def __init__(
        self,
        tracker: Any = None,
        read: Callable[[], Moment] = read_moment,
        children: Callable[[], Mapping[Child, float]] = read_children,
    ) -> None:
        """`tracker` is a codecarbon tracker with detected hardware; left out, one is made.

        Raises MeterError if codecarbon is missing, fails, finds no CPU, or comes to its number in a way that isn't known.
        """
        notes: list[str] = []
        tracker = tracker if tracker is not None else make_tracker(notes)
        cpu, self._ram = find_hardware(tracker)
        self._read, self._children = read, Children(children)
        self._mode = mode_of(cpu, lambda: read().monotonic_s)
        self._begin: Moment | None = None
        self._spans: list[Span] = []
        self.provenances: Mapping[str, Provenance] = {
            NAME: self._mode.provenance.model_copy(update={"notes": tuple(notes)}),
            **({RAM_NAME: _RAM_PROVENANCE} if self._ram is not None else {}),
        }

    def start(self) -> None:
        self._mode.begin()
        self._begin = self._read()

    def stop(self) -> None:
        """Raises MeterError if no window was started."""
        end = self._read()
        if self._begin is None:
            raise MeterError("this energy meter was stopped before it was started", do="Call start() first.")
        begin, self._begin = self._begin, None
        try:
            joules, trouble = self._mode.end(end.monotonic_s - begin.monotonic_s), ""
        except MeterError as error:
            joules, trouble = None, str(error)
        self._spans.append(Span(begin, end, joules, trouble))

    def collect(self) -> list[Window]:
        spans, self._spans = self._spans, []
        children_s, ram_w = self._children.used_s(), self._ram_w()
        return [_with_ram(self._mode.window(span, children_s), ram_w) for span in spans]

    def close(self) -> None:
        """Forget all windows. Nothing else is held: no thread, no file."""
        self._begin, self._spans = None, []

    def _ram_w(self) -> float:
        """Watts that codecarbon assumes for the memory now; 0 if it has no idea."""
        try:
            return 0.0 if self._ram is None else joules_of(self._ram, 1.0)
        except MeterError:  # a guess beside the point must not cost the number
            return 0.0


def _with_ram(window: Window, ram_w: float) -> Window:
    if window.reason or ram_w == 0:
        return window
    return Window(
        seconds=window.seconds,
        values={**window.values, RAM_NAME: ram_w * window.seconds},
        uncertainties={**window.uncertainties, RAM_NAME: 0.0},
    )


_RAM_PROVENANCE = Provenance(
    kind="modelled",
    source="codecarbon's constant power per memory module, guessed from this process's memory",
    boundary="memory (this process)",
    uncertainty_reason="no instrument is read: a constant times the duration",
)
