from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from compressbench.core.errors import ModelError, NotFiniteError, UnsupportedError
from compressbench.core.progress import SilentProgress
from compressbench.core.protocols import Batch, Decoding, Session, Written
from compressbench.core.questions import SampleRow, Task
from compressbench.core.registry import tasks
from compressbench.core.watching import Unwatched
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks.generation import Generation
from compressbench.testing import tiny_causal_lm
from compressbench.testing.fakes import FakeClock, FakeSession

GSM8K: dict[str, Any] = {
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "answer",
    "until": ["Question:", "</s>"],
    "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"],
    "ignore_case": True,
    "max_length": 4000,
}


class Characters:
    """A tokenizer of one token per character, in place of one for words."""

    model_max_length = 10_000

    def __call__(self, texts: Sequence[str], verbose: bool) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(sign) for sign in text] for text in texts]}

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool) -> str:
        return "".join(map(chr, tokens))


class Prepared:
    """A session that writes what it was told to write after each prompt, and keeps what it was asked."""

    device = "cpu"

    def __init__(self, texts: dict[str, list[str]], has_ended: bool = True) -> None:
        self.texts, self.has_ended, self.asked = texts, has_ended, list[tuple[list[str], Decoding]]()

    def write(self, batch: Batch, decoding: Decoding) -> list[Written]:
        pairs = zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)
        prompts = ["".join(chr(token) for token, kept in zip(*pair, strict=True) if kept) for pair in pairs]
        self.asked.append((prompts, decoding))
        return [
            Written([ord(sign) for sign in text], self.has_ended) for prompt in prompts for text in self.texts[prompt]
        ]

    def __call__(self, batch: Batch) -> Any:
        raise NotImplementedError

    def generate(self, batch: Batch, num_tokens: int, on_token: Any = None) -> Any:
        raise NotImplementedError

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    return tiny_causal_lm(num_layers=1)


@pytest.fixture(scope="module")
def letters(handle: ModelHandle) -> ModelHandle:
    return dataclasses.replace(handle, tokenizer=Characters())


def data(folder: Path, rows: Sequence[dict[str, Any]], split: str = "test") -> str:
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def evaluate(task: Generation, handle: ModelHandle, session: Session) -> list[SampleRow]:
    return task.evaluate(session, handle, task.load(), SilentProgress(), Unwatched())


SUMS = [
    {"question": "3+4?", "answer": "3+4=7\n#### 7"},
    {"question": "600+400?", "answer": "...\n#### 1,000"},
    {"question": "9-10?", "answer": "#### -1"},
]
PROMPTS = [f"Question: {row['question']}\nAnswer:" for row in SUMS]


def test_the_word_generation_is_this_task() -> None:
    task: Task = Generation(data="a/b", doc_to_text="q", doc_to_target="a")
    assert tasks.resolve("generation") is Generation
    assert (task.metric, task.direction, task.is_binary, task.is_log) == ("exact_match", "higher", True, False)
    assert task.head == "causal-lm"


@pytest.mark.parametrize(
    ("name", "predictions", "scores"),
    [
        ("gsm8k-strict", ["7", "1000.", "[invalid]"], [1, 1, 0]),
        ("gsm8k-flexible", ["7", "1000.", "-1"], [1, 1, 1]),
    ],
)
def test_answers_are_found_and_compared_as_gsm8k_wants_it(
    tmp_path: Path, letters: ModelHandle, name: str, predictions: list[str], scores: list[int]
) -> None:
    written = [" 3+4=7\n#### 7", " #### 1000.\n\nQuestion: 5+5?\n#### 10", " That makes -1"]
    session = Prepared({prompt: [text] for prompt, text in zip(PROMPTS, written, strict=True)})
    task = Generation(data=data(tmp_path, SUMS), filter=name, **GSM8K)
    rows = evaluate(task, letters, session)
    assert [row.prediction for row in rows] == predictions
    assert [row.score for row in rows] == scores
    assert [row.target for row in rows] == [row["answer"] for row in SUMS]
    assert [row.id for row in rows] == ["0", "1", "2"]
    assert [row.num_tokens for row in rows] == [len(text) for text in written]
    assert all(row.also == {"unfinished": 0.0} and not row.is_truncated for row in rows)
    assert task.summarize(rows) == pytest.approx(sum(scores) / 3)


