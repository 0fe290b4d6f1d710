"""`show`: what is wrong comes first, verdicts need the baseline of the run, and nothing steers the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import record_builder as build

from compressbench.cli.main import call
from compressbench.core.errors import RecordError
from compressbench.plan import plan_file
from compressbench.records.record import Record
from compressbench.records.store import RecordStore, read_record, read_records
from compressbench.report.beside import run_beside
from compressbench.report.record_words import record_lines, sparkline
from compressbench.report.rows import rows_of

ROOT = Path(__file__).parent.parent.parent
RECORDED = sorted((ROOT / "tests" / "data").glob("records-v*/*.json"))
QUICKSTART = ROOT / "tests" / "data" / "quickstart"
INT8 = QUICKSTART / "quickstart.int8-dynamic.20261127T010930.828612Z.json"


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert call(["show", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def text_of(record: Record, run: list[Record]) -> str:
    return "\n".join("".join(piece for piece, _ in line) for line in record_lines(record, run))


@pytest.mark.parametrize("path", [*RECORDED, INT8], ids=lambda path: f"{path.parent.name}/{path.name.split('.')[1]}")
def test_every_record_fits_eighty_columns_but_for_its_commands(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, path).splitlines()
    assert [line for line in lines if len(line) > 80 and not line.startswith(("pip ", "compressbench "))] == []
    record = read_record(path)
    assert lines[0] == f"{record.candidate}  ({record.status})"
    assert f"compressbench run {record.recipe.name}.yaml --out results/{record.recipe.name}" in lines


def test_verdicts_are_those_of_the_table_of_the_whole_run(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, INT8)
    records, _ = read_records([QUICKSTART])
    run = [each for each in records if each.run_id in INT8.name]
    row = next(row for row in rows_of(run) if row.candidate == "int8-dynamic")
    score, speed = row.against_baseline["accuracy"], row.against_baseline["latency_p50_s"]
    assert score.difference is not None
    assert f"{100 * score.difference:+.2f} {score.verdict}" in " ".join(out.split())
    assert speed.verdict in out
    assert f"comparability key {row.comparability_key}" in out
    assert f"{score.num_harmful} lost, {score.num_beneficial} won" in " ".join(out.split())


def test_without_its_baseline_a_record_has_no_verdict_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / INT8.name
    alone.write_bytes(INT8.read_bytes())
    out = " ".join(shown(capsys, alone).split())
    assert "The baseline of this run is not in the same folder, and verdicts need it." in out
    assert "faster" not in out
    assert "The baseline of this run" not in " ".join(shown(capsys, INT8).split())


def test_a_sibling_that_was_changed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = RecordStore(tmp_path)
    path = store.append(build.record("int8"))
    baseline = store.append(build.record())
    baseline.write_bytes(baseline.read_bytes().replace(b"0.93", b"0.99", 1))
    out = " ".join(shown(capsys, path).split())
    assert "left out" in out
    assert "changed after it was written" in out


def test_only_records_of_the_same_run_and_recipe_stand_beside(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    own = build.record("int8")
    path = store.append(own)
    store.append(build.record())
    store.append(build.record("other", recipe=build.recipe(name="another")))
    store.append(build.record("late", run_id="20261123T000000.000000Z"))
    (tmp_path / f"copy.{build.RUN_ID}.json").write_bytes(path.read_bytes())
    run, unreadable = run_beside(path, own)
    assert [each.candidate for each in run] == ["baseline", "int8"]
    assert unreadable == []


def test_a_run_whose_name_is_a_pattern_finds_itself_only(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.append(build.record())
    odd = build.record("int8", run_id="*")
    assert run_beside(store.append(odd), odd)[0] == [odd]


def test_what_is_wrong_stands_above_all_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, next(path for path in RECORDED if "v4" in str(path) and "in-name" in path.name))
    assert out.index("FALSE CLAIM") < out.index("accuracy")
    assert "8 bits are stored per weight where 4 are claimed" in out
    contended = build.record("int8", measurement=build.measurement(steady="not-reached"))
    text = text_of(contended, [build.record(), contended])
    assert text.index("NOT RANKED") < text.index("latency p50")
    styles = {style for line in record_lines(contended, [contended]) for text, style in line if "NOT RANKED" in text}
    assert styles == {"red"}


def test_a_failed_record_says_why_and_shows_no_empty_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, next(path for path in RECORDED if "broken" in path.name))
    assert "FAILED        CellError: CUDA ran out of memory" in out
    assert "latencies" not in out


def test_bars_are_as_high_as_their_share_and_nothing_that_is_there_vanishes() -> None:
    assert sparkline([0, 1e-9, 0.25, 0.5, 1.0], 1.0) == " ▁▂▄█"
    assert sparkline([3.0, 6.0], 6.0) == "▄█"


def test_the_histogram_has_a_line_for_each_arm_in_the_same_bins() -> None:
    measured = build.interleaved(build.noisy(0.010, seed=1), build.noisy(0.005, seed=2))
    record = build.record("int8", measurement=measured)
    lines = text_of(record, [build.record(), record]).splitlines()
    own, other = (next(line for line in lines if line.startswith(f"{arm} ")) for arm in ("candidate", "baseline"))
    assert own.endswith("240 calls")
    bars = [[at for at, sign in enumerate(line[14:54]) if sign != " "] for line in (own, other)]
    assert max(bars[0]) < min(bars[1])
    assert "p50 5.0" in lines[lines.index(own) + 1]
    assert "p50 10." in lines[lines.index(other) + 1]


def test_the_recipe_of_a_record_can_be_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "again.yaml"
    path.write_text(shown(capsys, INT8, "--recipe"))
    assert plan_file(str(path)).recipe_hash == read_record(INT8).recipe.hash


def test_json_is_the_whole_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert Record.model_validate(json.loads(shown(capsys, INT8, "--json"))) == read_record(INT8)


def test_no_name_steers_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "x\x1b[31m\u202ey\r\n[bold]z[/bold]"
    said = build.recipe((evil,), name="evil", model={"id": evil})
    record = build.record(
        evil, recipe=said, steps=(build.step(evil, option=evil),), environment=build.environment(cpu_model=evil)
    )
    path = RecordStore(tmp_path).append(record.model_copy(update={"candidate": "x"}))
    out = shown(capsys, path) + shown(capsys, path, "--recipe")
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "[bold]z[/bold]" in out, "no markup is read"


def test_what_is_no_record_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(RecordError):
        read_record(path)
    assert call(["show", str(path)]) == 2
