"""`compressbench list`: which names a recipe can use."""

from __future__ import annotations

import inspect
import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from compressbench.cli import arguments


class Kind(StrEnum):
    methods = "methods"
    tasks = "tasks"
    runtimes = "runtimes"
    meters = "meters"


def list_names(
    kind: Annotated[Kind | None, typer.Argument(help="Only these; default: all.", show_default=False)] = None,
    as_json: arguments.AsJson = False,
) -> None:
    """List methods, tasks, runtimes and meters with their options, those of installed plug-ins included."""
    kinds = [kind] if kind else list(Kind)
    entries = {each.value: _entries(each.value) for each in kinds}
    if as_json:
        typer.echo(json.dumps(entries if kind is None else entries[kind.value], indent=1))
    else:
        _print(entries)


def _entries(kind: str) -> list[dict[str, Any]]:
    from compressbench.core import registry
    from compressbench.core.errors import MissingDependencyError

    table: registry.Registry = getattr(registry, kind)
    found = []
    for name in table.names():
        entry: dict[str, Any] = {"name": name, "is_plugin": not table.is_builtin(name)}
        try:
            entry |= _describe(table.resolve(name))
        except MissingDependencyError as error:
            entry["problem"] = str(error)
        found.append(entry)
    return found


def _describe(thing: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"summary": (inspect.getdoc(thing) or "").partition("\n")[0]}
    if hasattr(thing, "model_json_schema"):
        described["options"] = thing.model_json_schema().get("properties", {})
    if hasattr(thing, "facts"):
        described |= thing.facts.model_dump(mode="json")
        described = {key: sorted(value) if isinstance(value, list) else value for key, value in described.items()}
    for name in ("metric", "direction", "head", "version", "scope"):
        if isinstance(getattr(thing, name, None), str | int):
            described[name] = getattr(thing, name)
    return described


def _print(entries: dict[str, list[dict[str, Any]]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for kind, found in entries.items():
        grid = Table("name", "what it is", "options", title=kind, title_justify="left", box=box.SIMPLE_HEAD)
        for entry in found:
            options = ", ".join(entry.get("options", {}))
            mark = " (plug-in)" if entry["is_plugin"] else ""
            grid.add_row(
                Text(entry["name"] + mark, style="bold"), Text(entry.get("problem") or entry["summary"]), Text(options)
            )
        console.print(grid)
