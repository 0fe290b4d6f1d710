"""`compressbench carbon`: a worked example by hand, what it prints in each format, what it refuses, and its labels."""

from __future__ import annotations

import csv
import io
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import record_builder as build

from compressbench.cli.main import call
from compressbench.core.reading import Reading
from compressbench.records.record import Record
from compressbench.records.store import RecordStore

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "data" / "records-v4"
FLAGS = (
    *("--grid-g-per-kwh", "381", "--pue", "1.2", "--embodied-kg", "900", "--share", "0.01", "--lifetime-years", "4"),
    *(
        "--utilisation",
        "0.5",
        "--wue-site",
        "0.2",
        "--wue-grid",
        "3",
        "--price-per-hour",
        "2",
        "--price-per-kwh",
        "0.3",
    ),
)
UNHELD = tuple(flag for at, flag in enumerate(FLAGS) if not 4 <= at < 8)


def asked(capsys: pytest.CaptureFixture[str], *line: str) -> dict[str, Any]:
    assert call(["carbon", *line, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def of(found: dict[str, Any], candidate: str) -> dict[str, Any]:
    row: dict[str, Any] = next(each for each in found["candidates"] if each["candidate"] == candidate)
    return row


def run(*candidates: Record, **baseline: Any) -> list[Record]:
    named = {each.candidate: each for each in candidates}
    return build.run_of(named, **{"measurement": build.interleaved(build.noisy(0.010)), **baseline})


def write(folder: Path, records: list[Record]) -> str:
    store = RecordStore(folder)
    for record in records:
        store.append(record)
    return str(folder)


def int8(**changed: Any) -> Record:
    measured = build.interleaved(build.noisy(0.010, seed=1), build.noisy(0.006, seed=2), rounds=12)
    return build.record("int8", **{"measurement": measured, **changed})


def test_the_worked_example_is_what_the_arithmetic_says(capsys: pytest.CaptureFixture[str]) -> None:
    found = of(asked(capsys, str(EXAMPLE), *FLAGS), "gptq")
    record = json.loads(next(EXAMPLE.glob("example.gptq.*.json")).read_text())
    own = [block for block in record["measurement"]["blocks"] if block["arm"] == "candidate"]
    count = sum(len(block["latencies_ns"]) for block in own)
    joules = sum(block["raw"]["energy_j"] for block in own) / count
    seconds = sum(sum(block["latencies_ns"]) for block in own) / 1e9 / count
    outputs = record["measurement"]["outputs"]["candidate"]
    right = outputs["num_correct"] / outputs["num_scored"]

    operational = joules / 3.6e6 * 1.2 * 381
    embodied = 900 * 0.01 * 1000 / (4 * 365 * 86400 * 0.5) * seconds
    water = joules / 3.6e6 * (0.2 + 1.2 * 3)
    cost = 2 * seconds / 3600 / 0.5 + 0.3 * joules / 3.6e6 * 1.2

    consumer = found["consumer"]
    assert consumer["inference"]["operational"]["value"] == pytest.approx(operational, rel=1e-6)
    assert consumer["inference"]["embodied"]["value"] == pytest.approx(embodied, rel=1e-6)
    for unit, scale in (("inference", 1), ("1000_inferences", 1000), ("correct_answer", 1 / right)):
        total = consumer[unit]["total"]
        assert total["value"] == pytest.approx(scale * (operational + embodied), rel=1e-6)
        assert total["low"] < total["value"] < total["high"]
    assert found["water"]["1000_inferences"]["value"] == pytest.approx(1000 * water, rel=1e-6)
    assert found["cost"]["1000_inferences"]["value"] == pytest.approx(1000 * cost, rel=1e-6)
    # and the page that shows the example has these very numbers
    page = (ROOT / "design" / "0016-carbon-and-cost.md").read_text()
    shown = [f"{operational:.6e}", f"{embodied:.6e}", f"{operational + embodied:.6e}", f"{1000 * cost:.9f}"]
    assert [text for text in shown if text not in page] == []


def test_without_the_hardware_the_total_is_partial_and_not_smaller(capsys: pytest.CaptureFixture[str]) -> None:
    whole = of(asked(capsys, str(EXAMPLE), *FLAGS), "gptq")["consumer"]["inference"]
    part = of(asked(capsys, str(EXAMPLE), *UNHELD), "gptq")["consumer"]["inference"]
    assert (part["total"]["value"], part["is_partial"], part["missing"]) == (None, True, ["embodied"])
    assert part["partial_total"]["value"] == whole["operational"]["value"]
    assert (whole["is_partial"], whole["partial_total"]) == (False, None)
    assert call(["carbon", str(EXAMPLE), *UNHELD]) == 0
    printed = capsys.readouterr().out
    assert "partial" in printed
    assert "without embodied" in printed


def test_a_sheet_looks_as_the_tables_of_other_verbs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call(["carbon", str(EXAMPLE), *FLAGS]) == 0
    lines = capsys.readouterr().out.splitlines()
    rules = [at for at, line in enumerate(lines) if line and set(line) == {"─"}]
    assert rules
    assert all(lines[at - 1].startswith("candidate") for at in rules)
    assert [line for line in lines if len(line) > 80 or line != line.rstrip()] == []


def test_every_input_has_its_kind_source_and_year(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, str(EXAMPLE), "--region", "DEU")
    assert set(found["inputs"]["grid"]) == {"value", "low", "high", "unit", "kind", "source", "year", "reason"}
    for name, each in {**found["inputs"], **of(found, "gptq")["inputs"]}.items():
        assert each["reason"] if each["value"] is None else each["kind"] and each["source"], name
    assert found["inputs"]["grid"]["year"] == 2023
    assert found["inputs"]["pue"]["kind"] == "assumed"
    assert found["inputs"]["utilisation"]["kind"] == "assumed"


def test_the_default_grid_is_the_worlds_and_labels_all_that_follows(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, str(EXAMPLE), "--site", "lab")
    operational = of(found, "gptq")["consumer"]["inference"]["operational"]
    joules = of(found, "gptq")["inputs"]["energy_j_per_inference"]
    assert operational["kind"] == "measured + assumed"
    assert operational["low"] == pytest.approx(joules["low"] / 3.6e6 * 30)
    assert operational["high"] == pytest.approx(joules["high"] / 3.6e6 * 715)
    assert any(note.startswith("grid: 475 g/kWh [30.0, 715], assumed") for note in found["notes"])


def test_estimated_energy_stays_estimated_and_its_boundary_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, run(int8()))
    found = asked(capsys, folder, *FLAGS)
    for score in of(found, "int8")["consumer"].values():
        for part in ("operational", "total"):
            assert score[part]["value"] is None or "estimated" in score[part]["kind"]
    assert of(found, "int8")["boundary"] == "device"
    assert any("'device'" in note for note in found["notes"])
    for each in ("water", "cost"):
        assert "estimated" in of(found, "int8")[each]["1000_inferences"]["kind"]


def test_the_operational_ratio_is_the_paired_one_of_the_energy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, run(int8()))
    against = of(asked(capsys, folder, *FLAGS), "int8")["against_baseline"]
    assert call(["table", folder, "--format", "json"]) == 0
    row = next(each for each in json.loads(capsys.readouterr().out) if each["candidate"] == "int8")
    paired = row["against_baseline"]["energy_j_per_inference"]
    assert [against["operational"][name] for name in ("value", "low", "high")] == [
        paired["ratio"],
        paired["low"],
        paired["high"],
    ]
    assert against["total"]["low"] < against["total"]["value"] < against["total"]["high"] < 0.7


