from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from compressbench.core.errors import CellError, DataError, ModelError
from compressbench.core.progress import SilentProgress
from compressbench.core.protocols import Batch, Session
from compressbench.core.questions import SampleRow
from compressbench.core.watching import Unwatched
from compressbench.data.text import Text
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks.perplexity import Perplexity
from compressbench.testing import tiny_causal_lm

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "home", "good", "bad", "very", "not", "is", "was"]
VOCABULARY = 19


def words(count: int, seed: int = 0, known: list[str] = WORDS) -> str:
    picked = torch.randint(0, len(known), (count,), generator=torch.Generator().manual_seed(seed))
    return " ".join(known[index] for index in picked)


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    made = tiny_causal_lm(num_layers=2)
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(5)
    return made


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(67))
    return path


def evaluate(task: Perplexity, handle: ModelHandle, session: Session | None = None) -> list[SampleRow]:
    return task.evaluate(
        session or TorchEager().prepare(handle, "cpu"), handle, task.load(), SilentProgress(), Unwatched()
    )


def perplexity(task: Perplexity, rows: list[SampleRow]) -> float:
    return task.summarize(rows)


def token_by_token(handle: ModelHandle, tokens: list[int], window: int, stride: int) -> dict[int, float]:
    """Nats of every scored position, from the first window that predicts it, one position at a time."""
    nats: dict[int, float] = {}
    for start in range(0, len(tokens) - window + 1, stride):
        for position in range(start + 1, start + window):
            if position not in nats:
                with torch.inference_mode():
                    logits = handle.model(input_ids=torch.tensor([tokens[start:position]])).logits[0, -1].double()
                nats[position] = float(torch.logsumexp(logits, 0) - logits[tokens[position]])
    return nats


@pytest.mark.parametrize(
    ("window", "stride"), [(8, None), (8, 8), (8, 3), (8, 7), (8, 1), (2, None), (2, 1), (64, None)]
)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_perplexity_is_that_of_one_token_after_the_other(
    text: Path, handle: ModelHandle, window: int, stride: int | None, batch_size: int
) -> None:
    tokens = handle.tokenizer(text.read_text(), add_special_tokens=False)["input_ids"]
    assert len(tokens) == 67
    nats = token_by_token(handle, tokens, window, stride or window)
    task = Perplexity(data=str(text), window=window, stride=stride, batch_size=batch_size)
    rows = evaluate(task, handle)
    assert 0 not in nats
    assert sum(row.weight for row in rows) == len(nats)
    assert sum(int(row.target) for row in rows) == len(nats)
    assert perplexity(task, rows) == pytest.approx(math.exp(sum(nats.values()) / len(nats)), rel=1e-5)
    assert [row.id for row in rows] == [str(s) for s in range(0, 67 - window + 1, stride or window)]


class Scripted:
    """A session that gives logits without a model, and keeps what it was given."""

    device = "cpu"

    def __init__(self, shift: int | None = None) -> None:
        self.shift, self.seen = shift, list[torch.Tensor]()

    def __call__(self, batch: Batch) -> torch.Tensor:
        ids = batch["input_ids"]
        self.seen.append(ids)
        logits = torch.zeros(*ids.shape, VOCABULARY)
        if self.shift is not None:  # knows the token that follows `shift` places later
            logits[:, : ids.shape[1] - self.shift].scatter_(2, ids[:, self.shift :, None], 50.0)
        return logits

    def generate(self, batch: Batch, num_tokens: int, on_token: Any = None) -> Any:
        raise NotImplementedError

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("stride", [None, 5])
def test_a_model_that_knows_nothing_has_the_vocabulary_as_its_perplexity(
    text: Path, handle: ModelHandle, stride: int | None
) -> None:
    task = Perplexity(data=str(text), window=16, stride=stride)
    assert perplexity(task, evaluate(task, handle, Scripted())) == pytest.approx(VOCABULARY, rel=1e-6)


def test_logits_are_compared_with_the_next_token_and_no_other(text: Path, handle: ModelHandle) -> None:
    task = Perplexity(data=str(text), window=16)
    knows_next = evaluate(task, handle, Scripted(shift=1))
    assert perplexity(task, knows_next) == pytest.approx(1.0, abs=1e-6)
    assert all(row.prediction == row.target for row in knows_next)
    assert perplexity(task, evaluate(task, handle, Scripted(shift=0))) > 1e6


