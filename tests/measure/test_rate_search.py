"""The order in which rates are tried, against thresholds that are known."""

from __future__ import annotations

import math
import random

import pytest

from compressbench.measure.rate_search import RateSearch, first_from_above, highest_where


def searched(search: RateSearch, threshold: float) -> list[float]:
    tried: list[float] = []
    while (rate := search.next_rate) is not None:
        tried.append(rate)
        search.tell(rate <= threshold)
        assert len(tried) < 60
    return tried


@pytest.mark.parametrize("resolution", [0.01, 0.02, 0.05])
def test_the_rate_where_keeping_ends_is_enclosed_as_narrowly_as_asked_for(resolution: float) -> None:
    draw = random.Random(0)
    for _ in range(300):
        threshold, guess = math.exp(draw.uniform(0, 6)), math.exp(draw.uniform(0, 6))
        search = RateSearch(guess, 0.5, resolution, (1 + resolution) ** draw.choice([1, 4]))
        searched(search, threshold)
        assert search.kept is not None
        assert search.not_kept is not None
        assert search.kept <= threshold < search.not_kept
        assert search.not_kept / search.kept <= 1 + resolution + 1e-9
        assert not search.is_hopeless


def test_a_good_guess_takes_few_trials() -> None:
    draw = random.Random(1)
    near = [searched(RateSearch(100.0, 1.0, 0.02, 1.02), 100 * draw.uniform(0.99, 1.02)) for _ in range(100)]
    assert max(map(len, near)) <= 3
    computed = [searched(RateSearch(100.0, 1.0, 0.02, 1.02**4), 100 * draw.uniform(0.88, 1.12)) for _ in range(100)]
    assert max(map(len, computed)) <= 6


def test_steps_grow_until_both_ends_are_found() -> None:
    tried = searched(RateSearch(10.0, 0.1, 0.05, 2.0), 1000.0)
    assert tried[:4] == pytest.approx([10, 20, 80, 1280])
    tried = searched(RateSearch(1000.0, 0.1, 0.05, 2.0), 10.0)
    assert tried[:4] == pytest.approx([1000, 500, 125, 125 / 16])


def test_where_not_even_the_floor_is_kept_the_search_ends_without_hope() -> None:
    search = RateSearch(10.0, 1.0, 0.02, 2.0)
    tried = searched(search, 0.5)
    assert tried[-1] == 1.0
    assert min(tried) == 1.0
    assert search.is_hopeless
    assert (search.kept, search.not_kept) == (None, 1.0)


def test_a_guess_below_the_floor_begins_at_the_floor() -> None:
    assert RateSearch(0.1, 5.0, 0.02, 2.0).next_rate == 5.0


def test_a_search_that_is_over_takes_no_more_answers() -> None:
    search = RateSearch(10.0, 10.0, 0.02, 2.0)
    search.tell(False)
    assert search.next_rate is None
    with pytest.raises(ValueError, match="over"):
        search.tell(True)


def test_the_highest_value_at_which_something_holds_is_found_to_within_the_resolution() -> None:
    draw = random.Random(2)
    for _ in range(200):
        threshold = math.exp(draw.uniform(0, 5))
        found = highest_where(lambda rate, end=threshold: rate <= end, 1.0, 200.0, 0.05)  # type: ignore[misc]
        assert found is not None
        assert found <= threshold < found * 1.05 * (1 + 1e-12)
    assert highest_where(lambda rate: rate < 1.0, 1.0, 200.0, 0.05) is None
    assert highest_where(lambda rate: rate < 1e9, 1.0, 200.0, 0.05) == pytest.approx(200, rel=0.05)


def test_from_above_a_rate_is_found_also_where_lower_ones_fail_again() -> None:
    assert first_from_above(lambda rate: 50 < rate < 60, 1.0, 200.0, 0.05) == pytest.approx(58.5, rel=0.03)
    assert first_from_above(lambda rate: rate < 1e9, 1.0, 200.0, 0.05) == 200.0
    assert first_from_above(lambda rate: rate < 1, 1.0, 200.0, 0.05) is None
