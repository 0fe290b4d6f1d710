from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from compressbench.core.errors import DataError, ModelError, NotFiniteError
from compressbench.core.progress import SilentProgress
from compressbench.core.protocols import Session
from compressbench.core.questions import SampleRow
from compressbench.core.watching import Unwatched
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks.multiple_choice import MultipleChoice
from compressbench.testing import tiny_causal_lm

ROWS: list[dict[str, Any]] = [
    {"q": "the cat", "choices": ["sat", "ran home", "a very good mat"], "label": 1, "kind": "a"},
    {"q": "the dog is", "choices": ["not good", "bad"], "label": 0, "kind": "b"},
    {"q": "a", "choices": ["cat ran", "cat sat on the mat", "cat sat on a mat"], "label": 2, "kind": "a"},
    {"q": "the very good dog was on the mat and", "choices": ["ran", "sat"], "label": 1, "kind": "b"},
]


class Alone:
    """A session that knows nothing of sharing."""

    device = "cpu"

    def __init__(self, handle: ModelHandle) -> None:
        self._model = handle.model

    def __call__(self, batch: Any) -> torch.Tensor:
        with torch.inference_mode():
            return self._model(**batch).logits  # type: ignore[no-any-return]

    def generate(self, batch: Any, num_tokens: int, on_token: Any = None) -> Any:
        raise NotImplementedError

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        pass


class Seen(Unwatched):
    def __init__(self) -> None:
        self.shown: dict[str, list[float]] = {}

    def logits(self, ids: Any, logits: Any) -> None:
        assert not self.shown.keys() & set(ids), "each item once"
        self.shown |= zip(ids, logits.tolist(), strict=True)


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    made = tiny_causal_lm(num_layers=2)
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(5)
    made.tokenizer._tokenizer.post_processor = None  # no [SEP] between a context and its continuation
    made.tokenizer.add_special_tokens({"bos_token": "[CLS]"})
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def task_on(data: Path | str, **options: Any) -> MultipleChoice:
    wanted = {"data": str(data), "doc_to_text": "q", "doc_to_choice": "choices", "doc_to_target": "label"}
    return MultipleChoice(**wanted | options)


def evaluate(
    task: MultipleChoice, handle: ModelHandle, session: Session | None = None, watch: Any = None
) -> list[SampleRow]:
    session = session or TorchEager().prepare(handle, "cpu")
    return task.evaluate(session, handle, task.load(), SilentProgress(), watch or Unwatched())


def log_likelihood(handle: ModelHandle, context: str, continuation: str) -> float:
    """One token after the other."""
    ids, total = handle.tokenizer(context)["input_ids"], 0.0
    for token in handle.tokenizer(continuation)["input_ids"]:
        with torch.inference_mode():
            logits = handle.model(input_ids=torch.tensor([ids])).logits[0, -1].double()
        total += float(logits[token] - logits.logsumexp(0))
        ids = [*ids, token]
    return total


@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"batch_size": 2}, {"token_budget": 12}])
@pytest.mark.parametrize("is_shared", [True, False])
def test_log_likelihoods_are_those_of_one_token_after_the_other(
    data: Path, handle: ModelHandle, options: dict[str, Any], is_shared: bool
) -> None:
    seen, session = Seen(), TorchEager().prepare(handle, "cpu") if is_shared else Alone(handle)
    evaluate(task_on(data, **options), handle, session, seen)
    expected = {str(at): [log_likelihood(handle, r["q"], c) for c in r["choices"]] for at, r in enumerate(ROWS)}
    assert seen.shown.keys() == expected.keys()
    for id_, scores in expected.items():
        assert seen.shown[id_] == pytest.approx(scores, abs=1e-5)


