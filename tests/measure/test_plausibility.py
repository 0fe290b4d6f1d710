"""Answers that look like a result and can't be one."""

from __future__ import annotations

import random

import pytest

from compressbench.core.questions import SampleRow
from compressbench.measure.calibration_error import expected_calibration_error
from compressbench.measure.plausibility import oddities


def answers(predictions: list[str], targets: list[str], **changed: bool) -> list[SampleRow]:
    return [
        SampleRow(id=str(at), prediction=found, target=wanted, score=float(found == wanted), **changed)
        for at, (found, wanted) in enumerate(zip(predictions, targets, strict=True))
    ]


def labels(count: int, num_labels: int = 5, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    return [str(chance.randrange(num_labels)) for _ in range(count)]


def noisy(targets: list[str], share: float, seed: int = 1) -> list[str]:
    """The targets, of which so many are replaced by chance."""
    chance = random.Random(seed)
    return [str(chance.randrange(5)) if chance.random() < share else target for target in targets]


def test_a_model_that_is_right_most_of_the_time_is_plausible() -> None:
    targets = labels(500)
    for share in (0.0, 0.1, 0.5, 1.0):
        assert oddities(answers(noisy(targets, share), targets), is_binary=True) == ()


def test_permuted_labels_are_seen_by_what_another_order_would_give() -> None:
    targets = labels(500)
    order = {"0": "1", "1": "2", "2": "3", "3": "4", "4": "0"}
    found = oddities(answers([order[label] for label in noisy(targets, 0.1)], targets), is_binary=True)
    assert len(found) == 1
    assert "with the labels in another order" in found[0]


def test_few_samples_of_many_labels_are_no_evidence_of_another_order() -> None:
    targets = labels(60, num_labels=20)
    assert oddities(answers(labels(60, num_labels=20, seed=9), targets), is_binary=True) == ()


def test_where_one_target_is_right_for_all_no_order_of_labels_can_be_wrong() -> None:
    assert oddities(answers(["none"] * 90 + ["all"] * 10, ["all"] * 100), is_binary=True) == ()


def test_one_prediction_for_everything_is_implausible_unless_that_is_right() -> None:
    targets = labels(100)
    assert oddities(answers(["3"] * 100, targets), is_binary=True) == ("all of 100 predictions are '3'",)
    assert oddities(answers(["3"] * 100, ["3"] * 100), is_binary=True) == ()
    assert oddities(answers(["3"] * 10, targets[:10]), is_binary=True) == ()


@pytest.mark.parametrize(("num_cut", "is_odd"), [(0, False), (5, False), (6, True)])
def test_more_than_a_twentieth_of_cut_inputs_is_implausible(num_cut: int, is_odd: bool) -> None:
    rows = answers(labels(100), labels(100))
    rows = [row.model_copy(update={"is_truncated": at < num_cut}) for at, row in enumerate(rows)]
    found = oddities(rows, is_binary=False)
    assert bool(found) == is_odd
    assert all("did not see all of 6 of 100 inputs" in each for each in found)


def test_calibration_error_is_the_gap_of_each_bin_weighted_by_its_samples() -> None:
    def row(id_: int, score: float, confidence: float | None) -> SampleRow:
        return SampleRow(id=str(id_), prediction="a", target="a", score=score, confidence=confidence)

    rows = [row(0, 1, 0.9), row(1, 0, 0.92), row(2, 1, 0.5), row(3, 1, 1.0)]
    # three bins: {0.9, 0.92}, {0.5}, {1.0}
    expected = (2 * abs(0.5 - 0.91) + abs(1 - 0.5) + abs(1 - 1.0)) / 4
    assert expected_calibration_error(rows) == pytest.approx(expected)
    assert expected_calibration_error([*rows, row(4, 1, None)]) is None


def test_a_model_that_is_as_sure_as_it_is_right_is_calibrated() -> None:
    chance = random.Random(4)
    rows = []
    for at in range(20_000):
        confidence = chance.random()
        right = float(chance.random() < confidence)
        rows.append(SampleRow(id=str(at), prediction="a", target="a", score=right, confidence=confidence))
    found = expected_calibration_error(rows)
    assert found is not None
    assert found < 0.02
