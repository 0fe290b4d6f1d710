"""The embedded sums, and the embedded model that writes them."""

from __future__ import annotations

from collections import Counter

import pytest

from compressbench.core.progress import SilentProgress
from compressbench.core.watching import Unwatched
from compressbench.data.documents import load_documents
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks.generation import Generation


def _value(text: str) -> int:
    """Numbers stand with their last digit first."""
    total, number, sign = 0, "", 1
    for character in f"{text}+":
        if character.isdigit():
            number += character
            continue
        total += sign * int(number[::-1])
        number, sign = "", -1 if character == "-" else 1
    return total


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_step_of_every_solution_has_the_same_value_as_the_question(split: str) -> None:
    rows = load_documents("embedded:arithmetic", split=split, revision=None, config=None, limit=None).rows
    for row in rows:
        steps = row["solution"].removesuffix(".").split("=")
        assert len(steps) == row["num_operands"] - 1
        assert {_value(each) for each in (row["question"].removesuffix("="), *steps)} == {row["result"]}
        assert steps[-1].isdigit()
    counts = Counter(row["num_operands"] for row in rows)
    assert max(counts.values()) - min(counts.values()) <= len(rows) // 20


def test_no_question_is_in_both_splits() -> None:
    train, test = (
        {row["question"] for row in load_documents("embedded:arithmetic", split=split, revision=None, config=None).rows}
        for split in ("train", "test")
    )
    assert len(train) == 6000
    assert len(test) == 600
    assert not train & test


def test_the_embedded_model_answers_some_and_not_all() -> None:
    task = Generation(
        data="embedded:arithmetic", doc_to_text="question", doc_to_target="solution", target_delimiter="",
        max_new_tokens=40, max_length=100, limit=80, temperature=0.8, num_samples=4, select="majority",
        regexes_to_ignore=("[.]$", "^.*="),
    )  # fmt: skip
    handle = load_model(ModelSpec(id="embedded:arithmetic-lm"), "causal-lm")
    samples = task.load()
    task.check_model(handle, samples)
    session = TorchEager().prepare(handle, "cpu")
    rows = task.evaluate(session, handle, samples, SilentProgress(), Unwatched())
    one = sum(row.also["pass@1"] for row in rows) / len(rows)
    assert 0.6 < one < 0.95
    assert sum(row.also["pass@4"] for row in rows) / len(rows) > one
    assert all(row.prediction and row.num_tokens for row in rows)