def test_the_providers_score_is_of_compressing_and_stands_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used = Reading(
        name="compress_energy_j", value=7200.0, low=7000.0, high=7400.0, kind="measured", source="a made-up meter",
        boundary="device", window_s=100.0, tick_s=0.02,
    )  # fmt: skip
    compressed = int8(readings=(*build.readings(compress_seconds=100.0), used))
    folder = write(tmp_path, run(compressed))
    found = asked(capsys, folder, *FLAGS)
    provider = of(found, "int8")["provider"]
    assert provider["operational"]["value"] == pytest.approx(7200 / 3.6e6 * 1.2 * 381)
    assert provider["embodied"]["value"] == pytest.approx(9000 / (4 * 365 * 86400 * 0.5) * 100)
    assert of(found, "baseline")["provider"] is None
    consumer = of(found, "int8")["consumer"]["1000_inferences"]["total"]["value"]
    assert consumer < provider["total"]["value"]


def test_tokens_are_accounted_where_something_is_generated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = build.interleaved(build.noisy(0.010, seed=1), build.noisy(0.006, seed=2), rounds=12)
    told = {"num_tokens": (5,) * 20, "first_token_ns": (1_000_000,) * 20, "token_gaps_ns": (1_000_000,) * 80}
    blocks = tuple(block.model_copy(update=told) for block in measured.blocks)
    folder = write(tmp_path, run(int8(measurement=measured.model_copy(update={"blocks": blocks}))))
    found = of(asked(capsys, folder, *FLAGS), "int8")
    by_token, by_inference = (found["consumer"][unit]["total"]["value"] for unit in ("1000_output_tokens", "inference"))
    assert by_token == pytest.approx(1000 * by_inference / 5)
    assert found["cost"]["1000000_output_tokens"]["value"] == pytest.approx(
        1000 * found["cost"]["1000_inferences"]["value"] / 5
    )


