"""CPU threads as a setting of each arm: sessions that run with so many, and which number is best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressbench.core.deploying import RunsFiles
from compressbench.core.protocols import Batch, Session
from compressbench.measure.sweep import Swept
from compressbench.records.measurement import Arm

if TYPE_CHECKING:
    from compressbench.core.registry import Resolved

SessionOf = Callable[[Arm, int], Session]
"""An arm's session with so many CPU threads."""
# fewer threads that are as fast leave the others to somebody else
_AS_GOOD = 0.99


class Threaded:
    """A session whose calls run with `num_threads` threads of PyTorch, whatever the arm before was given."""

    def __init__(self, session: Session, num_threads: int) -> None:
        import torch

        self.device, self._session, self._num_threads, self._torch = session.device, session, num_threads, torch

    def __call__(self, batch: Batch) -> Any:
        self._pin()
        return self._session(batch)

    def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> Any:
        self._pin()
        return self._session.generate(batch, num_tokens, on_token)

    def synchronize(self) -> None:
        self._session.synchronize()

    def close(self) -> None:
        self._session.close()

    def _pin(self) -> None:
        if self._torch.get_num_threads() != self._num_threads:
            self._torch.set_num_threads(self._num_threads)


def with_threads(session: Session, runtime: Resolved, num_threads: int) -> Threaded:
    """The session with so many threads: an engine that fixes them when it opens its files opens them again."""
    import torch

    if not isinstance(runtime.value, RunsFiles):
        return Threaded(session, num_threads)
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        opened = runtime.value.open(Path(session.owned_folder.name), session.device)  # type: ignore[attr-defined]
    finally:
        torch.set_num_threads(before)
    return Threaded(opened, num_threads)


def best_of_threads(tried: Mapping[int, Swept]) -> tuple[Swept, dict[Arm, int]]:
    """The sweeps as one, whose best sizes are those at each arm's best number of threads, and that number.

    The fewest threads within 1 % of the highest rate are the best: a sweep chooses, and does not compare.
    """
    points = [
        point.model_copy(update={"num_threads": count}) for count, swept in tried.items() for point in swept.points
    ]
    rates = {
        (point.arm, count): point.samples_per_s
        for count, swept in tried.items()
        for point in swept.points
        if point.samples_per_s is not None and swept.best.get(point.arm) == point.batch_size
    }
    chosen: dict[Arm, int] = {}
    for arm in dict.fromkeys(arm for arm, _ in rates):
        own = {count: rate for (each, count), rate in rates.items() if each == arm}
        chosen[arm] = min(count for count, rate in own.items() if rate >= _AS_GOOD * max(own.values()))
    best = {arm: tried[count].best[arm] for arm, count in chosen.items()}
    return Swept(points, best), chosen
