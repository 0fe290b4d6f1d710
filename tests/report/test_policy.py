"""What a policy file may say, and how it is told what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from contender_builder import contender, counted, score

from compressbench.core.errors import InputError, UnknownNameError
from compressbench.report.figures import Figure
from compressbench.report.goals import Goal
from compressbench.report.policy import Policy, has_quality_goal, names_needed, overridden, resolved
from compressbench.report.policy_file import load_policy

DATA = Path(__file__).parent.parent / "data" / "policies"
PEOPLE = [contender("baseline"), contender("int8", {"accuracy": score(0.9, 0.0, 0.01), "disk_bytes": counted(1.0)})]


def written(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text)
    return path


def test_a_policy_has_an_objective_and_goals() -> None:
    found = load_policy(DATA / "edge.yaml")
    assert found.objective == "energy"
    assert found.require == ("disk_bytes",)
    assert [(goal.figure, goal.type, goal.value) for goal in found.goals] == [
        ("accuracy", "max-degradation", 0.01),
        ("latency_p50_s", "threshold", 0.05),
        ("energy_j_per_inference", "percent-min-improvement", 20.0),
        ("memory", "threshold", 80e6),
    ]


def test_words_of_other_tools_are_read() -> None:
    found = load_policy(DATA / "words.yaml")
    assert [(goal.figure, goal.type, goal.value) for goal in found.goals] == [
        ("accuracy", "recovery", 0.999),
        ("perplexity", "percent-max-degradation", 2.0),
        ("f1", "recovery", 0.95),
        ("disk_bytes", "percent-min-improvement", 50.0),
    ]
    assert (found.max_stratum_drop, found.needs_measured_energy, found.candidates) == (0.05, True, ("int8",))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("goals:\n  accuracy: {max-degradtion: 1}\n", [":2: goals.accuracy.max-degradtion", "'max-degradation'"]),
        ("objektive: energy\n", [":1: objektive", "Did you mean 'objective'?"]),
        ("goals:\n  accuracy: 0.01\n", [":2: goals.accuracy", "a type and its value", "0.01"]),
        ("goals: [accuracy]\n", [":1: goals", "must be a mapping"]),
        (
            "goals:\n  accuracy:\n    max_drop: 1\n    drop_type: big\n",
            [":4: goals.accuracy.drop_type", "relative", "big"],
        ),
        ("goals:\n  accuracy: {mlperf: 98}\n", ["goals.accuracy.mlperf", "99.9", "98"]),
        ("energy-kind: guessed\n", [":1: energy-kind", "measured", "guessed"]),
        ("max-stratum-drop: -1\n", [":1: max-stratum-drop", "not negative"]),
        ("require: disk_bytes\n", [":1: require", "a list of names"]),
        ("candidates: []\n", [":1: candidates", "a list of names"]),
        ("objective: 3\n", [":1: objective", "must be a word"]),
        ("- a\n", ["must be a mapping"]),
        ("", ["the policy is empty", "objective, goals"]),
        ("goals: {a: {threshold: 1}, a: {threshold: 2}}\n", ["duplicate key"]),
        ("objective: !!python/object:os.system x\n", [":1: objective", "a tag that policies don't allow"]),
        ("goals: {accuracy: {threshold: .nan}}\n", ["goals.accuracy.threshold", "finite"]),
        ("objective: x\nobjectiv: y\ngoal: 1\n", ["2 errors", ":2: objectiv", ":3: goal"]),
    ],
)
def test_what_is_wrong_is_told_with_file_line_and_key(text: str, parts: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_policy(written(tmp_path, text))
    for part in ["policy.yaml", *parts]:
        assert part in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_policy_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "nowhere", ""):
        with pytest.raises(InputError):
            load_policy(tmp_path / name)
    (tmp_path / "latin").write_bytes(b"objective: \xff")
    with pytest.raises(InputError, match="UTF-8"):
        load_policy(tmp_path / "latin")


def test_a_flag_stands_in_for_the_files_goal_of_the_same_figure_and_type() -> None:
    file = Policy((Goal("memory", "threshold", 1.0), Goal("memory", "max-degradation", 2.0)), objective="energy")
    flags = Policy((Goal("peak_memory_bytes", "threshold", 3.0),), objective="size")
    found = overridden(file, flags)
    assert [(goal.type, goal.value) for goal in found.goals] == [("max-degradation", 2.0), ("threshold", 3.0)]
    assert found.objective == "size"
    assert overridden(file, Policy()) == file


def test_words_become_the_names_that_records_have() -> None:
    found = resolved(
        Policy((Goal("size", "threshold", 1.0), Goal("accuracy", "max-degradation", 0.1)), "memory"), PEOPLE
    )
    assert [goal.figure for goal in found.goals] == ["disk_bytes", "accuracy"]
    assert found.objective == "peak_memory_bytes"


@pytest.mark.parametrize(
    ("policy", "parts"),
    [
        (Policy((Goal("accurracy", "threshold", 1.0, where="p.yaml:3: goals.accurracy"),)), ["p.yaml:3", "'accuracy'"]),
        (Policy(objective="latncy", wheres={"objective": "p.yaml:1: objective"}), ["p.yaml:1", "'latency'"]),
        (Policy(candidates=("int9",)), ["'int9'", "'int8'"]),
        (Policy(require=("disk_byte",)), ["'disk_bytes'"]),
    ],
)
def test_a_name_that_no_record_has_is_told_with_the_nearest(policy: Policy, parts: list[str]) -> None:
    with pytest.raises(UnknownNameError) as caught:
        resolved(policy, PEOPLE)
    for part in parts:
        assert part in str(caught.value)


def test_measured_energy_is_asked_of_every_energy_that_decides() -> None:
    policy = Policy((Goal("energy", "threshold", 1.0),), "compress_energy_j", needs_measured_energy=True)
    kinds = [(goal.figure, goal.type) for goal in resolved(policy, PEOPLE).goals]
    assert kinds == [
        ("energy_j_per_inference", "threshold"), ("energy_j_per_inference", "measured"), ("compress_energy_j", "measured"),
    ]  # fmt: skip


def test_quality_is_a_metric_a_stratum_or_accuracy() -> None:
    assert not has_quality_goal(
        Policy((Goal("disk_bytes", "threshold", 1.0), Goal("accuracy", "required", 0.0))), PEOPLE
    )
    assert has_quality_goal(Policy((Goal("accuracy", "threshold", 1.0),)), PEOPLE)


def test_all_numbers_that_may_decide_are_asked_of_the_records() -> None:
    names = names_needed(Policy((Goal("memory", "threshold", 1.0),), "energy", require=("mbu",)))
    assert {"peak_memory_bytes", "energy_j_per_inference", "energy_j_per_output_token", "mbu", "disk_bytes"} <= {*names}


def test_where_no_metric_is_the_better_the_more_a_drop_of_accuracy_names_what_there_is() -> None:
    worse = Figure(20.0, direction="lower")
    people = [contender(name, {"perplexity": worse}, metrics=("perplexity",)) for name in ("baseline", "int8")]
    policy = Policy((Goal("accuracy", "max-degradation", 0.01, where="--max-accuracy-drop"),))
    with pytest.raises(UnknownNameError) as caught:
        resolved(policy, people)
    for part in (
        "--max-accuracy-drop",
        "more is better",
        "got perplexity",
        "--goal perplexity:percent-max-degradation=1",
    ):
        assert part in str(caught.value)
