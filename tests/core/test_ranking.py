"""Rank intervals and group letters against brute force, hand cases and simulated truth."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from statsmodels.stats.multitest import multipletests

from compressbench.core.ranking import (
    MOST_GROUPS,
    MOST_PAIRED,
    RankInterval,
    better_rows,
    group_letters,
    joint_z,
    letter,
    rank_intervals,
    rank_method,
    ranking,
    written,
)
from compressbench.core.statistics import normal_quantile, normal_upper_tail


def draw(rng: random.Random, num_rows: int, spread: float) -> tuple[list[float], list[float]]:
    return [rng.gauss(0, spread) for _ in range(num_rows)], [rng.choice([0.0, 0.1, 0.5]) for _ in range(num_rows)]


def differences_of(num_rows: int, pairs: set[tuple[int, int]]) -> list[int]:
    found = [0] * num_rows
    for i, j in pairs:
        found[i] |= 1 << j
        found[j] |= 1 << i
    return found


def random_pairs(rng: random.Random, num_rows: int, share: float) -> set[tuple[int, int]]:
    return {pair for pair in itertools.combinations(range(num_rows), 2) if rng.random() < share}


def largest_sets(num_rows: int, pairs: set[tuple[int, int]]) -> set[frozenset[int]]:
    """All maximal sets without a differing pair, by trying every subset."""
    alike = [
        frozenset(rows)
        for size in range(1, num_rows + 1)
        for rows in itertools.combinations(range(num_rows), size)
        if not any(pair in pairs for pair in itertools.combinations(rows, 2))
    ]
    return {rows for rows in alike if not any(rows < other for other in alike)}


def test_rows_far_apart_have_one_rank_each_and_overlapping_ones_share_theirs() -> None:
    assert rank_intervals([3.0, 1.0, 2.0], [0.01] * 3) == [(3, 3), (1, 1), (2, 2)]
    assert rank_intervals([3.0, 1.0, 2.0], [5.0] * 3) == [(1, 3)] * 3
    found = ranking([1.0, 1.1, 9.0], [0.2, 0.2, 0.2])
    assert found.intervals == [(1, 2), (1, 2), (3, 3)]
    assert found.letters == [("a",), ("a",), ("b",)]
    assert rank_intervals([], []) == []
    assert ranking([7.0], [1.0]) == ("pairwise tests", [RankInterval(1, 1)], [("a",)])


def test_exact_values_are_compared_and_equal_ones_tie() -> None:
    found = ranking([4.0, 2.0, 2.0, 1.0], [0.0] * 4)
    assert found.intervals == [(4, 4), (2, 3), (2, 3), (1, 1)]
    assert found.letters == [("c",), ("b",), ("b",), ("a",)]
    # two exact rows that an uncertain third can't be told from
    assert ranking([1.0, 1.1, 1.05], [0.0, 0.0, 1.0]).letters == [("a",), ("b",), ("a", "b")]


def test_two_rows_differ_where_holm_of_all_z_tests_says_so() -> None:
    rng = random.Random(4)
    for _ in range(30):
        values, errors = draw(rng, 9, 1.0)
        pairs = [
            (i, j) for i, j in itertools.combinations(range(9), 2) if math.hypot(errors[i], errors[j]) > 0
        ]  # fmt: skip
        p = [2 * normal_upper_tail(abs(values[i] - values[j]) / math.hypot(errors[i], errors[j])) for i, j in pairs]
        rejected = multipletests(p, 0.05, "holm")[0]
        expected = {pair for pair, is_rejected in zip(pairs, rejected, strict=True) if is_rejected}
        expected |= {
            pair
            for pair in itertools.combinations(range(9), 2)
            if errors[pair[0]] == errors[pair[1]] == 0 and values[pair[0]] != values[pair[1]]
        }
        better = better_rows(values, errors)
        found = {(i, j) for i, j in itertools.combinations(range(9), 2) if (better[i] >> j | better[j] >> i) & 1}
        assert found == expected
        assert all(values[j] < values[i] for i in range(9) for j in range(9) if better[i] >> j & 1)
        assert rank_intervals(values, errors) == [
            (1 + bits.bit_count(), 9 - sum(other >> at & 1 for other in better)) for at, bits in enumerate(better)
        ]


def test_many_rows_are_ranked_by_the_bounds_that_lie_below_theirs() -> None:
    num_rows = MOST_PAIRED + 100
    values, errors = draw(random.Random(5), num_rows, 3.0)
    values[:10] = [0.25] * 10
    found = ranking(values, errors)
    z = normal_quantile(1 - 0.05 / 2 / sum(error > 0 for error in errors))  # Bonferroni's, hardly wider
    assert joint_z(sum(error > 0 for error in errors)) == pytest.approx(z, abs=0.01)
    z = joint_z(sum(error > 0 for error in errors))
    lows = [value - z * error for value, error in zip(values, errors, strict=True)]
    highs = [value + z * error for value, error in zip(values, errors, strict=True)]
    expected = [
        (1 + sum(high < lows[at] for high in highs), num_rows - sum(low > highs[at] for low in lows))
        for at in range(num_rows)
    ]
    assert (found.method, found.intervals) == ("joint intervals", expected)
    assert rank_intervals(values, errors) == expected
    assert found.letters == [()] * num_rows
    assert [rank_method(MOST_PAIRED), rank_method(MOST_PAIRED + 1)] == ["pairwise tests", "joint intervals"]


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 0.95])
def test_two_rows_share_a_letter_exactly_if_they_do_not_differ(share: float) -> None:
    rng = random.Random(f"letters {share}")
    for num_rows in [1, 2, 3, 5, 8, 11] * 4:
        pairs = random_pairs(rng, num_rows, share)
        order = rng.sample(range(num_rows), num_rows)
        letters = group_letters(differences_of(num_rows, pairs), order)
        for i, j in itertools.combinations(range(num_rows), 2):
            assert bool(set(letters[i]) & set(letters[j])) == ((i, j) not in pairs)
        names = dict.fromkeys(name for row in letters for name in row)
        sets = {frozenset(at for at in range(num_rows) if name in letters[at]) for name in names}
        assert sets == largest_sets(num_rows, pairs)
        assert len(sets) == len(names)
        assert letters[order[0]][0] == "a"


def test_letters_of_more_rows_share_as_they_should() -> None:
    rng = random.Random(6)
    values, errors = [rng.gauss(0, 1) for _ in range(MOST_PAIRED)], [rng.uniform(0, 0.4) for _ in range(MOST_PAIRED)]
    better, letters = better_rows(values, errors), ranking(values, errors).letters
    for i, j in itertools.combinations(range(MOST_PAIRED), 2):
        assert bool(set(letters[i]) & set(letters[j])) == (not (better[i] >> j | better[j] >> i) & 1)


def test_letters_stay_few_and_right_where_there_could_be_a_million() -> None:
    # each row differs from one other only: 2 ** 20 largest sets
    pairs = {(at, at + 1) for at in range(0, 40, 2)}
    letters = group_letters(differences_of(40, pairs))
    for i, j in itertools.combinations(range(40), 2):
        assert bool(set(letters[i]) & set(letters[j])) == ((i, j) not in pairs)
    assert len({name for row in letters for name in row}) < MOST_GROUPS


def test_after_z_comes_aa() -> None:
    assert [letter(number) for number in (0, 25, 26, 27, 51, 52, 701, 702)] == [
        "a", "z", "aa", "ab", "az", "ba", "zz", "aaa",
    ]  # fmt: skip
    found = ranking([float(at) for at in range(30)], [0.0] * 30).letters
    assert [found[0], found[25], found[26], found[29]] == [("a",), ("z",), ("aa",), ("ad",)]
    assert [written(("a", "c")), written(("z", "aa")), written(())] == ["ac", "z,aa", ""]


@pytest.mark.parametrize(
    ("values", "errors"),
    [([1.0], []), ([math.nan], [1.0]), ([math.inf], [0.0]), ([1.0], [-1.0]), ([1.0], [math.inf])],
)
def test_what_is_no_number_is_refused(values: list[float], errors: list[float]) -> None:
    with pytest.raises(ValueError, match="errors"):
        rank_intervals(values, errors)


@pytest.mark.parametrize(("gap", "error"), [(0.0, 1.0), (1.0, 1.0), (3.0, 1.0)])
def test_all_true_ranks_lie_in_their_intervals_at_least_95_times_in_100(gap: float, error: float) -> None:
    truth = [gap * (at // 2) for at in range(8)]  # in pairs of equal ones
    rng, num_trials = random.Random(f"coverage {gap}"), 800
    lows = [1 + sum(other < value for other in truth) for value in truth]
    highs = [8 - sum(other > value for other in truth) for value in truth]
    held = wide = 0
    for _ in range(num_trials):
        found = rank_intervals([rng.gauss(value, error) for value in truth], [error] * 8)
        held += all(each.low <= low and high <= each.high for each, low, high in zip(found, lows, highs, strict=True))
        wide += sum(each.high - each.low for each in found)
    # three standard errors of a share of 95 % below it
    assert held / num_trials >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / num_trials)
    # and they say something where there is something to say
    assert gap < 3 or wide / num_trials / 8 < 4


def test_the_ranks_of_a_long_table_hold_together_too() -> None:
    rng, num_trials, num_rows = random.Random("long"), 200, MOST_PAIRED + 50
    held = sum(
        rank_intervals([rng.gauss(0, 1) for _ in range(num_rows)], [1.0] * num_rows) == [(1, num_rows)] * num_rows
        for _ in range(num_trials)
    )
    assert held / num_trials >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / num_trials)
    assert joint_z(1) == pytest.approx(1.959963984540054)
