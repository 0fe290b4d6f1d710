"""A clock that is set by hand, a session that takes as long as it is told, and instruments that replay."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Batch, Provenance, Window


class FakeClock:
    """Monotonic nanoseconds that stand still until something advances them."""

    def __init__(self, start_ns: int = 1_000_000_000) -> None:
        self.now_ns = start_ns

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)

    sleep = advance
    """Stands in for time.sleep."""


class FakeSession:
    """A session whose n-th call takes durations_s[n] (round and round), or what a function of n says."""

    device = "cpu"

    def __init__(self, clock: FakeClock, durations_s: Sequence[float] | Callable[[int], float]) -> None:
        self._clock, self._durations, self.num_calls = clock, durations_s, 0

    def __call__(self, batch: Batch) -> Any:
        given = self._durations
        seconds = given(self.num_calls) if callable(given) else given[self.num_calls % len(given)]
        self._clock.advance(seconds)
        self.num_calls += 1
        return batch

    def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> Any:
        """Every token takes what the next duration says."""
        for _ in range(num_tokens):
            self(batch)
            if on_token is not None:
                on_token()
        return [[*row, *[0] * num_tokens] for row in batch.get("input_ids", [[]])]

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        pass


class ReplayInstrument:
    """An instrument that gives the values it was made with, one window after the other.

    A text in the place of values is the reason of a void window; an exception is raised when the window is stopped.
    """

    min_window_s = 0.0

    def __init__(self, windows: Iterable[Mapping[str, float] | str | Exception], kind: Any = "measured") -> None:
        given = list(windows)
        self._windows = itertools.cycle(given)
        names = {name for window in given if isinstance(window, Mapping) for name in window}
        how = Provenance(kind=kind, source="replayed", boundary="device", relative_uncertainty=0.0, tick_s=0.001)
        self.provenances = dict.fromkeys(names, how)
        self.calls: list[str] = []
        self._finished: list[Window] = []

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")
        window = next(self._windows)
        if isinstance(window, Exception):
            raise window
        if isinstance(window, str):
            self._finished.append(Window(seconds=1.0, reason=window))
        else:
            self._finished.append(Window(seconds=1.0, values=window, uncertainties=dict.fromkeys(window, 0.0)))

    def collect(self) -> list[Window]:
        self.calls.append("collect")
        finished, self._finished = self._finished, []
        return finished

    def close(self) -> None:
        self.calls.append("close")


class BrokenInstrument(ReplayInstrument):
    """Fails with a MeterError in its n-th window (from 0) and in all after it."""

    def __init__(self, after: int, window: dict[str, float]) -> None:
        super().__init__([*[window] * after, *[MeterError("the instrument was unplugged")] * 10_000])