def test_the_tail_that_fills_no_window_is_dropped(text: Path, handle: ModelHandle) -> None:
    rows = evaluate(Perplexity(data=str(text), window=16), handle)
    assert len(rows) == 4
    text.write_text(text.read_text() + " " + words(12, seed=5))
    assert evaluate(Perplexity(data=str(text), window=16), handle) == rows
    text.write_text(text.read_text() + " cat")
    assert len(evaluate(Perplexity(data=str(text), window=16), handle)) == 5


def test_the_limit_takes_the_first_windows(text: Path, handle: ModelHandle) -> None:
    whole = evaluate(Perplexity(data=str(text), window=8, stride=3), handle)
    assert evaluate(Perplexity(data=str(text), window=8, stride=3, limit=4), handle) == whole[:4]


def test_windows_hold_the_tokens_of_the_text_without_special_ones(text: Path, handle: ModelHandle) -> None:
    session = Scripted()
    evaluate(Perplexity(data=str(text), window=16, batch_size=3), handle, session)
    tokens = handle.tokenizer(text.read_text(), add_special_tokens=False)["input_ids"]
    assert [len(ids) for ids in session.seen] == [3, 1]
    assert torch.cat(session.seen).flatten().tolist() == tokens[:64]
    assert not {2, 3} & set(tokens)


def test_per_word_the_same_nats_are_shared_by_fewer_units(tmp_path: Path, handle: ModelHandle) -> None:
    path = tmp_path / "text.txt"
    path.write_text(" ".join(f"{word}, {word}." for word in words(20).split()))
    content = path.read_text()
    tokens = handle.tokenizer(content, add_special_tokens=False)["input_ids"]
    num_words = len(content.split())
    assert (len(tokens), num_words) == (80, 40)
    by_token, by_word = (Perplexity(data=str(path), window=16, unit=unit) for unit in ("token", "word"))
    of_tokens, of_words = evaluate(by_token, handle), evaluate(by_word, handle)
    nats = sum(row.score * row.weight for row in of_tokens)
    assert sum(row.score * row.weight for row in of_words) == pytest.approx(nats, rel=1e-12)
    assert sum(row.weight for row in of_words) == pytest.approx(75 * num_words / len(tokens))
    assert perplexity(by_word, of_words) == pytest.approx(perplexity(by_token, of_tokens) ** (80 / 40), rel=1e-9)


def test_a_window_longer_than_the_model_reads_is_a_model_error(text: Path, handle: ModelHandle) -> None:
    Perplexity(data=str(text), window=64).check_model(handle, Perplexity(data=str(text)).load())
    with pytest.raises(ModelError, match=r"at most 64 tokens at once .*65 tokens.*window"):
        Perplexity(data=str(text), window=65).check_model(handle, Perplexity(data=str(text)).load())


def test_a_text_shorter_than_one_window_is_a_data_error(text: Path, handle: ModelHandle) -> None:
    with pytest.raises(DataError, match="67 tokens, fewer than one window of 68"):
        evaluate(Perplexity(data=str(text), window=68), handle, Scripted())
    assert len(evaluate(Perplexity(data=str(text), window=67), handle, Scripted())) == 1


def test_logits_that_are_not_numbers_end_the_cell(text: Path, handle: ModelHandle) -> None:
    for value in (float("nan"), float("inf")):
        broken = handle.copy()
        with torch.no_grad():
            broken.model.model.norm.weight.fill_(value)
        with pytest.raises(CellError, match="logits that are not finite"):
            evaluate(Perplexity(data=str(text), window=8), broken)


def test_an_enormous_loss_is_a_large_number_and_no_overflow() -> None:
    assert Perplexity(data="a/b").summarize(
        [SampleRow(id="0", prediction="0", target="1", score=1e6)]
    ) == pytest.approx(math.exp(700))


def test_a_stride_longer_than_its_window_is_refused() -> None:
    with pytest.raises(ValidationError, match="tokens would be skipped"):
        Perplexity(data="a/b", window=8, stride=9)


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """Training and evaluation text without a word in common."""
    (tmp_path / "train.txt").write_text(words(100, known=WORDS[:8]))
    (tmp_path / "test.txt").write_text(words(100, known=WORDS[8:]))
    return tmp_path


def test_training_reads_every_window_of_the_training_split_once(splits: Path, handle: ModelHandle) -> None:
    task = Perplexity(data=str(splits), window=8)
    batches = task.training_batches(handle, 5, None, seed=0)
    tokens = handle.tokenizer((splits / "train.txt").read_text(), add_special_tokens=False)["input_ids"]
    expected = [tokens[start : start + 8] for start in range(0, 96, 8)]
    found = torch.cat([batch["input_ids"] for batch in batches]).tolist()
    assert [len(batch["input_ids"]) for batch in batches] == [5, 5, 2]
    assert sorted(found) == sorted(expected)
    assert found != expected, "shuffled"
    assert all(torch.equal(batch["labels"], batch["input_ids"]) for batch in batches)
    assert all(bool(batch["attention_mask"].all()) for batch in batches)


