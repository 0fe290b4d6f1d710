"""What pydantic found wrong, in sentences about the recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from compressbench.core.names import did_you_mean
from compressbench.recipe.plain_data import QUOTE_IT
from compressbench.recipe.problems import Problem, join, shown
from compressbench.recipe.schema import Baseline, Candidate, ModelSpec, Recipe, Workload
from compressbench.recipe.use import NAME_PATTERN, NAME_RULE

_SENTENCES = {
    "bool_type": "must be true or false",
    "extra_forbidden": "unknown key",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "missing": "is required",
    "model_type": "must be a mapping of keys to values",
    "string_pattern_mismatch": "must be one line of text without spaces around it",
    "string_too_long": "must have at most {max_length} characters",
    "string_type": "must be text",
    "too_short": "must have at least {min_length} entry",
    "tuple_type": "must be a list",
}
_WITHOUT_GOT = ("extra_forbidden", "missing", "too_short")
_SECTIONS: dict[str, type[BaseModel]] = {
    "": Recipe,
    "model": ModelSpec,
    "workload": Workload,
    "baseline": Baseline,
    "candidates": Candidate,
}


def sentences(error: ValidationError) -> list[Problem]:
    """One problem for each error of pydantic, in the order of the recipe's fields."""
    return [_sentence(each) for each in error.errors(include_url=False) if not _is_echo(each)]


def option_problems(error: ValidationError, options: type[BaseModel], key: str) -> list[Problem]:
    """The same for the options of the use at `key`, whose fields are those of `options`."""
    found = error.errors(include_url=False)
    return [_option_problem(each, options, key) for each in found]


def _option_problem(error: ErrorDetails, options: type[BaseModel], key: str) -> Problem:
    problem = _sentence(error, options)
    what = problem.what.removeprefix("Value error, ")
    # an error of the options as a whole shows nothing that was got: the whole is in the recipe
    return replace(problem, key=_below(key, problem.key), what=what, got=problem.got if error["loc"] else "")


def _is_echo(error: ErrorDetails) -> bool:
    """Whether another error is the cause: a default that depends on a wrong field, a list without its wrong items."""
    is_shortened = error["type"] == "too_short" and len(error["input"]) > 0
    return is_shortened or error["type"] == "default_factory_not_called"


def _sentence(error: ErrorDetails, section: type[BaseModel] | None = None) -> Problem:
    context: dict[str, Any] = error.get("ctx", {})
    key = ""
    for part in error["loc"]:
        key = join(key, part)
    if error["type"] == "recipe":
        return Problem(_below(key, context["at"]), context["what"], context["got"], context["do"])
    sentence = _SENTENCES.get(error["type"])
    what = sentence.format_map(_spelled(context)) if sentence else error["msg"]
    if context.get("pattern") == NAME_PATTERN:
        what = NAME_RULE
    got = "" if error["type"] in _WITHOUT_GOT else shown(error["input"])
    return Problem(key, what, got, _advice(error, section))


def _spelled(context: dict[str, Any]) -> dict[str, str]:
    return {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in context.items()}


def _below(key: str, at: str) -> str:
    return f"{key}{at}" if at.startswith("[") or not at else f"{key}.{at}"


def _advice(error: ErrorDetails, section: type[BaseModel] | None) -> str:
    if error["type"] == "extra_forbidden":
        section = section or _SECTIONS[str(error["loc"][0]) if len(error["loc"]) > 1 else ""]
        return did_you_mean(str(error["loc"][-1]), section.model_fields)
    is_read_as_value = isinstance(error["input"], bool | int | float) or error["input"] is None
    return QUOTE_IT if error["type"] == "string_type" and is_read_as_value else ""
