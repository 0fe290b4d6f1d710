from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import pytest

from compressbench.tasks.answer_filters import extracted, filtered, is_match
from compressbench.tasks.pass_at_k import pass_at_k

NASTY = [
    "", " ", "\n", "\n\n 5", "So 3 + 4 = 7.\n#### 7", "#### -1,234.50", "####7", "#### ", "#### seven", "#### 1 #### 2",
    "The answer is $18.", "18", "7", "-3", "- 3", "costs $1,000,000.00!", "1/2", "3.14159", "...", "$", ",", "$$", "-",
    "1e6", "٣", "answer: 12%\nQuestion: 13", "x=-0.5,y=.25", "#### 12.\n", "no number at all", "1,2,3", "5 apples and 6",
    "\t 42 \r\n", "(7)", "####\t9", "#### 08", "Ünïcode 5€", "İI", "9" * 50,
]  # fmt: skip
GSM8K_IGNORED = (",", "\\$", "(?s).*#### ", "\\.$")


@pytest.fixture(scope="module")
def harness() -> dict[str, Any]:
    pytest.importorskip("lm_eval")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from lm_eval.api.metrics import exact_match_hf_evaluate
        from lm_eval.filters.extraction import RegexFilter
    return {"filter": RegexFilter, "exact_match": exact_match_hf_evaluate}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gsm8k-strict", {"regex_pattern": "#### (\\-?[0-9\\.\\,]+)"}),
        ("gsm8k-flexible", {"regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)", "group_select": -1}),
    ],
)
def test_the_filters_of_gsm8k_find_what_the_harness_finds(
    harness: dict[str, Any], name: str, options: dict[str, Any]
) -> None:
    expected = harness["filter"](**options).apply([NASTY], [{}])[0]
    assert [filtered(name, text) for text in NASTY] == expected
    assert {"[invalid]", "7"} < set(expected)


@pytest.mark.parametrize(
    ("pattern", "which"),
    [(r"(\d)", 0), (r"(\d)|([a-z]+)", -1), (r"\S+", 0), (r"(x)?(y)?", 0), (r"\s*", 0), (r"([A-Z])", 0)],
)
def test_a_regex_of_ones_own_finds_what_the_harness_finds(harness: dict[str, Any], pattern: str, which: int) -> None:
    expected = harness["filter"](regex_pattern=pattern, group_select=which).apply([NASTY], [{}])[0]
    assert [extracted(pattern, which, text) for text in NASTY] == expected


def test_a_match_that_is_not_there_is_no_answer() -> None:
    assert extracted(r"\d", 1, "1 and 2") == "2"
    assert extracted(r"\d", 2, "1 and 2") == "[invalid]"
    assert extracted(r"\d", -3, "1 and 2") == "[invalid]"


@pytest.mark.parametrize("ignored", [(), GSM8K_IGNORED])
@pytest.mark.parametrize("ignore_case", [False, True])
def test_answers_are_compared_as_the_harness_compares_them(
    harness: dict[str, Any], ignored: tuple[str, ...], ignore_case: bool
) -> None:
    pairs = [*itertools.product(NASTY, NASTY), ("Yes", "yes"), ("$1,000", "so #### 1000."), ("a", "A ")]
    expected = [
        bool(
            harness["exact_match"](
                predictions=[prediction],
                references=[target],
                regexes_to_ignore=ignored or None,
                ignore_case=ignore_case,
            )["exact_match"]
        )
        for prediction, target in pairs
    ]
    assert [is_match(*pair, ignored, ignore_case) for pair in pairs] == expected
    assert sum(expected) > len(NASTY) - 1


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("none", " a b \n", "a b"),
        ("first-line", "\n  Paris \nQuestion", "Paris"),
        ("first-line", " \n", ""),
        ("gsm8k-strict", "3 + 4 = 7\n#### 7", "7"),
        ("gsm8k-flexible", "3 + 4 = 7", "7"),
    ],
)
def test_each_filter_finds_its_answer(name: str, text: str, answer: str) -> None:
    assert filtered(name, text) == answer


@pytest.mark.parametrize("num_samples", [1, 2, 5, 8])
def test_pass_at_k_is_the_share_of_choices_with_a_right_one(num_samples: int) -> None:
    for num_right, k in itertools.product(range(num_samples + 1), range(1, num_samples + 1)):
        right = [at < num_right for at in range(num_samples)]
        choices = list(itertools.combinations(right, k))
        expected = sum(map(any, choices)) / len(choices)
        assert pass_at_k(num_samples, num_right, k) == pytest.approx(expected, abs=1e-15)


def test_pass_at_k_is_unbiased() -> None:
    p, n, k = 0.3, 6, 3
    mean = sum(math.comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1))
    assert mean == pytest.approx(1 - (1 - p) ** k)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)])
def test_counts_that_can_not_be_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="no pass@"):
        pass_at_k(n, c, k)
