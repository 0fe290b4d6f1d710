from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from compressbench.core.errors import CellError, DataError, ModelError
from compressbench.core.progress import SilentProgress
from compressbench.core.questions import SampleRow
from compressbench.core.watching import Unwatched
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks.text_classification import TextClassification
from compressbench.testing import tiny_classifier

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "home", "good", "bad", "very", "not", "is", "was"]


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Texts of 1 to 12 words, all different, with labels 0, 1, 2."""
    generator = torch.Generator().manual_seed(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        length = 1 + int(torch.randint(0, 12, (), generator=generator))
        texts[" ".join(WORDS[i] for i in torch.randint(0, len(WORDS), (length,), generator=generator))] = None
    return [{"text": text, "label": index % 3} for index, text in enumerate(texts)]


def write(path: Path, data: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in data))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write(folder / "test.jsonl", rows(100, seed=0))
    write(folder / "train.jsonl", [{"text": f"good {row['text']}", "label": row["label"]} for row in rows(70, seed=1)])
    return folder


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    """Weights so large that logits differ from text to text, and centred, so that every label is predicted."""
    made = tiny_classifier()
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
        texts = [row["text"] for row in rows(100, seed=0)]
        encoded = made.tokenizer(texts, padding=True, return_tensors="pt")
        made.model.classifier.bias.copy_(-made.model(**encoded).logits.mean(dim=0))
    return made


def evaluate(task: TextClassification, handle: ModelHandle) -> list[SampleRow]:
    return task.evaluate(TorchEager().prepare(handle, "cpu"), handle, task.load(), SilentProgress(), Unwatched())


def one_by_one(handle: ModelHandle, texts: list[str], max_length: int = 128) -> list[int]:
    found = []
    for text in texts:
        ids = handle.tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
        with torch.inference_mode():
            found.append(int(handle.model(input_ids=torch.tensor([ids])).logits.argmax()))
    return found


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_predictions_are_those_of_single_texts_whatever_the_batch(
    data: Path, handle: ModelHandle, batch_size: int
) -> None:
    task = TextClassification(data=str(data), batch_size=batch_size)
    found = evaluate(task, handle)
    samples = rows(100, seed=0)
    expected = one_by_one(handle, [row["text"] for row in samples])
    assert min(Counter(expected).values()) >= 5, "every label should be predicted for the test to mean anything"
    assert len(Counter(expected)) == 3
    assert [row.prediction for row in found] == [str(label) for label in expected]
    assert [row.target for row in found] == [str(row["label"]) for row in samples]
    assert [row.id for row in found] == [str(index) for index in range(100)]
    hits = [int(label == row["label"]) for label, row in zip(expected, samples, strict=True)]
    assert [row.score for row in found] == hits
    assert {row.weight for row in found} == {1.0}
    accuracy = task.summarize(found)
    assert accuracy == sum(hits) / 100


def test_long_texts_are_cut_at_max_length(data: Path, handle: ModelHandle) -> None:
    texts = [row["text"] for row in rows(100, seed=0)]
    found = [int(row.prediction) for row in evaluate(TextClassification(data=str(data), max_length=4), handle)]
    assert found == one_by_one(handle, texts, max_length=4)
    assert found != one_by_one(handle, texts)


def test_pairs_are_read_together(tmp_path: Path, handle: ModelHandle) -> None:
    pairs = [{**row, "other": other["text"]} for row, other in zip(rows(40, 0), rows(40, 2), strict=True)]
    path = write(tmp_path / "test.jsonl", pairs)
    found = evaluate(TextClassification(data=str(path), text_pair_column="other"), handle)
    expected = []
    for pair in pairs:
        encoded = handle.tokenizer(pair["text"], pair["other"], return_tensors="pt")
        with torch.inference_mode():
            expected.append(str(int(handle.model(**encoded).logits.argmax())))
    assert [row.prediction for row in found] == expected


def test_the_limit_takes_the_first_samples_under_the_same_ids(data: Path, handle: ModelHandle) -> None:
    whole, part = (evaluate(TextClassification(data=str(data), limit=limit), handle) for limit in (None, 13))
    # another batch has other padding, which shows in the last digits of a probability
    assert [row.model_copy(update={"confidence": None}) for row in part] == [
        row.model_copy(update={"confidence": None}) for row in whole[:13]
    ]
    for ours, theirs in zip(part, whole, strict=False):
        assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-5)


def test_logits_that_are_not_numbers_end_the_cell(data: Path, handle: ModelHandle) -> None:
    for value in (float("nan"), float("inf")):
        broken = handle.copy()
        with torch.no_grad():
            broken.model.classifier.bias[1] = value
        with pytest.raises(CellError, match="logits that are not finite"):
            evaluate(TextClassification(data=str(data)), broken)


def test_a_head_of_another_size_is_refused_with_both_numbers(data: Path, handle: ModelHandle) -> None:
    task = TextClassification(data=str(data))
    task.check_model(handle, task.load())
    for labels in (2, 4):
        with pytest.raises(ModelError, match=f"head has {labels} labels and .* has 3"):
            task.check_model(tiny_classifier(num_labels=labels, num_layers=1), task.load())


def test_named_labels_are_counted_by_their_names(tmp_path: Path, handle: ModelHandle) -> None:
    names = ["negative", "neutral", "positive", "mixed"]
    path = write(tmp_path / "test.jsonl", [{"text": "good", "label": name} for name in names])
    for limit in (None, 1):
        task = TextClassification(data=str(path), limit=limit)
        with pytest.raises(ModelError, match=r"head has 3 labels and .* has 4"):
            task.check_model(handle, task.load())
        task.check_model(tiny_classifier(num_labels=4, num_layers=1), task.load())


def test_a_limit_does_not_hide_labels_that_come_later(tmp_path: Path, handle: ModelHandle) -> None:
    sorted_by_label = [{"text": "good", "label": label} for label in (0, 0, 0, 1, 1, 2)]
    task = TextClassification(data=str(write(tmp_path / "test.jsonl", sorted_by_label)), limit=2)
    task.check_model(handle, task.load())
    with pytest.raises(ModelError, match=r"head has 2 labels and .* has 3"):
        task.check_model(tiny_classifier(num_labels=2, num_layers=1), task.load())


def tokens_of(batches: Any) -> list[tuple[tuple[int, ...], int]]:
    """(token ids without padding, label) of every training sample, in order."""
    found = []
    for batch in batches:
        for ids, mask, label in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            found.append((tuple(ids[mask.bool()].tolist()), int(label)))
    return found


@pytest.mark.parametrize("batch_size", [1, 16, 70, 100])
def test_training_covers_every_sample_of_the_training_split_once(
    data: Path, handle: ModelHandle, batch_size: int
) -> None:
    task = TextClassification(data=str(data))
    batches = task.training_batches(handle, batch_size, None, seed=0)
    assert [len(batch["labels"]) for batch in batches].count(batch_size) >= 70 // batch_size
    good = handle.tokenizer.convert_tokens_to_ids("good")
    expected = [
        ((2, good, *handle.tokenizer(row["text"], add_special_tokens=False)["input_ids"], 3), row["label"])
        for row in rows(70, seed=1)
    ]
    found = tokens_of(batches)
    assert sorted(found) == sorted(expected)
    assert found != expected, "shuffled"


def test_the_seed_decides_the_order_of_training(data: Path, handle: ModelHandle) -> None:
    task = TextClassification(data=str(data))
    first, again, other = (tokens_of(task.training_batches(handle, 16, None, seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert sorted(first) == sorted(other)
    assert len(tokens_of(task.training_batches(handle, 16, 20, seed=0))) == 20


@pytest.mark.parametrize("split", ["test", "train"])
def test_training_on_the_evaluation_data_is_refused(data: Path, handle: ModelHandle, split: str) -> None:
    one_file = TextClassification(data=str(data / f"{split}.jsonl"))
    same_split = TextClassification(data=str(data), split=split, train_split=split)
    for task in (one_file, same_split):
        assert len(task.load()) > 0
        with pytest.raises(DataError, match="training would see the evaluation data"):
            task.training_batches(handle, 16, None, seed=0)


@pytest.mark.parametrize(
    ("batch_size", "length", "count"), [(1, 8, 64), (3, 8, 22), (32, 5, 2), (48, 6, 2), (90, 7, 1)]
)
def test_workload_batches_have_the_exact_shape_and_at_least_64_distinct_texts(
    data: Path, handle: ModelHandle, batch_size: int, length: int, count: int
) -> None:
    task = TextClassification(data=str(data))
    batches = task.workload_batches(handle, task.load(), batch_size, length)
    assert len(batches) == count
    for batch in batches:
        assert {tensor.shape for tensor in batch.values()} == {(batch_size, length)}
    wanted = count * batch_size
    texts = [rows(100, seed=0)[index * 100 // wanted]["text"] for index in range(wanted)]
    expected = handle.tokenizer(texts, padding="max_length", truncation=True, max_length=length)["input_ids"]
    assert torch.cat([batch["input_ids"] for batch in batches]).tolist() == expected


def test_a_batch_larger_than_the_data_repeats_texts(data: Path, handle: ModelHandle) -> None:
    task = TextClassification(data=str(data), limit=10)
    (batch,) = task.workload_batches(handle, task.load(), 25, 6)
    assert batch["input_ids"].shape == (25, 6)
    times = [int((batch["input_ids"] == row).all(dim=1).sum()) for row in batch["input_ids"].unique(dim=0)]
    assert sum(times) == 25
    assert len(times) <= 10


def test_the_protocol_changes_with_what_changes_the_number() -> None:
    ids = {
        TextClassification(data="embedded:banking77", **options).protocol_id
        for options in ({}, {"max_length": 64}, {"batch_size": 1}, {"max_length": 64, "batch_size": 1})
    }
    assert len(ids) == 4
    assert TextClassification(data="a/b").protocol_id in ids, "data and split are recorded beside it"
    assert all("/v1:" in protocol_id for protocol_id in ids)


def test_what_is_not_there_is_told_before_anything_is_loaded(data: Path) -> None:
    TextClassification(data=str(data)).check()
    for task in (TextClassification(data=str(data), split="tset"), TextClassification(data="embedded:banking")):
        with pytest.raises(DataError):
            task.check()
    with pytest.raises(ValidationError):
        TextClassification(data=str(data), batch_size=0)


def test_the_work_is_estimated_from_the_split_it_will_read(data: Path) -> None:
    task = TextClassification(data=str(data), limit=10)
    evaluation, training = task.estimated_work(), task.estimated_work(training=True)
    assert evaluation is not None
    assert training is not None
    assert (evaluation[0], training[0]) == (10, 70)
    assert TextClassification(data="owner/name").estimated_work() is None
