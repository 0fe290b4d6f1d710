"""What a recipe may say, its one canonical spelling, and its JSON Schema."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from compressbench.core.errors import RecipeError
from compressbench.core.spec import content_hash
from compressbench.recipe.load import parse_recipe
from compressbench.recipe.schema import Baseline, Candidate, ModelSpec, Recipe, Workload, canonical, recipe_json_schema
from compressbench.recipe.use import Use

SMALLEST = {"name": "smallest", "model": "embedded:m", "tasks": ["perplexity"]}

names = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", fullmatch=True)
words = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars | words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=6
)
mappings = st.builds(lambda name, options: {**options, "use": name}, names, st.dictionaries(words, values, max_size=3))
uses = names | mappings
candidates = st.fixed_dictionaries(
    {"name": names.filter(lambda name: name.lower() not in ("baseline", "control"))},
    optional={"compress": st.lists(uses, max_size=3), "runtime": st.none() | uses},
)
workloads = st.fixed_dictionaries(
    {"scenario": st.just("offline")},
    optional={
        "batch_size": st.integers(1, 65_536),
        "output_tokens": st.none() | st.integers(1, 9),
        "block_s": st.integers(1, 600),
    },
)
recipes = st.fixed_dictionaries(
    {
        "name": names,
        "model": st.just("m") | st.just({"id": "m", "revision": "abc"}),
        "tasks": st.lists(uses, min_size=1, max_size=2),
    },
    optional={
        "workload": workloads,
        "seed": st.integers(0, 2**32 - 1),
        "meters": st.lists(names, max_size=3, unique=True),
        "baseline": st.fixed_dictionaries({}, optional={"runtime": uses, "compress": st.lists(uses, max_size=2)}),
        "candidates": st.lists(candidates, max_size=3, unique_by=lambda each: str(each["name"]).lower()),
    },
)


def recipe(**changes: Any) -> Recipe:
    return parse_recipe({**SMALLEST, **changes}).recipe


def problem(**changes: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe(**changes)
    return str(caught.value)


def test_a_recipe_of_three_lines_has_every_default() -> None:
    assert canonical(recipe()) == {
        "name": "smallest",
        "model": {"id": "embedded:m", "revision": None, "trust_remote_code": False, "dtype": "float32"},
        "tasks": [{"use": "perplexity"}],
        "workload": {
            "scenario": "single-stream",
            "tier": "standard",
            "batch_size": 1,
            "sequence_length": 32,
            "output_tokens": None,
            "num_threads": None,
            "rounds": None,
            "block_s": None,
            "isolation": "auto",
            "batch_sizes": None,
            "latency_limit_s": None,
            "latency_quantile": 0.99,
        },
        "meters": [{"use": "latency"}, {"use": "energy"}, {"use": "memory"}, {"use": "size"}],
        "device": "auto",
        "seed": 0,
        "repeats": 1,
        "noise_floor": True,
        "baseline": {"runtime": {"use": "torch"}, "compress": []},
        "candidates": [],
    }


@settings(max_examples=60, deadline=None)
@given(recipes)
def test_the_canonical_recipe_reads_back_as_the_same_recipe(data: dict[str, Any]) -> None:
    first = parse_recipe(data).recipe
    spelled = json.loads(json.dumps(canonical(first), allow_nan=False))
    again = parse_recipe(spelled).recipe
    assert again == first
    assert canonical(again) == canonical(first) == spelled


def _other_spelling(data: Any) -> Any:
    """Keys in reverse order, and every `{use: name}` as a bare name."""
    if isinstance(data, list):
        return [_other_spelling(item) for item in data]
    if not isinstance(data, dict):
        return data
    return data["use"] if list(data) == ["use"] else {key: _other_spelling(data[key]) for key in reversed(data)}


def test_order_of_keys_and_bare_names_dont_change_the_hash() -> None:
    steps = [{"use": "cast", "dtype": "bfloat16"}, {"use": "int8-dynamic"}]
    written = {**SMALLEST, "tasks": [{"use": "perplexity"}], "candidates": [{"name": "a", "compress": steps}]}
    one, other = parse_recipe(written).recipe, parse_recipe(_other_spelling(written)).recipe
    assert one == other
    assert hash(one) == hash(other)
    assert content_hash(canonical(one)) == content_hash(canonical(other))


def test_a_default_written_out_doesnt_change_the_hash() -> None:
    runtime = {"use": "onnxruntime", "threads": 4}
    short = recipe(baseline={"runtime": runtime}, candidates=[{"name": "a"}, {"name": "b", "runtime": None}])
    long = recipe(
        seed=0,
        workload={"scenario": "single-stream", "tier": "standard", "block_s": None},
        baseline={"runtime": runtime, "compress": []},
        candidates=[{"name": "a", "runtime": runtime}, {"name": "b", "runtime": runtime}],
    )
    assert canonical(short) == canonical(long)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"model": {"id": "embedded:m", "revision": "abc"}},
        {"tasks": [{"use": "perplexity", "stride": 1}]},
        {"workload": {"rounds": 11}},
        {"meters": ["energy", "latency", "memory", "size"]},
        {"device": "cpu"},
        {"seed": 1},
        {"baseline": {"runtime": "openvino"}},
        {"candidates": [{"name": "a"}]},
    ],
)
def test_what_is_asked_changes_the_hash(changes: dict[str, Any]) -> None:
    assert content_hash(canonical(recipe(**changes))) != content_hash(canonical(recipe()))
    assert recipe(**changes) != recipe()


def test_a_candidate_without_a_runtime_has_the_baselines_and_says_so() -> None:
    made = recipe(baseline={"runtime": "openvino"}, candidates=[{"name": "a"}, {"name": "b", "runtime": "torch"}])
    assert [each.runtime.name for each in made.candidates] == ["openvino", "torch"]
    assert [each.runtime.key_path for each in made.candidates] == ["baseline.runtime", "candidates[1].runtime"]


def test_every_use_knows_its_key_path() -> None:
    made = recipe(
        baseline={"compress": ["cast"]},
        meters=["size"],
        candidates=[{"name": "a", "compress": ["x", "y"], "runtime": "r"}],
    )
    expected = ["tasks[0]", "meters[0]", "baseline.runtime", "baseline.compress[0]"]
    expected += ["candidates[0].compress[0]", "candidates[0].compress[1]", "candidates[0].runtime"]
    assert [key for key, _ in made.uses()] == expected == [use.key_path for _, use in made.uses()]


def test_the_key_path_is_no_part_of_a_use() -> None:
    first, second = recipe(tasks=["a", "b", "a"]).tasks[0], recipe(tasks=["a", "b", "a"]).tasks[2]
    assert first.key_path != second.key_path
    assert first == second
    assert hash(first) == hash(second)
    assert "key_path" not in json.dumps(canonical(recipe()))
    assert Use(name="a").key_path == ""


def test_one_and_true_are_different_options() -> None:
    assert Use(name="a", options={"x": 1}) != Use(name="a", options={"x": True})
    assert Use(name="a") != "a"


def test_a_use_made_by_hand_takes_only_plain_options() -> None:
    with pytest.raises(ValidationError, match="must be text, a number"):
        Use(name="a", options={"x": [object()]})
    with pytest.raises(ValidationError, match="finite"):
        Use(name="a", options={"x": math.nan})


def test_a_recipe_made_by_hand_is_the_one_that_is_read() -> None:
    step = Use(name="wanda", options={"sparsity": 0.5})
    by_hand = Recipe(
        name="smallest",
        model=ModelSpec(id="embedded:m"),
        tasks=(Use(name="perplexity"),),
        baseline=Baseline(runtime=Use(name="torch")),
        candidates=(Candidate(name="a", compress=(step,), runtime=Use(name="torch")),),
    )
    assert by_hand == recipe(candidates=[{"name": "a", "compress": [{"use": "wanda", "sparsity": 0.5}]}])


def test_a_recipe_is_frozen_and_keeps_nothing_of_the_data_it_came_from() -> None:
    data: dict[str, Any] = {**SMALLEST, "tasks": [{"use": "a", "list": [1]}]}
    made = parse_recipe(data).recipe
    data["tasks"][0]["list"].append(2)
    canonical(made)["tasks"][0]["list"].append(3)
    assert canonical(made)["tasks"][0]["list"] == [1]
    with pytest.raises(ValidationError, match="frozen"):
        made.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(("scenario", "batch_size"), [("single-stream", 1), ("offline", 32)])
def test_the_batch_size_follows_the_scenario(scenario: str, batch_size: int) -> None:
    assert recipe(workload={"scenario": scenario}).workload.batch_size == batch_size
    assert recipe(workload={"batch_size": 8, "scenario": "offline"}).workload.batch_size == 8


def test_single_stream_refuses_batches_and_says_what_to_use() -> None:
    expected = "workload.batch_size: must be 1 when the scenario is single-stream (got 8). Use scenario: offline"
    assert expected in problem(workload={"batch_size": 8})


@pytest.mark.parametrize(
    ("field", "lowest", "highest"),
    [
        ("batch_size", 1, 65_536),
        ("sequence_length", 1, 1_000_000),
        ("output_tokens", 1, 1_000_000),
        ("num_threads", 1, 1024),
        ("rounds", 1, 10_000),
    ],
)
def test_the_bounds_of_the_workload(field: str, lowest: int, highest: int) -> None:
    for fine in (lowest, highest):
        assert getattr(recipe(workload={"scenario": "offline", field: fine}).workload, field) == fine
    too_low, too_high = ({"scenario": "offline", field: value} for value in (lowest - 1, highest + 1))
    assert f"workload.{field}: must be at least {lowest} (got {lowest - 1})" in problem(workload=too_low)
    assert f"workload.{field}: must be at most {highest} (got {highest + 1})" in problem(workload=too_high)


def test_the_bounds_of_a_block() -> None:
    assert recipe(workload={"block_s": 600}).workload == Workload(block_s=600.0)
    assert "workload.block_s: must be greater than 0 (got 0)" in problem(workload={"block_s": 0})
    assert "workload.block_s: must be at most 600 (got 600.5)" in problem(workload={"block_s": 600.5})


def test_the_bounds_of_the_seed() -> None:
    assert recipe(seed=2**32 - 1).seed == 2**32 - 1
    assert "seed: must be at least 0 (got -1)" in problem(seed=-1)
    assert "seed: must be at most 4294967295" in problem(seed=2**32)


@pytest.mark.parametrize("name", ["a", "A.b_c-1", "-", "x" * 128])
def test_good_names(name: str) -> None:
    assert recipe(name=name, candidates=[{"name": name, "compress": [name]}]).candidates[0].compress[0].name == name


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "a\n", "ä", "x" * 129, "a\tb"])
def test_bad_names(name: str) -> None:
    rule = "must be 1 to 128 letters, digits"
    assert f"name: {rule}" in problem(name=name)
    assert f"candidates[0].name: {rule}" in problem(candidates=[{"name": name}])
    assert f"tasks[0]: {rule}" in problem(tasks=[name])
    assert f"tasks[0].use: {rule}" in problem(tasks=[{"use": name}])


@pytest.mark.parametrize("name", ["baseline", "Control"])
def test_reserved_names(name: str) -> None:
    assert f"candidates[0].name: is a reserved name (got '{name}')" in problem(candidates=[{"name": name}])


def test_names_of_candidates_differ_even_where_case_is_lost() -> None:
    assert "candidates[1].name: must differ" in problem(candidates=[{"name": "a"}, {"name": "A"}])


def test_a_meter_stands_only_once() -> None:
    text = problem(meters=["energy", "size", {"use": "energy", "gpu": 1}])
    assert "meters[2]: a meter must stand only once (got 'energy')" in text
    assert recipe(meters=[]).meters == ()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"device": "gpu"}, "device: must be 'auto', 'cpu' or 'cuda' (got 'gpu')"),
        (
            {"model": {"id": "m", "dtype": "int8"}},
            "model.dtype: must be 'float32', 'bfloat16' or 'float16' (got 'int8')",
        ),
        ({"model": {"id": " m"}}, "model.id: must be one line of text"),
        ({"model": "a\nb"}, "model.id: must be one line of text"),
        ({"model": "m" * 513}, "model.id: must have at most 512 characters"),
        ({"model": {"id": "m", "revision": 1234567}}, "model.revision: must be text (got 1234567). YAML reads"),
        (
            {"model": {"id": "m", "trust_remote_code": "yes"}},
            "model.trust_remote_code: must be true or false (got 'yes')",
        ),
        ({"model": {}}, "model.id: is required"),
        ({"model": ["m"]}, "model: must be a mapping of keys to values (got a list)"),
        ({"model": {"id": "m", "revison": "x"}}, "model.revison: unknown key. Did you mean 'revision'?"),
        (
            {"workload": {"scenario": "multi-stream"}},
            "workload.scenario: must be 'single-stream', 'offline' or 'server' (got 'multi-stream')",
        ),
        ({"workload": {"scenario": "server"}}, "workload.latency_limit_s: is required (got scenario server)"),
        (
            {"workload": {"latency_limit_s": 0.1}},
            "workload.latency_limit_s: belongs to the scenario server, or to offline",
        ),
        ({"workload": {"batch_sizes": [1, 2]}}, "workload.batch_sizes: can be tried only when the scenario is offline"),
        (
            {"workload": {"scenario": "server", "latency_limit_s": 0.1, "batch_size": 2}},
            "workload.batch_size: must be 1 when the scenario is server (got 2)",
        ),
        ({"workload": {"tier": "quick"}}, "workload.tier: must be 'smoke', 'standard' or 'audit' (got 'quick')"),
        ({"workload": {"rounds": True}}, "workload.rounds: must be a whole number (got true)"),
        ({"workload": {"rounds": "3"}}, "workload.rounds: must be a whole number (got '3')"),
        ({"workload": {"rounds": 2.0}}, "workload.rounds: must be a whole number (got 2.0)"),
        ({"workload": {"block_s": "long"}}, "workload.block_s: must be a number (got 'long')"),
        ({"workload": {"batchsize": 1}}, "workload.batchsize: unknown key. Did you mean 'batch_size'?"),
        ({"tasks": []}, "tasks: must have at least 1 entry"),
        ({"tasks": "perplexity"}, "tasks: must be a list (got 'perplexity')"),
        ({"tasks": [{"data": "x"}]}, "tasks[0]: needs the key 'use'"),
        ({"tasks": [3]}, "tasks[0]: must be a name, or a mapping with the key 'use' (got 3)"),
        ({"tasks": [{"use": None}]}, "tasks[0].use: must be text (got null)"),
        ({"baseline": {"runtime": []}}, "baseline.runtime: must be a name, or a mapping"),
        ({"baseline": {"name": "x"}}, "baseline.name: unknown key"),
        ({"candidates": None}, "candidates: must be a list (got null)"),
        ({"candidates": ["bf16"]}, "candidates[0]: must be a mapping of keys to values (got 'bf16')"),
        (
            {"candidates": [{"name": "a", "compres": []}]},
            "candidates[0].compres: unknown key. Did you mean 'compress'?",
        ),
        ({"candidate": []}, "candidate: unknown key. Did you mean 'candidates'?"),
    ],
)
def test_each_error_says_where_what_and_what_was_got(changes: dict[str, Any], expected: str) -> None:
    text = problem(**changes)
    assert f"<recipe>: {expected}" in text
    assert "pydantic" not in text
    assert "\n" not in text, "one mistake is one error"


def test_the_json_schema_takes_recipes_as_people_write_them() -> None:
    schema = recipe_json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["name", "model", "tasks"]
    assert schema["additionalProperties"] is False
    name, mapping = schema["$defs"]["Use"]["anyOf"]
    assert name["type"] == "string"
    assert mapping["required"] == ["use"]
    assert mapping["additionalProperties"] is True
    assert schema["$defs"]["Candidate"]["required"] == ["name"]
    assert {"type": "string"} in schema["properties"]["model"]["anyOf"]
    assert json.loads(json.dumps(schema)) == schema


def test_the_json_schema_has_every_key_of_a_canonical_recipe_and_describes_it() -> None:
    schema, data = recipe_json_schema(), canonical(recipe(candidates=[{"name": "a"}]))
    sections = {"ModelSpec": data["model"], "Workload": data["workload"], "Baseline": data["baseline"]}
    sections["Candidate"] = data["candidates"][0]
    assert set(schema["properties"]) == set(data)
    for name, section in sections.items():
        properties = schema["$defs"][name]["properties"]
        # what older recipes lack is left out where it isn't set, so that their hashes stay
        assert set(properties) - {"thread_counts"} == set(section)
        assert all(each.get("description") for each in properties.values()), name


def test_the_references_of_the_json_schema_lead_somewhere() -> None:
    schema = recipe_json_schema()
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(schema)))
    assert references == {f"#/$defs/{name}" for name in schema["$defs"]}


def test_threads_to_try_stand_in_a_recipe_only_where_they_are_set() -> None:
    workload = {"scenario": "offline", "batch_sizes": [1, 4]}
    assert "thread_counts" not in canonical(recipe(workload=workload))["workload"]
    asked = canonical(recipe(workload={**workload, "thread_counts": [1, 2]}))
    assert asked["workload"]["thread_counts"] == [1, 2]
    assert parse_recipe(asked).recipe == recipe(workload={**workload, "thread_counts": [1, 2]})
