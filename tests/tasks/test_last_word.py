from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from compressbench.core.progress import SilentProgress
from compressbench.core.questions import SampleRow
from compressbench.core.watching import Unwatched
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks.last_word import LastWord
from compressbench.testing import tiny_causal_lm

TEXTS = ["the cat sat on the mat", "a dog ran", "the very good dog was not bad", "a dog ran home"]


class Seen(Unwatched):
    def __init__(self) -> None:
        self.shown: dict[str, torch.Tensor] = {}

    def logits(self, ids: Any, logits: Any) -> None:
        self.shown |= zip(ids, logits, strict=True)


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    made = tiny_causal_lm(num_layers=2)
    made.tokenizer._tokenizer.post_processor = None
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "test.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return tmp_path


def evaluate(task: LastWord, handle: ModelHandle, watch: Any = None) -> list[SampleRow]:
    session = TorchEager().prepare(handle, "cpu")
    return task.evaluate(session, handle, task.load(), SilentProgress(), watch or Unwatched())


def next_logits(handle: ModelHandle, context: str) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = handle.model(input_ids=torch.tensor([handle.tokenizer(context)["input_ids"]])).logits
    return logits[0, -1].double()


def test_a_word_is_known_where_it_is_the_likeliest(data: Path, handle: ModelHandle) -> None:
    contexts = [text.rpartition(" ")[0] for text in TEXTS]
    known = [handle.tokenizer.decode(next_logits(handle, context).argmax()) for context in contexts]
    words = [known[0], known[1], "bad", "home"]
    (data / "test.jsonl").write_text(
        "".join(json.dumps({"text": f"{c} {w}"}) + "\n" for c, w in zip(contexts, words, strict=True))
    )
    task, seen = LastWord(data=str(data)), Seen()
    rows = evaluate(task, handle, seen)
    assert [row.score for row in rows] == [float(word == k) for word, k in zip(words, known, strict=True)]
    assert rows[0].score == 1.0
    for row, context, word in zip(rows, contexts, words, strict=True):
        logits = next_logits(handle, context)
        [token] = handle.tokenizer(word)["input_ids"]
        expected = float(logits[token] - logits.logsumexp(0))
        assert row.also["log_likelihood"] == pytest.approx(expected, abs=1e-5)
        assert seen.shown[row.id].shape == (1, 19)
        torch.testing.assert_close(seen.shown[row.id][0].double(), logits, atol=1e-5, rtol=1e-5)
    assert task.summarize(rows) == sum(row.score for row in rows) / 4


def test_perplexity_is_exp_of_the_mean_and_every_token_of_a_target_counts(data: Path, handle: ModelHandle) -> None:
    two_words = {
        "doc_to_text": "{{text.split(' ')[:-2]|join(' ')}}",
        "doc_to_target": "{{' '+text.split(' ')[-2:]|join(' ')}}",
    }
    task, seen = LastWord(data=str(data), metric="perplexity", **two_words), Seen()
    rows = evaluate(task, handle, seen)
    nats = []
    for text, row in zip(TEXTS, rows, strict=True):
        words = text.split(" ")
        assert seen.shown[row.id].shape == (2, 19)
        first, second = next_logits(handle, " ".join(words[:-2])), next_logits(handle, " ".join(words[:-1]))
        tokens = handle.tokenizer(" ".join(words[-2:]))["input_ids"]
        nats.append(sum(float(x.logsumexp(0) - x[t]) for x, t in zip((first, second), tokens, strict=True)))
        is_right = [int(x.argmax()) == t for x, t in zip((first, second), tokens, strict=True)]
        assert row.also["acc"] == float(all(is_right))
        assert (row.prediction == row.target) == all(is_right)
        assert row.prediction in ("all tokens", f"{sum(is_right)} of 2 tokens")
    assert task.summarize(rows) == pytest.approx(math.exp(sum(nats) / 4), rel=1e-5)


def test_which_way_is_better_depends_on_the_metric() -> None:
    acc, perplexity = LastWord(data="a/b"), LastWord(data="a/b", metric="perplexity")
    assert (acc.direction, acc.is_binary, acc.is_log) == ("higher", True, False)
    assert (perplexity.direction, perplexity.is_binary, perplexity.is_log) == ("lower", False, True)
    assert acc.protocol_id != perplexity.protocol_id
    assert perplexity.summarize([SampleRow(id="0", prediction="0", target="1", score=1e6)]) == math.exp(700)


def test_a_truncated_passage_is_told(data: Path, handle: ModelHandle) -> None:
    rows = evaluate(LastWord(data=str(data), max_length=4), handle)
    assert [row.is_truncated for row in rows] == [True, False, True, False]


def test_the_whole_text_is_the_passage(data: Path) -> None:
    task = LastWord(data=str(data))
    assert [task.whole_text(row) for row in task.load().rows] == TEXTS
