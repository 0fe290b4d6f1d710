"""The law of bits: its least squares against a brute-force grid and scipy, and a break only where there is one."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
from scipy.optimize import curve_fit

from compressbench.core.bits_law import FEWEST, BitsLaw, fit_bits_law, why_no_law

BITS = (8.0, 7.0, 6.0, 5.5, 5.0, 4.5, 4.0, 3.5, 3.0, 2.5, 2.0)
BREAK = 4.0


def rows(seed: int, extra: float, b: float = 0.9) -> tuple[list[float], list[float], list[float]]:
    """Losses by a law with another exponent below four bits, and with errors of 3 % and a floor."""
    draw = random.Random(seed)
    true = [1e-3 * 4 ** (b * (8 - bits) + extra * max(0.0, BREAK - bits)) for bits in BITS]
    errors = [3e-4 + 0.03 * loss for loss in true]
    return list(BITS), [loss + draw.gauss(0, error) for loss, error in zip(true, errors, strict=True)], errors


def chi_square(law: BitsLaw, found: tuple[list[float], list[float], list[float]]) -> float:
    return sum(((loss - law.loss_at(bits)) / error) ** 2 for bits, loss, error in zip(*found, strict=True))


def test_the_unsegmented_law_is_scipys_least_squares() -> None:
    bits, losses, errors = rows(1, 0.0)
    law = fit_bits_law(bits, losses, errors, num_draws=50)
    best, _ = curve_fit(lambda x, a, b: a * 4 ** (-b * x), bits, losses, p0=(100, 1), sigma=errors)
    assert not law.is_broken
    assert (law.a, law.b.value) == pytest.approx(tuple(best), rel=1e-3)
    assert law.loss_at(3.0) == pytest.approx(law.a * 4 ** (-3 * law.b.value))


def test_the_segmented_fit_is_no_worse_than_a_brute_force_grid_and_finds_the_same_break() -> None:
    found = rows(2, 0.5)
    bits, losses, errors = found
    law = fit_bits_law(*found, num_draws=50)
    assert law.is_broken
    weights = [1 / error**2 for error in errors]
    best = (math.inf, 0.0)
    for b, extra, at in product((0.6 + 0.02 * n for n in range(31)), (0.04 * n for n in range(26)), BITS[1:-1]):
        g = [4 ** (b * (8 - x) + extra * max(0.0, at - x)) for x in bits]
        level = sum(w * q * v for w, q, v in zip(weights, losses, g, strict=True)) / sum(
            w * v * v for w, v in zip(weights, g, strict=True)
        )
        sum_of_squares = sum(w * (q - level * v) ** 2 for w, q, v in zip(weights, losses, g, strict=True))
        best = min(best, (sum_of_squares, at))
    assert chi_square(law, found) <= best[0]
    assert law.break_at is not None
    assert abs(law.break_at.value - best[1]) <= 0.5


def test_a_known_break_is_found_and_within_its_interval() -> None:
    laws = [fit_bits_law(*rows(seed, 0.5), seed=seed, num_draws=60) for seed in range(6)]
    assert all(law.is_broken for law in laws)
    held = 0
    for law in laws:
        assert law.break_at is not None
        assert law.b_below is not None
        assert abs(law.break_at.value - BREAK) < 0.4
        assert law.b_below.value == pytest.approx(1.4, abs=0.2)
        assert law.b.value == pytest.approx(0.9, abs=0.1)
        held += (law.break_at.low or 0) <= BREAK <= (law.break_at.high or math.inf)
    assert held >= 5


def test_without_a_break_none_is_said() -> None:
    laws = [fit_bits_law(*rows(seed, 0.0), seed=seed, num_draws=40) for seed in range(8)]
    assert sum(law.is_broken for law in laws) <= 1
    assert all((law.b.low or 0) <= 0.93 and (law.b.high or 9) >= 0.87 for law in laws)


def test_too_few_rows_show_no_break_and_too_few_widths_no_law() -> None:
    bits, losses, errors = (part[-6:] for part in rows(3, 0.5))
    law = fit_bits_law(bits, losses, errors, num_draws=20)
    assert (law.is_broken, law.aicc_gain is None or law.aicc_gain < 2) == (False, True)
    assert why_no_law([4.0, 4.0, 3.0, 2.0, 8.0]).startswith("4 different widths")
    assert not why_no_law(range(FEWEST))
    with pytest.raises(ValueError, match="different widths"):
        fit_bits_law([4, 3], [0.1, 0.2], [0.1, 0.1])
    with pytest.raises(ValueError, match="above zero"):
        fit_bits_law(bits, losses, [0.0] * 6)


def test_published_losses_of_llama_cpp_rise_as_fast_as_the_law_says() -> None:
    """Differences of perplexity of Llama 3 8B on WikiText-2, q8_0 to q2_K, as llama.cpp's README lists them."""
    bits = [8.5, 6.57, 5.7, 4.9, 4.64, 4.0, 3.65, 3.17]
    losses = [0.0027, 0.0217, 0.0570, 0.175, 0.469, 0.657, 1.63, 3.52]
    law = fit_bits_law(bits, losses, [0.0010, 0.0019, 0.0026, 0.0046, 0.008, 0.010, 0.018, 0.034])
    assert 0.9 < law.b.value < 1.5
    # they are of other formats, and scatter around any law by far more than their samples say
    assert law.inflation > 5
    assert not law.is_broken


def test_a_loss_that_is_negative_by_chance_is_a_row_like_any_other() -> None:
    bits, losses, errors = rows(4, 0.0)
    losses[0] = -2e-4
    assert fit_bits_law(bits, losses, errors, num_draws=20).b.value == pytest.approx(0.9, abs=0.1)


def test_neither_order_nor_the_unit_of_the_losses_matters() -> None:
    found = rows(5, 0.5)
    law = fit_bits_law(*found, num_draws=20)
    assert fit_bits_law(*(part[::-1] for part in found), num_draws=20) == law
    bits, losses, errors = found
    other = fit_bits_law(bits, [100 * q for q in losses], [100 * e for e in errors], num_draws=20)
    assert (other.at, other.b.value) == pytest.approx((100 * law.at, law.b.value), rel=1e-6)
