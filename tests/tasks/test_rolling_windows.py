from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from compressbench.core.errors import DataError, ModelError
from compressbench.core.progress import SilentProgress
from compressbench.core.questions import SampleRow
from compressbench.core.watching import Unwatched
from compressbench.data.documents import Documents
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks.perplexity import Perplexity
from compressbench.tasks.rolling_windows import num_units, rolling_windows
from compressbench.testing import tiny_causal_lm

TEXTS = [
    "the cat sat on the mat",
    "a dog",
    "",
    "very good home was not bad is the cat and very, very good. a dog ran",
    "was",
]
BEGIN = 2


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    made = tiny_causal_lm(num_layers=2)
    made.tokenizer._tokenizer.post_processor = None
    made.tokenizer.add_special_tokens({"bos_token": "[CLS]"})
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "test.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return tmp_path


def rolling(data: Path | str, **options: Any) -> Perplexity:
    return Perplexity(**{"data": str(data), "windows": "rolling", "documents": "each", "window": 5} | options)


def evaluate(task: Perplexity, handle: ModelHandle, watch: Any = None) -> list[SampleRow]:
    session = TorchEager().prepare(handle, "cpu")
    return task.evaluate(session, handle, task.load(), SilentProgress(), watch or Unwatched())


def nats_of(handle: ModelHandle, tokens: list[int], width: int) -> list[float]:
    """Of each token, from what its window has before it: the window that ends last reaches back to be full."""
    nats = []
    for at, token in enumerate(tokens):
        end = min((at // width + 1) * width, len(tokens))
        begin = max(end - width, 0)
        before = [BEGIN, *tokens][begin : at + 1]
        with torch.inference_mode():
            logits = handle.model(input_ids=torch.tensor([before])).logits[0, -1].double()
        nats.append(float(logits.logsumexp(0) - logits[token]))
    return nats


@pytest.mark.parametrize(("length", "width"), [(1, 4), (4, 4), (5, 4), (8, 4), (11, 4), (3, 10), (7, 2)])
def test_every_token_is_scored_once_and_windows_are_full(length: int, width: int) -> None:
    tokens = list(range(100, 100 + length))
    windows = list(rolling_windows(tokens, 0, width))
    assert [token for window in windows for token in window.continuation] == tokens
    assert all(len(window.context) + len(window.continuation) - 1 == min(width, length) for window in windows)
    utils = pytest.importorskip("lm_eval.utils")
    theirs = utils.get_rolling_token_windows(tokens, prefix_token=0, max_seq_len=width, context_len=1)
    assert [(window.context, window.continuation) for window in windows] == [
        utils.make_disjoint_window(pair) for pair in theirs
    ]


@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"token_budget": 9}, {"window": 2}, {"window": None}])
def test_a_document_is_scored_token_by_token(data: Path, handle: ModelHandle, options: dict[str, Any]) -> None:
    task = rolling(data, **options)
    rows = evaluate(task, handle)
    assert [row.id for row in rows] == ["0", "1", "3", "4"], "a document without tokens is no sample"
    total, count = 0.0, 0
    for row in rows:
        tokens = handle.tokenizer(TEXTS[int(row.id)])["input_ids"]
        nats = nats_of(handle, tokens, task.window or 64)
        assert row.score * row.weight == pytest.approx(sum(nats), abs=1e-5)
        assert row.weight == len(tokens) == int(row.target)
        total, count = total + sum(nats), count + len(tokens)
    assert task.summarize(rows) == pytest.approx(math.exp(total / count), rel=1e-5)


def test_units_only_share_the_same_nats_otherwise(data: Path, handle: ModelHandle) -> None:
    tokens, words, bytes_ = (evaluate(rolling(data, unit=unit), handle) for unit in ("token", "word", "byte"))
    texts = [text for text in TEXTS if text]
    assert [row.weight for row in words] == [len(text.split()) for text in texts]
    assert [row.weight for row in bytes_] == [len(text.encode()) for text in texts]
    for token, word, byte in zip(tokens, words, bytes_, strict=True):
        assert token.score * token.weight == pytest.approx(word.score * word.weight)
        assert token.score * token.weight == pytest.approx(byte.score * byte.weight)
    assert num_units("ä é", 7, "byte") == 5


