"""The verbs that read records, as command lines: those that the app has, in every format that they offer."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import pytest

from compressbench.cli.main import app, call

POLICY = "goals:\n  accuracy: {max-degradation: 0.05}\n"
# what each takes after its name; {folder} holds records, {file} and {honest} are one
_ARGUMENTS = {
    "table": ["{folder}"],
    "show": ["{file}"],
    "audit": ["{folder}"],
    "parity": ["{file}"],
    "compare": ["{folder}"],
    "diff": ["{honest}", "{file}"],
    "pareto": ["{folder}"],
    "frontier": ["{folder}"],
    "think": ["{folder}"],
    "recommend": ["{folder}"],
    "gate": ["{folder}"],
    "leaderboard": ["{folder}"],
    "breakeven": ["{folder}"],
    "fleet": ["{folder}", "--requests-per-day", "1e6", "--lifetime-years", "3"],
    "carbon": ["{folder}"],
    "statement": ["{folder}"],
}
_CALLBACKS = {command.name: command.callback for command in app.registered_commands if command.callback is not None}
VERBS = tuple(verb for verb in _ARGUMENTS if verb in _CALLBACKS)
OF_ONE_FILE = ("show", "diff", "parity")
EXIT_CODES = range(7)


class Said(NamedTuple):
    code: int
    out: str
    err: str


def options_of(verb: str) -> dict[str, Any]:
    """The type behind each option's name."""
    found: dict[str, Any] = {}
    for hint in get_type_hints(_CALLBACKS[verb], include_extras=True).values():
        for said in getattr(hint, "__metadata__", ()):
            # in an annotation the first name stands where else the default would
            names = (getattr(said, "default", None), *(getattr(said, "param_decls", None) or ()))
            found |= dict.fromkeys([name for name in names if isinstance(name, str)], get_args(hint)[0])
    return found


def formats(verb: str) -> list[str]:
    """What --format offers, and json wherever there is --json."""
    options = options_of(verb)
    offered = options.get("--format")
    found = ["terminal"]
    if isinstance(offered, type) and issubclass(offered, Enum):
        found = [str(each.value) for each in offered]
    return [*found, *(["json"] if "--json" in options and "json" not in found else [])]


def command_line(verb: str, form: str, places: Mapping[str, Path], key: str = "") -> list[str]:
    """`places` are those of the arguments; rows of other keys are left out where the verb can."""
    options = options_of(verb)
    line = [verb, *(argument.format(**places) for argument in _ARGUMENTS[verb])]
    if key and "--key" in options:
        line += ["--key", key]
    elif key and "--recipe" in options:
        line += ["--recipe", "example"]
    if form == "html" and "--out" in options:
        line += ["--out", str(places["out"])]
    if verb == "gate" and "--policy" in options:
        line += ["--policy", str(places["policy"])]
    if form == "terminal":
        return line
    return [*line, *(["--json"] if form == "json" and "--json" in options else ["--format", form])]


def say(capsys: pytest.CaptureFixture[str], *line: str, width: int = 80) -> Said:
    """Run one command in this process, on a terminal of so many columns that has no colours."""
    before = {name: os.environ.get(name) for name in ("COLUMNS", "TERM")}
    os.environ |= {"COLUMNS": str(width), "TERM": "dumb"}
    capsys.readouterr()
    try:
        code = call(list(line))
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    sys.stdout.flush()
    return Said(code, *capsys.readouterr())


def text_within(capsys: pytest.CaptureFixture[str], width: int, *line: str) -> str:
    """What a command that works prints on a terminal of so many columns, where all of it has to fit; as one line."""
    said = say(capsys, *line, width=width)
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= width
    return " ".join(said.out.split())
