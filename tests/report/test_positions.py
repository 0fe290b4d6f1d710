"""Where rows stand: on one scale, the less the better, with the errors that their intervals have."""

from __future__ import annotations

import math
from typing import Any

import pytest

from compressbench.report.figures import Contender, Figure
from compressbench.report.positions import Position, standing, why_not_ranked

Z = 1.959963984540054


def contender(candidate: str = "x", *, baseline_id: str = "b", name: str = "m", **figure: Any) -> Contender:
    role = "baseline" if candidate == "baseline" else "candidate"
    figures = {name: Figure(**figure)} if figure else {}
    faults, unsteady = figure.pop("faults", ()), figure.pop("unsteady", ())
    return Contender(
        0, "r", candidate, role, "ok", "run", "model", "", "key", baseline_id, ("acc",), faults, unsteady, figures
    )


def with_(found: Contender, **changed: Any) -> Contender:
    return found._replace(**changed)


LATENCY: dict[str, Any] = {"value": 1.0, "low": 0.9, "high": 1.1}


def test_costs_of_one_baseline_stand_as_logarithms_of_their_ratios() -> None:
    base = contender("baseline", **LATENCY)
    fast = contender(value=0.5, ratio=0.5, ratio_low=0.5 / 1.1, ratio_high=0.5 * 1.1, noise=0.0)
    found = standing([base, fast], "m")
    assert found.scale == "against the baseline"
    assert found.positions[0] == Position(0.0, 0.0)
    assert found.positions[1] == pytest.approx((math.log(0.5), math.log(1.1) / Z))


def test_noise_is_the_least_error_of_a_ratio() -> None:
    noisy = contender(value=0.5, ratio=0.5, ratio_low=0.499, ratio_high=0.501, noise=0.05)
    assert standing([noisy], "m").positions[0].error == pytest.approx(math.log1p(0.05) / Z)
    counted = contender(value=0.5, ratio=0.5, ratio_low=0.5, ratio_high=0.5)
    assert standing([counted], "m").positions[0] == pytest.approx((math.log(0.5), 0.0))


def test_the_less_the_better_whatever_the_direction() -> None:
    fast = contender(value=2.0, ratio=2.0, ratio_low=1.9, ratio_high=2.1, direction="higher")
    assert standing([fast], "m").positions[0].value == pytest.approx(-math.log(2))
    right = contender(
        name="acc", value=0.9, difference=0.02, difference_low=0.01, difference_high=0.03, ratio=1.02, ratio_low=1.01,
        ratio_high=1.03, direction="higher",
    )  # fmt: skip
    assert standing([right], "acc").positions[0] == pytest.approx((-0.02, 0.01 / Z))
    surprised = contender(
        name="acc", value=30.0, difference=3.0, difference_low=2.0, difference_high=4.0, ratio=1.1, ratio_low=1.05,
        ratio_high=1.15, is_log=True,
    )  # fmt: skip
    assert standing([surprised], "acc").positions[0].value == pytest.approx(math.log(1.1))


def test_rows_of_different_baselines_stand_by_their_own_values() -> None:
    one = contender("a", **LATENCY, ratio=0.5, ratio_low=0.4, ratio_high=0.6)
    other = contender("b", baseline_id="c", value=2.0, low=1.8, high=2.2, ratio=0.4, ratio_low=0.3, ratio_high=0.5)
    found = standing([one, other], "m")
    assert found.scale == "absolute"
    assert found.positions[0] == pytest.approx((0.0, math.log(1.1 / 0.9) / 2 / Z))
    assert found.positions[1].value == pytest.approx(math.log(2))


def test_one_that_was_not_paired_makes_all_stand_by_their_own_values() -> None:
    found = standing(
        [contender("a", **LATENCY, ratio=0.5, ratio_low=0.4, ratio_high=0.6), contender("b", **LATENCY)], "m"
    )
    assert found.scale == "absolute"
    assert set(found.positions) == {0, 1}


def test_a_baseline_stands_on_the_scale_of_its_candidates() -> None:
    """Its figure has no verdict that says it is on a log scale; theirs have."""
    base = contender("baseline", name="acc", value=27.0, low=26.0, high=28.0)
    other = contender("b", baseline_id="c", name="acc", value=27.0, low=26.0, high=28.0, is_log=True)
    found = standing([base, other], "acc")
    assert found.positions[0] == found.positions[1] == pytest.approx((math.log(27), math.log(28 / 26) / 2 / Z))


def test_a_metric_without_an_interval_is_not_taken_for_exact() -> None:
    one = contender("a", name="acc", value=0.9)
    other = contender("b", baseline_id="c", name="acc", value=0.8, low=0.7, high=0.9)
    found = standing([one, other], "acc")
    assert found.absent == {0: "it has no interval"}
    assert set(found.positions) == {1}


def test_counted_costs_are_exact_in_any_run() -> None:
    sizes = [
        contender("a", name="disk_bytes", value=2.0),
        contender("b", baseline_id="c", name="disk_bytes", value=3.0),
    ]
    found = standing(sizes, "disk_bytes")
    assert found.positions == {0: Position(2.0, 0.0), 1: Position(3.0, 0.0)}
    zeros = [
        contender("a", name="sparsity", value=0.0, direction="higher"),
        contender("b", baseline_id="c", name="sparsity", value=0.5, direction="higher"),
    ]
    assert standing(zeros, "sparsity").positions[1].value < standing(zeros, "sparsity").positions[0].value


def test_a_cost_that_is_not_above_zero_has_no_logarithm() -> None:
    one, other = contender("a", value=0.0, low=0.0, high=0.0), contender("b", baseline_id="c", **LATENCY)
    assert standing([one, other], "m").absent == {0: "it is not above zero (got 0)"}
    below = contender("a", value=0.1, low=-0.1, high=0.3)
    assert "not above zero" in standing([below, other], "m").absent[0]


def test_every_row_stands_or_says_why_not() -> None:
    rows = [
        contender("baseline", value=None, reason="lost"),
        contender("a", value=None, reason="the meter failed"),
        contender("b"),
        with_(contender("c", **LATENCY), faults=("failed: x",)),
        with_(contender("d", **LATENCY), unsteady=("contended",)),
        contender("e", value=0.5, ratio=0.5, ratio_low=0.4, ratio_high=0.6),
        contender("f", value=None),
    ]
    found = standing(rows, "m")
    assert found.absent == {
        1: "the meter failed", 2: "it has no m", 3: "failed: x", 4: "contended", 6: "it was not recorded",
    }  # fmt: skip
    assert set(found.positions) == {0, 5}
    absolute = standing([*rows, contender("g", baseline_id="c", **LATENCY)], "m")
    assert set(absolute.absent) | set(absolute.positions) == set(range(8))
    assert absolute.absent[0] == "lost"


def test_a_contended_row_keeps_its_score_and_size() -> None:
    shaky = with_(contender(name="acc", value=0.9, low=0.8, high=0.95), unsteady=("contended",))
    assert why_not_ranked(shaky, "acc") == ""
    assert why_not_ranked(with_(contender(name="disk_bytes", value=1.0), unsteady=("contended",)), "disk_bytes") == ""
    assert why_not_ranked(with_(contender(**LATENCY), unsteady=("contended",)), "m") == "contended"


def test_nobody_stands_nowhere() -> None:
    assert standing([], "m") == ("against the baseline", {}, {})
