"""Progress bars with the time left, on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TerminalProgress:
    """Bars while something runs and a line for what is done; without a terminal, only the lines.

    Drawing is left to the moments when a bar advances, never to a thread: nothing may run beside what is being timed.
    """

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("  {task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> TerminalProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        self._bars.console.print(line, highlight=False, markup=False)

    @contextmanager
    def bar(self, description: str, total: float) -> Iterator[_TerminalBar]:
        task = self._bars.add_task(description, total=total, note="")
        self._bars.refresh()
        try:
            yield _TerminalBar(self._bars, task)
        finally:
            self._bars.remove_task(task)
            self._bars.refresh()


class _TerminalBar:
    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, amount: float = 1, note: str = "") -> None:
        self._bars.update(self._task, advance=amount, note=note)
        self._bars.refresh()
