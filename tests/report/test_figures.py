"""Rows as what decisions are made of: the numbers with their bounds, and why a row can't be ranked."""

from __future__ import annotations

import record_builder as build

from compressbench.report.figures import (
    COUNTED,
    HIGHER_IS_BETTER,
    contender_of,
    faults_of,
    figure_of,
    is_timed,
    names_in,
    unsteady_of,
)
from compressbench.report.rows import CELL_NAMES, rows_of

RUN = build.run_of(
    {
        "fast": build.record(
            "fast",
            scores=(build.accuracy_after(40, 10),),
            measurement=build.interleaved(build.noisy(0.010, seed=1), build.noisy(0.005, seed=2)),
        )
    }
)


def test_a_figure_has_the_numbers_of_its_cell_and_of_its_verdict() -> None:
    row = rows_of(RUN)[1]
    for name in ("accuracy", "latency_p50_s", "throughput_per_s", "disk_bytes"):
        figure, cell, verdict = figure_of(row, name), row.cells[name], row.against_baseline[name]
        assert (figure.value, figure.low, figure.high, figure.kind) == (cell.value, cell.low, cell.high, cell.kind)
        assert (figure.verdict, figure.ratio, figure.noise) == (verdict.verdict, verdict.ratio, verdict.noise)
        assert (figure.ratio_low, figure.ratio_high) == (verdict.low, verdict.high)
        assert (figure.difference_low, figure.difference_high) == (verdict.difference_low, verdict.difference_high)
    assert figure_of(row, "latency_p50_s").direction == "lower"
    assert figure_of(row, "throughput_per_s").direction == "higher"
    assert figure_of(row, "accuracy").direction == "higher"


def test_a_number_that_is_not_there_has_its_reason() -> None:
    row = rows_of([build.record(measurement=None)])[0]
    assert figure_of(row, "latency_p50_s").value is None
    assert figure_of(row, "latency_p50_s").reason == row.cells["latency_p50_s"].reason != ""


def test_directions_and_kinds_are_of_names_that_exist() -> None:
    assert set(CELL_NAMES) >= HIGHER_IS_BETTER
    assert set(CELL_NAMES) >= COUNTED
    assert not is_timed("disk_bytes")
    assert not is_timed("accuracy", ("accuracy",))
    assert is_timed("latency_p50_s", ("accuracy",))
    assert is_timed("compress_seconds")


def test_a_contender_says_what_it_is_and_leaves_out_what_it_has_not() -> None:
    baseline, fast = rows_of(RUN)
    found = contender_of(fast, ["accuracy", "nonsense", "disk_bytes"], at=1)
    assert (found.at, found.recipe, found.candidate, found.is_baseline) == (1, "example", "fast", False)
    assert list(found.figures) == ["accuracy", "disk_bytes"]
    assert contender_of(baseline, []).is_baseline
    assert names_in([found, contender_of(baseline, [])]) == ["accuracy"]


def test_a_failed_row_an_impossible_score_and_a_false_claim_are_faults() -> None:
    baseline, broken = rows_of(build.run_of({"broken": build.failed("broken", "no memory")}))
    assert faults_of(baseline) == ()
    assert faults_of(broken) == ("failed: no memory",)
    odd = rows_of([build.record(scores=(build.accuracy(1.2),))])[0]
    assert faults_of(odd) == ("implausible: text-classification: a proportion of 1.2",)
    assert faults_of(baseline.model_copy(update={"false_claims": ("8 bits",)})) == ("false claim: 8 bits",)
    none = rows_of([build.record(scores=(build.accuracy(0.9, num_samples=0),))])[0]
    assert "a value from no samples" in faults_of(none)[0]


def test_an_unsteady_row_is_no_fault() -> None:
    row = rows_of([build.record(measurement=build.measurement(steady="not-reached"))])[0]
    assert faults_of(row) == ()
    assert len(unsteady_of(row)) == 2
    odd = rows_of([build.record(scores=(build.accuracy(1.2),))])[0]
    assert unsteady_of(odd) == ()


def test_a_candidate_that_failed_early_has_its_runs_baseline() -> None:
    baseline, broken = rows_of(build.run_of({"broken": build.failed("broken", model=None)}))
    assert broken.baseline_id == baseline.baseline_id
    assert broken.comparability_key == baseline.comparability_key


def test_another_baseline_has_another_id() -> None:
    rows = rows_of([build.record()])
    assert rows_of([build.record(run_id="20261123T074513.926665Z")])[0].baseline_id == rows[0].baseline_id
    assert build.record().model is not None
    for changed in (
        {"recipe": build.recipe(baseline={"compress": [{"use": "cast"}]})},
        {"recipe": build.recipe(model={"id": "another"})},
        {"model": build.record().model.model_copy(update={"revision": "sha256:other"})},  # type: ignore[union-attr]
    ):
        assert rows_of([build.record(**changed)])[0].baseline_id != rows[0].baseline_id
