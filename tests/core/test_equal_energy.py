from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from compressbench.core.equal_energy import (
    AccuracyOf,
    Budget,
    Price,
    at_equal_joules,
    crossovers,
    is_reversed,
    paired_difference,
    samples_within,
)
from compressbench.core.statistics import Interval, mean_interval


def _curve(values: Sequence[Sequence[float]]) -> AccuracyOf:
    """By number of samples, from 1."""
    return lambda k: values[k - 1] if k <= len(values) else None


def test_the_same_joules_buy_whole_samples() -> None:
    assert samples_within(8 * 0.3, Price(0, 0.1)) == 24
    assert samples_within(1.0, Price(0, 0.3)) == 3
    assert samples_within(1.0, Price(0.5, 0.3)) == 1
    assert samples_within(0.2, Price(0.5, 0.3)) == 0


def test_a_budget_of_whole_samples_buys_just_them_whatever_rounding_does() -> None:
    chance = random.Random(0)
    for _ in range(2000):
        price, k = Price(chance.uniform(0, 2), chance.uniform(1e-6, 3)), chance.randint(1, 500)
        assert samples_within(price.of(k), price) == k


def test_a_model_of_a_third_of_the_price_has_three_samples_for_one() -> None:
    big, small = [[0.0, 1.0, 1.0, 0.0]], [[0.0] * 4, [0.5] * 4, [1.0, 1.0, 1.0, 0.9]]
    (found,) = at_equal_joules((Price(0, 3), _curve(big)), (Price(0, 1), _curve(small)), (1, 1), [1], 0.95)
    assert found.num_other == (3, 3, 3)
    assert found.difference == mean_interval([1.0, 0.0, 0.0, 0.9])


def test_a_price_that_is_not_sure_widens_the_interval() -> None:
    big, small = [[0.5, 0.6]], [[0.1, 0.2], [0.4, 0.6], [0.8, 1.0], [0.9, 1.0]]
    (sure,) = at_equal_joules((Price(0, 3), _curve(big)), (Price(0, 1), _curve(small)), (1, 1), [1], 0.95)
    (unsure,) = at_equal_joules((Price(0, 3), _curve(big)), (Price(0, 1), _curve(small)), (0.75, 1.5), [1], 0.95)
    assert unsure.num_other == (3, 2, 4)
    assert sure.difference is not None
    assert unsure.difference is not None
    assert unsure.difference.value == sure.difference.value
    assert unsure.difference.low < sure.difference.low
    assert unsure.difference.high >= sure.difference.high


def test_what_was_not_sampled_or_can_not_be_paid_is_not_compared() -> None:
    one = [[0.5, 0.6]]
    (beyond,) = at_equal_joules((Price(0, 3), _curve(one)), (Price(0, 1), _curve(one)), (1, 1), [1], 0.95)
    assert beyond.difference is None
    assert "3 samples" in beyond.reason
    (dear,) = at_equal_joules((Price(0, 1), _curve(one)), (Price(0, 3), _curve(one)), (1, 1), [1], 0.95)
    assert dear.difference is None
    assert "paid" in dear.reason


def _budget(joules: float, value: float, half: float = 0.01) -> Budget:
    return Budget(joules, 1, (1, 1, 1), Interval(value, value - half, value + half))


def test_a_ranking_is_reversed_only_if_both_sides_of_it_are_shown() -> None:
    worse = Interval(-0.1, -0.15, -0.05)
    assert is_reversed(worse, [_budget(1, -0.1), _budget(2, 0.1)])
    assert not is_reversed(worse, [_budget(2, 0.1, half=0.2)])
    assert not is_reversed(Interval(-0.1, -0.3, 0.1), [_budget(2, 0.1)])
    assert not is_reversed(worse, [Budget(2, 1, (0, 0, 0), None, "not one sample can be paid")])


def test_crossovers_are_where_the_sign_changes() -> None:
    assert crossovers([_budget(1, -0.1), _budget(2, 0.0), _budget(3, 0.2), _budget(4, -0.1)]) == [3, 4]
    assert crossovers([_budget(1, 0.1), Budget(2, 1, (0, 0, 0), None), _budget(3, 0.2)]) == []


def test_pairs_are_of_the_same_questions() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        paired_difference([0.1, 0.2], [0.1])