def test_rows_tell_both_metrics_and_how_sure_the_model_was(data: Path, handle: ModelHandle) -> None:
    seen = Seen()
    rows = evaluate(task_on(data, stratum_column="kind", cluster_column="q"), handle, watch=seen)
    by_acc = evaluate(task_on(data, metric="acc"), handle)
    for row, other, raw in zip(rows, by_acc, ROWS, strict=True):
        scores = seen.shown[row.id]
        plain = scores.index(max(scores))
        each = [score / len(choice) for score, choice in zip(scores, raw["choices"], strict=True)]
        assert (int(row.prediction), int(other.prediction)) == (each.index(max(each)), plain)
        assert row.score == float(each.index(max(each)) == raw["label"]) == other.also["acc_norm"]
        assert other.score == float(plain == raw["label"]) == row.also["acc"]
        total = sum(math.exp(score) for score in scores)
        assert row.confidence == pytest.approx(math.exp(scores[int(row.prediction)]) / total)
        assert (row.target, row.stratum, row.cluster) == (str(raw["label"]), raw["kind"], raw["q"])
        assert not row.is_truncated
    assert task_on(data).summarize(rows) == sum(row.score for row in rows) / 4
    assert any(row.prediction != other.prediction for row, other in zip(rows, by_acc, strict=True))


def test_the_first_of_equal_choices_is_predicted(tmp_path: Path, handle: ModelHandle) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps({"q": "the", "choices": ["cat", "cat", "cat"], "label": 2}))
    [row] = evaluate(task_on(tmp_path), handle)
    assert (row.prediction, row.score) == ("0", 0.0)
    assert row.confidence == pytest.approx(1 / 3)


def test_the_order_of_the_items_changes_nothing(data: Path, handle: ModelHandle) -> None:
    task, session = task_on(data), TorchEager().prepare(handle, "cpu")
    documents = task.load()
    one, other = Seen(), Seen()
    task.evaluate(session, handle, documents, SilentProgress(), one)
    task.evaluate(session, handle, documents.shuffled(1), SilentProgress(), other)
    assert one.shown.keys() == other.shown.keys()
    for id_, scores in one.shown.items():
        assert scores == pytest.approx(other.shown[id_], abs=1e-5)


@pytest.mark.parametrize(
    ("template", "row", "right"),
    [
        ("label", {"label": 1}, 1),
        ("label", {"label": True}, 1),
        ("label", {"label": "1"}, 1),
        ("label", {"label": "sat"}, 0),
        ("{{label}}", {"label": "1"}, 1),
        ("{{label}}", {"label": "ran"}, 1),
        ("{{'AB'.index(label)}}", {"label": "B"}, 1),
        ("label", {"label": "0", "choices": ["1", "0"]}, 1),
        ("{{label}}", {"label": "0", "choices": ["1", "0"]}, 0),
    ],
)
def test_the_right_choice_is_a_number_or_its_text(
    tmp_path: Path, handle: ModelHandle, template: str, row: dict[str, Any], right: int
) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps({"q": "the cat", "choices": ["sat", "ran"], **row}))
    [found] = evaluate(task_on(tmp_path, doc_to_target=template), handle)
    assert found.target == str(right)


@pytest.mark.parametrize("label", [2, -1, "-1", "slept"])
def test_a_right_choice_that_is_none_of_them_is_a_data_error(tmp_path: Path, handle: ModelHandle, label: Any) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps({"q": "the cat", "choices": ["sat", "ran"], "label": label}))
    with pytest.raises(DataError, match="number or the text of one of the choices"):
        evaluate(task_on(tmp_path), handle)


@pytest.mark.parametrize("choices", [["sat"], [], ["sat", ""], [1, 2], "sat"])
def test_choices_that_are_no_list_of_texts_are_a_data_error(tmp_path: Path, handle: ModelHandle, choices: Any) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps({"q": "the cat", "choices": choices, "label": 0}))
    with pytest.raises(DataError, match="at least two texts"):
        evaluate(task_on(tmp_path), handle)


def test_choices_may_be_templates(data: Path) -> None:
    row = task_on(data).load().rows[0]
    assert task_on(data, doc_to_choice=("no", "{{q}}", "q")).choices(row) == ["no", "the cat", "q"]
    assert task_on(data, doc_to_choice="{{choices[:2]}}").choices(row) == ["sat", "ran home"]
    with pytest.raises(ValidationError, match="can't be parsed"):
        task_on(data, doc_to_choice=("no", "{{"))


