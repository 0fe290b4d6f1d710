"""Recipes from files: lines in errors, and files that are broken, hostile or surprising."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressbench.core.errors import RecipeError
from compressbench.recipe.load import LoadedRecipe, load_recipe, parse_recipe
from compressbench.recipe.schema import canonical

EXAMPLE = """\
name: minilm-banking77
model: {id: embedded:minilm-banking77}      # or a Hub id with a pinned revision, or a local folder
tasks: [{use: text-classification, data: embedded:banking77, split: test}]
workload: {scenario: single-stream, batch_size: 1, sequence_length: 32}
meters: [latency, energy, memory, size]
baseline: {runtime: torch}
candidates:
  - {name: bf16,      compress: [{use: cast, dtype: bfloat16}]}
  - {name: int8-dyn,  compress: [{use: int8-dynamic}], runtime: onnxruntime}
  - {name: wanda-50,  compress: [{use: wanda, sparsity: 0.5}]}
  - name: 4layer-kd-int8
    compress:
      - {use: depth-pruning, num_layers: 4}
      - {use: logit-distillation, temperature: 2.0, num_epochs: 2}
      - {use: int8-dynamic}
"""
SMALLEST = "name: x\nmodel: m\ntasks: [t]\n"

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str | bytes) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return written


def short(value: object) -> str:
    """What a parametrized test is called: some of the inputs are a megabyte long."""
    return repr(value)[:30]


def problem(path: Path) -> str:
    """What is said of the recipe, the folder left out."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{path.parent}{os.sep}", "")


def test_the_example_of_the_design_parses(write: Write) -> None:
    loaded = load_recipe(write(EXAMPLE))
    assert [candidate.name for candidate in loaded.recipe.candidates] == [
        "bf16",
        "int8-dyn",
        "wanda-50",
        "4layer-kd-int8",
    ]
    distillation = loaded.recipe.candidates[3].compress[1]
    assert (distillation.name, distillation.options) == ("logit-distillation", {"temperature": 2.0, "num_epochs": 2})
    assert [candidate.runtime.name for candidate in loaded.recipe.candidates] == [
        "torch",
        "onnxruntime",
        "torch",
        "torch",
    ]


def test_key_paths_have_the_lines_of_the_file(write: Write) -> None:
    path = write(EXAMPLE)
    loaded = load_recipe(str(path))
    lines = {
        key: int(loaded.where(use.key_path).removeprefix(f"{path}:").partition(":")[0])
        for key, use in loaded.recipe.uses()
    }
    texts = EXAMPLE.splitlines()
    for key, use in loaded.recipe.uses():
        assert use.name in texts[lines[key] - 1]
    assert loaded.where("candidates[2].compress[0].sparsity") == f"{path}:10: candidates[2].compress[0].sparsity"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a[0].b", "r.yaml:3: a[0].b"),
        ("a[0].c.d", "r.yaml:2: a[0].c.d"),
        ("a[7]", "r.yaml:1: a[7]"),
        ("b", "r.yaml: b"),
        ("ab", "r.yaml: ab"),
        ("", "r.yaml"),
    ],
)
def test_a_key_that_is_not_written_has_the_line_of_its_parent(key: str, expected: str) -> None:
    recipe = parse_recipe({"name": "x", "model": "m", "tasks": ["t"]}).recipe
    loaded = LoadedRecipe(recipe, "r.yaml", {"a": 1, "a[0]": 2, "a[0].b": 3})
    assert loaded.where(key) == expected


def test_without_lines_the_recipe_is_named() -> None:
    data = {"name": "x", "model": "m", "tasks": ["t"]}
    assert parse_recipe(data).where("tasks[0]") == "<recipe>: tasks[0]"
    with pytest.raises(RecipeError, match=r"^results/a\.json:4: seed: must be at least 0 \(got -1\)$"):
        parse_recipe({**data, "seed": -1}, path="results/a.json", lines={"seed": 4})


def test_a_loaded_recipe_survives_pickling(write: Write) -> None:
    loaded = load_recipe(write(EXAMPLE))
    again = pickle.loads(pickle.dumps(loaded))  # noqa: S301 - made right here
    assert again == loaded
    assert again.recipe.candidates[3].compress[1].key_path == "candidates[3].compress[1]"


