"""Several requests at once: the rows of a batch, and when a position of all of them is there."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Positions:
    """Calls `on_token` once for each position that all rows have, in the thread that brought the last of them."""

    def __init__(self, num_rows: int, num_tokens: int, on_token: Callable[[], None] | None) -> None:
        self._counts, self._num_tokens, self._on_token = [0] * num_rows, num_tokens, on_token
        self._told = 0
        self._lock = threading.Lock()

    def told(self, row: int) -> Callable[[int], None] | None:
        """What to call with the number of tokens that an event of this row brought."""
        return None if self._on_token is None else lambda count: self._more(row, count)

    def _more(self, row: int, count: int) -> None:
        assert self._on_token is not None  # noqa: S101 -- or nobody is told
        with self._lock:
            self._counts[row] += count
            there = min(self._counts)
            while self._told < there:
                self._told += 1
                self._on_token()


def at_once(asks: Sequence[Callable[[], T]], max_in_flight: int) -> list[T]:
    """Their answers in order. A single one is asked in this thread, which costs least. Raises the first error there is,
    when all are done.
    """
    if len(asks) <= 1:
        return [ask() for ask in asks]
    with ThreadPoolExecutor(min(len(asks), max_in_flight)) as pool:
        futures = [pool.submit(ask) for ask in asks]
    return [future.result() for future in futures]


def seed_of(seed: int, prompt: Sequence[int], number: int) -> int:
    """A seed of 31 bits for the `number`-th text after this prompt."""
    digest = hashlib.sha256(repr((seed, list(prompt), number)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
