"""Records into rows: every number in its cell, or a reason why it isn't there."""

from __future__ import annotations

import json
import statistics
from typing import Any

import numpy as np
import pytest
import record_builder as build

from compressbench.core.units import unit_of
from compressbench.records.record import Record
from compressbench.report.plain import to_json
from compressbench.report.rows import CELL_NAMES, Row, rows_of

CELL_KEYS = {"value", "low", "high", "unit", "kind", "source", "reason"}


def row(record: Record) -> Row:
    return rows_of([record])[0]


def absent(record: Record) -> dict[str, str]:
    return {name: cell.reason for name, cell in row(record).cells.items() if cell.value is None}


def test_every_cell_has_its_unit_and_a_value_or_a_reason() -> None:
    for record in (build.record(), build.record("int8"), build.failed("int8")):
        cells = row(record).cells
        assert set(cells) == {"accuracy", *CELL_NAMES}
        for name, cell in cells.items():
            assert cell.unit == ("fraction" if name == "accuracy" and record.scores else unit_of(name))
            assert (cell.value is None) == bool(cell.reason), name
            assert (cell.value is None) == (cell.kind == ""), name


def test_latency_and_throughput_are_those_of_all_calls_of_the_own_arm() -> None:
    run = build.measurement(0.020, build.noisy(0.010, 0.3, seed=4), batch_size=4)
    cells = row(build.record("int8", measurement=run)).cells
    seconds = [each / 1e9 for block in run.blocks if block.arm == "candidate" for each in block.latencies_ns]
    assert cells["latency_p50_s"].value == pytest.approx(statistics.median(seconds))
    p95 = float(np.quantile(seconds, 0.95, method="median_unbiased"))
    assert cells["latency_p95_s"].value == pytest.approx(p95)
    assert cells["throughput_per_s"].value == pytest.approx(4 * len(seconds) / sum(seconds))
    assert cells["energy_j_per_inference"].value == pytest.approx(4.0 * sum(seconds) / len(seconds) / 4)
    baseline = row(build.record(measurement=run)).cells
    assert baseline["latency_p50_s"].value == pytest.approx(0.020)


def test_the_interval_of_energy_holds_the_spread_and_what_the_instrument_says_of_itself() -> None:
    cell = row(build.record(measurement=build.measurement(0.010, 0.010))).cells["energy_j_per_inference"]
    assert (cell.value, cell.low, cell.high) == pytest.approx(
        (0.040, 0.040 * (1 - 0.05 * 1.959964), 0.040 * (1 + 0.05 * 1.959964))
    )
    assert (cell.kind, cell.source) == ("estimated", "a made-up meter")


def test_what_cannot_be_negative_has_no_negative_bound() -> None:
    run = build.measurement(lambda index: 0.010 if index < 20 else 0.0001, 0.01, rounds=2)
    cells = row(build.record(measurement=run)).cells
    for name in ("energy_j_per_inference", "throughput_per_s"):
        assert cells[name].low == 0.0


def test_one_block_has_a_value_without_bounds() -> None:
    run = build.measurement(0.010, 0.010, rounds=1)
    single = run.model_copy(update={"blocks": run.blocks[:1]})
    cell = row(build.record(measurement=single)).cells["throughput_per_s"]
    assert cell.value == pytest.approx(100)
    assert (cell.low, cell.high) == (None, None)


@pytest.mark.parametrize(("calls", "is_there"), [(17, False), (18, True)])
def test_p95_is_refused_below_72_calls_and_says_how_many_it_needs(calls: int, is_there: bool) -> None:
    run = build.measurement(0.010, 0.010, rounds=2, calls=calls)
    cell = row(build.record(measurement=run)).cells["latency_p95_s"]
    assert (cell.value is not None) is is_there
    if not is_there:
        assert cell.reason.endswith("68 calls are too few for p95, which needs 72")


@pytest.mark.parametrize("watts", [None, 0.0])
def test_energy_that_was_not_read_is_null_with_the_reason_and_never_zero(watts: float | None) -> None:
    run = build.measurement(0.010, 0.010, energy_w=watts)
    told = {} if watts == 0 else {"energy": "this machine has no energy meter"}
    record = build.record(measurement=run, absent=told)
    reason = "the meter read 0 J: the blocks are shorter than it can resolve" if watts == 0 else told["energy"]
    assert absent(record)["energy_j_per_inference"] == reason
    data = json.loads(to_json([row(record)]))[0]["cells"]["energy_j_per_inference"]
    assert data["value"] is None
    assert data["reason"] == reason


def test_energy_that_is_missing_in_many_blocks_is_not_made_up_from_the_others() -> None:
    run = build.measurement(0.010, 0.010, num_blocks_without_energy=8)
    assert "energy_j_per_inference" in absent(build.record(measurement=run))


def test_a_meter_that_the_recipe_did_not_ask_for_says_so() -> None:
    said = build.recipe(meters=[{"use": "latency"}])
    record = build.record(recipe=said, readings=(), measurement=build.measurement(energy_w=None))
    reasons = absent(record)
    assert reasons["disk_bytes"] == "the recipe does not ask for size"
    assert reasons["energy_j_per_inference"] == "the recipe does not ask for energy"
    assert reasons["compress_seconds"] == "nothing was compressed"
    assert (
        absent(build.record("int8", recipe=said, readings=()))["compress_energy_j"]
        == "the recipe does not ask for energy"
    )


