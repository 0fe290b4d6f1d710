from __future__ import annotations

import functools
import sys

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressbench.core.errors import MissingDependencyError
from compressbench.tasks.speech_recognition import SpeechRecognition
from compressbench.tasks.word_errors import count_word_errors

WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=6)


def distance(one: tuple[str, ...], two: tuple[str, ...]) -> int:
    """Levenshtein's, by its definition."""

    @functools.cache
    def upto(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        replaced = upto(i - 1, j - 1) + (one[i - 1] != two[j - 1])
        return min(replaced, upto(i - 1, j) + 1, upto(i, j - 1) + 1)

    return upto(len(one), len(two))


@given(WORDS, WORDS)
def test_errors_are_the_fewest_edits_of_words(reference: list[str], hypothesis: list[str]) -> None:
    found = count_word_errors(" ".join(reference), " ".join(hypothesis))
    assert found == (distance(tuple(reference), tuple(hypothesis)), len(reference))


@given(st.lists(st.tuples(WORDS.filter(bool), WORDS), min_size=1, max_size=5))
def test_sums_of_errors_over_sums_of_words_are_jiwers_rate(texts: list[tuple[list[str], list[str]]]) -> None:
    said, heard = ([" ".join(words) for words in side] for side in zip(*texts, strict=True))
    counts = [count_word_errors(*each) for each in zip(said, heard, strict=True)]
    rate = sum(each.num_errors for each in counts) / sum(each.num_words for each in counts)
    assert rate == pytest.approx(jiwer.wer(said, heard), abs=1e-12)


def test_the_extra_is_named_where_jiwer_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(MissingDependencyError, match=r"compressbench\[speech\]"):
        SpeechRecognition(data="embedded:banking77").check()
