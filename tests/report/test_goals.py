"""The words for goals that people know from other tools."""

from __future__ import annotations

from typing import Any

import pytest

from compressbench.report.goals import WORDS, goals_of


@pytest.mark.parametrize(
    ("said", "kind", "value"),
    [
        ({"threshold": 0.05}, "threshold", 0.05),
        ({"max-degradation": 0.01}, "max-degradation", 0.01),
        ({"max_degradation": 0}, "max-degradation", 0.0),
        ({"percent-max-degradation": 2}, "percent-max-degradation", 2.0),
        ({"percent_max_degradation": 2}, "percent-max-degradation", 2.0),
        ({"min-improvement": 1}, "min-improvement", 1.0),
        ({"percent-min-improvement": 20}, "percent-min-improvement", 20.0),
        ({"percent_min_improvement": 20}, "percent-min-improvement", 20.0),
        ({"recovery_threshold": 0.95}, "recovery", 0.95),
        ({"recovery-threshold": 0.95}, "recovery", 0.95),
        ({"max_drop": 0.01}, "max-degradation", 0.01),
        ({"max-drop": 0.01, "drop-type": "absolute"}, "max-degradation", 0.01),
        ({"max_drop": 0.01, "drop_type": "relative"}, "percent-max-degradation", 1.0),
        ({"mlperf": 99}, "recovery", 0.99),
        ({"MLPerf": 99.9}, "recovery", 0.999),
        ({"mlperf": "99.9%"}, "recovery", 0.999),
        ({"mlperf": "99 %"}, "recovery", 0.99),
        ({"type": "percent-max-degradation", "value": 2}, "percent-max-degradation", 2.0),
        ({"type": "threshold", "value": 0.9}, "threshold", 0.9),
        ({"max_drop": 0.01, "drop_type": "RELATIVE"}, "percent-max-degradation", 1.0),
    ],
)
def test_every_word_is_one_of_a_few_types(said: dict[str, Any], kind: str, value: float) -> None:
    goals, wrong = goals_of("accuracy", said)
    assert not wrong
    [goal] = goals
    assert (goal.figure, str(goal.type)) == ("accuracy", kind)
    assert goal.value == pytest.approx(value)


def test_a_number_may_have_several_goals() -> None:
    goals, wrong = goals_of("energy", {"threshold": 2, "percent-min-improvement": 10})
    assert not wrong
    assert [goal.type for goal in goals] == ["threshold", "percent-min-improvement"]


@pytest.mark.parametrize(
    ("said", "key", "what", "do"),
    [
        ({"max-degradtion": 1}, "max-degradtion", "no such type", "'max-degradation'"),
        ({}, "", "needs a type", WORDS[0]),
        ({"threshold": True}, "threshold", "must be a number", ""),
        ({"threshold": "1"}, "threshold", "must be a number", ""),
        ({"threshold": float("nan")}, "threshold", "must be a number", ""),
        ({"max-degradation": -0.1}, "max-degradation", "negative", ""),
        ({"type": "max-degradtion", "value": 1}, "max-degradtion", "no such type", "'max-degradation'"),
        ({"mlperf": "98%"}, "mlperf", "99 and 99.9", ""),
        ({"mlperf": "all%"}, "mlperf", "must be a number", ""),
        ({"mlperf": 98}, "mlperf", "99 and 99.9", ""),
        ({"recovery_threshold": 99}, "recovery_threshold", "a share", ""),
        ({"recovery_threshold": 0}, "recovery_threshold", "a share", ""),
        ({"max_drop": 0.1, "drop_type": "percent"}, "drop_type", "absolute or relative", ""),
        ({"threshold": 1, "drop_type": "absolute"}, "drop_type", "goes with max_drop", ""),
        ({"max_drop": 1, "max-drop": 2}, "", "twice", ""),
    ],
)
def test_what_is_no_goal_is_told_with_its_key(said: dict[str, Any], key: str, what: str, do: str) -> None:
    _, wrong = goals_of("accuracy", said)
    assert [each.key for each in wrong] == [key]
    assert what in wrong[0].what
    assert do in wrong[0].do
