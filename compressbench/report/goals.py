"""Goals: what is asked of one number of a candidate, in the words that people know from other tools."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from compressbench.core.names import did_you_mean

GoalType = Literal[
    "threshold", "max-degradation", "percent-max-degradation", "min-improvement", "percent-min-improvement", "recovery",
    "not-degraded", "measured", "required", "max-stratum-drop",
]  # fmt: skip
LOSSES: frozenset[GoalType] = frozenset({"max-degradation", "percent-max-degradation", "recovery", "not-degraded"})
"""The types that bound what is lost against the baseline, so that they can be asked of several metrics at once."""

WORDS = (
    "threshold", "max-degradation", "percent-max-degradation", "min-improvement", "percent-min-improvement",
    "recovery_threshold", "max_drop", "mlperf",
)  # fmt: skip
_MLPERF = {99.0: 0.99, 99.9: 0.999}


class Goal(NamedTuple):
    """`figure` is a metric, a cell's name or a word for one (cost_words.py); `value` the limit, in the unit of the type.

    threshold: in the figure's unit, at most or at least, as the figure's direction has it. max-degradation and
    min-improvement: in the figure's unit, against the baseline. percent-: 20 is 20 % of the baseline's. recovery: the share
    of the baseline's that must remain, 0.99. `asked` is how it was said, `where` by which flag or key of which file.
    """

    figure: str
    type: GoalType
    value: float
    asked: str = ""
    where: str = ""

    @property
    def is_asked(self) -> bool:
        """Not a rule that stands in where nobody asked for anything."""
        return self.type != "not-degraded"


class GoalWrong(NamedTuple):
    """What is wrong with one goal, at which of its keys ("" is the goal itself)."""

    key: str
    what: str
    got: str = ""
    do: str = ""


def canonical_word(word: str) -> str:
    """As WORDS has it: `_` and `-` are the same, and so are capital letters."""
    asked = word.lower().replace("_", "-")
    return next((each for each in WORDS if each.replace("_", "-") == asked), word)


def goals_of(figure: str, said: Mapping[str, Any], where: str = "") -> tuple[list[Goal], list[GoalWrong]]:
    """The goals in `{max-degradation: 0.01}`, Olive's `{type: max-degradation, value: 0.01}` or NNCF's
    `{max_drop: 0.01, drop_type: relative}`, and what is wrong with them.
    """
    said = _unfolded(said)
    options = {key: value for key, value in said.items() if canonical_word(key) in WORDS}
    drop_types = [value for key, value in said.items() if key.replace("-", "_").lower() == "drop_type"]
    others = [key for key in said if key not in options and key.replace("-", "_").lower() != "drop_type"]
    wrong = [GoalWrong(key, "no such type of goal", do=did_you_mean(key, [*WORDS, "drop_type"])) for key in others]
    if not options and not others:
        wrong.append(GoalWrong("", "a goal needs a type and its value", do=f"Types: {', '.join(WORDS)}."))
    if drop_types and "max_drop" not in map(canonical_word, options):
        wrong.append(GoalWrong("drop_type", "drop_type goes with max_drop"))
    if len({*map(canonical_word, options)}) < len(options):
        wrong.append(GoalWrong("", "a type of goal stands twice", do="Keep one of them."))
    goals: list[Goal] = []
    for key, value in options.items():
        found = _goal(figure, canonical_word(key), value, drop_types[0] if drop_types else "absolute")
        if isinstance(found, Goal):
            goals.append(found._replace(where=f"{where}.{key}" if where else ""))
        else:
            wrong.append(found._replace(key=found.key or key))
    return goals, wrong


def _unfolded(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Olive says which type and which value under keys of their own."""
    if set(said) != {"type", "value"} or not isinstance(said["type"], str):
        return said
    return {said["type"]: said["value"]}


def _goal(figure: str, word: str, value: Any, drop_type: Any) -> Goal | GoalWrong:
    if word == "mlperf":
        value = _without_percent(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return GoalWrong("", "must be a number", got=repr(value))
    limit, asked = float(value), f"{word}: {value:g}"
    if word == "threshold":
        return Goal(figure, "threshold", limit, asked)
    if word == "mlperf":
        if limit not in _MLPERF:
            return GoalWrong("", "MLPerf knows 99 and 99.9 (percent of the reference)", got=f"{value:g}")
        return Goal(figure, "recovery", _MLPERF[limit], asked)
    if word == "recovery_threshold":
        if not 0 < limit <= 2:
            return GoalWrong("", "must be a share of the baseline's: 0.99 is 99 %", got=f"{value:g}")
        return Goal(figure, "recovery", limit, asked)
    if limit < 0:
        return GoalWrong("", "must not be negative", got=f"{value:g}")
    if word == "max_drop":
        return _drop(figure, limit, asked, drop_type)
    kinds: dict[str, GoalType] = {
        "max-degradation": "max-degradation",
        "percent-max-degradation": "percent-max-degradation",
        "min-improvement": "min-improvement",
        "percent-min-improvement": "percent-min-improvement",
    }
    return Goal(figure, kinds[word], limit, asked)


def _without_percent(value: Any) -> Any:
    """MLPerf writes 99%."""
    if not isinstance(value, str) or not value.rstrip().endswith("%"):
        return value
    try:
        return float(value.rstrip().removesuffix("%"))
    except ValueError:
        return value


def _drop(figure: str, limit: float, asked: str, drop_type: Any) -> Goal | GoalWrong:
    """A relative drop is a fraction of the baseline's, where percent-max-degradation has percent."""
    kind = drop_type.lower() if isinstance(drop_type, str) else drop_type
    if kind == "absolute":
        return Goal(figure, "max-degradation", limit, asked)
    if kind == "relative":
        return Goal(figure, "percent-max-degradation", 100 * limit, f"{asked}, relative")
    return GoalWrong("drop_type", "must be absolute or relative", got=repr(drop_type))
