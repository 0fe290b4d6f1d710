"""`compressbench pareto`: what it prints in each format, and its exit codes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import record_builder as build

from compressbench.cli.main import call
from compressbench.records.record import Record
from compressbench.records.store import RecordStore


def run(name: str = "example", cpu: str = "Example CPU", run_id: str = build.RUN_ID) -> list[Record]:
    candidates = ("small", "lossy", "broken")
    changed: dict[str, Any] = {
        "recipe": build.recipe(candidates, name=name),
        "environment": build.environment(cpu_model=cpu),
        "run_id": run_id,
        "measurement": build.interleaved(build.noisy(0.010, seed=1), build.noisy(0.010, seed=2), rounds=12),
    }
    return [
        build.record(**changed),
        build.record(
            "small", **changed, readings=build.readings(disk_bytes=45e6), scores=(build.accuracy_after(4, 5),)
        ),
        build.record("lossy", **changed, scores=(build.accuracy_after(400, 10),)),
        build.failed("broken", recipe=changed["recipe"], run_id=run_id, environment=changed["environment"]),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    write(tmp_path, run())
    return str(tmp_path)


def write(folder: Path, records: list[Record]) -> None:
    store = RecordStore(folder)
    for record in records:
        store.append(record)


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_says_who_is_on_the_front_and_who_is_behind_whom(
    folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert call(["pareto", folder, "-m", "accuracy", "-m", "size"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    lines = [line.rstrip() for line in printed.splitlines()]
    assert next(line for line in lines if line.startswith("small")).split() == ["small", "93.03", "%", "45.0", "MB"]
    assert any("on the front, > 99 %" in line and "#1 a" in line for line in lines)
    assert any("> 99 % behind small" in line for line in lines)
    assert "NOT RANKED broken: failed: CUDA ran out of memory" in " ".join(printed.split())
    assert "seed 0" in " ".join(printed.split())


def test_without_metrics_it_asks_for_the_first_tasks_metric_the_speed_and_the_size(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["pareto", folder, "--json"]) == 0
    (front,) = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in front["metrics"]] == ["accuracy", "latency_p50_s", "disk_bytes"]


def test_offline_rows_are_asked_for_their_throughput(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offline = {"scenario": "offline", "batch_size": 8, "sequence_length": 32}
    write(tmp_path, [record.model_copy(update={"workload": offline}) for record in run()])
    assert call(["pareto", str(tmp_path), "--json"]) == 0
    (front,) = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in front["metrics"]] == ["accuracy", "throughput_per_s", "disk_bytes"]


def test_every_format_has_every_row(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {}
    for form in ("terminal", "md", "csv", "json"):
        assert call(["pareto", folder, "-m", "accuracy", "-m", "size", "--format", form]) == 0
        texts[form] = capsys.readouterr().out
        assert all(name in texts[form] for name in ("baseline", "small", "lossy", "broken"))
    assert len(list(csv.reader(io.StringIO(texts["csv"])))) == 5
    assert len(json.loads(texts["json"])[0]["rows"]) == 3
    assert texts["md"].startswith("### example")


def test_groups_stand_apart_until_forced_or_picked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, run("one"))
    write(tmp_path, run("two", "Other CPU", "20261122T074514.000000Z"))
    asked = ["pareto", str(tmp_path), "-m", "accuracy", "-m", "size", "--json"]
    assert call(asked) == 0
    apart = json.loads(capsys.readouterr().out)
    assert [len(front["rows"]) for front in apart] == [3, 3]
    assert call([*asked, "--recipe", "two"]) == 0
    assert [front["key"] for front in json.loads(capsys.readouterr().out)] == [apart[1]["key"]]
    assert call([*asked, "--key", apart[0]["key"]]) == 0
    assert [front["key"] for front in json.loads(capsys.readouterr().out)] == [apart[0]["key"]]
    assert call([*asked[:-1], "--force"]) == 0
    assert capsys.readouterr().out.startswith("NOT COMPARABLE, forced: these rows differ in hardware")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["-m", "latancy", "-m", "size"], 2, "Did you mean 'latency'?"),
        (["-m", "size"], 2, "at least two metrics"),
        (["-m", "size", "-m", "disk_bytes"], 2, "at least two metrics"),
        (["-m", "size", "-m", "ttft"], 4, "no row can be ranked by all of disk_bytes, ttft_p50_s"),
        (["--recipe", "other"], 2, "no row has recipe 'other'"),
    ],
)
def test_what_can_not_be_done_has_its_exit_code(
    folder: str, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    assert call(["pareto", folder, *options]) == code
    assert said in capsys.readouterr().err


def test_markup_in_a_name_stays_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = run()
    records[1] = records[1].model_copy(update={"candidate": "[red]x[-red]\x1b[31m\u202e"})
    write(tmp_path, records)
    assert call(["pareto", str(tmp_path), "-m", "accuracy", "-m", "size"]) == 0
    printed = capsys.readouterr().out
    assert "[red]x[-red] [31m" in printed
    assert "\x1b" not in printed
    assert "\u202e" not in printed


def test_no_difference_reads_as_in_every_other_table(capsys: pytest.CaptureFixture[str]) -> None:
    tie = Path(__file__).parent.parent / "data" / "golden" / "tie"
    assert call(["pareto", str(tie)]) == 0
    out = capsys.readouterr().out
    assert "±0.00" in out
    assert "+0.00" not in out