def test_comments_order_and_spelling_dont_change_what_is_loaded(write: Write) -> None:
    one = load_recipe(write(SMALLEST + "candidates: [{name: a, compress: [{use: b}]}]")).recipe
    other = load_recipe(
        write("# hello\ncandidates:\n- compress:\n  - b\n  name: a\ntasks: [use: t]\nmodel: {id: m}\nname: 'x'")
    ).recipe
    assert one == other
    assert canonical(one) == canonical(other)


keys = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=8)
options = st.dictionaries(
    keys.filter(lambda key: key != "use"),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63) + 1, 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | keys,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(options)
def test_a_canonical_recipe_saved_as_json_loads_again(
    tmp_path_factory: pytest.TempPathFactory, given_options: dict[str, Any]
) -> None:
    recipe = parse_recipe({"name": "x", "model": "m", "tasks": [{**given_options, "use": "t"}]}).recipe
    path = tmp_path_factory.mktemp("json") / "recipe.json"
    path.write_text(json.dumps(canonical(recipe), indent=1), encoding="utf-8")
    assert load_recipe(path).recipe == recipe


# several errors


def test_several_errors_are_listed_with_their_lines(write: Write) -> None:
    text = problem(write("name: x\nmodel: m\ntaks: [t]\nworkload:\n  batch_size: 0\n  rounds: many\n"))
    assert text.splitlines() == [
        "recipe.yaml: 4 errors",
        "recipe.yaml:1: tasks: is required",
        "recipe.yaml:3: taks: unknown key. Did you mean 'tasks'?",
        "recipe.yaml:5: workload.batch_size: must be at least 1 (got 0)",
        "recipe.yaml:6: workload.rounds: must be a whole number (got 'many')",
    ]


def test_at_most_twenty_errors_are_listed(write: Write) -> None:
    lines = problem(write(SMALLEST + "".join(f"wrong{number}: 1\n" for number in range(23)))).splitlines()
    assert lines[0] == "recipe.yaml: 23 errors"
    assert len(lines) == 22
    assert lines[-1] == "and 3 more"


# files


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert (
        problem(tmp_path / "none.yaml")
        == "none.yaml: the recipe can't be read (got No such file or directory). Check the path."
    )


def test_a_path_that_no_file_can_have() -> None:
    with pytest.raises(RecipeError, match="can't be read") as caught:
        load_recipe("a\0b\n")
    assert str(caught.value).isprintable()


def test_a_folder(tmp_path: Path) -> None:
    assert "a recipe must be a regular file (got a folder)" in problem(tmp_path)


def test_a_pipe_that_nobody_writes_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert problem(tmp_path / "pipe") == "pipe: a recipe must be a regular file (got a pipe, socket or device)"


def test_a_device_that_never_ends() -> None:
    with pytest.raises(RecipeError, match="regular file"):
        load_recipe("/dev/zero")


def test_a_sparse_file_of_two_gigabytes_is_not_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("")
    os.truncate(path, 2 * 1024**3)
    monkeypatch.setattr("builtins.open", None)
    assert problem(path) == "recipe.yaml: a recipe must have at most 1,048,576 bytes (got at least 2,147,483,648)"


