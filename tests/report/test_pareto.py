"""Fronts of contenders: ties stay ties, the dominated are named with their dominator, groups are never mixed unasked."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import front_parts as parts
import pytest
import record_builder as build

from compressbench.core.dominance import dominance_probability
from compressbench.core.errors import InputError, MissingMeasurementError
from compressbench.records.record import Record
from compressbench.records.store import Located
from compressbench.report.catalog import Catalog, catalog_of
from compressbench.report.pareto import Entry, Front, asked_for, front_of, fronts, labels
from compressbench.report.pareto_data import to_csv, to_json
from compressbench.report.pareto_plot import HEIGHT, plot
from compressbench.report.pareto_tables import to_markdown
from compressbench.report.pareto_words import chance, notes

NAMES = ("accuracy", "disk_bytes")


def by_label(front: Front) -> dict[str, Entry]:
    return {entry.label: entry for entry in front.entries}


def cataloged(*runs: list[Record]) -> Catalog:
    return catalog_of([Located(Path(f"{record.candidate}.json"), record) for run in runs for record in run])


def run(name: str = "example", cpu: str = "Example CPU", run_id: str = build.RUN_ID) -> list[Record]:
    """A baseline, one half as large and half as slow at equal accuracy, and one that lost much and saved nothing."""
    recipe = build.recipe(("half", "worse"), name=name)
    changed: dict[str, Any] = {"recipe": recipe, "environment": build.environment(cpu_model=cpu), "run_id": run_id}
    timed = build.interleaved(build.noisy(0.010, seed=1), build.noisy(0.005, seed=2), rounds=12)
    slow = build.interleaved(build.noisy(0.010, seed=3), build.noisy(0.010, seed=4), rounds=12)
    half = build.readings(disk_bytes=45e6)
    return [
        build.record(**changed, measurement=slow),
        build.record("half", **changed, measurement=timed, readings=half, scores=(build.accuracy_after(4, 5),)),
        build.record("worse", **changed, measurement=slow, scores=(build.accuracy_after(400, 10),)),
    ]


def test_rows_whose_intervals_overlap_tie_and_none_is_dominated() -> None:
    contenders = [parts.candidate(name, lost, 0.5) for name, lost in [("a", 0.001), ("b", 0.0), ("c", 0.002)]]
    found = by_label(front_of(contenders, NAMES))
    assert {entry.membership for entry in found.values()} <= {"possibly", "on the front"}
    assert {entry.ranks[0].interval for entry in found.values()} == {(1, 3)}
    assert {entry.ranks[0].letters for entry in found.values()} == {("a",)}


def test_a_dominated_row_is_named_with_its_dominator_and_how_probable_that_is() -> None:
    contenders = [parts.baseline(), parts.candidate("good", 0.001, 0.3), parts.candidate("bad", 0.1, 0.4)]
    front = front_of(contenders, NAMES)
    found = by_label(front)
    assert (found["bad"].membership, found["bad"].dominator) == ("dominated", "good")
    by = dominance_probability(found["good"].positions, found["bad"].positions)
    assert found["bad"].dominated_with == by > 0.999
    assert found["bad"].probability < 0.001
    assert (found["good"].membership, found["good"].dominator) == ("on the front", "")
    # the baseline is likelier the more accurate one than not
    assert found["baseline"].probability == pytest.approx(1 - found["baseline"].dominated_with, abs=0.03)
    assert [entry.label for entry in front.entries] == ["good", "baseline", "bad"]


def test_a_row_on_the_front_has_no_dominator_however_probable_a_little_of_it_is() -> None:
    front = front_of([parts.candidate("better", 0.0, 0.5), parts.candidate("smaller", 0.0054, 0.4)], NAMES)
    found = by_label(front)["better"]
    assert 0.95 <= found.probability < 0.999
    assert (found.membership, found.dominator, found.dominated_with) == ("on the front", "", 0.0)


def test_counted_equal_rows_are_both_on_the_front() -> None:
    contenders = [
        parts.contender(name, {n: parts.cost(0.5) for n in ("disk_bytes", "num_parameters")}) for name in "ab"
    ]
    front = front_of(contenders, ("disk_bytes", "num_parameters"))
    assert [(entry.probability, entry.ranks[0].interval) for entry in front.entries] == [(1.0, (1, 2))] * 2


def test_a_fault_or_an_unsteady_clock_leaves_a_row_out_with_the_reason() -> None:
    contenders = [
        parts.baseline(),
        parts.candidate("ok", 0.0, 0.5, latency=0.5),
        parts.candidate("false", 0.0, 0.1, latency=0.1, faults=("false claim: zeros",)),
        parts.candidate("unsteady", 0.0, 0.1, latency=0.1, unsteady=("contended",)),
    ]
    front = front_of(contenders, ("accuracy", "latency_p50_s"))
    assert set(by_label(front)) == {"baseline", "ok"}
    assert [(each.label, each.name, each.reason) for each in front.left_out] == [
        ("false", "", "false claim: zeros"),
        ("unsteady", "latency_p50_s", "contended"),
    ]
    # without a clock it is as good as any, and ranks are among those that are shown
    sizes = by_label(front_of(contenders, NAMES))
    assert sizes["unsteady"].ranks[1].interval == (1, 1)
    assert by_label(front)["ok"].ranks[1].interval == (1, 1)


def test_three_metrics_can_save_what_two_dominate() -> None:
    contenders = [parts.candidate("a", 0.0, 0.3, latency=0.9), parts.candidate("b", 0.1, 0.4, latency=0.2)]
    assert by_label(front_of(contenders, NAMES))["b"].membership == "dominated"
    front = front_of(contenders, (*NAMES, "latency_p50_s"))
    assert {entry.membership for entry in front.entries} == {"on the front"}


def test_one_metric_makes_no_front() -> None:
    with pytest.raises(InputError, match="at least two metrics"):
        front_of([parts.baseline()], ("accuracy",))


def test_rows_called_alike_are_told_apart() -> None:
    alike = [
        parts.candidate("a", 0, 1),
        parts.candidate("b", 0, 1),
        parts.candidate("b", 0, 1, recipe="other"),
        parts.candidate("c", 0, 1, run_id="1"),
        parts.candidate("c", 0, 1, run_id="2"),
    ]
    assert [labels(alike)(each) for each in alike] == [
        "a", "b of example", "b of other", "c of example 1", "c of example 2",
    ]  # fmt: skip


def test_records_of_other_conditions_have_a_front_of_their_own_unless_forced() -> None:
    catalog = cataloged(run("one"), run("two", cpu="Other CPU", run_id="20261122T074514.000000Z"))
    contenders = catalog.contenders(asked_for(()))
    found = fronts(catalog, contenders)
    assert len(found) == 2
    for front, recipe in zip(found, ("one", "two"), strict=True):
        assert front.names == ("accuracy", "latency_p50_s", "disk_bytes")
        assert {entry.contender.recipe for entry in front.entries} == {recipe}
        assert [(entry.label, entry.membership) for entry in front.entries][::2] == [
            ("half", "on the front"), ("worse", "dominated"),
        ]  # fmt: skip
        assert all(
            1 <= low <= high <= 3 for entry in front.entries for low, high in [entry.ranks[0].interval or (0, 0)]
        )
    (forced,) = fronts(catalog, contenders, force=True)
    assert len(forced.entries) == 6
    assert forced.watermark == "NOT COMPARABLE, forced: these rows differ in hardware"
    assert forced.watermark in to_markdown(catalog, [forced])
    assert json.loads(to_json(catalog, [forced]))[0]["watermark"] == forced.watermark
    assert forced.key == ""


def test_json_keeps_its_documented_shape() -> None:
    catalog = cataloged([*run(), build.failed("broken", recipe=build.recipe(("half", "worse")))])
    found = fronts(catalog, catalog.contenders(asked_for(())))
    (front,) = json.loads(to_json(catalog, found))
    assert set(front) == {
        "key", "watermark", "heading", "conditions", "method", "seed", "metrics", "rows", "left_out",
    }  # fmt: skip
    assert front["metrics"][0] == {"name": "accuracy", "scale": "against the baseline"}
    rows = {row["label"]: row for row in front["rows"]}
    assert set(rows["worse"]) == {
        "recipe", "candidate", "role", "run_id", "label", "front", "dominator", "metrics",
    }  # fmt: skip
    assert rows["half"]["front"] == {"membership": "on the front", "probability": 1.0}
    assert rows["half"]["dominator"] is None
    assert set(rows["worse"]["dominator"]) == {"label", "probability"}
    size = rows["half"]["metrics"]["disk_bytes"]
    assert set(size) == {
        "value", "low", "high", "unit", "kind", "position", "error", "rank_low", "rank_high", "letters", "direction",
    }  # fmt: skip
    assert (size["value"], size["rank_low"], size["letters"], size["error"]) == (45e6, 1, ["a"], 0)
    (left,) = front["left_out"]
    assert set(left) == {"recipe", "candidate", "role", "run_id", "label", "metric", "reason"}
    assert "CUDA ran out of memory" in left["reason"]


def test_csv_has_a_line_for_every_row_and_a_reason_where_it_is_not_ranked() -> None:
    catalog = cataloged([*run(), build.failed("=broken", recipe=build.recipe(("half", "worse")))])
    found = fronts(catalog, catalog.contenders(asked_for(())), ["accuracy", "size"])
    lines = {line["candidate"]: line for line in csv.DictReader(io.StringIO(to_csv(catalog, found)))}
    assert set(lines) == {"baseline", "half", "worse", "'=broken"}
    assert lines["half"]["disk_bytes_rank_low"] == "1"
    assert lines["worse"]["dominator"] == "half"
    assert "CUDA ran out of memory" in lines["'=broken"]["reason"]
    assert lines["'=broken"]["disk_bytes_value"] == ""


def test_hostile_names_stay_text() -> None:
    records = run()
    hostile = "<script>alert(1)</script>|[x](http://a.b)\n# big\x1b[31m"
    records[2] = records[2].model_copy(update={"candidate": hostile})
    catalog = cataloged(records)
    found = fronts(catalog, catalog.contenders(asked_for(())))
    markdown = to_markdown(catalog, found)
    assert "<script>" not in markdown
    assert "\x1b" not in markdown
    assert "\n# big" not in markdown
    assert "[x]" not in markdown
    assert "http://" not in markdown
    data = json.loads(to_json(catalog, found))[0]
    assert any(hostile in each["candidate"] for each in data["left_out"])
    assert not any(hostile in each["candidate"] for each in data["rows"])


def test_notes_say_how_it_was_obtained_and_who_is_missing() -> None:
    contenders = [
        parts.baseline(),
        parts.candidate("broken", 0, 1, faults=("it broke",)),
        parts.candidate("also", 0, 1, faults=("it broke",)),
    ]
    said = list(notes(catalog_of([]), front_of(contenders[1:], NAMES)))
    assert said == ["NOT RANKED broken, also: it broke"]


def test_nobody_with_all_metrics_is_a_missing_measurement() -> None:
    catalog = cataloged(run())
    with pytest.raises(MissingMeasurementError, match="no row can be ranked by all of accuracy, ttft_p50_s"):
        fronts(catalog, catalog.contenders(asked_for(("ttft",))), ["accuracy", "ttft"])


def test_a_chance_is_never_written_as_certain() -> None:
    assert [chance(p) for p in (1, 0.9951, 0.95, 0.5, 0.0491, 0.001, 0)] == [
        "> 99 %", "> 99 %", "95.0 %", "50 %", "4.9 %", "< 1 %", "< 1 %",
    ]  # fmt: skip


def test_the_picture_has_the_best_corner_upper_left_and_names_the_front() -> None:
    catalog = cataloged(run())
    (front,) = fronts(catalog, catalog.contenders(asked_for(())), ["accuracy", "size"])
    drawn = plot(catalog, front, 80)
    assert len(drawn) == HEIGHT + 4
    assert max(map(len, drawn)) <= 80
    assert drawn[0] == "accuracy, better above"
    assert drawn[1].startswith("93.03 % ┤● half")
    assert drawn[1].endswith("baseline ○")
    assert drawn[HEIGHT] == "80.34 % ┤" + f"{'worse ·':>{len(drawn[HEIGHT + 1]) - 9}}"
    # where more is better the axis is turned
    (turned,) = fronts(catalog, catalog.contenders(["sparsity", "disk_bytes"]), ["size", "accuracy"])
    assert plot(catalog, turned, 80)[1].startswith("45.0 MB ┤● half")
    assert plot(catalog, front, 30) == []
    assert plot(catalog, front._replace(entries=front.entries[:2]), 80) == []
    (flat,) = fronts(catalog, catalog.contenders(["effective_bits"]), ["accuracy", "effective_bits"])
    assert plot(catalog, flat, 80) == []
