"""One answer of several: how often it is right if k of n samples are drawn, by majority vote or by the best score.

Both are unbiased: the mean over all choices of k among the n samples in all orders, as pass@k is (arXiv:2107.03374).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

MOST_EXACT = 32
"""Up to so many samples the mean over all choices is exact, above it is that over NUM_DRAWS drawn ones."""

NUM_DRAWS = 500
_Answer = TypeVar("_Answer", int, str)


def majority_accuracy(num_right: int, wrong: Sequence[int], num_blank: int, ks: Sequence[int]) -> list[float]:
    """For each k the probability that the commonest answer of k samples is the right one.

    `num_right` samples have it; `wrong` counts those of each wrong answer; `num_blank` have no answer and no vote. Of
    answers that are equally common the one that was drawn first is taken, so that each of them is with equal probability.
    Raises ValueError unless 1 <= k <= n.
    """
    count = num_right + sum(wrong) + num_blank
    if not all(1 <= k <= count for k in ks):
        raise ValueError(f"no majority of {list(ks)} among {count}")
    if count <= MOST_EXACT:
        return list(_exact(num_right, tuple(sorted(wrong)), num_blank, tuple(ks)))
    return _drawn(num_right, wrong, num_blank, ks)


@lru_cache(maxsize=4096)
def _exact(num_right: int, wrong: tuple[int, ...], num_blank: int, ks: tuple[int, ...]) -> tuple[float, ...]:
    """Choices are counted by how often the right answer is among them."""
    count = num_right + sum(wrong) + num_blank
    found = [0.0] * len(ks)
    for times in range(1, num_right + 1):
        others = _choices(wrong, num_blank, times)
        for at, k in enumerate(ks):
            ways = sum(number / (1 + ties) for ties, number in others.get(k - times, {}).items())
            found[at] += math.comb(num_right, times) * ways / math.comb(count, k)
    return tuple(found)


def _choices(wrong: Sequence[int], num_blank: int, most: int) -> dict[int, dict[int, int]]:
    """By size and by how many wrong answers are in it `most` times, the choices in which none is more often."""
    found = {size: {0: math.comb(num_blank, size)} for size in range(num_blank + 1)}
    for group in wrong:
        grown: dict[int, dict[int, int]] = {}
        for size, by_ties in found.items():
            for ties, number in by_ties.items():
                for taken in range(min(group, most) + 1):
                    place = grown.setdefault(size + taken, {})
                    key = ties + (taken == most)
                    place[key] = place.get(key, 0) + number * math.comb(group, taken)
        found = grown
    return found


def _drawn(num_right: int, wrong: Sequence[int], num_blank: int, ks: Sequence[int]) -> list[float]:
    answers = [0] * num_right + [at for at, group in enumerate(wrong, start=1) for _ in range(group)]
    answers += [-1] * num_blank
    chance = random.Random(f"{num_right}:{sorted(wrong)}:{num_blank}")  # noqa: S311 -- statistics, no secret
    hits = [0] * len(ks)
    for _ in range(NUM_DRAWS):
        order = chance.sample(answers, len(answers))
        for at, k in enumerate(ks):
            hits[at] += voted(order[:k], blank=-1) == 0
    return [each / NUM_DRAWS for each in hits]


def voted(answers: Sequence[_Answer], blank: _Answer) -> _Answer:
    """The commonest answer, of equally common ones the first; `blank` only where nothing else is there."""
    votes = Counter(answer for answer in answers if answer != blank)
    return votes.most_common(1)[0][0] if votes else blank


def best_of_accuracy(scores: Sequence[float], is_right: Sequence[bool], ks: Sequence[int]) -> list[float]:
    """For each k the probability that the best scored of k samples is right; of equally good ones the first drawn is taken.

    Raises ValueError unless 1 <= k <= n.
    """
    count = len(scores)
    if not all(1 <= k <= count for k in ks):
        raise ValueError(f"no best of {list(ks)} among {count}")
    groups: dict[float, list[bool]] = {}
    for score, right in zip(scores, is_right, strict=True):
        groups.setdefault(score, []).append(right)
    found = [0.0] * len(ks)
    left = count
    for score in sorted(groups, reverse=True):
        members = groups[score]
        for at, k in enumerate(ks):
            # all k from this group and what is worse, less all k from what is worse
            ways = math.comb(left, k) - math.comb(left - len(members), k)
            found[at] += ways / math.comb(count, k) * sum(members) / len(members)
        left -= len(members)
    return found
