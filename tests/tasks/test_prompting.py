from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from compressbench.core.errors import DataError, ModelError, RecipeError
from compressbench.models.handle import ModelHandle
from compressbench.tasks.prompting import Prompted
from compressbench.tasks.templates import check_template, literal, render
from compressbench.testing import tiny_causal_lm

ROW: dict[str, Any] = {
    "text": "the cat sat", "options": [" a [x] cat", "a dog "], "nested": {"name": ["n"]}, "answer": 1, "none": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    return tiny_causal_lm(num_layers=1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split, animals in {
        "test": ["cat", "dog", "mat", "home"],
        "train": ["mat", "home", "cat", "dog", "mat"],
    }.items():
        rows = [
            {"who": animal, "what": "sat" if number % 2 else "ran", "kind": "ab"[number % 2], "number": number}
            for number, animal in enumerate(animals)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def prompted(data: Path | str, **options: Any) -> Prompted:
    return Prompted(**{"data": str(data), "doc_to_text": "the {{who}}", "doc_to_target": "what"} | options)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("text", "the cat sat"),
        ("{{text}}", "the cat sat"),
        ("{{text.split(' ')[:-1]|join(' ')}}", "the cat"),
        ("{{' '+text.split(' ')[-1]}}", " sat"),
        ("a line\n", "a line\n"),
        ("{{options[0]|regex_replace('\\\\[.*?\\\\]', '')}}", " a  cat"),
        ("{% if answer == 1 %}<b>{% endif %}", "<b>"),
        ("{{nested.name[0]}}", "n"),
        ("no column of that name", "no column of that name"),
    ],
)
def test_a_template_is_rendered_as_lm_evaluation_harness_renders_it(template: str, text: str) -> None:
    assert render(template, ROW) == text
    lm_eval = pytest.importorskip("lm_eval.utils")
    if template not in ROW:
        assert lm_eval.apply_template(template, ROW) == text


def test_a_template_may_give_a_list() -> None:
    cleaned = "{{options | map('trim') | map('regex_replace', '\\\\[.*?\\\\] ', '') | list}}"
    assert literal(cleaned, ROW) == ["a cat", "a dog"]
    assert literal("options", ROW) == ROW["options"]
    with pytest.raises(DataError, match="no literal"):
        literal("{{text}}", ROW)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{question}}", "'question' is undefined"),
        ("{{options.index('a bird')}}", "not in list"),
        ("{{none}}", "null"),
        ("none", "null"),
        ("answer", "a text must be a string"),
        ("{{ text.__class__.__mro__ }}", "unsafe"),
        ("{{ options.append('c') }}", "unsafe"),
    ],
)
def test_a_template_that_can_not_be_filled_in_names_itself_and_the_row(template: str, why: str) -> None:
    with pytest.raises(DataError, match=why) as caught:
        render(template, ROW)
    assert repr(template) in str(caught.value)
    assert "the cat sat" in str(caught.value)


def test_a_template_that_does_not_parse_is_found_before_any_data_is_read() -> None:
    with pytest.raises(RecipeError, match="can't be parsed"):
        check_template("{{text")
    with pytest.raises(ValidationError, match="can't be parsed"):
        prompted("owner/name", doc_to_text="{% if %}")


def test_a_prompt_is_the_description_the_examples_and_the_question(data: Path) -> None:
    task = prompted(data, description="about {{kind}}: ", num_fewshot=2)
    row = task.load().rows[1]
    assert task.fewshot_prefix(row) == "about b: the mat ran\n\nthe home sat\n\n"
    assert task.context(row) == task.fewshot_prefix(row) + "the dog"
    assert task.whole_text(row) == task.context(row) + " sat"
    assert prompted(data).context(row) == "the dog"


def test_examples_can_be_those_with_the_same_value_in_a_column(data: Path) -> None:
    task = prompted(data, num_fewshot=2, fewshot_by="kind", fewshot_delimiter="; ", target_delimiter="=")
    prefixes = [task.fewshot_prefix(row) for row in task.load().rows]
    assert prefixes == ["the mat=ran; the cat=ran; ", "the home=sat; the dog=sat; "] * 2


def test_the_row_that_is_asked_about_is_never_an_example(data: Path) -> None:
    task = prompted(data, num_fewshot=1, fewshot_split="test")
    assert [task.fewshot_prefix(row) for row in task.load().rows] == ["the dog sat\n\n", *["the cat ran\n\n"] * 3]


def test_too_few_examples_are_a_data_error(data: Path) -> None:
    for options, found in ({"num_fewshot": 6}, "5"), ({"num_fewshot": 3, "fewshot_by": "kind"}, "2 with kind = 'b'"):
        task = prompted(data, **options)
        with pytest.raises(DataError, match=f"too few few-shot examples .*{found}"):
            [task.fewshot_prefix(row) for row in task.load().rows]
    with pytest.raises(DataError, match="no file of that split"):
        prompted(data, num_fewshot=1, fewshot_split="dev").check()
    prompted(data, num_fewshot=0, fewshot_split="dev").check()


