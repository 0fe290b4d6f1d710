"""Models side by side: claims agree with the run's own, mirror each other, and stop where nothing can be said."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import compare_parts as parts
import pytest
import record_builder as build
from rich.console import Console

from compressbench.core.equivalence import holm
from compressbench.core.errors import NotComparableError, RecordError
from compressbench.core.statistics import mcnemar_p
from compressbench.records.store import RecordStore, dump, read_record
from compressbench.report.catalog import Catalog, open_catalog
from compressbench.report.chained import mirrored
from compressbench.report.compare import Comparison, audit_of, compare_records, compare_run
from compressbench.report.compare_terminal import print_comparison
from compressbench.report.compare_words import notes_of, to_json, to_markdown
from compressbench.report.index import Settings
from compressbench.report.rows import rows_of
from compressbench.report.sources import sources_of

BASE, ONE, TWO = parts.answers_of(1), parts.answers_of(2, right=0.9), parts.answers_of(3, right=0.6)
RESULTS = Path(__file__).parents[2] / "results"


def of_run(folder: Path, **options: Any) -> Comparison:
    catalog = open_catalog([folder])
    return compare_run(catalog, catalog.contenders(), **options)


def of_records(folder: Path, *paths: Path, **options: Any) -> Comparison:
    catalog = open_catalog([folder], all_runs=True)
    at = places(catalog)
    first, *others = [at[path.name] for path in paths]
    return compare_records(catalog, first, others, **options)


def places(catalog: Catalog) -> Mapping[str, int]:
    return {catalog.path(at).name: at for at in range(len(catalog))}


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Path]:
    changed: dict[str, Any] = {
        "baseline": {"measurement": build.interleaved()},
        "one": {
            "measurement": build.interleaved(build.noisy(0.010, seed=3), build.noisy(0.004, seed=4)),
            "readings": build.readings(disk_bytes=22e6, peak_memory_bytes=190e6),
        },
        "two": {"measurement": build.interleaved(build.noisy(0.010, seed=5), build.noisy(0.008, seed=6))},
    }
    return parts.written(tmp_path, {"baseline": BASE, "one": ONE, "two": TWO}, **changed)


@pytest.mark.usefixtures("run")
def test_a_folder_is_its_newest_runs_baseline_against_its_candidates(tmp_path: Path) -> None:
    parts.written(tmp_path, {"baseline": BASE, "old": TWO}, run_id="20251122T074513.926665Z")
    found = of_run(tmp_path)
    assert (found.reference.label, [each.label for each in found.candidates]) == ("baseline", ["one", "two"])
    assert found.notes == ("Measured in older runs and left out: old.",)
    assert found.names == (
        *("accuracy", "latency_p50_s", "energy_j_per_inference"),
        *("peak_memory_bytes", "disk_bytes", "effective_bits"),
    )
    one, two = found.candidates
    assert one.names_on("better") == ["accuracy", "latency_p50_s", "energy_j_per_inference", "disk_bytes"]
    assert one.names_on("worse") == ["peak_memory_bytes"]
    assert two.names_on("worse") == ["accuracy"]
    assert two.names_on("same") == ["peak_memory_bytes", "disk_bytes", "effective_bits"]


def test_baseline_and_candidate_as_files_say_what_their_run_says(tmp_path: Path, run: dict[str, Path]) -> None:
    found = of_records(tmp_path, run["baseline"], run["one"], run["two"])
    stored = of_run(tmp_path)
    for ours, theirs in zip(found.candidates, stored.candidates, strict=True):
        assert {name: each.verdict for name, each in ours.compared.items()} == {
            name: theirs.row.against_baseline[name] for name in found.names
        }
        assert [ours.names_on(side) for side in ("better", "worse")] == [
            theirs.names_on(side) for side in ("better", "worse")
        ]


@pytest.mark.parametrize("pair", [("one", "two"), ("baseline", "one")])
def test_both_directions_mirror_each_other(tmp_path: Path, run: dict[str, Path], pair: tuple[str, str]) -> None:
    forth = of_records(tmp_path, run[pair[0]], run[pair[1]]).candidates[0]
    back = of_records(tmp_path, run[pair[1]], run[pair[0]]).candidates[0]
    assert forth.names_on("better") == back.names_on("worse")
    assert forth.names_on("worse") == back.names_on("better")
    assert forth.names_on("undecided") == back.names_on("undecided")
    assert forth.names_on("better") or forth.names_on("worse")
    for name, each in forth.compared.items():
        turned = back.compared[name].verdict
        assert each.verdict is not None
        assert turned is not None
        if name == "accuracy":
            assert each.verdict.difference == pytest.approx(-(turned.difference or 0))
            assert each.verdict.difference_low == pytest.approx(-(turned.difference_high or 0))
            assert (each.verdict.p_value, each.verdict.num_harmful) == (turned.p_value, turned.num_beneficial)
        else:
            assert each.verdict.ratio == pytest.approx(mirrored(turned).ratio)


def test_how_each_claim_was_obtained_is_said(tmp_path: Path, run: dict[str, Path]) -> None:
    found = of_records(tmp_path, run["one"], run["two"], run["baseline"])
    hows = [{name: each.how for name, each in column.compared.items()} for column in found.candidates]
    assert [each["accuracy"] for each in hows] == ["paired by sample", "stored"]
    assert [each["latency_p50_s"] for each in hows] == ["through the baseline", "stored"]
    assert [each["disk_bytes"] for each in hows] == ["counted", "counted"]
    text = drawn(found, 80)
    assert "accuracy paired by sample" in text
    assert "through the baseline" in text


def test_all_claims_of_a_comparison_are_one_family(tmp_path: Path, run: dict[str, Path]) -> None:
    found = of_records(tmp_path, run["one"], run["two"], run["baseline"])
    verdicts = [each.compared["accuracy"].verdict for each in found.candidates]
    p_values = [each.p_value for each in verdicts if each is not None and each.p_value is not None]
    flips = [(sum(b < a for a, b in pairs), sum(b > a for a, b in pairs)) for pairs in (
        list(zip(ONE, TWO, strict=True)), list(zip(ONE, BASE, strict=True)),
    )]  # fmt: skip
    assert p_values == pytest.approx([mcnemar_p(*each) for each in flips])
    assert [each.p_adjusted for each in verdicts if each is not None] == pytest.approx(holm(p_values))


def test_samples_that_cannot_be_read_leave_a_score_undecided_and_say_why(tmp_path: Path, run: dict[str, Path]) -> None:
    parquet = next(tmp_path.glob("example.two.*.parquet"))
    parquet.write_bytes(parquet.read_bytes() + b"x")
    found = of_records(tmp_path, run["one"], run["two"]).candidates[0].compared["accuracy"]
    assert found.side == "undecided"
    assert "its checksum doesn't match" in found.reason
    parquet.unlink()
    found = of_records(tmp_path, run["one"], run["two"]).candidates[0].compared["accuracy"]
    assert (found.side, found.verdict and found.verdict.difference) == ("undecided", None)
    assert "No such file" in found.reason


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no table"])
def test_rows_that_are_no_rows_are_a_reason_and_no_crash(tmp_path: Path, run: dict[str, Path], data: bytes) -> None:
    record = read_record(run["two"])
    (tmp_path / "odd.parquet").write_bytes(data)
    changed = {"samples_file": "odd.parquet", "samples_sha256": hashlib.sha256(data).hexdigest()}
    odd = record.model_copy(update={"scores": (record.scores[0].model_copy(update=changed),)})
    run["two"].write_bytes(dump(odd))
    found = of_records(tmp_path, run["one"], run["two"]).candidates[0].compared["accuracy"]
    assert found.side == "undecided"
    assert "they are no rows of samples" in found.reason


def test_other_columns_are_no_rows_of_samples(tmp_path: Path, run: dict[str, Path]) -> None:
    file, sha256 = RecordStore(tmp_path).write_columns("odd", "rows", {"id": ["s0"], "evil": ["x"]})
    record = read_record(run["two"])
    changed = {"samples_file": file, "samples_sha256": sha256}
    run["two"].write_bytes(dump(record.model_copy(update={"scores": (record.scores[0].model_copy(update=changed),)})))
    found = of_records(tmp_path, run["one"], run["two"]).candidates[0].compared["accuracy"]
    assert "they are no rows of samples" in found.reason


def test_other_samples_are_not_paired(tmp_path: Path) -> None:
    paths = parts.written(tmp_path, {"baseline": BASE, "one": ONE})
    more = parts.written(tmp_path, {"baseline": BASE[:-1], "two": TWO[:-1]}, run_id=parts.SECOND_RUN)
    with pytest.raises(NotComparableError, match=r"tasks: …v1: accuracy, 400 of .* \| …v1: accuracy, 399 of"):
        of_records(tmp_path, paths["one"], more["two"])
    found = of_records(tmp_path, paths["one"], more["two"], force=True)
    assert found.candidates[0].compared["accuracy"].reason == "they were not asked the same question"
    assert found.watermark == "NOT COMPARABLE, forced: these rows differ in tasks"


def test_two_runs_are_compared_sample_by_sample_and_through_the_baseline(tmp_path: Path) -> None:
    paths = parts.written(tmp_path, {"baseline": BASE, "one": ONE})
    more = parts.written(tmp_path, {"baseline": BASE, "one": ONE}, run_id=parts.SECOND_RUN, created_utc="2026-11-23T07")
    found = of_records(tmp_path, paths["one"], more["one"])
    assert [each.label for each in (found.reference, *found.candidates)] == [
        "one of 2026-11-22 07:45",
        "one of 2026-11-23 07",
    ]
    accuracy = found.candidates[0].compared["accuracy"]
    assert accuracy.verdict is not None
    assert (accuracy.how, accuracy.verdict.difference, accuracy.verdict.p_value) == ("paired by sample", 0.0, 1.0)
    assert found.candidates[0].compared["latency_p50_s"].how == "through the baseline"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"environment": build.environment(cpu_model="Another CPU")}, "hardware: Example CPU"),
        ({"environment": build.environment(num_threads=1)}, "threads: 2 on 2 cores | 1 on 2 cores"),
        ({"workload": {"scenario": "single-stream", "batch_size": 1, "sequence_length": 64}}, "sequence_length"),
    ],
)
def test_other_conditions_are_named_with_both_values(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    paths = parts.written(tmp_path, {"baseline": BASE, "one": ONE})
    more = parts.written(tmp_path, {"baseline": BASE, "two": TWO}, run_id=parts.SECOND_RUN, **changed)
    with pytest.raises(NotComparableError) as caught:
        of_records(tmp_path, paths["one"], more["two"])
    assert words in caught.value.got
    assert "--recipe" not in caught.value.do
    found = of_records(tmp_path, paths["one"], more["two"], force=True)
    text = drawn(found, 80)
    assert text.startswith(found.watermark)
    assert text.rstrip().endswith(found.watermark)
    assert json.loads(to_json(found))["watermark"] == found.watermark
    assert to_markdown(found).count(found.watermark) == 2
    latency = found.candidates[0].compared["latency_p50_s"]
    assert (latency.side, latency.verdict and latency.verdict.ratio) == ("undecided", None)
    assert found.candidates[0].compared["disk_bytes"].side == "same"


@pytest.mark.parametrize("direction", [("one", "two"), ("two", "one")])
def test_nothing_is_claimed_of_a_row_with_a_fault(tmp_path: Path, direction: tuple[str, str]) -> None:
    odd = {"scores": (build.accuracy(1.2, num_samples=400),)}
    paths = parts.written(tmp_path, {"baseline": BASE, "one": ONE, "two": TWO}, one=odd)
    found = of_records(tmp_path, *(paths[name] for name in direction)).candidates[0]
    assert not any(found.names_on(side) for side in ("better", "worse", "same"))
    assert {"accuracy", "latency_p50_s", "disk_bytes"} <= set(found.names_on("undecided"))
    assert all("a proportion of 1.2" in found.compared[name].reason for name in found.names_on("undecided"))
    [one, two] = of_run(tmp_path).candidates
    assert not any(one.names_on(side) for side in ("better", "worse", "same"))
    assert two.names_on("worse") == ["accuracy"]


def test_a_failed_candidate_is_shown_and_nothing_is_claimed(tmp_path: Path) -> None:
    records = build.run_of({"one": build.record("one"), "broken": build.failed("broken")})
    store = RecordStore(tmp_path)
    for record in records:
        store.append(record)
    broken = of_run(tmp_path).candidates[1]
    assert broken.faults == ("failed: CUDA ran out of memory [step.py:12]",)
    assert set(broken.names_on("undecided")) >= {"accuracy", "latency_p50_s", "disk_bytes"}
    assert "failed: CUDA ran out of memory" in drawn(of_run(tmp_path), 80)


def test_a_row_that_was_not_steady_keeps_its_scores_and_sizes_only(tmp_path: Path) -> None:
    shaky = build.interleaved(build.noisy(0.010, seed=1), build.noisy(0.004, seed=2))
    warm = {arm: each.model_copy(update={"steady_state": "not-reached"}) for arm, each in shaky.warm_up.items()}
    changed: dict[str, Any] = {
        "one": {"measurement": shaky.model_copy(update={"warm_up": warm})},
        "two": {"measurement": build.interleaved(build.noisy(0.010, seed=3), build.noisy(0.004, seed=4))},
    }
    paths = parts.written(tmp_path, {"baseline": BASE, "one": ONE, "two": TWO}, **changed)
    for pair in (("one", "two"), ("two", "one")):
        found = of_records(tmp_path, paths[pair[0]], paths[pair[1]]).candidates[0]
        assert found.compared["latency_p50_s"].side == "undecided"
        assert "did not reach a steady state" in found.compared["latency_p50_s"].reason
        assert found.compared["accuracy"].side in ("better", "worse")
        assert found.compared["disk_bytes"].side == "same"


def test_what_was_not_measured_is_undecided(tmp_path: Path) -> None:
    paths = parts.written(
        tmp_path, {"baseline": BASE, "one": ONE}, one={"measurement": build.interleaved(energy_w=None)}
    )
    found = of_records(tmp_path, paths["baseline"], paths["one"], force=True).candidates[0]
    assert found.compared["energy_j_per_inference"].side == "undecided"
    assert found.compared["energy_j_per_inference"].reason


def test_a_record_without_its_baseline_beside_it_is_compared_by_what_it_has(tmp_path: Path) -> None:
    paths = parts.written(tmp_path, {"baseline": BASE, "one": ONE, "two": TWO})
    paths["baseline"].unlink()
    found = of_records(tmp_path, paths["one"], paths["two"]).candidates[0]
    assert found.compared["accuracy"].how == "paired by sample"
    assert found.compared["disk_bytes"].how == "counted"
    assert found.compared["latency_p50_s"].side == "undecided"


def test_the_audit_is_said() -> None:
    row = rows_of([build.record("one")])[0]
    assert audit_of(row) == "not audited"
    assert audit_of(row.model_copy(update={"false_claims": ()})) == "no false claim"
    assert audit_of(row.model_copy(update={"false_claims": ("bits",)})) == "FALSE CLAIM"


@pytest.mark.usefixtures("run")
def test_a_false_claim_is_red_and_takes_every_claim(tmp_path: Path) -> None:
    catalog = open_catalog([tmp_path])
    found = compare_run(catalog, catalog.contenders())
    row = catalog.row(1).model_copy(update={"false_claims": ("4 bits were claimed, 8 found",)})

    class Falsified(Catalog):
        def row(self, at: int) -> Any:
            return row if at == 1 else super().row(at)

    falsified = Falsified(sources_of([tmp_path], Settings())[0])
    found = compare_run(falsified, falsified.contenders())
    assert found.candidates[0].audit == "FALSE CLAIM"
    assert not found.candidates[0].names_on("better")
    assert "FALSE CLAIM one: 4 bits were claimed, 8 found" in notes_of(found)


def test_draws_are_compared_through_the_baseline_with_their_spread(tmp_path: Path) -> None:
    from compressbench.records.score import Draw, Resampled

    paths = parts.written(tmp_path / "once", {"baseline": BASE, "one": ONE, "two": TWO})
    store = RecordStore(tmp_path / "drawn")
    for name, path in paths.items():
        record = read_record(path)
        score = record.scores[0]
        if name == "two":
            assert score.paired is not None
            change = score.paired.mean_difference
            over = Resampled(
                difference=change, low=change - 0.4, high=change + 0.4, standard_error=0.2, method="", seed=0,
                num_resamples=9, num_units=3,
            )  # fmt: skip
            draw = Draw(seed=0, value=0.6, samples_file="x", samples_sha256="y")
            score = score.model_copy(update={"over_draws": over, "draws": (draw, draw, draw)})
        paths[name] = store.append(record.model_copy(update={"scores": (score,)}))
    found = of_records(tmp_path / "drawn", paths["one"], paths["two"]).candidates[0].compared["accuracy"]
    assert found.verdict is not None
    assert (found.how, found.side) == ("through the baseline", "undecided")
    assert found.verdict.difference == pytest.approx(sum(TWO) / 400 - sum(ONE) / 400)
    assert (found.verdict.difference_high or 0) - (found.verdict.difference_low or 0) > 1.6, "t with two degrees"
    assert found.verdict.num_harmful is None
    back = of_records(tmp_path / "drawn", paths["two"], paths["one"]).candidates[0].compared["accuracy"]
    assert back.verdict is not None
    assert back.verdict.difference_low == pytest.approx(-(found.verdict.difference_high or 0))


def test_what_cannot_be_compared_says_so(tmp_path: Path) -> None:
    RecordStore(tmp_path).append(build.record())
    with pytest.raises(RecordError, match="no record of candidates"):
        of_run(tmp_path)
    other = build.record("x", recipe=build.recipe(("x",), name="other"))
    RecordStore(tmp_path).append(other)
    with pytest.raises(RecordError, match=r"records of several recipes .got 'example', 'other'.. Choose one with"):
        of_run(tmp_path)


def drawn(found: Comparison, width: int) -> str:
    console = Console(width=width, highlight=False, record=True, file=io.StringIO())
    print_comparison(found, console)
    return console.export_text()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["quickstart", "shakespeare-quality"])
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    found = of_run(RESULTS / name)
    text = drawn(found, width)
    assert max(map(len, text.splitlines())) <= width
    for column in found.candidates:
        assert f"{column.label} against baseline" in text
        assert column.label in to_markdown(found)


def test_the_repositorys_run_says_what_its_table_says() -> None:
    found = of_run(RESULTS / "quickstart", full=True)
    for column in found.candidates:
        for name, each in column.compared.items():
            if each.side in ("better", "worse", "same"):
                assert each.verdict == column.row.against_baseline[name]
    assert {"latency_p95_s", "num_parameters"} <= set(found.names)


def test_json_has_every_claim_with_its_origin(tmp_path: Path, run: dict[str, Path]) -> None:
    data = json.loads(to_json(of_records(tmp_path, run["one"], run["two"])))
    assert data["watermark"] == ""
    [two] = data["candidates"]
    assert two["against_reference"]["accuracy"]["how"] == "paired by sample"
    assert set(two["better"] + two["worse"] + two["same"] + two["undecided"]) == set(two["against_reference"])
    assert two["cells"]["disk_bytes"]["value"] == 90e6
    assert data["reference"]["label"] == "one"


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    evil = "<script>|[red]x[/red]\x1b[31m\n=cmd()\u202e"
    for number, record in enumerate(build.run_of({evil: build.record(evil)})):
        (tmp_path / f"{number}.json").write_bytes(dump(record))
    found = of_run(tmp_path)
    text = drawn(found, 80)
    assert "[red]" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    markdown = to_markdown(found)
    assert "<script>" not in markdown
    assert "\x1b" not in markdown
    assert len({line.count(" | ") for line in markdown.splitlines() if line.startswith("| ")}) == 1
    assert json.loads(to_json(found))["candidates"][0]["candidate"] == evil
