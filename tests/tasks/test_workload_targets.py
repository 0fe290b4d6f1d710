"""The right answers to what is timed, in the order in which it is timed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from compressbench.models.handle import ModelHandle
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks.perplexity import Perplexity
from compressbench.tasks.text_classification import TextClassification
from compressbench.testing import tiny_causal_lm, tiny_classifier

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "home", "good", "bad", "very", "not", "is", "was"]
LABELS = [0, 2, 1, 1, 0, 2, 2, 2, 0, 1, 0, 0, 1, 2, 0, 1, 1, 2, 0, 0, 2, 1, 2, 0, 1, 1]


def words(count: int) -> list[str]:
    return [WORDS[int(i)] for i in torch.randint(0, 15, (count,), generator=torch.Generator().manual_seed(0))]


@pytest.fixture(scope="module")
def language_model() -> ModelHandle:
    return tiny_causal_lm(num_layers=1)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    rows = [{"text": " ".join(words(30)[i : i + 4]), "label": LABELS[i]} for i in range(26)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize(("batch_size", "limit"), [(1, None), (4, None), (7, None), (26, None), (40, None), (5, 3)])
def test_every_timed_text_has_its_own_label(labelled: Path, batch_size: int, limit: int | None) -> None:
    handle, task = tiny_classifier(num_layers=1), TextClassification(data=str(labelled), limit=limit)
    samples = task.load()
    batches = task.workload_batches(handle, samples, batch_size, 5)
    targets = task.workload_targets(handle, samples, batch_size, 5)
    encoded = handle.tokenizer(samples.columns["text"], padding="max_length", truncation=True, max_length=5)
    label_of = {tuple(ids): LABELS[i] for i, ids in enumerate(encoded["input_ids"])}
    assert len(label_of) == len(samples), "texts differ, so that a wrong order can't pass"
    expected = [[label_of[tuple(row.tolist())] for row in batch["input_ids"]] for batch in batches]
    assert targets == expected


@pytest.mark.parametrize(("batch_size", "length", "num_words"), [(1, 4, 100), (3, 5, 100), (2, 5, 100), (10, 10, 100)])
def test_every_timed_position_has_the_token_that_follows_in_the_text(
    tmp_path: Path, language_model: ModelHandle, batch_size: int, length: int, num_words: int
) -> None:
    (tmp_path / "test.txt").write_text(" ".join(words(num_words)))
    task = Perplexity(data=str(tmp_path / "test.txt"))
    batches = task.workload_batches(language_model, task.load(), batch_size, length)
    targets = task.workload_targets(language_model, task.load(), batch_size, length)
    tokens = language_model.tokenizer(" ".join(words(num_words)), add_special_tokens=False)["input_ids"]
    read = torch.cat([batch["input_ids"].flatten() for batch in batches]).tolist()
    assert [len(each) for each in targets] == [batch_size * length] * len(batches)
    flat = [token for each in targets for token in each]
    assert read == tokens[: len(flat)]
    assert flat == [*tokens, -100][1 : len(flat) + 1]
    assert flat.count(-100) == (len(flat) == num_words), "only where the text ends"


def test_a_model_that_knows_the_text_gets_every_position_right(tmp_path: Path, language_model: ModelHandle) -> None:
    """Targets line up with the logits of a forward pass: the next token of each position, sequence by sequence."""
    from compressbench.measure.calls import caller
    from compressbench.measure.outputs import keep_answers, score, table_of

    (tmp_path / "test.txt").write_text(" ".join(words(61)))
    task = Perplexity(data=str(tmp_path / "test.txt"))
    inputs = task.workload_batches(language_model, task.load(), 2, 5)
    targets = task.workload_targets(language_model, task.load(), 2, 5)
    following = iter(targets)

    class Knowing:
        """Gives the tokens that follow as logits, batch by batch in the order of the inputs."""

        device = "cpu"

        def __call__(self, batch: object) -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.tensor(next(following)), 19).view(2, 5, 19).float()

        def synchronize(self) -> None:
            pass

    keep = keep_answers(inputs, None)
    call = caller(Knowing(), inputs, None, keep=keep)  # type: ignore[arg-type]
    for index in range(len(inputs)):
        call(index)
    call.take()
    assert score(table_of(keep), targets) == (60, 60)
    session, others = TorchEager().prepare(language_model, "cpu"), keep_answers(inputs, None)
    call = caller(session, inputs, None, keep=others)
    for index in range(len(inputs)):
        call(index)
    call.take()
    hits = sum(
        int((session(batch).argmax(dim=-1).flatten() == torch.tensor(each)).sum())
        for batch, each in zip(inputs, targets, strict=True)
    )
    assert score(table_of(others), targets) == (60, hits)
    assert hits < 60