def test_strata_and_clusters_come_from_columns(data: Path) -> None:
    task = prompted(data, stratum_column="kind", cluster_column="number")
    row = task.load().rows[3]
    assert (task.stratum_of(row), task.cluster_of(row)) == ("b", "3")
    assert (prompted(data).stratum_of(row), prompted(data).cluster_of(row)) == ("", "")
    with pytest.raises(DataError, match="no column 'subject'"):
        prompted(data, stratum_column="subject").stratum_of(row)


def test_model_inputs_are_the_prompts_with_their_answers(data: Path, handle: ModelHandle) -> None:
    task = prompted(data)
    rows, revision = task.model_inputs(handle, "train")
    assert revision.startswith("sha256:")
    texts = [task.whole_text(row) for row in task.documents("train").rows]
    assert texts[0] == "the mat ran"
    assert [row["input_ids"] for row in rows] == handle.tokenizer(texts)["input_ids"]
    assert rows[0]["attention_mask"] == [1] * 5


def test_training_reads_the_training_split_and_its_labels_leave_out_the_padding(
    data: Path, handle: ModelHandle
) -> None:
    task = prompted(data, doc_to_text="{{'the ' * number}}{{who}}")
    batches = task.training_batches(handle, 2, None, seed=0)
    pairs = [pair for batch in batches for pair in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    seen = sorted(ids[mask.bool()].tolist() for ids, mask in pairs)
    assert seen == sorted(row["input_ids"] for row in task.model_inputs(handle, "train")[0])
    for batch in batches:
        assert torch.equal(batch["labels"] == -100, batch["attention_mask"] == 0)
    assert any(not batch["attention_mask"].bool().all() for batch in batches)
    assert sum(len(batch["labels"]) for batch in task.training_batches(handle, 2, 3, seed=0)) == 3


def test_training_without_a_training_split_is_a_data_error(data: Path, handle: ModelHandle) -> None:
    with pytest.raises(DataError, match="training would see the evaluation data"):
        prompted(data / "test.jsonl").training_batches(handle, 2, None, seed=0)
    (data / "train.jsonl").unlink()
    with pytest.raises(DataError, match="no file of that split"):
        prompted(data).training_batches(handle, 2, None, seed=0)
    with pytest.raises(DataError, match="no file of that split"):
        prompted(data).check(training=True)


def test_workload_batches_have_the_exact_shape(data: Path, handle: ModelHandle) -> None:
    task = prompted(data)
    batches = task.workload_batches(handle, task.load(), 2, 3)
    assert [batch["input_ids"].shape for batch in batches] == [(2, 3)] * 3
    joined = [token for row in task.model_inputs(handle, "test")[0] for token in row["input_ids"]]
    assert torch.cat([batch["input_ids"].flatten() for batch in batches]).tolist() == joined[:18]
    with pytest.raises(DataError, match="the prompts have 20 tokens and one batch of the workload needs 24"):
        task.workload_batches(handle, task.load(), 4, 6)


def test_a_prompt_longer_than_the_model_reads_loses_its_beginning(data: Path, handle: ModelHandle) -> None:
    whole, _ = prompted(data).model_inputs(handle, "test")
    cut, _ = prompted(data, max_length=3).model_inputs(handle, "test")
    assert [row["input_ids"] for row in cut] == [row["input_ids"][-3:] for row in whole]
    with pytest.raises(ModelError, match="at most 64 tokens at once"):
        prompted(data, max_length=65).check_model(handle, prompted(data).load())


def test_the_work_is_estimated_from_the_prompts(data: Path) -> None:
    found = prompted(data, limit=3).estimated_work()
    assert found is not None
    assert found[0] == 3
    assert prompted("owner/name").estimated_work() is None


def test_the_prompt_id_changes_with_what_changes_the_prompt() -> None:
    variants: list[dict[str, Any]] = [
        {}, {"doc_to_text": "x"}, {"doc_to_target": "x"}, {"description": "x"}, {"target_delimiter": ""},
        {"num_fewshot": 1}, {"num_fewshot": 1, "fewshot_by": "kind"}, {"num_fewshot": 1, "fewshot_delimiter": ""},
        {"num_fewshot": 1, "fewshot_split": "dev"}, {"max_length": 8},
    ]  # fmt: skip
    assert len({prompted("a/b", **options).prompt_id for options in variants}) == len(variants)
    assert prompted("a/b", fewshot_delimiter="").prompt_id == prompted("a/b").prompt_id