def test_the_seed_decides_the_order_of_training(splits: Path, handle: ModelHandle) -> None:
    task = Perplexity(data=str(splits), window=8)
    first, again, other = (
        torch.cat([batch["input_ids"] for batch in task.training_batches(handle, 4, None, seed)]) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    few = task.training_batches(handle, 4, 7, seed=0)
    assert torch.equal(torch.cat([batch["input_ids"] for batch in few]), first[:7])


def test_training_on_the_evaluation_text_is_refused(splits: Path, handle: ModelHandle) -> None:
    one_file = Perplexity(data=str(splits / "test.txt"), window=8)
    same_split = Perplexity(data=str(splits), window=8, train_split="test")
    for task in (one_file, same_split):
        with pytest.raises(DataError, match="training would see the evaluation data"):
            task.training_batches(handle, 4, None, seed=0)


def test_the_embedded_text_is_cut_into_training_and_evaluation(handle: ModelHandle) -> None:
    task = Perplexity(data="embedded:tinyshakespeare", window=64)
    evaluated = task.load()
    assert isinstance(evaluated, Text)
    batches = task.training_batches(handle, 100, 300, seed=0)
    assert sum(len(batch["input_ids"]) for batch in batches) == 300
    training, evaluation = task.estimated_work(training=True), task.estimated_work()
    assert training is not None
    assert evaluation is not None
    assert training[0] / evaluation[0] == pytest.approx(9, rel=0.01)
    assert evaluation[1] == evaluation[0] * 64
    assert len(evaluated.text) == pytest.approx(1_115_394 / 10, rel=0.001)


@pytest.mark.parametrize(
    ("batch_size", "length", "count"), [(1, 4, 25), (1, 1, 64), (7, 2, 7), (3, 3, 11), (10, 10, 1)]
)
def test_workload_batches_have_the_exact_shape_and_never_repeat_a_stretch_of_text(
    splits: Path, handle: ModelHandle, batch_size: int, length: int, count: int
) -> None:
    task = Perplexity(data=str(splits))
    batches = task.workload_batches(handle, task.load(), batch_size, length)
    assert len(batches) == count
    assert {tensor.shape for batch in batches for tensor in batch.values()} == {(batch_size, length)}
    tokens = handle.tokenizer((splits / "test.txt").read_text(), add_special_tokens=False)["input_ids"]
    joined = torch.cat([batch["input_ids"].flatten() for batch in batches]).tolist()
    assert joined == tokens[: count * batch_size * length]


def test_a_workload_larger_than_the_text_is_a_data_error(splits: Path, handle: ModelHandle) -> None:
    task = Perplexity(data=str(splits))
    with pytest.raises(DataError, match="the text has 100 tokens and one batch of the workload needs 110"):
        task.workload_batches(handle, task.load(), 11, 10)


def test_rows_of_a_table_are_joined_as_asked(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"text": "the cat sat"}\n{"text": "a dog ran"}\n')
    for options, text in ({}, "the cat sat\n\na dog ran"), ({"join": " good "}, "the cat sat good a dog ran"):
        loaded = Perplexity(data=str(tmp_path), **options).load()
        assert isinstance(loaded, Text)
        assert loaded.text == text


def test_the_protocol_changes_with_what_changes_the_number() -> None:
    variants: list[dict[str, Any]] = [
        {}, {"window": 128}, {"stride": 64}, {"unit": "word"}, {"batch_size": 1}, {"join": " "},
    ]  # fmt: skip
    assert len({Perplexity(data="a/b", **options).protocol_id for options in variants}) == len(variants)
    spelled_out = Perplexity(data="a/b", window=256, stride=256)
    assert spelled_out.protocol_id == Perplexity(data="a/b").protocol_id
    assert "\n" not in spelled_out.protocol_id


def test_what_is_not_there_is_told_before_anything_is_loaded(text: Path) -> None:
    Perplexity(data=str(text)).check()
    for data in (str(text.parent / "txet.txt"), "embedded:shakespeare", "embedded:banking77"):
        with pytest.raises(DataError):
            Perplexity(data=data).check()
    assert Perplexity(data="owner/name").estimated_work() is None
