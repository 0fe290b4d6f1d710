"""Plain data within limits: what a recipe may hold, so that it can be hashed and stored as JSON."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from compressbench.recipe.limits import MAX_DEPTH, MAX_INTEGER, MAX_KEY_LENGTH, Budget, TooLargeError
from compressbench.recipe.problems import Problem, join, shown

QUOTE_IT = "YAML reads unquoted yes, no, on, off, true, false, null and numbers as values: put the text in quotes."


def to_plain(data: object, key: str = "") -> tuple[Any, list[Problem]]:
    """A copy of `data` made of dict, list, str, bool, int, float and None only, and everything that is wrong with it.

    `key` is the key path of `data`. Wrong are: other types, keys that are not text, NaN and infinity, integers beyond
    64 bits, control characters and lone surrogates, and what is deeper or larger than the limits above.
    """
    copier = _Copier()
    try:
        return copier.copy(data, key, 0), copier.problems
    except TooLargeError as error:
        return None, [Problem(key, "the recipe is too large", got=str(error))]


@dataclass
class _Copier:
    problems: list[Problem] = field(default_factory=list)
    budget: Budget = field(default_factory=Budget)

    def copy(self, value: object, key: str, depth: int) -> Any:
        self.budget.spend(len(value) if isinstance(value, str) else 0)
        if isinstance(value, Mapping | list | tuple):
            if depth >= MAX_DEPTH:
                return self._refuse(key, f"must not be nested deeper than {MAX_DEPTH} levels")
            return self._copy_all(value, key, depth + 1)
        wrong = _wrong_with(value)
        return self._refuse(key, wrong, shown(value)) if wrong else value

    def _copy_all(self, value: Mapping[Any, Any] | list[Any] | tuple[Any, ...], key: str, depth: int) -> Any:
        if not isinstance(value, Mapping):
            return [self.copy(item, join(key, at), depth) for at, item in enumerate(value)]
        return {
            name: self.copy(item, join(key, name), depth) for name, item in value.items() if self._is_key(name, key)
        }

    def _is_key(self, name: object, parent: str) -> bool:
        self.budget.spend(len(name) if isinstance(name, str) else 0)
        if not isinstance(name, str):
            self.problems.append(Problem(parent, "a key must be text", shown(name), QUOTE_IT))
            return False
        wrong = (
            f"a key must have at most {MAX_KEY_LENGTH} characters" if len(name) > MAX_KEY_LENGTH else _wrong_with(name)
        )
        if wrong:
            self.problems.append(Problem(parent, wrong, shown(name)))
        return not wrong

    def _refuse(self, key: str, what: str, got: str = "") -> None:
        self.problems.append(Problem(key, what, got))


def _wrong_with(value: object) -> str:
    if isinstance(value, str):
        return "must not contain control characters" if any(map(_is_control, value)) else ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else "must be a finite number"
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int):
        return "" if -MAX_INTEGER <= value <= MAX_INTEGER else "must fit into 64 bits"
    return "must be text, a number, true, false, null, a list or a mapping"


def _is_control(character: str) -> bool:
    return character not in "\n\r\t" and unicodedata.category(character) in ("Cc", "Cs")