def test_a_file_that_is_larger_than_it_said(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(b"#" * (1_048_576 + 10))
    monkeypatch.setattr("compressbench.recipe.load._check_before_opening", lambda *_: None)
    assert "a recipe must have at most 1,048,576 bytes" in problem(path)


def test_a_file_of_the_largest_size_loads(write: Write) -> None:
    text = SMALLEST + "#"
    assert load_recipe(write(text + "x" * (1_048_576 - len(text)))).recipe.name == "x"


def test_what_is_not_utf_8_has_a_line(write: Write) -> None:
    assert (
        problem(write(b"name: x\nmodel: \xff\n"))
        == "recipe.yaml:2: not UTF-8 (got the byte 0xff). Save the recipe as UTF-8."
    )
    assert "not UTF-8" in problem(write(SMALLEST.encode("utf-16")))


def test_a_byte_order_mark_and_windows_line_ends_are_fine(write: Write) -> None:
    loaded = load_recipe(write(b"\xef\xbb\xbf" + SMALLEST.replace("\n", "\r\n").encode()))
    assert loaded.where("tasks").endswith(":3: tasks")


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_an_empty_recipe(write: Write, text: str) -> None:
    assert problem(write(text)) == "recipe.yaml: the recipe is empty. It needs name, model and tasks."


@pytest.mark.parametrize(("text", "got"), [("- a", "a list"), ("just words", "'just words'"), ("12", "12")])
def test_a_recipe_that_is_no_mapping(write: Write, text: str, got: str) -> None:
    assert problem(write(text)) == f"recipe.yaml:1: a recipe must be a mapping of keys to values (got {got})"


# YAML


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\nmodel: [a\ntasks: b", "recipe.yaml:3: not YAML in column 6: while parsing a flow sequence"),
        ("name: x\n\t- b", "recipe.yaml:2: not YAML in column 1"),
        ("name: *nobody", "recipe.yaml:1: not YAML in column 7: found undefined alias 'nobody'"),
        ("a: 1\n---\nb: 2", "recipe.yaml:2: not YAML in column 1: expected a single document"),
        ("name: x\nmodel: a\0b", r"recipe.yaml:2: not YAML in column 9: a forbidden character (got '\x00')"),
        ('name: "\\UFFFFFFFF"', "recipe.yaml: not YAML: an impossible escape"),
        ("%YAML 1." + "9" * 5000 + "\n---\na: 1", "recipe.yaml: not YAML: an impossible escape or number"),
        ("name: x\nseed: 1\nseed: 2", "recipe.yaml:3: seed: duplicate key"),
        ("name: x\nworkload:\n  rounds: 1\n  rounds: 1", "recipe.yaml:4: workload.rounds: duplicate key"),
        ("<<: {a: 1}\n<<: {b: 1}", 'recipe.yaml:2: ["<<"]: duplicate key'),
        ("<<: [1]", "recipe.yaml:1: '<<' must be followed by a mapping"),
        ("tasks: !!python/object/apply:os.system [echo]", "recipe.yaml:1: tasks: a tag that recipes don't allow"),
        ("tasks: !!python/name:os.system", "recipe.yaml:1: tasks: a tag that recipes don't allow"),
        ("tasks: !mine {a: 1}", "recipe.yaml:1: tasks: a tag that recipes don't allow (got '!mine')"),
        ("tasks: !!set {a}", "recipe.yaml:1: tasks: a tag that recipes don't allow"),
        ("tasks: !!binary aGk=", "recipe.yaml:1: tasks: a tag that recipes don't allow"),
        ("!!python/object:a.b x: 1", "recipe.yaml:1: a tag that recipes don't allow"),
        ("seed: !!int many", "recipe.yaml:1: seed: can't be read as int (got 'many')"),
        ("seed: !!float ''", "recipe.yaml:1: seed: can't be read as float (got '')"),
        ("seed: !!bool maybe", "recipe.yaml:1: seed: can't be read as bool (got 'maybe')"),
        ("? [a, b]\n: c", "recipe.yaml:1: a key must be text"),
        ("k" * 129 + ": 1", "recipe.yaml:1: a key must be text of at most 128 characters"),
    ],
    ids=short,
)
def test_broken_yaml_has_a_place_and_a_reason(write: Write, text: str, expected: str) -> None:
    assert problem(write(text)).startswith(expected)


def test_several_faults_of_the_yaml_are_listed(write: Write) -> None:
    text = problem(write("name: !a x\nmodel: m\nmodel: m"))
    assert [line.partition(": ")[0] for line in text.splitlines()] == ["recipe.yaml", "recipe.yaml:1", "recipe.yaml:3"]