def test_the_reason_of_the_one_number_wins_over_that_of_its_meter() -> None:
    record = build.record("int8", absent={"compress_energy": "the window was too short", "energy": "no meter"})
    assert absent(record)["compress_energy_j"] == "the window was too short"
    assert absent(build.record("int8"))["compress_seconds"] == "it was not recorded"
    said = build.recipe(meters=[{"use": "energy-rapl"}])
    record = build.record("int8", recipe=said, absent={"compress_energy-rapl": "below resolution: 0 J"})
    assert absent(record)["compress_energy_j"] == "below resolution: 0 J"


def test_a_failed_candidate_has_dashes_with_its_failure() -> None:
    record = build.failed("int8", "CUDA ran out of memory [step.py:12]")
    found = row(record)
    assert set(absent(record).values()) == {"failed: CUDA ran out of memory [step.py:12]"}
    assert all(cell.value is None for cell in found.cells.values())
    assert found.against_baseline == {}


def test_a_proportion_has_wilsons_interval_and_a_perplexity_none() -> None:
    cell = row(build.record()).cells["accuracy"]
    assert cell.low == pytest.approx(0.92041, abs=1e-4)
    assert cell.high == pytest.approx(0.93851, abs=1e-4)
    said = build.recipe(tasks=[{"use": "perplexity", "data": "embedded:tinyshakespeare"}])
    cell = row(build.record(recipe=said, scores=(build.perplexity(21.0),))).cells["perplexity"]
    assert (cell.value, cell.low, cell.high) == (21.0, None, None)


def test_metrics_that_stand_twice_are_told_apart() -> None:
    tasks = [{"use": "perplexity", "data": data} for data in ("a", "b", "b")]
    scores = tuple(build.perplexity(float(value), data=data) for value, data in ((1, "a"), (2, "b"), (3, "b")))
    said = build.recipe(tasks=tasks)
    found = row(build.record(recipe=said, scores=scores))
    assert found.metrics == ("perplexity@a", "perplexity@b", "perplexity@b#2")
    assert [found.cells[name].value for name in found.metrics] == [1.0, 2.0, 3.0]
    assert row(build.failed("int8", recipe=said)).metrics == found.metrics


def test_a_candidate_that_failed_before_it_was_asked_has_its_baselines_metrics() -> None:
    said = build.recipe(tasks=[{"use": "someones-task", "data": "x"}])
    baseline = build.record(recipe=said, scores=(build.perplexity(0.3, metric="rouge"),))
    rows = rows_of([baseline, build.failed("int8", recipe=said)])
    assert [each.metrics for each in rows] == [("rouge",), ("rouge",)]


def test_a_candidate_is_compared_within_its_own_run_only() -> None:
    old, new = "20261121T000000.000000Z", "20261122T000000.000000Z"
    small = build.readings(disk_bytes=45e6)
    candidate = build.record("int8", run_id=new, readings=small)
    assert "disk_bytes" not in rows_of([build.record(run_id=old), candidate])[1].against_baseline
    assert "disk_bytes" in rows_of([build.record(run_id=new), candidate])[1].against_baseline
    other = build.record(run_id=new, recipe=build.recipe(name="other"))
    assert rows_of([other, candidate])[1].against_baseline == {}


def test_a_baseline_is_not_compared_with_itself() -> None:
    assert row(build.record()).against_baseline == {}


def test_the_json_is_the_contract_that_scripts_rely_on() -> None:
    records = build.run_of({"int8": build.record("int8", scores=(build.accuracy_after(22, 18),))})
    data: list[dict[str, Any]] = json.loads(to_json(rows_of(records)))
    assert [each["candidate"] for each in data] == ["baseline", "int8"]
    for each in data:
        assert each.keys() >= {"recipe", "candidate", "status", "key", "cells", "against_baseline"}
        assert set(each["cells"]) == {"accuracy", *CELL_NAMES}
        assert all(set(cell) == CELL_KEYS for cell in each["cells"].values())
    verdicts = data[1]["against_baseline"]
    assert set(verdicts) == {
        *("accuracy", "latency_p50_s", "throughput_per_s", "energy_j_per_inference", "peak_memory_bytes"),
        *("weights_memory_bytes", "disk_bytes", "num_parameters", "effective_bits"),
    }
    for verdict in verdicts.values():
        assert verdict.keys() >= {"verdict", "ratio", "low", "high"}
        assert verdict["low"] <= verdict["ratio"] <= verdict["high"]


@pytest.mark.parametrize(
    ("kind", "relative", "is_bounded"),
    [("estimated", None, False), ("modelled", None, False), ("estimated", 0.4, True), ("measured", None, True)],
)
def test_the_spread_of_an_estimate_is_not_sold_as_its_uncertainty(
    kind: str, relative: float | None, is_bounded: bool
) -> None:
    measured = build.measurement(build.noisy(0.01, seed=1), build.noisy(0.005, seed=2), kind=kind)
    source = measured.provenance["energy_j"].model_copy(update={"relative_uncertainty": relative})
    measured = measured.model_copy(update={"provenance": {"energy_j": source}})
    baseline, candidate = rows_of(build.run_of({"fast": build.record("fast", measurement=measured)}))[:2]
    cell = candidate.cells["energy_j_per_inference"]
    assert cell.value is not None
    assert cell.kind == kind
    assert (cell.low is not None, cell.high is not None) == (is_bounded, is_bounded)
    # what is paired on one instrument keeps its interval: a wrong scale cancels
    assert candidate.against_baseline["energy_j_per_inference"].low is not None
    assert baseline.role == "baseline"