def test_rows_with_faults_have_no_numbers_and_unsteady_ones_no_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warm = build.interleaved().warm_up["candidate"].model_copy(update={"steady_state": "not-reached"})
    unsteady = int8().measurement
    assert unsteady is not None
    moving = unsteady.model_copy(update={"warm_up": {**unsteady.warm_up, "candidate": warm}})
    records = run(build.failed("broken"), build.record("moving", measurement=moving), int8())
    found = asked(capsys, write(tmp_path, records), *FLAGS)
    broken = of(found, "broken")
    assert broken["consumer"]["inference"]["total"]["value"] is None
    assert "CUDA ran out of memory" in broken["consumer"]["inference"]["operational"]["reason"]
    moving_row = of(found, "moving")
    assert moving_row["consumer"]["inference"]["total"]["value"] > 0
    assert moving_row["against_baseline"]["total"]["value"] is None
    assert any(note.startswith("moving: ") and note.endswith("no saving is based on it") for note in found["notes"])
    assert of(found, "int8")["against_baseline"]["total"]["value"] is not None


def test_known_hardware_is_found_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu = {"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 80 * 10**9, "driver": "1", "uuid_hash": "0"}
    where: dict[str, Any] = {"environment": build.environment(gpus=(gpu,), device="cuda:0"), "device": "cuda:0"}
    found = of(asked(capsys, write(tmp_path, run(int8(**where), **where))), "int8")
    assert found["hardware"].startswith("1 x NVIDIA H100")
    assert (found["inputs"]["gpu"]["low"], found["inputs"]["gpu"]["high"]) == (164.0, 575.1)
    assert "modelled" in found["consumer"]["inference"]["embodied"]["kind"]


def test_without_prices_or_water_there_is_a_reason_and_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    found = of(asked(capsys, str(EXAMPLE)), "gptq")
    assert found["cost"]["1000_inferences"]["value"] is None
    assert "--price-per-hour" in found["cost"]["1000_inferences"]["reason"]
    assert found["water"]["1000_inferences"]["reason"] == "not accounted: --wue-site is not given"


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal_and_names_the_baseline_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    folder = write(tmp_path, run(int8()))
    assert call(["carbon", folder, *FLAGS, "--currency", "EUR"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    assert printed.index("baseline ") < printed.index("int8 ")
    assert "x energy" in printed
    assert "(operational: device only)" in printed
    assert "EUR" in printed
    assert "est." in printed


def test_csv_and_markdown_have_a_line_per_row_and_no_markup_of_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = build.environment(cpu_model="=cmd|calc *EPYC*")
    folder = write(tmp_path, run(int8(environment=where), environment=where))
    assert call(["carbon", folder, *FLAGS, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["role"] for row in rows] == ["baseline", "candidate"]
    assert rows[1]["hardware"].startswith("'=cmd")
    assert rows[1]["inference_total_g"] == ""
    assert call(["carbon", str(EXAMPLE), *FLAGS, "--format", "csv"]) == 0
    honest = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert float(honest[1]["inference_total_g"]) > float(honest[1]["inference_operational_g"]) > 0
    assert call(["carbon", folder, "--format", "md"]) == 0
    text = capsys.readouterr().out
    assert r"=cmd\|calc \*EPYC\*" in text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--region", "DUE"), "Did you mean 'DEU'"),
        (("--region", "DEU", "--grid-g-per-kwh", "3"), "give one of both"),
        (("--site", "gogle"), "google"),
        (("--pue", "0.5"), "--pue"),
        (("--utilisation", "2"), "--utilisation"),
        (("--grid-g-per-kwh", "nan"), "--grid-g-per-kwh"),
        (("--price-per-hour", "-1"), "--price-per-hour"),
        (("--share", "1.5", "--embodied-kg", "3"), "--share"),
    ],
)
def test_impossible_flags_are_input_errors(
    flags: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["carbon", str(EXAMPLE), *flags]) == 2
    assert said in capsys.readouterr().err


def test_no_network_is_touched(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert asked(capsys, str(EXAMPLE), "--region", "FRA")["inputs"]["grid"]["value"] > 0
