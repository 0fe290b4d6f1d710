from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from compressbench.core import selection
from compressbench.core.selection import best_of_accuracy, majority_accuracy, voted


def _vote_by_hand(answers: tuple[int, ...]) -> int:
    votes = Counter(each for each in answers if each != -1)
    if not votes:
        return -1
    most = max(votes.values())
    return next(each for each in answers if votes.get(each) == most)


@pytest.mark.parametrize(
    ("num_right", "wrong", "num_blank"),
    [(2, [2, 1], 0), (1, [1, 1, 1], 1), (3, [2], 1), (0, [2, 2], 1), (2, [], 2), (1, [3], 0), (2, [2, 2], 0)],
)
def test_the_expected_vote_is_the_mean_over_all_orders_of_all_choices(
    num_right: int, wrong: list[int], num_blank: int
) -> None:
    answers = [0] * num_right + [at for at, n in enumerate(wrong, 1) for _ in range(n)] + [-1] * num_blank
    ks = range(1, len(answers) + 1)
    by_hand = []
    for k in ks:
        orders = list(itertools.permutations(answers, k))
        by_hand.append(sum(_vote_by_hand(order) == 0 for order in orders) / len(orders))
    assert majority_accuracy(num_right, wrong, num_blank, list(ks)) == pytest.approx(by_hand, abs=1e-12)


def test_a_vote_of_one_or_of_two_is_right_as_often_as_a_sample() -> None:
    assert majority_accuracy(5, [3, 2], 0, [1, 2]) == pytest.approx([0.5, 0.5])


def test_many_samples_are_drawn_and_agree_with_the_exact_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = majority_accuracy(10, [8, 6, 4], 2, [1, 4, 16])
    monkeypatch.setattr(selection, "MOST_EXACT", 1)
    monkeypatch.setattr(selection, "NUM_DRAWS", 4000)
    drawn = majority_accuracy(10, [8, 6, 4], 2, [1, 4, 16])
    assert drawn == pytest.approx(exact, abs=0.03)
    assert drawn != exact


def test_the_first_of_equally_common_answers_is_voted_and_no_answer_has_no_vote() -> None:
    assert voted([2, 1, 1, 2], blank=-1) == 2
    assert voted([-1, -1, 3], blank=-1) == 3
    assert voted([-1], blank=-1) == -1


def test_best_of_k_is_the_mean_over_all_choices() -> None:
    chance = random.Random(1)
    for _ in range(30):
        scores = [chance.choice([0.1, 0.2, 0.3, 0.4]) for _ in range(6)]
        right = [chance.random() < 0.5 for _ in range(6)]
        for k in (1, 2, 3, 6):
            orders = list(itertools.permutations(range(6), k))
            first_best = [max(order, key=lambda at: scores[at]) for order in orders]  # max keeps the first
            by_hand = sum(right[at] for at in first_best) / len(orders)
            assert best_of_accuracy(scores, right, [k]) == pytest.approx([by_hand], abs=1e-12)


@pytest.mark.parametrize("k", [0, 5])
def test_no_more_can_be_chosen_than_was_drawn(k: int) -> None:
    with pytest.raises(ValueError, match="majority"):
        majority_accuracy(2, [2], 0, [k])
    with pytest.raises(ValueError, match="best"):
        best_of_accuracy([0.1] * 4, [True] * 4, [k])