def _laughs(leaf: str, fan_out: str, num_levels: int) -> str:
    levels = [f"a{level}: &a{level} {fan_out.replace('?', f'*a{level - 1}')}" for level in range(1, num_levels)]
    return "\n".join([f"a0: &a0 {leaf}", *levels])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            _laughs("[lol]", "[?, ?, ?, ?, ?, ?, ?, ?, ?]", 20),
            ": the recipe is too large (got more than 10,000 keys and values",
        ),
        (_laughs("{}", "{<<: [?, ?]}", 30), ": the recipe is too large (got more than 10,000 keys and values"),
        (_laughs("[x]", "[?]", 40), "nested deeper than 32 levels"),
        ("a: &a " + "x" * 900_000 + "\nb: [*a, *a]", ":2: the recipe is too large (got more than 1,048,576 characters"),
        ("name: x\na: [" + "1, " * 20_000 + "]", ":2: the recipe is too large (got more than 10,000 keys and values"),
        ("a: &a [*a]", ":1: a[0]: an anchor must not refer to itself"),
        ("a: &a {b: {c: *a}}", ":1: a.b.c: an anchor must not refer to itself"),
        ("a: &a {<<: *a}", ":1: a: an anchor must not refer to itself"),
        ("name: x\na: " + "[" * 33 + "]" * 33, ":2: the recipe is too large (got lists and mappings nested deeper"),
        ("a: " + "[" * 500_000, ":1: the recipe is too large (got lists and mappings nested deeper"),
        ("- " * 500_000, ":1: the recipe is too large (got lists and mappings nested deeper"),
        ("{a: " * 200_000, ":1: the recipe is too large (got lists and mappings nested deeper"),
    ],
    ids=short,
)
def test_bombs_are_refused(write: Write, text: str, expected: str) -> None:
    assert expected in problem(write(text))


def test_the_deepest_nesting_that_is_allowed_loads(write: Write) -> None:
    # the recipe, the list of tasks and the task are three levels
    deep = "name: x\nmodel: m\ntasks: [{use: t, a: " + "[" * 29 + "]" * 29 + "}]"
    assert load_recipe(write(deep)).recipe.tasks[0].name == "t"
    assert "deeper than 32 levels" in problem(write(deep.replace("a: [", "a: [[").replace("]}", "]]}")))


def test_aliases_and_merge_keys_work(write: Write) -> None:
    text = """\
name: x
model: m
tasks:
  - &one {use: t, a: 1, b: [1]}
  - {<<: *one, a: 2}
  - {a: 3, <<: [{a: 4, c: 5}, *one]}
  - *one
"""
    tasks = load_recipe(write(text)).recipe.tasks
    assert [task.options for task in tasks] == [
        {"a": 1, "b": [1]},
        {"a": 2, "b": [1]},
        {"a": 3, "b": [1], "c": 5},
        {"a": 1, "b": [1]},
    ]


# what YAML makes of words and numbers


@pytest.mark.parametrize("word", ["no", "yes", "on", "Off", "TRUE", "null", "~", "12", "1e3", "0x1F", ".5"])
def test_a_name_that_yaml_reads_as_a_value_asks_for_quotes(write: Write, word: str) -> None:
    text = problem(write(SMALLEST + f"candidates:\n  - {{name: {word}}}\n"))
    assert text.startswith("recipe.yaml:5: candidates[0].name: must be text (got ")
    assert text.endswith("put the text in quotes.")
    quoted = SMALLEST + f"candidates:\n  - {{name: '{word}'}}\n"
    if word not in ("~", ".5"):
        assert load_recipe(write(quoted)).recipe.candidates[0].name == word


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("+1.5e+3", 1500.0),
        ("-.5", -0.5),
        ("2.", 2.0),
        ("6.02e23", 6.02e23),
        ("1_000", 1000),
        ("0", 0),
        ("-7", -7),
        ("0x10", 16),
        ("0o17", 15),
        ("9223372036854775807", 2**63 - 1),
        ("010", "010"),
        ("1:30", "1:30"),
        ("12:30:45", "12:30:45"),
        ("2026-01-31", "2026-01-31"),
        ("1.2.3", "1.2.3"),
        ("2:4", "2:4"),
        ("1e", "1e"),
        ("nan", "nan"),
        ("=", "="),
        ("yes", True),
        ("off", False),
        ("y", "y"),
        ("~", None),
        ("", None),
        ("!!str 12", "12"),
        ("!!float 1", None),
    ],
)
def test_scalars_are_read_as_people_mean_them(write: Write, written: str, value: object) -> None:
    path = write(SMALLEST.replace("[t]", f"[{{use: t, x: {written} }}]"))
    if written == "!!float 1":
        assert "can't be read as float" in problem(path)
        return
    read = load_recipe(path).recipe.tasks[0].options["x"]
    assert read == value
    assert type(read) is type(value)


