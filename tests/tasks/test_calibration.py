"""Calibration samples are drawn by their seed, say where they come from, and are never those of the evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressbench.core.calibration import Calibration
from compressbench.core.errors import DataError
from compressbench.tasks.calibration import RUN, draw_calibration
from compressbench.tasks.perplexity import Perplexity
from compressbench.tasks.text_classification import TextClassification
from compressbench.testing import tiny_causal_lm, tiny_classifier

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "home", "good", "bad", "very", "not", "is", "was"]


def write(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text, "label": at % 2}) + "\n" for at, text in enumerate(texts)))


def sentence(number: int) -> str:
    """Distinct sentences of 4 to 9 words."""
    return " ".join(WORDS[(number * step + step) % 15] for step in range(1, 5 + number % 6))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "train.jsonl", [sentence(number) for number in range(40)])
    write(tmp_path / "test.jsonl", ["cat " * 3 + sentence(number) for number in range(20)])
    return tmp_path


def test_samples_come_from_the_training_split_and_say_so(folder: Path) -> None:
    handle, task = tiny_classifier(num_labels=2), TextClassification(data=str(folder))
    found = draw_calibration(task, handle, Calibration(num_samples=10, batch_size=4), seed=3)
    assert (found.data, found.split, found.num_samples, found.seed) == (str(folder), "train", 10, 3)
    assert [len(batch["input_ids"]) for batch in found.batches] == [4, 4, 2]
    assert found.num_tokens == sum(int(batch["attention_mask"].sum()) for batch in found.batches)
    assert all("labels" not in batch for batch in found.batches)
    train = {tuple(handle.tokenizer(sentence(number))["input_ids"]) for number in range(40)}
    for batch in found.batches:
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            assert tuple(ids[mask.bool()].tolist()) in train
    assert "10 samples" in found.describe()


def test_the_seed_decides_the_draw(folder: Path) -> None:
    handle, task = tiny_classifier(num_labels=2), TextClassification(data=str(folder))

    def ids(calibration: Calibration, seed: int) -> list[list[list[int]]]:
        return [batch["input_ids"].tolist() for batch in draw_calibration(task, handle, calibration, seed).batches]

    few = Calibration(num_samples=5)
    assert ids(few, 0) == ids(few, 0)
    assert ids(few, 0) != ids(few, 1)
    assert ids(Calibration(num_samples=5, seed=1), 0) == ids(few, 1), "a seed of its own wins over the recipe's"


def test_samples_are_cut_at_the_sequence_length(folder: Path) -> None:
    handle, task = tiny_classifier(num_labels=2), TextClassification(data=str(folder))
    found = draw_calibration(task, handle, Calibration(sequence_length=3), 0)
    assert found.num_samples == 40, "all there are"
    assert {batch["input_ids"].shape[1] for batch in found.batches} == {3}


def test_a_named_table_and_a_named_text_can_be_used(folder: Path) -> None:
    handle, task = tiny_classifier(num_labels=2), TextClassification(data=str(folder))
    write(folder / "other.jsonl", ["good " * number for number in range(1, 9)])
    table = draw_calibration(task, handle, Calibration(data=str(folder / "other.jsonl"), num_samples=4), 0)
    assert (table.num_samples, table.split) == (4, "train")
    (folder / "plain.txt").write_text("the cat sat on the mat " * 10)
    text = draw_calibration(
        task, handle, Calibration(data=str(folder / "plain.txt"), sequence_length=8, batch_size=8), 0
    )
    assert [tuple(batch["input_ids"].shape) for batch in text.batches] == [(7, 8)]
    assert text.num_tokens == 56
    assert text.revision.startswith("sha256:")


def test_the_evaluation_split_is_refused_by_name(folder: Path) -> None:
    handle, task = tiny_classifier(num_labels=2), TextClassification(data=str(folder))
    with pytest.raises(DataError, match="training would see the evaluation data"):
        draw_calibration(task, handle, Calibration(data=str(folder), split="test"), 0)


def test_evaluation_samples_under_another_name_are_found(folder: Path) -> None:
    handle, task = tiny_classifier(num_labels=2), TextClassification(data=str(folder))
    write(folder / "copy.jsonl", [*["dog " * number for number in range(1, 6)], "cat " * 3 + sentence(7)])
    with pytest.raises(DataError, match="also stands in the evaluation data"):
        draw_calibration(task, handle, Calibration(data=str(folder / "copy.jsonl")), 0)


@pytest.mark.parametrize(("shared", "overlaps"), [(RUN, True), (RUN - 1, False)])
def test_a_run_of_tokens_of_the_evaluated_text_is_an_overlap(tmp_path: Path, shared: int, overlaps: bool) -> None:
    handle = tiny_causal_lm()
    evaluated = [WORDS[(7 * at + at * at // 5) % 15] for at in range(400)]
    (tmp_path / "test.txt").write_text(" ".join(evaluated))
    (tmp_path / "train.txt").write_text("home " * 200)
    part = ["bad"] * 20 + evaluated[100 : 100 + shared] + ["bad"] * 20
    (tmp_path / "part.txt").write_text(" ".join(part))
    task = Perplexity(data=str(tmp_path), window=400)
    calibration = Calibration(data=str(tmp_path / "part.txt"), sequence_length=len(part))
    handle.model.config.max_position_embeddings = 500
    if not overlaps:
        assert draw_calibration(task, handle, calibration, 0).num_samples == 1
        return
    with pytest.raises(DataError, match="also stands in the evaluation data"):
        draw_calibration(task, handle, calibration, 0)


def test_windows_of_a_language_models_training_text(tmp_path: Path) -> None:
    handle = tiny_causal_lm()
    (tmp_path / "test.txt").write_text("the dog ran " * 30)
    (tmp_path / "train.txt").write_text("a cat sat on the mat " * 20)
    found = draw_calibration(
        Perplexity(data=str(tmp_path), window=16), handle, Calibration(num_samples=3, batch_size=3), 0
    )
    assert [tuple(batch["input_ids"].shape) for batch in found.batches] == [(3, 16)]
    assert found.num_tokens == 48
