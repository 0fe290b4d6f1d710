"""What is wrong with a recipe, and where: key paths such as `candidates[1].name`, and one error for all problems."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compressbench.core.errors import RecipeError

MAX_LISTED = 20
_MAX_SHOWN = 80
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `key` is a key path ("" is the whole recipe); `line` wins over the line of the key."""

    key: str
    what: str
    got: str = ""
    do: str = ""
    line: int | None = None


def join(parent: str, key: object) -> str:
    """The key path of `key` below `parent`: a position in brackets, a plain word after a dot, other keys quoted.

    >>> join("candidates", 1), join("candidates[1]", "name"), join("", "name"), join("a", "b.c")
    ('candidates[1]', 'candidates[1].name', 'name', 'a["b.c"]')
    """
    if isinstance(key, int) and not isinstance(key, bool):
        return f"{parent}[{key}]"
    if isinstance(key, str) and _PLAIN_KEY.fullmatch(key):
        return f"{parent}.{key}" if parent else key
    return f"{parent}[{json.dumps(key if isinstance(key, str) else shown(key))}]"


def locate(path: str, lines: Mapping[str, int], key: str) -> str:
    """Where a key path is written: `recipes/x.yaml:12: candidates[1].name`.

    A key that is not written has the line of its nearest parent that is; without lines only the file is named.
    """
    return place(path, _line_of(lines, key), key)


def place(path: str, line: int | None, key: str) -> str:
    file = path if path.isprintable() else repr(path)
    head = file if line is None else f"{file}:{line}"
    return f"{head}: {key}" if key else head


def _line_of(lines: Mapping[str, int], key: str) -> int | None:
    cuts = [at for at in range(len(key) - 1, 0, -1) if key[at] in ".["]
    upwards = [key, *(key[:at] for at in cuts), ""]
    return next((lines[parent] for parent in upwards if parent in lines), None)


def shown(value: object) -> str:
    """A value as an error shows it: as YAML spells it, on one line, cut where it is long."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, str):
        return repr(value) if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]!r}... ({len(value)} characters)"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else f"a value of type {type(value).__name__}"


def recipe_error(path: str, lines: Mapping[str, int], problems: Sequence[Problem]) -> RecipeError:
    """One error for all problems: a single one as it is, several as a list, one per line, in the order of the file."""
    errors = [_error(path, lines, problem) for problem in sorted(problems, key=lambda each: _line(lines, each) or 0)]
    if len(errors) == 1:
        return errors[0]
    listed = [str(error) for error in errors[:MAX_LISTED]]
    more = [f"and {len(errors) - MAX_LISTED} more"] if len(errors) > MAX_LISTED else []
    return RecipeError("\n".join([f"{len(errors)} errors", *listed, *more]), where=place(path, None, ""))


def _error(path: str, lines: Mapping[str, int], problem: Problem) -> RecipeError:
    where = place(path, _line(lines, problem), problem.key)
    return RecipeError(problem.what, where=where, got=problem.got, do=problem.do)


def _line(lines: Mapping[str, int], problem: Problem) -> int | None:
    return _line_of(lines, problem.key) if problem.line is None else problem.line
