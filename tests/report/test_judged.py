"""The candidates of a run judged together, and the capability that lost most first."""

from __future__ import annotations

from typing import Any

import pytest
import record_builder as build

from compressbench.records.record import Record
from compressbench.records.score import Score, Stratum
from compressbench.report.rows import rows_of
from compressbench.report.words import cell_lines, columns


def score(stratum: str, lost: int, won: int, count: int = 1000, **changed: Any) -> Score:
    found = build.accuracy_after(lost, won, before=0.8, num_samples=count)
    return found.model_copy(
        update={"stratum": stratum, "label": f"{stratum}-task", "task": "multiple-choice", **changed}
    )


def run(*scores: Score) -> list[Record]:
    baseline = tuple(each.model_copy(update={"paired": None, "value": 0.8}) for each in scores)
    return build.run_of({"int8": build.record("int8", scores=scores)}, scores=baseline)


def test_a_small_mean_drop_that_hides_a_large_one_in_one_stratum_leads_with_the_latter() -> None:
    # -9 points of reasoning, +8 of the rest: the mean is -0.5
    rows = rows_of(run(score("knowledge", 10, 90), score("reasoning", 100, 10)))
    worst = rows[1].strata[0]
    mean = sum(rows[1].against_baseline[name].difference or 0.0 for name in rows[1].metrics) / 2
    assert mean == pytest.approx(-0.005)
    assert (worst.name, worst.verdict.verdict) == ("reasoning", "degraded")
    assert worst.verdict.difference == pytest.approx(-0.09)
    assert columns(rows)[0] == "worst_stratum"
    assert cell_lines(rows[1], "worst_stratum")[:2] == ["reasoning", "-9.00 degraded"]
    assert [each.name for each in rows[1].strata] == ["reasoning", "knowledge"]


def test_tasks_of_one_stratum_are_pooled_as_one_set_of_samples() -> None:
    rows = rows_of(run(score("reasoning", 10, 4, 400), score("reasoning", 20, 6, 600), score("language", 0, 0)))
    found = {each.name: each for each in rows[1].strata}
    whole = rows_of(run(score("reasoning", 30, 10, 1000), score("language", 0, 0)))[1].strata
    assert found["reasoning"].num_samples == 1000
    assert found["reasoning"].verdict == whole[0].verdict
    assert found["reasoning"].tasks == ("reasoning-task", "reasoning-task")


def test_samples_that_say_their_stratum_themselves_count_there() -> None:
    inner = {
        "knowledge": Stratum(num_samples=600, value=0.8, paired=build.counts(2, 2, 600)),
        "safety": Stratum(num_samples=400, value=0.7, paired=build.counts(40, 2, 400)),
    }
    rows = rows_of(run(score("knowledge", 42, 4, strata=inner)))
    assert [each.name for each in rows[1].strata] == ["safety", "knowledge"]
    assert rows[1].strata[0].verdict.difference == pytest.approx(-0.095)


def test_one_stratum_alone_leads_nothing() -> None:
    assert columns(rows_of(run(score("reasoning", 3, 1))))[0] == "accuracy"


def test_a_perplexity_stands_in_its_stratum_on_its_own() -> None:
    words = build.perplexity(22.0, paired=build.counts(50, 50, 100)).model_copy(update={"stratum": "language"})
    rows = rows_of(run(score("language", 1, 1), words))
    assert sorted(each.metric for each in rows[1].strata) == ["", "perplexity"]


def test_the_lower_perplexity_and_the_higher_accuracy_are_improvements() -> None:
    better = build.perplexity(
        18.0, paired=build.counts(0, 0, 100).model_copy(update={"mean_difference": -0.105, "sd_difference": 0.1})
    )
    rows = rows_of(run(build.accuracy_after(5, 40, num_samples=1000), better))
    assert {name: rows[1].against_baseline[name].verdict for name in rows[1].metrics} == {
        "accuracy": "improved",
        "perplexity": "improved",
    }


def test_candidates_of_one_run_share_one_family_and_other_runs_do_not() -> None:
    edge = build.accuracy_after(15, 4, num_samples=1000)
    alone = build.run_of({"a": build.record("a", scores=(edge,))})
    assert rows_of(alone)[1].against_baseline["accuracy"].verdict == "degraded"
    others = {name: build.record(name, scores=(build.accuracy_after(5, 5),)) for name in "bcd"}
    many = build.run_of({"a": build.record("a", scores=(edge,)), **others})
    assert {row.against_baseline["accuracy"].verdict for row in rows_of(many)[1:]} == {"inconclusive"}
    elsewhere = [record.model_copy(update={"run_id": "20260101T000000.000000Z"}) for record in many]
    assert rows_of([*alone, *elsewhere])[1].against_baseline["accuracy"].verdict == "degraded"


def test_without_its_baselines_record_a_candidates_scores_are_still_judged() -> None:
    scored = build.record("a", scores=(build.accuracy_after(40, 4, num_samples=1000),))
    assert rows_of([scored])[0].against_baseline.keys() == {"accuracy"}
    assert rows_of([scored])[0].against_baseline["accuracy"].verdict == "degraded"


def test_an_implausible_score_has_no_value_and_its_row_is_not_ranked() -> None:
    nothing = build.accuracy().model_copy(
        update={"value": None, "num_samples": 0, "implausible": ("no sample was evaluated",)}
    )
    rows = rows_of(build.run_of({"int8": build.record("int8", scores=(nothing, score("reasoning", 1, 1)))}))
    assert rows[1].cells[rows[1].metrics[0]].value is None
    assert rows[1].cells[rows[1].metrics[0]].reason == "implausible: no sample was evaluated"
    assert any("no sample was evaluated" in reason for reason in rows[1].not_rankable)


def test_a_perfect_accuracy_beside_an_infinite_perplexity_is_implausible() -> None:
    infinite = build.perplexity(1.0142320547350045e304)
    rows = rows_of(run(build.accuracy(1.0), infinite))
    assert any("answered perfectly" in reason for reason in rows[1].implausible)
    sound = rows_of(run(build.accuracy(1.0), build.perplexity(20.0)))
    assert sound[1].implausible == ()
