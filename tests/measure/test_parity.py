"""Answers against answers: every number against a plain computation, and what exceeds which limit."""

from __future__ import annotations

import math

import pytest
import scipy.special
import scipy.stats
import torch

from compressbench.core.errors import CellError
from compressbench.core.protocols import Batch
from compressbench.measure.parity import (
    EXACT,
    IN_HALF,
    ROUNDED,
    SAME_FILES,
    Answers,
    ParityLimits,
    answers_of,
    compare,
    inputs_for_parity,
    limits_for,
)  # fmt: skip


def rows(seed: int, shape: tuple[int, int] = (50, 7)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


def test_the_numbers_are_those_of_scipy() -> None:
    ours, theirs = rows(0), rows(0) + 0.3 * rows(1)
    found = compare(Answers(theirs, []), Answers(ours, []), "causal-lm", ParityLimits(), "another")
    p, q = (scipy.special.softmax(each.double().numpy(), axis=1) for each in (theirs, ours))
    assert found.mean_kl == pytest.approx(scipy.stats.entropy(p, q, axis=1).mean(), rel=1e-9)
    assert found.top1_agreement == (p.argmax(1) == q.argmax(1)).mean()
    assert found.max_difference == pytest.approx((ours - theirs).abs().max().item())
    assert not found.broken


def test_vectors_have_cosines_and_no_divergence() -> None:
    ours, theirs = rows(0), rows(0) + 0.1 * rows(1)
    found = compare(Answers(theirs, []), Answers(ours, []), "feature-extraction", EXACT, "another")
    expected = min(float(a @ b / (a.norm() * b.norm())) for a, b in zip(ours.double(), theirs.double(), strict=True))
    assert found.min_cosine == pytest.approx(expected)
    assert found.mean_kl is None
    assert any("cosine" in each for each in found.broken)


@pytest.mark.parametrize("limits", [EXACT, IN_HALF, ROUNDED, SAME_FILES])
def test_equal_answers_are_within_every_limit(limits: ParityLimits) -> None:
    answers = Answers(rows(0), [[1, 2], [3, 4]])
    found = compare(answers, answers, "causal-lm", limits, "itself")
    assert (found.broken, found.num_equal_texts, found.top1_agreement) == ((), 2, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_beyond_every_limit(value: float) -> None:
    ours = rows(0)
    ours[3, 2] = value
    found = compare(Answers(rows(0), []), Answers(ours, []), "causal-lm", EXACT, "another")
    assert len(found.broken) >= 2
    assert math.isfinite(found.max_difference)


def test_rounding_is_within_the_wide_limits_and_beyond_the_narrow_ones() -> None:
    ours = rows(0) + 0.1 * rows(1)
    narrow, wide = (
        compare(Answers(rows(0), []), Answers(ours, []), "causal-lm", limits, "x") for limits in (EXACT, ROUNDED)
    )
    assert narrow.broken
    assert not wide.broken


def test_other_texts_are_said_and_another_shape_is_an_error() -> None:
    ours, theirs = Answers(rows(0), [[1, 2]]), Answers(rows(0), [[1, 3]])
    assert any("texts" in each for each in compare(theirs, ours, "causal-lm", EXACT, "x").broken)
    with pytest.raises(CellError, match="another shape"):
        compare(Answers(rows(0), []), Answers(rows(0, (50, 6)), []), "causal-lm", EXACT, "x")


class Echo:
    device = "cpu"

    def __call__(self, batch: Batch) -> torch.Tensor:
        found: torch.Tensor = batch["input_ids"].float()[..., None].expand(-1, -1, 3)
        return found

    def generate(self, batch: Batch, num_tokens: int, on_token: object = None) -> torch.Tensor:
        ids = batch["input_ids"]
        return torch.cat([ids, ids[:, -1:].expand(-1, num_tokens)], dim=1)

    def synchronize(self) -> None: ...

    def close(self) -> None: ...


def test_a_language_model_is_asked_for_rows_and_for_a_few_texts() -> None:
    inputs = [{"input_ids": torch.full((3, 5), number)} for number in range(6)]
    found = answers_of(Echo(), "causal-lm", inputs)
    assert found.rows.shape == (90, 3)
    assert found.texts == [[number] * 16 for number in (0, 0, 0, 1, 1, 1, 2, 2)]


def test_inputs_are_as_many_as_make_two_thousand_rows_and_at_least_one() -> None:
    large = [{"input_ids": torch.zeros(40, 64, dtype=torch.int64)}] * 3
    small = [{"input_ids": torch.zeros(1, 32, dtype=torch.int64)}] * 100
    assert len(inputs_for_parity(large)) == 1
    assert len(inputs_for_parity(small)) == 64


def test_logits_that_rounding_can_swap_count_as_tied_and_others_do_not() -> None:
    theirs = torch.tensor([[8.0, 7.9, 0.0], [8.0, 7.0, 0.0], [-8.0, -1.0, -0.9]])
    ours = torch.tensor([[7.9, 8.0, 0.0], [7.9, 8.0, 0.0], [-8.0, -0.9, -1.0]])
    strict, loose = (
        compare(Answers(theirs, []), Answers(ours, []), "causal-lm", ParityLimits(tie=tie), "x").top1_agreement
        for tie in (0.0, 2**-5)
    )
    assert strict == 0.0
    assert loose == pytest.approx(2 / 3)


def test_bfloat16_rounding_of_flat_logits_is_within_the_limits_for_it_and_a_wrong_model_is_not() -> None:
    """Random weights: 5,000 logits without a winner, as of a model that nobody trained."""
    theirs = rows(0, (200, 5000))
    rounded = theirs + 2**-6 * rows(1, (200, 5000))
    wrong = theirs + 0.5 * rows(2, (200, 5000))
    found, other = (
        compare(Answers(theirs, []), Answers(each, []), "causal-lm", IN_HALF, "x") for each in (rounded, wrong)
    )
    assert found.broken == ()
    assert compare(Answers(theirs, []), Answers(rounded, []), "causal-lm", EXACT, "x").broken
    assert len(other.broken) >= 2


@pytest.mark.parametrize(
    ("is_exact", "dtypes", "expected"),
    [
        (True, ("float32", "float32"), EXACT),
        (True, ("bfloat16", "float32"), IN_HALF),
        (True, ("int8", "float32/int8"), IN_HALF),
        (False, ("float32", "float32"), ROUNDED),
    ],
)
def test_the_limits_are_those_of_the_coarser_side(
    is_exact: bool, dtypes: tuple[str, ...], expected: ParityLimits
) -> None:
    assert limits_for(is_exact=is_exact, dtypes=dtypes) == expected
