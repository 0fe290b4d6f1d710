"""Jinja2 templates over the columns of a row, rendered as lm-evaluation-harness renders them, in a sandbox."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from compressbench.core.errors import DataError, RecipeError


class _Missing(ValueError):
    """A value of the row is null."""


def _not_none(value: Any) -> Any:
    if value is None:
        raise _Missing("the value is null")
    return value


def _regex_replace(string: str, pattern: str, repl: str, count: int = 0) -> str:
    return re.sub(pattern, repl, string, count=count)


_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, keep_trailing_newline=True, finalize=_not_none, autoescape=False
)
_ENVIRONMENT.filters["regex_replace"] = _regex_replace


@lru_cache(maxsize=256)
def _parsed(template: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(template)


def check_template(template: str) -> None:
    """Raise RecipeError if the template doesn't parse."""
    try:
        _parsed(template)
    except jinja2.TemplateSyntaxError as error:
        raise RecipeError(
            "the template can't be parsed",
            got=f"{template!r}, line {error.lineno}: {error.message}",
            do="Templates are Jinja2, as in lm-evaluation-harness: {{column}}.",
        ) from error


def render(template: str, row: Mapping[str, Any]) -> str:
    """The text of a template (or of the column that it names) for a row.

    Raises DataError with the template and the row where a column is missing or null, or an expression fails.
    """
    value = column_or_text(template, row)
    if not isinstance(value, str):
        raise DataError(
            "a text must be a string", where=f"template {template!r}", got=f"{value!r} in row {_short(row)}"
        )
    return value


def column_or_text(template: str, row: Mapping[str, Any]) -> Any:
    """The value of the column if the template is a column's name, or else the text that it renders to."""
    if template in row:
        if row[template] is None:
            raise _failed(template, row, "the value is null")
        return row[template]
    return render_template(template, row)


def render_template(template: str, row: Mapping[str, Any]) -> str:
    """The text that a template renders to, whatever the columns are called."""
    check_template(template)
    try:
        return _parsed(template).render(row)
    except Exception as error:  # an expression of a template can raise anything
        raise _failed(template, row, str(error) or type(error).__name__) from error


def literal(template: str, row: Mapping[str, Any]) -> Any:
    """The value of the column, or of the Python literal that the template renders to, e.g. a list of texts."""
    value = column_or_text(template, row)
    if template in row:
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise _failed(template, row, f"no literal: {value!r}") from error


def _short(row: Mapping[str, Any]) -> str:
    return textwrap.shorten(repr(dict(row)), 300)


def _failed(template: str, row: Mapping[str, Any], why: str) -> DataError:
    return DataError(
        "the template can't be filled in",
        where=f"template {template!r}",
        got=f"{why}, in row {_short(row)}",
        do=f"The columns are {', '.join(row)}.",
    )
