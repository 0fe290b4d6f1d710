"""What differs between recipes as they are understood, and between records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import record_builder as build
import yaml

from compressbench.core.spec import content_hash
from compressbench.recipe.load import load_recipe, parse_recipe
from compressbench.recipe.schema import canonical
from compressbench.records.comparability import comparability_key, conditions_of
from compressbench.records.record import Record
from compressbench.records.store import RecordStore
from compressbench.report.diff import Change, Diff, changes, diff
from compressbench.report.diff_words import lines, to_json

RECIPE: dict[str, Any] = {
    "name": "one",
    "model": {"id": "embedded:minilm-banking77"},
    "tasks": [
        {"use": "text-classification", "data": "embedded:banking77", "split": "test"},
        {"use": "perplexity", "data": "embedded:tinyshakespeare"},
    ],
    "meters": ["latency", "size"],
    "candidates": [
        {"name": "half", "compress": [{"use": "cast", "dtype": "bfloat16"}]},
        {"name": "sparse", "compress": [{"use": "wanda", "sparsity": 0.5}]},
    ],
}


def of_recipes(tmp_path: Path, other: dict[str, Any], one: dict[str, Any] | None = None) -> Diff:
    files = tmp_path / "one.yaml", tmp_path / "other.yaml"
    for file, recipe in zip(files, (one or RECIPE, other), strict=True):
        file.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return diff(*files)


def of_records(tmp_path: Path, one: Record, other: Record) -> Diff:
    paths = [RecordStore(tmp_path / name).append(record) for name, record in (("one", one), ("other", other))]
    return diff(*paths)


def test_spelling_is_no_difference(tmp_path: Path) -> None:
    """Order of keys, written-out defaults, a bare name: all of it is one recipe."""
    spelled = {
        "candidates": [
            {"compress": [{"dtype": "bfloat16", "use": "cast"}], "name": "half", "runtime": "torch"},
            {"compress": [{"use": "wanda", "sparsity": 0.5}], "name": "sparse"},
        ],
        "meters": [{"use": "latency"}, {"use": "size"}],
        "workload": {"scenario": "single-stream", "batch_size": 1},
        "model": "embedded:minilm-banking77",
        "seed": 0,
        "tasks": RECIPE["tasks"],
        "name": "one",
    }
    found = of_recipes(tmp_path, spelled)
    assert found.is_equal
    assert found.facts == ("The recipes' content is the same.",)


def test_candidates_are_matched_by_name(tmp_path: Path) -> None:
    half, sparse = RECIPE["candidates"]
    new = {"name": "new", "compress": ["rtn"]}
    found = of_recipes(
        tmp_path, {**RECIPE, "candidates": [new, {**sparse, "compress": [{"use": "wanda", "sparsity": 0.6}]}]}
    )
    assert [
        (each.where, each.kind, each.before, each.after)
        for each in found.sections[0].changes
        if each.where != "candidates.new"
    ] == [
        ("candidates.half", "removed", {**half, "runtime": {"use": "torch"}}, None),
        ("candidates.sparse.compress[0].sparsity", "changed", 0.5, 0.6),
    ]
    assert [each.kind for each in found.sections[0].changes if each.where == "candidates.new"] == ["added"]


def test_another_order_is_said_once_and_changes_the_hash(tmp_path: Path) -> None:
    found = of_recipes(tmp_path, {**RECIPE, "candidates": RECIPE["candidates"][::-1]})
    assert found.sections[0].changes == (
        Change("candidates (order)", "changed", ["half", "sparse"], ["sparse", "half"]),
    )
    assert "not the same" in found.facts[0]


def test_a_step_of_another_method_is_one_change(tmp_path: Path) -> None:
    half, sparse = RECIPE["candidates"]
    found = of_recipes(
        tmp_path, {**RECIPE, "candidates": [half, {**sparse, "compress": [{"use": "magnitude", "sparsity": 0.5}]}]}
    )
    [change] = found.sections[0].changes
    assert (change.where, change.before["use"], change.after["use"]) == (
        "candidates.sparse.compress[0]",
        "wanda",
        "magnitude",
    )


def test_the_hash_is_that_of_the_whole_recipe(tmp_path: Path) -> None:
    found = of_recipes(tmp_path, {**RECIPE, "seed": 7})
    hashes = [content_hash(canonical(parse_recipe({**RECIPE, "seed": seed}).recipe)) for seed in (0, 7)]
    assert all(each in found.facts[0] for each in hashes)
    assert found.sections[0].changes == (Change("seed", "changed", 0, 7),)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ({"a": 1}, {"a": 1.0}, [("a", "changed")]),
        ({"a": True}, {"a": 1}, [("a", "changed")]),
        ({"a": None}, {}, []),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [2, 1]}}, [("a.b", "changed")]),
        ({"x y": {}}, {"x y": {"z": 1}}, [('["x y"].z', "added")]),
        ({"compress": [{"use": "a"}]}, {"compress": [{"use": "a"}, {"use": "a"}]}, [("compress[1]", "added")]),
        ({"meters": [{"use": "a"}, {"use": "b"}]}, {"meters": [{"use": "b"}]}, [("meters.a", "removed")]),
    ],
)
def test_changes_by_key_path(ours: dict[str, Any], theirs: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert [(each.where, each.kind) for each in changes(ours, theirs)] == expected


def test_there_and_back_are_the_same_changes_turned(tmp_path: Path) -> None:
    other = {**RECIPE, "name": "two", "seed": 3, "candidates": RECIPE["candidates"][:1]}
    turned = {"changed": "changed", "added": "removed", "removed": "added"}
    forth = of_recipes(tmp_path, other).sections[0].changes
    back = of_recipes(tmp_path, RECIPE, other).sections[0].changes
    assert set(forth_names(forth)) == {(where, turned[kind]) for where, kind in forth_names(back)}


def forth_names(found: tuple[Change, ...]) -> list[tuple[str, str]]:
    return [(each.where, each.kind) for each in found]


def test_records_differ_in_groups(tmp_path: Path) -> None:
    other = build.record(
        environment=build.environment(
            cpu_model="Another CPU", num_threads=1, packages={"torch": "2.12.0"}, load_average_1min=1.5,
            speed_variables={"OMP_NUM_THREADS": "1"},
        )
    )  # fmt: skip
    found = of_records(tmp_path, build.record(), other)
    names = {section.name: [each.where for each in section.changes] for section in found.sections}
    assert names == {
        "conditions": ["hardware", "threads", "runtime"],
        "machine": ["cpu_model"],
        "software": ["packages.torch"],
        "settings": ["num_threads", "speed_variables.OMP_NUM_THREADS"],
        "load": ["load_average_1min"],
        "model": [],
        "recipe": [],
    }
    assert found.is_rankable is False
    assert found.facts[0] == "Their numbers must not be ranked together: 3 conditions differ."


def test_load_is_no_difference(tmp_path: Path) -> None:
    other = build.record(run_id="20261123T074513.926665Z", environment=build.environment(load_average_1min=1.5))
    found = of_records(tmp_path, build.record(), other)
    assert found.is_equal
    assert found.is_rankable
    text = [line for line, _ in lines(found)]
    assert "no differences" in text
    assert "  load_average_1min" in text


def test_whether_records_can_be_ranked_is_what_their_keys_say(tmp_path: Path) -> None:
    for number, other in enumerate(
        (build.record("int8"), build.record(scores=(build.perplexity(3.0),)), build.failed("broken"))
    ):
        found = of_records(tmp_path / str(number), build.record(), other)
        keys = [comparability_key(conditions_of(each)) for each in (build.record(), other)]
        assert found.is_rankable == (keys[0] == keys[1])


def test_a_failed_record_has_the_conditions_of_its_run(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    paths = [store.append(each) for each in build.run_of({"broken": build.failed("broken")})]
    assert diff(*paths).is_rankable


def test_a_recipe_and_a_record_are_compared_by_their_recipes(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump(RECIPE))
    text = canonical(load_recipe(file).recipe)
    record = build.record(recipe=build.recipe().model_copy(update={"text": {**text, "seed": 5}}))
    found = diff(file, RecordStore(tmp_path).append(record))
    assert found.is_rankable is None
    assert [(section.name, section.changes) for section in found.sections] == [
        ("recipe", (Change("seed", "changed", 0, 5),))
    ]


def test_a_recipe_that_is_not_understood_any_more_is_compared_as_written(tmp_path: Path) -> None:
    odd = build.recipe(odd_key=3)
    found = of_records(tmp_path, build.record(), build.record(recipe=odd))
    assert "odd_key" in [each.where for each in found.sections[-1].changes]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    other = {**RECIPE, "name": "x" * 100, "candidates": [{"name": "y" * 90, "compress": ["rtn"] * 30}]}
    found = of_recipes(tmp_path, other)
    assert max(len(line) for line, _ in lines(found, width)) <= width
    styles = {style for line, style in lines(found, width) if line.startswith("    + ")}
    assert styles == {"green"}


def test_json_has_every_change(tmp_path: Path) -> None:
    data = json.loads(to_json(of_recipes(tmp_path, {**RECIPE, "seed": 7})))
    assert data["sections"] == [
        {"name": "recipe", "changes": [{"where": "seed", "kind": "changed", "before": 0, "after": 7}]}
    ]
    assert not data["is_equal"]
