"""How `breakeven` and `fleet` print: the same four forms, each of its own words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import typer

if TYPE_CHECKING:
    from rich.console import Console


class Words(Protocol):
    """The module of a verb's words."""

    CSV_HEADER: list[str]

    def to_data(self, sheet: Any, /) -> Any: ...

    def to_csv_rows(self, sheet: Any, /) -> Iterable[Sequence[Any]]: ...

    def to_markdown(self, sheet: Any, escape: Callable[[str], str], /) -> str: ...


def print_balance(sheet: Any, form: str, words: Words, on_terminal: Callable[[Any, Console], None]) -> None:
    if form == "json":
        from compressbench.core.names import json_text

        typer.echo(json_text(words.to_data(sheet)), nl=False)
    elif form == "csv":
        typer.echo(_to_csv_text(words.CSV_HEADER, words.to_csv_rows(sheet)), nl=False)
    elif form == "md":
        from compressbench.report.plain import escape

        typer.echo(words.to_markdown(sheet, escape), nl=False)
    else:
        from rich.console import Console

        on_terminal(sheet, Console(highlight=False))


def _to_csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """No cell is a formula."""
    import csv
    import io

    from compressbench.report.plain import inert

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([header, *([inert(value) for value in row] for row in rows)])
    return buffer.getvalue()
