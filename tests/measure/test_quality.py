"""Scores per sample, paired by id with the baseline's."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from scipy import stats

from compressbench.core.errors import CellError, NotFiniteError
from compressbench.core.progress import SilentProgress
from compressbench.core.questions import SampleRow
from compressbench.core.registry import Resolved
from compressbench.core.watching import Unwatched
from compressbench.measure.paired_rows import is_mean, pair
from compressbench.measure.quality import Answers, Question, Scoring, ask, needs_value
from compressbench.records.sample_rows import read_samples
from compressbench.records.score import Score
from compressbench.records.store import RecordStore
from compressbench.tasks.declared import weighted_mean


def rows(*scores: float, weights: list[float] | None = None, **columns: Sequence[Any]) -> list[SampleRow]:
    found = weights or [1.0] * len(scores)
    return [
        SampleRow(
            id=f"s{index}", prediction=f"p{each}", target="b", score=each, weight=weight,
            **{name: values[index] for name, values in columns.items()},
        )
        for index, (each, weight) in enumerate(zip(scores, found, strict=True))
    ]  # fmt: skip


def fake_task(answers: list[SampleRow] | None = None, **changed: Any) -> Any:
    fields = {
        "version": 1,
        "protocol_id": "fake/v1",
        "metric": "accuracy",
        "direction": "higher",
        "is_binary": True,
        "is_log": False,
        "margin": None,
        "stratum": "",
        "evaluate": lambda session, handle, samples, progress, watch: answers,
        "summarize": weighted_mean,
    }
    return SimpleNamespace(**{**fields, **changed})


def exp_mean(found: Sequence[SampleRow]) -> float:
    return math.exp(weighted_mean(found))


def question(answers: list[SampleRow], **changed: Any) -> Question:
    samples = SimpleNamespace(source="a file", split="test", revision="sha256:1")
    return Question(Resolved("fake", fake_task(answers, **changed), {"window": 8}), samples, "fake-2", "Words-19-abc")


def asked(question_: Question) -> Answers:
    session: Any = None
    return ask(question_, session, None, SilentProgress(), Unwatched())


def scored(tmp_path: Path, answers: list[SampleRow], before: list[SampleRow] | None = None, **changed: Any) -> Score:
    asked_again = question(answers, **changed)
    baseline = None if before is None else Answers(before, 1.0, Unwatched())
    scoring = Scoring(RecordStore(tmp_path), "recipe.name.run", seed=0)
    return scoring.score(asked_again, asked(asked_again), baseline)


def test_harmful_and_beneficial_are_samples_that_became_worse_and_better() -> None:
    before, after = rows(1, 1, 1, 0, 0), rows(1, 0, 0, 1, 0)
    found = pair(fake_task(), before, after, seed=0)
    assert (found.num_samples, found.num_harmful, found.num_beneficial) == (5, 2, 1)
    assert found.mean_difference == pytest.approx(-0.2)
    assert found.sd_difference == pytest.approx(statistics.stdev([0, -1, -1, 1, 0]))
    assert found.resampled is None
    lower = pair(fake_task(direction="lower"), before, after, seed=0)
    assert (lower.num_harmful, lower.num_beneficial) == (1, 2)


def test_samples_are_paired_by_id_and_not_by_position() -> None:
    draw = random.Random(2)
    before, after = rows(*(draw.random() for _ in range(40))), rows(*(draw.random() for _ in range(40)))
    shuffled = random.Random(3).sample(after, 40)
    task = fake_task(is_binary=False)
    found = pair(task, before, shuffled, seed=0)
    differences = [b.score - a.score for a, b in zip(before, after, strict=True)]
    assert found.mean_difference == pytest.approx(statistics.fmean(differences))
    assert found.sd_difference == pytest.approx(statistics.stdev(differences))
    assert found == pair(task, before, after, seed=0)


def test_a_sample_with_weight_two_moves_the_mean_as_two_samples_do() -> None:
    weighted = pair(fake_task(), rows(1, 2, weights=[1, 2]), rows(2, 5, weights=[1, 2]), seed=0)
    doubled = pair(fake_task(), rows(1, 2, 2), rows(2, 5, 5), seed=0)
    assert weighted.mean_difference == pytest.approx(doubled.mean_difference)


def test_a_mean_that_is_no_proportion_is_resampled_and_its_interval_is_students_for_normal_differences() -> None:
    draw = random.Random(5)
    before = [draw.gauss(2, 1) for _ in range(300)]
    after = [each + draw.gauss(0.02, 0.1) for each in before]
    found = pair(fake_task(is_binary=False, is_log=True, summarize=exp_mean), rows(*before), rows(*after), 0).resampled
    assert found is not None
    differences = [b - a for a, b in zip(before, after, strict=True)]
    student = stats.ttest_1samp(differences, 0.0)
    interval = student.confidence_interval()
    assert found.difference == pytest.approx(statistics.fmean(differences))
    assert found.low == pytest.approx(interval.low, abs=1e-3)
    assert found.high == pytest.approx(interval.high, abs=1e-3)
    assert found.p_value == pytest.approx(student.pvalue, abs=5e-3)
    assert found.num_units == 300


def test_clusters_are_drawn_together_so_that_copies_of_a_sample_say_nothing_new() -> None:
    draw = random.Random(6)
    before, after = ([float(draw.random() < share) for _ in range(60)] for share in (0.8, 0.75))
    alone = pair(fake_task(), rows(*before, cluster=[f"c{at}" for at in range(60)]), rows(*after), seed=0)
    names = [f"c{at}" for at in range(60) for _ in range(9)]
    tenfold = [[each for each in found for _ in range(9)] for found in (before, after)]
    copies = pair(fake_task(), rows(*tenfold[0], cluster=names), rows(*tenfold[1]), seed=0)
    assert alone.resampled is not None
    assert copies.resampled is not None
    assert copies.resampled.num_units == 60
    assert copies.resampled.standard_error == pytest.approx(alone.resampled.standard_error, rel=0.05)


def spearman(found: Sequence[SampleRow]) -> float:
    return float(stats.spearmanr([row.score for row in found], [float(row.target) for row in found]).statistic)


def test_a_metric_that_is_no_mean_is_resampled_as_a_whole() -> None:
    draw = random.Random(7)
    gold = [draw.random() for _ in range(80)]
    before, after = ([each + draw.gauss(0, sd) for each in gold] for sd in (0.1, 0.6))
    arms = [
        [row.model_copy(update={"target": repr(each)}) for row, each in zip(rows(*found), gold, strict=True)]
        for found in (before, after)
    ]
    task = fake_task(is_binary=False, summarize=spearman)
    assert not is_mean(task, arms[0])
    found = pair(task, arms[0], arms[1], seed=0).resampled
    assert found is not None
    assert found.difference == pytest.approx(spearman(arms[1]) - spearman(arms[0]))
    assert found.low < found.difference < found.high < 0


def test_whether_a_metric_is_a_mean_is_seen_on_the_rows() -> None:
    found = rows(0.5, 1.5, weights=[1, 3])
    assert is_mean(fake_task(), found)
    assert is_mean(fake_task(is_log=True, summarize=exp_mean), found)
    assert not is_mean(fake_task(summarize=lambda r: weighted_mean(r) ** 2), found)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (rows(1, 1), rows(1), "1 samples of the baseline are missing and 0 are new, such as 's1'"),
        (rows(1), rows(1, 1), "0 samples of the baseline are missing and 1 are new, such as 's1'"),
        (rows(1, 1), [rows(1)[0], rows(1)[0].model_copy(update={"id": "x"})], "1 samples of the baseline are missing"),
        (rows(1), [rows(1)[0].model_copy(update={"target": "c"})], "1 samples have other targets"),
    ],
)
def test_other_samples_than_the_baselines_are_implausible_and_never_paired(
    before: list[SampleRow], after: list[SampleRow], reason: str, tmp_path: Path
) -> None:
    found = scored(tmp_path, after, before)
    assert found.paired is None
    assert any(reason in each for each in found.implausible)


def test_a_task_without_samples_has_no_value_and_is_not_a_zero(tmp_path: Path) -> None:
    found = scored(tmp_path, [])
    assert (found.value, found.num_samples) == (None, 0)
    assert found.implausible == ("no sample was evaluated",)
    with pytest.raises(CellError, match="'fake-2' has no result: no sample was evaluated"):
        needs_value(found)


def test_answers_that_are_no_numbers_have_no_value(tmp_path: Path) -> None:
    def fail(*_: Any) -> Any:
        raise NotFiniteError("the model gave logits that are not finite")

    found = scored(tmp_path, [], rows(1, 0), evaluate=fail)
    assert found.value is None
    assert found.implausible == ("the model gave logits that are not finite",)


def test_a_sample_that_comes_twice_is_implausible_and_never_paired(tmp_path: Path) -> None:
    found = scored(tmp_path, [*rows(1), *rows(1)], rows(1))
    assert found.implausible == ("1 sample ids stand more than once, such as 's0'",)
    assert found.paired is None


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValidationError, match="finite"):
        rows(float("nan"))


def test_the_rows_behind_a_score_lie_beside_the_record(tmp_path: Path) -> None:
    answers = rows(1, 0, 1, 1, also=[{"acc_norm": 1.0}, {"acc_norm": 0.0}, {"acc_norm": 1.0}, {"acc_norm": 1.0}])
    found = scored(tmp_path, answers, rows(1, 1, 1, 1))
    assert (found.value, found.options) == (0.75, {"window": 8})
    assert (found.num_samples, found.data_revision, found.label) == (4, "sha256:1", "fake-2")
    assert found.protocol_id == "fake/v1,tokenizer=Words-19-abc"
    assert found.paired is not None
    assert found.paired.num_harmful == 1
    assert found.reported == {"acc_norm": 0.75}
    own = scored(tmp_path / "own", answers, reported=lambda found: {"acc_norm,none": 0.5, "n-shot": len(found)})
    assert own.reported == {"acc_norm,none": 0.5, "n-shot": 4}
    assert found.samples_file == "recipe.name.run.fake-2.parquet"
    assert read_samples(tmp_path / "recipe.name.run.json", found.samples_file, found.samples_sha256) == answers
    assert scored(tmp_path / "other", answers).paired is None


def test_samples_of_each_stratum_are_paired_on_their_own(tmp_path: Path) -> None:
    before, after = rows(1, 1, 1, 0), rows(1, 0, 0, 0, stratum=["a", "b", "b", "a"])
    found = scored(tmp_path, after, before).strata
    assert {name: (each.num_samples, each.value) for name, each in found.items()} == {"a": (2, 0.5), "b": (2, 0.0)}
    assert found["b"].paired is not None
    assert found["b"].paired.num_harmful == 2
    assert scored(tmp_path / "other", rows(1, 0)).strata == {}