def test_a_number_with_an_exponent_is_a_number_where_one_is_needed(write: Write) -> None:
    assert load_recipe(write(SMALLEST + "workload: {block_s: 5e-1}")).recipe.workload.block_s == 0.5


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (".nan", "must be a finite number (got nan)"),
        (".inf", "must be a finite number (got inf)"),
        ("-.INF", "must be a finite number (got -inf)"),
        ("1e999", "must be a finite number (got inf)"),
        ("9223372036854775808", "must fit into 64 bits (got 9223372036854775808)"),
        ("-9223372036854775808", "must fit into 64 bits"),
        ("0x" + "f" * 60, "must fit into 64 bits (got a whole number of 240 bits)"),
        ("9" * 5000, "can't be read as int (got '9999"),
        ("0x" + "f" * 900_000, "can't be read as int (got '0xffff"),
        ('"\\ud800"', r"must not contain control characters (got '\ud800')"),
        ('"a\\0b"', r"must not contain control characters (got 'a\x00b')"),
        ('"\\e[31m"', r"must not contain control characters (got '\x1b[31m')"),
    ],
    ids=short,
)
def test_values_that_json_cant_hold_are_refused(write: Write, written: str, expected: str) -> None:
    text = problem(write(SMALLEST.replace("[t]", f"[{{use: t, x: [{written}]}}]")))
    assert text.startswith(f"recipe.yaml:3: tasks[0].x[0]: {expected}")
    assert len(text) < 300


@pytest.mark.parametrize(("key", "got"), [("on", "true"), ("1", "1"), ("~", "null"), ("1.5", "1.5")])
def test_keys_must_be_text(write: Write, key: str, got: str) -> None:
    text = problem(write(SMALLEST + f"workload: {{{key}: 1}}"))
    assert text.startswith(f"recipe.yaml:4: workload: a key must be text (got {got}). YAML reads unquoted")


def test_control_characters_in_names_and_keys_are_refused_and_not_printed(write: Write) -> None:
    for text in ('name: "a\\e[31m"', '"a\\e[31m": 1', 'name: "a\\u0085"'):
        said = problem(write(text))
        assert "control characters" in said
        assert said.isprintable()


def test_names_that_look_like_paths_are_refused(write: Write) -> None:
    assert "recipe.yaml:4: candidates[0].name: must be 1 to 128 letters" in problem(
        write(SMALLEST + "candidates: [{name: ../x}]")
    )


# data that was already parsed


def test_any_mapping_and_tuples_are_fine() -> None:
    data = MappingProxyType({"name": "x", "model": "m", "tasks": ({"use": "t", "x": (1, 2)},)})
    assert parse_recipe(data).recipe.tasks[0].options == {"x": [1, 2]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(
            object(),
            "must be text, a number, true, false, null, a list or a mapping (got a value of type object)",
            id="object",
        ),
        ({1, 2}, "must be text, a number, true, false, null, a list or a mapping (got a value of type set)"),
        (b"bytes", "must be text, a number"),
        (float("nan"), "must be a finite number (got nan)"),
        (1 << 200, "must fit into 64 bits (got a whole number of 201 bits)"),
        ("\ud800", "must not contain control characters"),
        ({3: 4}, "a key must be text (got 3)"),
        ({"k" * 129: 4}, "a key must have at most 128 characters"),
        ({"a\0": 4}, r"must not contain control characters (got 'a\x00')"),
    ],
    ids=short,
)
def test_parsed_data_must_be_plain(value: object, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"name": "x", "model": "m", "tasks": [{"use": "t", "x": value}]})
    assert str(caught.value).startswith(f"<recipe>: tasks[0].x: {expected}")


def test_parsed_data_that_holds_itself_or_is_huge() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RecipeError, match="nested deeper than 32 levels"):
        parse_recipe({"tasks": endless})
    with pytest.raises(RecipeError, match="too large"):
        parse_recipe({"tasks": [endless] * 100_000})


@pytest.mark.parametrize("data", [None, [], "name: x", 3])
def test_parsed_data_must_be_a_mapping(data: Any) -> None:
    with pytest.raises(RecipeError, match="a recipe must be a mapping of keys to values"):
        parse_recipe(data)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab:-[]{}&*!|>'\"%?# \n\t<0e.~,"), max_size=60))
def test_any_text_is_a_recipe_or_a_recipe_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("any") / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError):
        load_recipe(path)