def test_a_regex_of_ones_own_and_the_right_hand_part_of_a_target(tmp_path: Path, letters: ModelHandle) -> None:
    options = GSM8K | {"doc_to_target": "{{answer.split('#### ')[-1]}}", "regexes_to_ignore": []}
    task = Generation(data=data(tmp_path, SUMS), regex=r"\[(.*?)\]", group_select=-1, **options)
    texts = {prompt: [f" [0] [{answer}]"] for prompt, answer in zip(PROMPTS, ["7", "1,000", "1"], strict=True)}
    rows = evaluate(task, letters, Prepared(texts))
    assert [(row.prediction, row.target, row.score) for row in rows] == [
        ("7", "7", 1), ("1,000", "1,000", 1), ("1", "-1", 0),
    ]  # fmt: skip


def test_of_several_samples_the_metric_is_pass_at_k(tmp_path: Path, letters: ModelHandle) -> None:
    texts = dict(zip(PROMPTS, [["7", "7", "8", "7"], ["0", "1000", "0", "0"], ["no"] * 4], strict=True))
    options = GSM8K | {"num_samples": 4, "temperature": 0.8, "pass_k": [2, 1, 4], "seed": 3}
    task = Generation(data=data(tmp_path, SUMS), **options)
    session = Prepared(texts, has_ended=False)
    rows = evaluate(task, letters, session)
    assert (task.metric, task.is_binary) == ("pass@2", False)
    assert [row.score for row in rows] == pytest.approx([1.0, 0.5, 0.0])
    assert [row.also["pass@1"] for row in rows] == pytest.approx([0.75, 0.25, 0.0])
    assert [row.also["pass@4"] for row in rows] == pytest.approx([1.0, 1.0, 0.0])
    assert [row.prediction for row in rows] == ["7", "0", "no"], "the first sample's"
    assert [row.num_tokens for row in rows] == [4, 7, 8]
    assert [row.also["unfinished"] for row in rows] == [1.0] * 3
    assert task.summarize(rows) == pytest.approx(0.5)
    (_, decoding), *_ = session.asked
    assert (decoding.num_samples, decoding.temperature, decoding.seed) == (4, 0.8, 3)
    assert decoding.until == ("Question:", "</s>")


def test_prompts_are_written_once_longest_first_and_within_the_token_budget(
    tmp_path: Path, letters: ModelHandle
) -> None:
    rows = [{"q": "x" * length, "a": "y"} for length in (3, 9, 3, 20, 1, 9)]
    session = Prepared({row["q"]: ["y"] for row in rows})
    options: dict[str, Any] = {"doc_to_text": "q", "doc_to_target": "a", "max_new_tokens": 10, "max_length": 100}
    found = evaluate(Generation(data=data(tmp_path, rows), batch_tokens=40, **options), letters, session)
    assert [[len(prompt) for prompt in prompts] for prompts, _ in session.asked] == [[20], [9, 3], [1]]
    assert [row.score for row in found] == [1.0] * 6


def test_a_prompt_that_leaves_no_room_loses_its_beginning_and_says_so(tmp_path: Path, letters: ModelHandle) -> None:
    rows = [{"q": "abcdefghij", "a": "y"}, {"q": "cdefghij", "a": "y"}]
    session = Prepared({"cdefghij": ["y"]})
    options: dict[str, Any] = {"doc_to_text": "q", "doc_to_target": "a", "max_new_tokens": 2, "max_length": 10}
    found = evaluate(Generation(data=data(tmp_path, rows), **options), letters, session)
    assert [row.is_truncated for row in found] == [True, False]


def test_a_model_that_has_no_room_for_a_prompt_is_a_model_error(tmp_path: Path, handle: ModelHandle) -> None:
    task = Generation(data=data(tmp_path, SUMS), **(GSM8K | {"max_length": None, "max_new_tokens": 64}))
    with pytest.raises(ModelError, match=r"at most 64 tokens .*64 tokens to write.*max_new_tokens"):
        task.check_model(handle, task.load())
    Generation(data=str(tmp_path), **(GSM8K | {"max_length": None, "max_new_tokens": 63})).check_model(
        handle, task.load()
    )


