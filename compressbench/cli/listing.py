"""`compressbench list`: which names a recipe can use."""

from __future__ import annotations

import inspect
import json
import re
from enum import StrEnum
from typing import Annotated, Any

import typer

from compressbench.cli import arguments

_PIN = (
    "Ready-made tasks read the newest data of the Hub, or local copies with --data-root. Their records say which commit "
    "it was: pin it with `revision`, so that a later run has the same."
)


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
    return found + (_ready_made() if kind == "tasks" else [])


def _ready_made() -> list[dict[str, Any]]:
    """The tasks that are a kind of task with options for one data set."""
    from compressbench.tasks.ready_made import ready_names, ready_task

    found = []
    for name in ready_names():
        task = ready_task(name)
        entry = {"name": name, "is_plugin": False, "is_ready_made": True, "summary": task.about, "kind": task.use}
        found.append({**entry, "licence": task.licence, "local": task.local, "sets": task.options})
    return found


def _describe(thing: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"summary": _first_sentence(inspect.getdoc(thing) or "")}
    if hasattr(thing, "model_json_schema"):
        described["options"] = thing.model_json_schema().get("properties", {})
    if hasattr(thing, "facts") and not isinstance(thing.facts, property):  # a runtime's depend on its options
        described |= thing.facts.model_dump(mode="json")
        described = {key: sorted(value) if isinstance(value, list) else value for key, value in described.items()}
    for name in ("metric", "direction", "head", "version", "scope"):
        if isinstance(getattr(thing, name, None), str | int):
            described[name] = getattr(thing, name)
    return described


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.partition("\n\n")[0].split())
    # "et al. 2022" and "e.g. x" are no ends of a sentence
    return re.split(r"(?<=[.?])(?<!al\.)(?<!e\.g\.)(?<!i\.e\.)\s", paragraph)[0]


def _print(entries: dict[str, list[dict[str, Any]]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for kind, found in entries.items():
        grid = Table(title=kind, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_header=False)
        grid.add_column(no_wrap=True, style="bold")
        grid.add_column()
        for entry in found:
            grid.add_row(
                Text(entry["name"] + (" (plug-in)" if entry["is_plugin"] else "")), Text.assemble(*_said(entry))
            )
        console.print(grid)
        if any(entry.get("is_ready_made") for entry in found):
            console.print(_PIN)


def _said(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """What it is, what it needs and its options, with their styles."""
    parts = [(entry.get("problem") or entry["summary"], "")]
    needs = _needs(entry)
    if needs:
        parts.append((f"\nneeds {', '.join(needs)}", "cyan"))
    if entry.get("is_ready_made"):
        parts.append((f"\n{entry['kind']} on {entry['sets']['data']}, licence of the data: {entry['licence']}", "cyan"))
    if entry.get("options"):
        parts.append((f"\n{', '.join(entry['options'])}", "dim"))
    return parts


def _needs(entry: dict[str, Any]) -> list[str]:
    """In words what a method can't do without."""
    flags = {
        "needs_calibration": "calibration samples",
        "needs_training_data": "training data",
        "needs_teacher": "a teacher",
    }
    needs = [word for flag, word in flags.items() if entry.get(flag)]
    needs += entry.get("requires") or []
    needs += [f"{name} (its own environment will do)" for name in entry.get("runs_elsewhere") or []]
    return needs + (["CUDA"] if entry.get("devices") == ["cuda"] else [])
