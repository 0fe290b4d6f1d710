"""What a record says it was asked: the shape that a recipe gives it, as far as other rooms read it by name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

_DEEPEST = 32
_LARGEST = 1e30


def misshapen(text: Mapping[str, Any], workload: Mapping[str, Any], runtime: Mapping[str, Any]) -> str:
    """What is wrong with a recipe's text, a workload or a runtime, "" if nothing is."""
    return next(chain(_of_text(text), _of_workload(workload), _numbers([text, workload, runtime])), "")


def _of_text(text: Mapping[str, Any]) -> Iterator[str]:
    if lacking := {"model", "tasks", "meters", "candidates"} - text.keys():
        yield f"the recipe lacks {', '.join(sorted(lacking))}"
        return
    if not _names(text["model"], "id"):
        yield "the recipe's model has no id"
    for key, name in (("tasks", "use"), ("meters", "use"), ("candidates", "name")):
        if not _is_list(text[key]) or not all(_names(each, name) for each in text[key]):
            yield f"the recipe's {key} are not a list of which each has a '{name}'"
    baseline = text.get("baseline")
    if baseline is not None and not (isinstance(baseline, Mapping) and _is_list(baseline.get("compress") or ())):
        yield "the recipe's baseline is not as a recipe has it"
    elif baseline is not None and not isinstance(baseline.get("runtime", {}), Mapping):
        yield "the runtime of the recipe's baseline is not as a recipe has it"


def _of_workload(workload: Mapping[str, Any]) -> Iterator[str]:
    if lacking := {"scenario", "batch_size", "sequence_length"} - workload.keys():
        yield f"the workload lacks {', '.join(sorted(lacking))}"
        return
    if not isinstance(workload["scenario"], str):
        yield "the workload's scenario is no text"
    for name in ("batch_size", "sequence_length"):
        if not _is_count(workload[name]):
            yield f"the workload's {name} is no whole number above 0"
    tried = workload.get("batch_sizes")
    if tried is not None and not (_is_list(tried) and all(_is_count(each) for each in tried)):
        yield "the workload's batch_sizes are no list of whole numbers above 0"


def _numbers(value: Any, depth: int = 0) -> Iterator[str]:
    """Numbers that no arithmetic can use, and nesting that no recipe has."""
    if isinstance(value, str) or value is None:
        return
    if isinstance(value, int | float):
        # compared first: a whole number of thousands of digits is no float
        if not -_LARGEST < value < _LARGEST or not math.isfinite(value):
            yield "the recipe or the workload has a number that is not finite, or too large to be asked for"
    elif depth > _DEEPEST:
        yield f"the recipe or the workload is nested more than {_DEEPEST} deep"
    else:
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(each, depth + 1)


def _names(value: Any, key: str) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get(key), str)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
