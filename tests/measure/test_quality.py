"""Scores per sample, paired by id with the baseline's."""

from __future__ import annotations

import random
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from compressbench.core.errors import CellError
from compressbench.core.progress import SilentProgress
from compressbench.core.questions import SampleRow
from compressbench.core.registry import Resolved
from compressbench.measure.quality import Question, ask, paired, score
from compressbench.records.store import RecordStore, read_samples
from compressbench.tasks.declared import weighted_mean


def rows(*scores: float, weights: list[float] | None = None) -> list[SampleRow]:
    found = weights or [1.0] * len(scores)
    return [
        SampleRow(id=f"s{index}", prediction="a", target="b", score=each, weight=weight)
        for index, (each, weight) in enumerate(zip(scores, found, strict=True))
    ]


def question(answers: list[SampleRow]) -> Question:
    task = SimpleNamespace(
        version=1,
        protocol_id="fake/v1",
        metric="accuracy",
        direction="higher",
        is_binary=True,
        evaluate=lambda session, handle, samples, progress, watch: answers,
        summarize=weighted_mean,
    )
    samples = SimpleNamespace(source="a file", split="test", revision="sha256:1")
    return Question(Resolved("fake", task, {"window": 8}), samples, "fake-2", "Words-19-abc")


def asked(answers: list[SampleRow]) -> list[SampleRow]:
    session: Any = None
    return ask(question(answers), session, None, SilentProgress())[0]


def test_harmful_and_beneficial_are_samples_that_fell_and_rose() -> None:
    found = paired(rows(1, 1, 1, 0, 0), rows(1, 0, 0, 1, 0))
    assert (found.num_samples, found.num_harmful, found.num_beneficial) == (5, 2, 1)
    assert found.mean_difference == pytest.approx(-0.2)
    assert found.sd_difference == pytest.approx(statistics.stdev([0, -1, -1, 1, 0]))


def test_samples_are_paired_by_id_and_not_by_position() -> None:
    draw = random.Random(2)
    before, after = rows(*(draw.random() for _ in range(40))), rows(*(draw.random() for _ in range(40)))
    shuffled = random.Random(3).sample(after, 40)
    found, expected = paired(before, shuffled), paired(before, after)
    assert found.mean_difference == pytest.approx(expected.mean_difference)
    differences = [b.score - a.score for a, b in zip(before, after, strict=True)]
    assert found.mean_difference == pytest.approx(statistics.fmean(differences))
    assert found.sd_difference == pytest.approx(statistics.stdev(differences))


def test_a_sample_with_weight_two_moves_the_mean_as_two_samples_do() -> None:
    weighted = paired(rows(1, 2, weights=[1, 2]), rows(2, 5, weights=[1, 2]))
    doubled = paired(rows(1, 2, 2), rows(2, 5, 5))
    assert weighted.mean_difference == pytest.approx(doubled.mean_difference)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (rows(1, 1), rows(1)),
        (rows(1), rows(1, 1)),
        (rows(1, 1), [rows(1)[0], rows(1)[0].model_copy(update={"id": "x"})]),
    ],
)
def test_other_samples_than_the_baselines_are_refused(before: list[SampleRow], after: list[SampleRow]) -> None:
    with pytest.raises(CellError, match="not evaluated on the same samples"):
        paired(before, after)


def test_a_task_without_samples_is_a_failure_and_not_a_zero() -> None:
    with pytest.raises(CellError, match="'fake-2' evaluated no sample"):
        asked([])


def test_a_sample_that_comes_twice_is_refused() -> None:
    with pytest.raises(CellError, match="the same sample id twice"):
        asked([*rows(1), *rows(1)])


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValidationError, match="finite"):
        rows(float("nan"))


def test_the_rows_behind_a_score_lie_beside_the_record(tmp_path: Path) -> None:
    store, answers = RecordStore(tmp_path), rows(1, 0, 1, 1)
    found = score(question(answers), answers, 2.5, rows(1, 1, 1, 1), store, "recipe.name.run")
    assert (found.value, found.options) == (0.75, {"window": 8})
    assert (found.num_samples, found.seconds, found.data_revision) == (4, 2.5, "sha256:1")
    assert found.protocol_id == "fake/v1,tokenizer=Words-19-abc"
    assert found.paired is not None
    assert found.paired.num_harmful == 1
    assert found.samples_file == "recipe.name.run.fake-2.parquet"
    assert read_samples(tmp_path / "recipe.name.run.json", found.samples_file, found.samples_sha256) == answers
    assert score(question(answers), answers, 2.5, None, store, "baseline").paired is None