def test_with_multiple_inputs_the_choices_are_the_contexts(tmp_path: Path, handle: ModelHandle) -> None:
    """WinoGrande, as Trinh and Le (arXiv:1806.02847) score it: what follows the blank, given each option in it."""
    row = {"sentence": "the cat sat on the mat not the dog was _ very good", "option1": "home", "option2": "bad"}
    (tmp_path / "test.jsonl").write_text(json.dumps({**row, "answer": "2"}))
    task = task_on(
        tmp_path,
        multiple_input=True,
        doc_to_text="{{answer|int - 1}}",
        doc_to_choice="{{[sentence.split('_')[0] ~ option1, sentence.split('_')[0] ~ option2]}}",
        doc_to_target="{{sentence.split('_')[1].strip()}}",
    )
    seen = Seen()
    [found] = evaluate(task, handle, watch=seen)
    before = row["sentence"].split(" _")[0]
    expected = [log_likelihood(handle, f"{before} {option}", "very good") for option in ("home", "bad")]
    assert seen.shown["0"] == pytest.approx(expected, abs=1e-5)
    assert found.target == "1"
    loaded = task.load().rows[0]
    assert task.whole_text(loaded) == f"{before} bad very good"


def test_few_shot_examples_show_the_right_choice(data: Path) -> None:
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[::-1]))
    task = task_on(data, num_fewshot=1, fewshot_by="kind", description="now ")
    prefixes = [task.fewshot_prefix(row) for row in task.load().rows]
    assert prefixes[1] == "now the very good dog was on the mat and sat\n\n"
    assert prefixes[0] == "now a cat sat on a mat\n\n"


def test_a_context_that_had_to_be_cut_is_told(data: Path, handle: ModelHandle) -> None:
    rows = evaluate(task_on(data, max_length=8), handle)
    assert [row.is_truncated for row in rows] == [False, False, False, True]
    with pytest.raises(DataError, match="a continuation is too long"):
        evaluate(task_on(data, max_length=4), handle)


def test_an_empty_context_begins_with_the_token_that_begins_a_text(data: Path, handle: ModelHandle) -> None:
    seen = Seen()
    evaluate(task_on(data, doc_to_text="", target_delimiter="", limit=1), handle, watch=seen)
    expected = [log_likelihood(handle, "[CLS]", choice) for choice in ROWS[0]["choices"]]
    assert seen.shown["0"] == pytest.approx(expected, abs=1e-5)
    unfit = tiny_causal_lm(num_layers=1)
    with pytest.raises(ModelError, match="no token that begins or ends a text"):
        evaluate(task_on(data, doc_to_text="", target_delimiter=""), unfit)


def test_a_continuation_without_a_token_is_a_data_error(data: Path, handle: ModelHandle) -> None:
    with pytest.raises(DataError, match="no token of its own"):
        evaluate(task_on(data, doc_to_choice=(" ", "sat"), doc_to_target="sat"), handle)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers_end_the_cell(data: Path, handle: ModelHandle, value: float) -> None:
    broken = handle.copy()
    with torch.no_grad():
        broken.model.model.norm.weight.fill_(value)
    with pytest.raises(NotFiniteError, match="logits that are not finite"):
        evaluate(task_on(data), broken)


def test_the_protocol_changes_with_what_changes_the_number() -> None:
    variants: list[dict[str, Any]] = [
        {}, {"metric": "acc"}, {"batch_size": 1}, {"token_budget": 1}, {"doc_to_choice": ("a", "b")}, {"num_fewshot": 1},
        {"multiple_input": True}, {"doc_to_text": "{{q}}"},
    ]  # fmt: skip
    assert len({task_on("a/b", **options).protocol_id for options in variants}) == len(variants)
    assert task_on("a/b").is_binary
    assert task_on("a/b").metric == "acc_norm"
