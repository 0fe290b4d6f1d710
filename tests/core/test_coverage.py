from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.optimize import curve_fit

from compressbench.core.coverage import CoverageFit, coverage_at, fit_coverage
from compressbench.tasks.pass_at_k import pass_at_k

KS = [1, 2, 4, 8, 16]


def _questions(num: int, seed: int) -> list[list[float]]:
    """Questions whose difficulty varies, 32 samples of each."""
    chance = random.Random(seed)
    found = []
    for _ in range(num):
        probability = chance.betavariate(0.5, 1.5)
        right = sum(chance.random() < probability for _ in range(32))
        found.append([pass_at_k(32, right, k) for k in KS])
    return found


def test_a_curve_of_the_form_gives_its_own_parameters() -> None:
    curve = [coverage_at(-1.3, -0.4, k) for k in KS]
    found = fit_coverage([curve] * 5, KS)
    assert isinstance(found, CoverageFit)
    assert (found.factor, found.exponent.value) == pytest.approx((-1.3, -0.4))
    assert found.exponent.low == pytest.approx(found.exponent.high), "all questions are the same"
    assert found.largest_residual == pytest.approx(0, abs=1e-12)


def test_the_fit_is_near_that_of_weighted_least_squares() -> None:
    curves = _questions(400, seed=3)
    found = fit_coverage(curves, KS)
    means = np.mean(curves, axis=0)
    (factor, exponent), _ = curve_fit(
        lambda k, a, b: np.exp(a * k**b), KS, means, p0=(-1, -0.5), sigma=np.sqrt(means * (1 - means))
    )
    assert isinstance(found, CoverageFit)
    assert found.exponent.value == pytest.approx(exponent, abs=0.02)
    assert found.factor == pytest.approx(factor, rel=0.02)


def test_the_interval_holds_the_exponent_of_all_questions_as_often_as_it_says() -> None:
    truth = fit_coverage(_questions(6000, seed=0), KS)
    assert isinstance(truth, CoverageFit)
    held = 0
    for seed in range(1, 41):
        found = fit_coverage(_questions(120, seed), KS, seed)
        assert isinstance(found, CoverageFit)
        held += found.exponent.low <= truth.exponent.value <= found.exponent.high
    assert 34 <= held <= 40


def test_coverage_of_nothing_or_everything_has_no_curve() -> None:
    assert isinstance(fit_coverage([[1.0] * 5] * 4, KS), str)
    assert isinstance(fit_coverage([[0.0] * 5] * 4, KS), str)
