"""A clock that stands still until it is advanced, and then runs what falls due on the way: threads without threads."""

from __future__ import annotations

from collections.abc import Callable

from compressbench.meters.edges import Step, Timing
from compressbench.testing.fakes import FakeClock


class EventClock(FakeClock):
    """Give `clock.timing` to an instrument, and its background thread becomes steps that run while time is advanced.

    Sleeping advances time too. A step may advance it (a reading takes time); what else falls due meanwhile runs late.
    """

    def __init__(self, start_ns: int = 1_000_000_000) -> None:
        super().__init__(start_ns)
        self._due_ns: dict[Step, int] = {}
        self._is_running = False

    @property
    def timing(self) -> Timing:
        return Timing(self, self.advance, self.attach)

    def attach(self, step: Step) -> Callable[[], None]:
        """Run `step` now and then whenever the seconds that it returned are over. Returns what ends that."""
        self._due_ns[step] = self.now_ns

        def detach() -> None:
            self._due_ns.pop(step, None)

        return detach

    def advance(self, seconds: float) -> None:
        end_ns = self.now_ns + round(seconds * 1e9)
        if self._is_running:
            self.now_ns = end_ns
            return
        while self._due_ns:
            step = min(self._due_ns, key=self._due_ns.__getitem__)
            if self._due_ns[step] > end_ns:
                break
            self.now_ns = max(self.now_ns, self._due_ns[step])
            self._run(step)
        self.now_ns = max(self.now_ns, end_ns)

    sleep = advance

    def _run(self, step: Step) -> None:
        self._is_running = True
        try:
            pause_s = step()
        finally:
            self._is_running = False
        if step in self._due_ns:
            self._due_ns[step] = self.now_ns + max(1, round(pause_s * 1e9))
