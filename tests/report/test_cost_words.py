"""Short words for numbers, and which number of these rows each of them means."""

from __future__ import annotations

import front_parts as parts
import pytest

from compressbench.core.errors import UnknownNameError
from compressbench.report.cost_words import full_name, names_for
from compressbench.report.figures import Figure

ROW = parts.contender(
    "int8",
    {
        "perplexity@a": Figure(20.0),
        "acc": parts.score(0.01, 0.005),
        "perplexity@b": Figure(30.0),
        "energy_j_per_inference": Figure(None, reason="not asked"),
        "energy_j_per_output_token": Figure(0.1),
    },
    metrics=("perplexity@a", "acc", "perplexity@b"),
)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("latency", "latency_p50_s"),
        ("p99", "latency_p99_s"),
        ("size", "disk_bytes"),
        ("memory", "peak_memory_bytes"),
        ("throughput", "throughput_per_s"),
        ("energy", "energy_j_per_output_token"),
        ("accuracy", "acc"),
        ("perplexity", "perplexity@a"),
        ("perplexity@b", "perplexity@b"),
        ("disk_bytes", "disk_bytes"),
    ],
)
def test_a_word_means_the_number_that_the_rows_have(word: str, name: str) -> None:
    assert full_name(word, [ROW]) == name


def test_a_word_that_means_nothing_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'latency'"):
        full_name("latancy", [ROW])
    with pytest.raises(UnknownNameError, match="no such number"):
        full_name("rouge", [ROW])


def test_all_names_that_words_may_stand_for_are_read() -> None:
    assert names_for(["accuracy", "energy", "energy_j_per_inference"]) == [
        "accuracy", "energy_j_per_inference", "energy_j_per_output_token",
    ]  # fmt: skip
