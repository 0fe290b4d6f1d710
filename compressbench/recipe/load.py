"""A recipe from a file, checked; every error names the file, the line, the key and what was got."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compressbench.core.errors import RecipeError
from compressbench.recipe.limits import MAX_BYTES
from compressbench.recipe.plain_data import to_plain
from compressbench.recipe.problems import Problem, locate, place, recipe_error, shown
from compressbench.recipe.schema import Recipe
from compressbench.recipe.sentences import sentences
from compressbench.recipe.yaml_nodes import read_yaml


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe and where it was written. `lines` has the line (from 1) of every key path in the file."""

    recipe: Recipe
    path: str = "<recipe>"
    lines: Mapping[str, int] = field(default_factory=dict)

    def where(self, key_path: str) -> str:
        """`recipes/x.yaml:12: candidates[1].compress[0].sparsity`, with the line of the nearest parent that has one."""
        return locate(self.path, self.lines, key_path)


def load_recipe(path: str | Path) -> LoadedRecipe:
    """The recipe in a YAML file. Raises RecipeError, with all that is wrong, if it can't be read or isn't a recipe."""
    file = str(path)
    data, lines, problems = read_yaml(_read(file))
    if problems:
        raise recipe_error(file, lines, problems)
    if data is None:
        raise RecipeError("the recipe is empty", where=place(file, None, ""), do="It needs name, model and tasks.")
    return parse_recipe(data, path=file, lines=lines)


def parse_recipe(
    data: Mapping[str, Any], *, path: str = "<recipe>", lines: Mapping[str, int] | None = None
) -> LoadedRecipe:
    """The recipe in a mapping as YAML or JSON has it. Raises RecipeError with all that is wrong.

    `path` and `lines` (the line of each key path) say where it was written; the recipe itself doesn't depend on them.
    """
    lines = dict(lines or {})
    if not isinstance(data, Mapping):
        raise recipe_error(path, lines, [Problem("", "a recipe must be a mapping of keys to values", shown(data))])
    plain, problems = to_plain(data)
    if problems:
        raise recipe_error(path, lines, problems)
    try:
        return LoadedRecipe(Recipe.model_validate(plain), path, lines)
    except ValidationError as error:
        raise recipe_error(path, lines, sentences(error)) from None


def _read(file: str) -> str:
    """The text of a regular file of at most MAX_BYTES."""
    where = place(file, None, "")
    try:
        _check_before_opening(os.stat(file), where)
        with open(file, "rb") as stream:
            # a file may grow after it was looked at
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RecipeError("the recipe can't be read", where=where, got=str(reason), do="Check the path.") from error
    _check_size(len(data), where)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        got = f"the byte 0x{data[error.start]:02x}"
        raise RecipeError("not UTF-8", where=place(file, line, ""), got=got, do="Save the recipe as UTF-8.") from error


def _check_before_opening(status: os.stat_result, where: str) -> None:
    # a pipe or a device could block for ever, or never end
    if not stat.S_ISREG(status.st_mode):
        got = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise RecipeError("a recipe must be a regular file", where=where, got=got)
    _check_size(status.st_size, where)


def _check_size(num_bytes: int, where: str) -> None:
    if num_bytes > MAX_BYTES:
        raise RecipeError(f"a recipe must have at most {MAX_BYTES:,} bytes", where=where, got=f"at least {num_bytes:,}")
