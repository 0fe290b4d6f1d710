"""The spread of repetitions is that between rounds, which are independent, and not between their blocks."""

from __future__ import annotations

import pytest

from compressbench.core.statistics import Interval, mean_interval
from compressbench.report.bounded import of_rounds


def test_an_overall_rate_has_the_students_interval_of_its_rounds() -> None:
    found = of_rounds([10, 10, 20, 20], [1.0, 1.0, 2.5, 2.5], [0, 0, 1, 1])
    expected = mean_interval([10.0, 8.0])
    assert isinstance(found, Interval)
    assert found.value == pytest.approx(60 / 7)
    assert found.high - found.value == pytest.approx((expected.high - expected.low) / 2)
    assert found.value - found.low == pytest.approx((expected.high - expected.low) / 2)


def test_measuring_the_same_round_in_smaller_blocks_makes_nothing_surer() -> None:
    whole = of_rounds([100, 90, 110], [1.0, 1.0, 1.0], [0, 1, 2])
    cut = of_rounds([25, 75, 45, 45, 60, 50], [0.25, 0.75, 0.5, 0.5, 0.6, 0.4], [0, 0, 1, 1, 2, 2])
    assert cut == pytest.approx(whole)


def test_one_round_alone_has_no_spread() -> None:
    assert of_rounds([10, 12], [1.0, 1.0], [3, 3]) == 11.0