def test_the_joined_text_has_a_sample_for_every_window(data: Path, handle: ModelHandle) -> None:
    task = rolling(data, documents="joined", join=" ", unit="byte")
    joined = " ".join(TEXTS)
    tokens = handle.tokenizer(joined)["input_ids"]
    rows = evaluate(task, handle)
    assert [row.id for row in rows] == [str(begin) for begin in range(0, len(tokens), 5)]
    assert sum(row.weight for row in rows) == pytest.approx(len(joined.encode()))
    nats = nats_of(handle, tokens, 5)
    assert sum(row.score * row.weight for row in rows) == pytest.approx(sum(nats), abs=1e-5)
    assert [int(row.target) for row in rows] == [5] * (len(rows) - 1) + [len(tokens) - 5 * (len(rows) - 1)]


def test_a_watch_sees_every_token_of_every_document_window_by_window(data: Path, handle: ModelHandle) -> None:
    class Seen(Unwatched):
        def __init__(self) -> None:
            self.shapes: list[tuple[str, tuple[int, ...]]] = []

        def logits(self, ids: Any, logits: Any) -> None:
            self.shapes += [(ids[0], tuple(logits.shape))]

    seen = Seen()
    rows = evaluate(rolling(data), handle, seen)
    assert len({name for name, _ in seen.shapes}) == len(seen.shapes)
    for row in rows:
        sizes = [shape[1] for name, shape in sorted(seen.shapes) if name.partition("#")[0] == row.id]
        assert sizes[:-1] == [5] * (len(sizes) - 1)
        assert sum(sizes) == int(row.target)


def test_the_limit_takes_the_first_documents(data: Path, handle: ModelHandle) -> None:
    assert evaluate(rolling(data, limit=2), handle) == evaluate(rolling(data), handle)[:2]
    work = rolling(data, limit=2).estimated_work()
    assert work is not None
    assert work[0] == 2


def test_a_text_file_is_one_document(tmp_path: Path, handle: ModelHandle) -> None:
    (tmp_path / "test.txt").write_text("the cat sat on the mat")
    task = rolling(tmp_path)
    assert isinstance(task.load(), Documents)
    [row] = evaluate(task, handle)
    assert row.score * row.weight == pytest.approx(
        sum(nats_of(handle, handle.tokenizer("the cat sat on the mat")["input_ids"], 5)), abs=1e-5
    )
    batches = task.workload_batches(handle, task.load(), 2, 3)
    assert [batch["input_ids"].shape for batch in batches] == [(2, 3)]


def test_documents_without_a_text_are_data_errors(data: Path, handle: ModelHandle) -> None:
    with pytest.raises(DataError, match="no column 'page'"):
        evaluate(rolling(data, column="page"), handle)
    (data / "test.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(DataError, match="no token to score"):
        evaluate(rolling(data), handle)


def test_the_model_must_read_a_window_and_have_a_token_before_the_first(data: Path, handle: ModelHandle) -> None:
    task = rolling(data, window=65)
    with pytest.raises(ModelError, match="at most 64 tokens at once"):
        task.check_model(handle, task.load())
    rolling(data, window=None).check_model(handle, task.load())
    with pytest.raises(ModelError, match="no token that begins or ends a text"):
        evaluate(rolling(data), tiny_causal_lm(num_layers=1))


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValidationError, match="rolling windows have no stride"):
        rolling("a/b", stride=2)
    with pytest.raises(ValidationError, match="documents: each needs windows: rolling"):
        rolling("a/b", windows="full")


def test_rolling_windows_are_another_protocol_and_full_ones_the_old() -> None:
    variants: list[dict[str, Any]] = [
        {}, {"window": None}, {"unit": "word"}, {"unit": "byte"}, {"batch_size": 1}, {"token_budget": 1},
        {"documents": "joined"}, {"documents": "joined", "join": " "},
    ]  # fmt: skip
    assert len({rolling("a/b", **options).protocol_id for options in variants}) == len(variants)
    assert Perplexity(data="a/b").protocol_id == (
        "perplexity/v1:window=256,stride=256,batch_size=8,join='\\n\\n',unit=token,tail=dropped,bos=none"
    )
