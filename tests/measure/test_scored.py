"""The quality of a run's models: floors, draws, and candidates beside their baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import pytest
import torch

from compressbench.core.errors import CellError
from compressbench.core.progress import SilentProgress
from compressbench.core.questions import SampleRow, Watch
from compressbench.core.registry import Resolved
from compressbench.measure.quality import Question
from compressbench.measure.scored import Quality, draws_anything
from compressbench.records.sample_rows import read_samples
from compressbench.records.score import Score
from compressbench.records.store import RecordStore
from compressbench.tasks.declared import Declared

COUNT = 200


class Parity(Declared):
    """Whether numbers are even, by a model that is a list of answers; ids above `batch_size` may be answered otherwise."""

    version: ClassVar[int] = 1
    metric: ClassVar[str] = "accuracy"
    direction: ClassVar[Literal["higher", "lower"]] = "higher"
    head: ClassVar[str] = "none"
    is_binary: ClassVar[bool] = True

    batch_size: int = 8

    @property
    def protocol_id(self) -> str:
        return "parity/v1"

    def evaluate(self, session: Any, handle: Any, samples: Any, progress: Any, watch: Watch) -> list[SampleRow]:
        found = []
        for number in samples.numbers:
            answer = int(session(number, self.batch_size))
            logits = torch.tensor([[float(answer == label) for label in (0, 1)]])
            watch.logits([str(number)], logits)
            target = number % 2
            found.append(
                SampleRow(id=str(number), prediction=str(answer), target=str(target), score=float(answer == target))
            )
        return found


class Numbers(SimpleNamespace):
    def shuffled(self, seed: int) -> Numbers:
        return Numbers(**{**vars(self), "numbers": self.numbers[::-1]})

    def __len__(self) -> int:
        return len(self.numbers)


def quality(folder: Path, **changed: Any) -> Quality:
    samples = Numbers(numbers=list(range(COUNT)), source="numbers", split="test", revision="r")
    question = Question(Resolved("parity", Parity(), {}), samples, "parity", "none")
    return Quality([question], RecordStore(folder), 0, SilentProgress(), **changed)


def wrong_on(*numbers: int) -> Any:
    return lambda number, batch_size: (number % 2) ^ (number in numbers)


def scores(found: Quality, session: Any, stem: str = "stem") -> Score:
    return found.scores(session, None, stem)[0]


def test_a_candidate_is_paired_with_the_baseline_that_was_asked_first(tmp_path: Path) -> None:
    run = quality(tmp_path)
    first = scores(run, wrong_on(1, 2), "baseline")
    assert (first.paired, first.fidelity, first.value) == (None, None, 0.99)
    assert first.outputs_file == "baseline.parity.outputs.parquet"
    second = scores(run, wrong_on(2, 3, 4), "candidate")
    assert second.paired is not None
    assert (second.paired.num_harmful, second.paired.num_beneficial) == (2, 1)
    assert second.fidelity is not None
    assert second.fidelity.agreement == pytest.approx(1 - 3 / COUNT)
    assert second.fidelity.same_top_1 == pytest.approx(1 - 3 / COUNT)
    assert second.outputs_file == ""


def test_the_floor_is_what_the_baseline_answers_otherwise_in_another_batch_size_and_order(tmp_path: Path) -> None:
    floor = scores(quality(tmp_path), wrong_on(1)).floor
    assert floor is not None
    assert (floor.paired.churn, floor.how) == (0.0, "batch size 4, shuffled")

    def wavers(number: int, batch_size: int) -> int:
        return (number % 2) ^ (batch_size == 4 and number in (5, 6, 7))

    wavering = scores(quality(tmp_path / "b"), wavers).floor
    assert wavering is not None
    assert (wavering.paired.num_harmful, wavering.paired.num_samples) == (3, COUNT)
    assert scores(quality(tmp_path / "c", has_floor=False), wavers).floor is None


def test_a_baseline_without_a_result_ends_the_run(tmp_path: Path) -> None:
    run = quality(tmp_path)
    run.questions[0].samples.numbers.clear()
    with pytest.raises(CellError, match="the task 'parity' has no result: no sample was evaluated"):
        scores(run, wrong_on())


def test_draws_are_scored_kept_and_judged_together(tmp_path: Path) -> None:
    run = quality(tmp_path)
    scores(run, wrong_on(), "baseline")
    first = scores(run, wrong_on(*range(20)), "candidate")
    run.draw(wrong_on(*range(10)), None, "candidate", 1)
    run.draw(wrong_on(*range(30)), None, "candidate", 2)
    found = run.over_draws([first])[0]
    assert [(each.seed, each.value) for each in found.draws] == [(0, 0.9), (1, 0.95), (2, 0.85)]
    assert found.over_draws is not None
    assert found.over_draws.difference == pytest.approx(-0.1)
    assert found.paired == first.paired
    # three draws say little of what a fourth would give: wider than the samples alone
    assert found.over_draws.high - found.over_draws.low > 0.09
    kept = read_samples(tmp_path / "x.json", found.draws[2].samples_file, found.draws[2].samples_sha256)
    assert sum(row.score for row in kept) == COUNT - 30


def test_the_draws_of_one_candidate_are_not_those_of_the_next(tmp_path: Path) -> None:
    run = quality(tmp_path)
    scores(run, wrong_on(), "baseline")
    scores(run, wrong_on(1), "a")
    run.draw(wrong_on(1, 2), None, "a", 1)
    second = scores(run, wrong_on(3), "b")
    assert run.over_draws([second])[0].draws == ()


@pytest.mark.parametrize(
    ("facts", "draws"),
    [
        ({}, False),
        ({"needs_calibration": True}, True),
        ({"needs_training_data": True}, True),
        ({"is_random": True}, True),
    ],
)
def test_only_what_draws_anything_is_repeated(facts: dict[str, bool], draws: bool) -> None:
    from compressbench.core.protocols import Facts

    plain, other = (SimpleNamespace(facts=Facts(**each)) for each in ({}, facts))
    steps: Sequence[Resolved] = [Resolved("a", plain, {}), Resolved("b", other, {})]
    assert draws_anything(steps) == draws
