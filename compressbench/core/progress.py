"""How long work tells how far it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    def advance(self, amount: float = 1, note: str = "") -> None:
        """`note` is something short to stand beside the bar, such as a loss."""
        ...


class Progress(Protocol):
    def bar(self, description: str, total: float) -> AbstractContextManager[Bar]: ...

    def say(self, line: str) -> None: ...


class _SilentBar:
    def advance(self, amount: float = 1, note: str = "") -> None:
        pass


class SilentProgress:
    """Says nothing: for libraries and tests."""

    @contextmanager
    def bar(self, description: str, total: float) -> Iterator[Bar]:
        yield _SilentBar()

    def say(self, line: str) -> None:
        pass
