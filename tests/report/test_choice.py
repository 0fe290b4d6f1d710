"""Which of those that qualify: the best as far as it can be told, and never one that isn't shown to beat the baseline."""

from __future__ import annotations

import math

import pytest
from contender_builder import contender, cost, counted, score
from scipy import stats
from statsmodels.stats.multitest import multipletests

from compressbench.report.choice import choose, field_of, two_sided_p
from compressbench.report.figures import Contender, Figure
from compressbench.report.positions import Position

LATENCY = "latency_p50_s"


def people(*ratios: tuple[str, float, float], losses: dict[str, float] | None = None) -> list[Contender]:
    """A baseline and candidates of a latency ratio between ratio / times and ratio * times."""
    found = [contender("baseline", {LATENCY: cost(10.0, 0.1), "accuracy": Figure(0.9, direction="higher")})]
    for at, (name, ratio, times) in enumerate(ratios, start=1):
        loss = (losses or {}).get(name, 0.01)
        figures = {LATENCY: cost(10 * ratio, 0.1, ratio, times), "accuracy": score(0.9, -loss, 0.005)}
        found.append(contender(name, figures, at=at))
    return found


def names(contenders: list[Contender]) -> tuple[str, list[str], list[str]]:
    found = choose(field_of(contenders, LATENCY))
    assert found is not None
    return (
        contenders[found.deploy].candidate,
        [contenders[at].candidate for at in found.tied],
        [contenders[at].candidate for at in found.unproven],
    )


def test_the_fastest_is_deployed_where_intervals_are_apart() -> None:
    assert names(people(("a", 0.5, 1.01), ("b", 0.6, 1.01))) == ("a", [], [])


def test_overlapping_intervals_tie_and_the_smaller_loss_decides() -> None:
    field = people(("a", 0.50, 1.05), ("b", 0.52, 1.05), losses={"a": 0.02, "b": 0.01})
    assert names(field) == ("b", ["a"], [])
    assert names(people(("a", 0.50, 1.05), ("b", 0.52, 1.05), losses={"a": 0.01, "b": 0.02})) == ("a", ["b"], [])


def test_among_equal_losses_the_smaller_file_decides_and_then_the_recipe() -> None:
    field = people(("a", 0.5, 1.05), ("b", 0.5, 1.05))
    assert names(field)[0] == "a"
    sizes = [each._replace(figures={**each.figures, "disk_bytes": counted(9.0 - each.at)}) for each in field]
    assert names(sizes)[0] == "b"


def test_what_is_slower_than_the_baseline_is_never_the_answer() -> None:
    assert names(people(("a", 1.5, 1.01), ("b", 1.2, 1.01))) == ("baseline", [], ["a", "b"])


def test_what_can_not_be_told_from_the_baseline_is_not_worth_deploying() -> None:
    assert names(people(("a", 0.95, 1.2))) == ("baseline", [], ["a"])


def test_a_noisy_best_value_does_not_hide_a_sure_improvement() -> None:
    """a has the best value and may be no better than the baseline; b surely is."""
    assert names(people(("a", 0.5, 2.5), ("b", 0.6, 1.02))) == ("b", [], ["a"])


def test_without_the_baseline_the_best_candidate_leads() -> None:
    field = field_of(people(("a", 1.5, 1.01), ("b", 1.2, 1.01)), LATENCY)
    found = choose(field, without=[0])
    assert found is not None
    assert field.contenders[found.deploy].candidate == "b"
    assert choose(field, without=[0, 1, 2]) is None


def test_a_disturbed_baseline_still_stands_for_doing_nothing() -> None:
    first, *others = people(("a", 1.3, 1.01))
    assert names([first._replace(unsteady=("contended",)), *others])[0] == "baseline"


def test_ties_are_those_of_a_z_test_adjusted_after_holm() -> None:
    ratios = [0.50, 0.512, 0.517, 0.522, 0.53]
    times = 1.03
    error = math.log(times) / 1.959963984540054
    z = [math.log(ratio / ratios[0]) / math.hypot(error, error) for ratio in ratios[1:]]
    p_values = [2 * stats.norm.sf(each) for each in z]
    differs = multipletests(p_values, 0.05, "holm")[0]
    assert 0 < sum(differs) < len(differs)
    field = people(*((f"c{at}", ratio, times) for at, ratio in enumerate(ratios)))
    deploy, tied, _ = names(field)
    assert {deploy, *tied} == {"c0", *(f"c{at}" for at, is_other in enumerate(differs, start=1) if not is_other)}


@pytest.mark.parametrize(("other", "p"), [(1.0, 1.0), (1.1, 0.0)])
def test_what_was_counted_is_equal_or_not(other: float, p: float) -> None:
    assert two_sided_p(Position(1.0, 0.0), Position(other, 0.0)) == p


def test_a_number_that_is_none_has_no_place() -> None:
    first, second = people(("a", 0.5, 1.01))
    odd = second._replace(at=2, candidate="b", figures={LATENCY: cost(math.inf, 0, math.inf, 1.0)})
    field = field_of([first, second, odd], LATENCY)
    assert field.absent == {2: "its value or its interval is no sound number"}


def test_what_a_table_calls_the_same_is_not_deployed_as_better() -> None:
    baseline, faster = people(("a", 0.994, 1.0005))
    same = faster._replace(figures={name: each._replace(verdict="same") for name, each in faster.figures.items()})
    assert names([baseline, faster])[0] == "a"
    assert names([baseline, same])[0] == "baseline"
