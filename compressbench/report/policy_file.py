"""A policy from a YAML file, read as safely as a recipe: every error names the file, the line, the key and what was got."""

from __future__ import annotations

import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressbench.core.errors import InputError
from compressbench.core.names import did_you_mean
from compressbench.recipe.limits import MAX_BYTES
from compressbench.recipe.plain_data import to_plain
from compressbench.recipe.problems import Problem, join, locate, place, recipe_error, shown
from compressbench.recipe.yaml_nodes import read_yaml
from compressbench.report.goals import Goal, goals_of
from compressbench.report.policy import Policy

KEYS = ("objective", "goals", "max-stratum-drop", "energy-kind", "require", "candidates")


def load_policy(path: Path) -> Policy:
    """Raises InputError, with all that is wrong, if it can't be read or isn't a policy."""
    file = str(path)
    data, lines, problems = read_yaml(_read(path))
    if not problems:
        data, problems = to_plain({} if data is None else data)
    if not problems and not isinstance(data, Mapping):
        problems = [Problem("", "a policy must be a mapping of keys to values", shown(data))]
    if problems:
        raise _error(file, lines, problems)
    reader = _Reader(file, lines)
    policy = reader.policy({str(key).replace("_", "-"): value for key, value in data.items()})
    unknown = [key for key in data if str(key).replace("_", "-") not in KEYS]
    reader.problems += [
        Problem(join("", key), "no such key of a policy", do=did_you_mean(key, KEYS)) for key in unknown
    ]
    if not data:
        reader.problems.append(Problem("", "the policy is empty", do=f"Keys: {', '.join(KEYS)}."))
    if reader.problems:
        raise _error(file, lines, reader.problems)
    return policy


def _read(path: Path) -> str:
    where = place(str(path), None, "")
    try:
        # a pipe or a device could block for ever, or never end
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError("a policy must be a regular file", where=where)
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InputError(f"a policy must have at most {MAX_BYTES:,} bytes", where=where)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8", where=where, do="Save the policy as UTF-8.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError("the policy can't be read", where=where, got=str(reason), do="Check the path.") from error


def _error(file: str, lines: Mapping[str, int], problems: list[Problem]) -> InputError:
    found = recipe_error(file, lines, problems)
    # what is said of tags and sizes was written for recipes
    what = found.what.replace("the recipe", "the policy").replace("that recipes", "that policies")
    return InputError(what, where=found.where, got=found.got, do=found.do)


class _Reader:
    """Takes what is right, and gathers what is wrong."""

    def __init__(self, file: str, lines: Mapping[str, int]) -> None:
        self.file, self.lines = file, lines
        self.problems: list[Problem] = []

    def policy(self, data: Mapping[str, Any]) -> Policy:
        return Policy(
            goals=self.goals(data.get("goals")),
            objective=self.text("objective", data.get("objective")),
            max_stratum_drop=self.drop(data.get("max-stratum-drop")),
            needs_measured_energy=self.is_measured(data.get("energy-kind")),
            require=self.names("require", data.get("require")),
            candidates=self.names("candidates", data.get("candidates")),
            wheres={key: locate(self.file, self.lines, key) for key in KEYS},
        )

    def refuse(self, key: str, what: str, value: Any = None, do: str = "") -> None:
        self.problems.append(Problem(key, what, shown(value), do))

    def goals(self, said: Any) -> tuple[Goal, ...]:
        if said is None:
            return ()
        if not isinstance(said, Mapping):
            self.refuse("goals", "must be a mapping of numbers to what is asked of them", said)
            return ()
        goals: list[Goal] = []
        for figure, asked in said.items():
            key = join("goals", figure)
            if not isinstance(asked, Mapping):
                self.refuse(key, "must be a type and its value, as {max-degradation: 0.01}", asked)
                continue
            found, wrong = goals_of(figure, asked)
            goals += [goal._replace(where=locate(self.file, self.lines, key)) for goal in found]
            for each in wrong:
                self.problems.append(Problem(join(key, each.key) if each.key else key, each.what, each.got, each.do))
        return tuple(goals)

    def text(self, key: str, value: Any) -> str:
        if value is None or (isinstance(value, str) and value):
            return value or ""
        self.refuse(key, "must be a word", value)
        return ""

    def drop(self, value: Any) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            self.refuse("max-stratum-drop", "must be a number that is not negative (0.05: five points)", value)
            return None
        return float(value)

    def is_measured(self, value: Any) -> bool:
        if value not in (None, "measured", "any"):
            self.refuse("energy-kind", "must be measured or any", value)
        return bool(value == "measured")

    def names(self, key: str, value: Any) -> tuple[str, ...]:
        if value is None:
            return ()
        if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
            return tuple(value)
        self.refuse(key, "must be a list of names", value)
        return ()