def test_a_runtime_that_can_not_write_is_told(tmp_path: Path, letters: ModelHandle) -> None:
    task = Generation(data=data(tmp_path, SUMS), **GSM8K)
    with pytest.raises(UnsupportedError, match="can't write texts"):
        evaluate(task, letters, FakeSession(FakeClock(), [1.0]))


def test_clusters_and_strata_come_from_their_columns(tmp_path: Path, letters: ModelHandle) -> None:
    rows = [{**row, "topic": f"t{at % 2}", "skill": "reasoning"} for at, row in enumerate(SUMS)]
    task = Generation(data=data(tmp_path, rows), cluster_column="topic", stratum_column="skill", **GSM8K)
    found = evaluate(task, letters, Prepared({prompt: ["1"] for prompt in PROMPTS}))
    assert [(row.cluster, row.stratum) for row in found] == [
        ("t0", "reasoning"),
        ("t1", "reasoning"),
        ("t0", "reasoning"),
    ]


ANIMALS = [
    {"q": question, "a": answer, "split": "x"}
    for question, answer in [("the cat", "sat"), ("a dog ran", "home"), ("the mat is", "not"), ("the dog", "was")]
]
WORDS: dict[str, Any] = {"doc_to_text": "q", "doc_to_target": "a", "max_new_tokens": 12, "max_length": 64}


def test_a_real_session_writes_the_texts(tmp_path: Path, handle: ModelHandle) -> None:
    task = Generation(data=data(tmp_path, ANIMALS), **WORDS)
    session = TorchEager().prepare(handle, "cpu")
    rows = evaluate(task, handle, session)
    assert rows == evaluate(Generation(data=str(tmp_path), batch_tokens=1, **WORDS), handle, session)
    taught = [{**row, "a": found.prediction} for row, found in zip(ANIMALS, rows, strict=True)]
    taught[0]["a"] = "something else"
    again = evaluate(Generation(data=data(tmp_path, taught), **WORDS), handle, session)
    assert [row.score for row in again] == [0.0, 1.0, 1.0, 1.0]
    sampled = Generation(data=str(tmp_path), temperature=2.0, num_samples=3, **WORDS)
    assert evaluate(sampled, handle, session) == evaluate(sampled, handle, session)


def test_logits_that_are_not_numbers_end_the_cell(tmp_path: Path, handle: ModelHandle) -> None:
    broken = handle.copy()
    broken.model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(NotFiniteError):
        evaluate(Generation(data=data(tmp_path, ANIMALS), **WORDS), broken, TorchEager().prepare(broken, "cpu"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_samples": 2}, "at temperature 0 all samples are the same"),
        ({"pass_k": [2]}, "pass_k must be from 1 to num_samples"),
        ({"filter": "first-line", "regex": "x"}, "either filter or regex"),
        ({"regex": "(x"}, "is no regular expression"),
        ({"regexes_to_ignore": ["fine", "[x"]}, "is no regular expression"),
        ({"until": [""]}, "empty stop string"),
        ({"filter": "gsm8k"}, "gsm8k-strict"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Generation(data="a/b", doc_to_text="q", doc_to_target="a", **options)


def test_the_protocol_changes_with_what_changes_the_number() -> None:
    sampled = {"temperature": 1.0, "num_samples": 2}
    variants: list[dict[str, Any]] = [
        {}, {"doc_to_text": "other"}, {"max_new_tokens": 7}, {"until": ["\n"]}, {"filter": "first-line"}, {"regex": "x"},
        {"regex": "x", "group_select": 1}, {"regexes_to_ignore": [","]}, {"ignore_case": True}, {"batch_tokens": 9},
        {"temperature": 1.0}, sampled, sampled | {"seed": 1}, sampled | {"pass_k": [2]}, sampled | {"top_k": 5},
        sampled | {"top_p": 0.9},
    ]  # fmt: skip
    ids = {Generation(**({"data": "a/b", "doc_to_text": "q", "doc_to_target": "a"} | v)).protocol_id for v in variants}
    assert len(ids) == len(variants)
    assert not any("\n" in each for each in ids)


def test_the_work_counts_the_tokens_to_be_written(tmp_path: Path) -> None:
    short, long = (
        Generation(data=data(tmp_path, SUMS), **(GSM8K | {"max_new_tokens": count})).estimated_work()
        for count in (10, 20)
    )
    assert short is not None
    assert long is not None
    assert long[1] - short[1] == 3 * 10
