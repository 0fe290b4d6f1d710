"""`compressbench table` on many records: a limit where people read, everything where programs do."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import record_builder as build

from compressbench.cli.main import call
from compressbench.records.store import RecordStore
from compressbench.report import index

Output = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five runs of three records; their recipes ask different tasks."""
    monkeypatch.setenv("COLUMNS", "2000")
    store = RecordStore(tmp_path / "records")
    for day in range(1, 6):
        run_id = f"202611{day:02}T000000.000000Z"
        said = build.recipe(("int8", "int4"), name=f"recipe-{day}")
        scores = (build.accuracy(),) if day % 2 else (build.perplexity(12.5), build.accuracy())
        for name in ("baseline", "int8", "int4"):
            short = build.measurement(0.01, 0.01, rounds=2, calls=5)
            store.append(build.record(name, run_id=run_id, recipe=said, scores=scores, measurement=short))
    return store.folder


@pytest.fixture(params=["read", "indexed"])
def however(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "INDEX_FROM", 1 if request.param == "indexed" else 10**9)


@pytest.mark.usefixtures("however")
@pytest.mark.parametrize("form", ["terminal", "md"])
def test_people_get_the_newest_rows_and_are_told_of_the_others(form: str, folder: Path, capsys: Output) -> None:
    assert call(["table", str(folder), "--format", form, "--limit", "7"]) == 0
    said = capsys.readouterr().out
    assert said.count("int8") == 2
    assert "Of 15 rows those of the newest runs are shown, 6. --limit 0 shows all" in " ".join(said.split())
    assert call(["table", str(folder), "--format", form, "--limit", "0"]) == 0
    said = capsys.readouterr().out
    assert said.count("int8") == 5
    assert "--limit" not in said


def test_a_blank_line_stands_before_the_table_of_other_conditions(folder: Path, capsys: Output) -> None:
    assert call(["table", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [at for at, line in enumerate(lines) if line.startswith("recipe-")]
    assert len(heads) == 5
    assert not any(lines[at - 1] for at in heads[1:])


def test_in_markdown_other_conditions_have_a_table_and_a_heading_of_their_own(folder: Path, capsys: Output) -> None:
    assert call(["table", str(folder), "--format", "md"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("### ")] == [f"recipe-{day}" for day in range(1, 6)]
    assert sum(line.startswith("| candidate |") for line in lines) == 5
    assert call(["table", str(folder / "recipe-1.int8.20261101T000000.000000Z.json"), "--format", "md"]) == 0
    assert capsys.readouterr().out.startswith("| candidate |")


@pytest.mark.usefixtures("however")
def test_programs_get_every_row(folder: Path, capsys: Output, tmp_path: Path) -> None:
    assert call(["table", str(folder), "--json", "--limit", "2"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert call(["table", str(folder), "--format", "csv", "--limit", "2"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == len(lines) == 15
    assert [line["candidate"] for line in lines] == [row["candidate"] for row in rows]
    for row, line in zip(rows, lines, strict=True):
        for name in ("perplexity", "accuracy", "disk_bytes"):
            cell = row["cells"].get(name, {"value": None, "reason": "not asked"})
            assert (line[name], line[f"{name}_reason"]) == (
                "" if cell["value"] is None else str(cell["value"]), cell["reason"],
            )  # fmt: skip
    assert call(["table", str(folder), "--json", "--out", str(tmp_path / "rows.json")]) == 0
    assert json.loads((tmp_path / "rows.json").read_text()) == rows


@pytest.mark.parametrize("form", ["terminal", "md", "csv", "json"])
def test_a_table_is_the_same_with_and_without_an_index(
    form: str, folder: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for least in (10**9, 1, 1):
        monkeypatch.setattr(index, "INDEX_FROM", least)
        assert call(["table", str(folder), "--format", form]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] == said[2]


@pytest.mark.usefixtures("however")
def test_a_record_with_a_changed_byte_is_said_every_time(folder: Path, capsys: Output) -> None:
    assert call(["table", str(folder)]) == 0
    assert not capsys.readouterr().err
    path = next(folder.glob("*int8*"))
    path.write_bytes(path.read_bytes().replace(b"Example CPU", b"Example CPA"))
    for more in ([], [], ["--reindex"]):
        assert call(["table", str(folder), "--json", *more]) == 0
        said = capsys.readouterr()
        assert said.err.startswith(f"warning: left out: {path}: the file was changed after it was written")
        assert len(json.loads(said.out)) == 14


@pytest.mark.usefixtures("however")
def test_the_gate_on_strata_reads_the_same_rows(folder: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressbench.report import sources

    asked: list[object] = []
    original = sources.sources_of

    def noted(*given: object) -> object:
        asked.append(given)
        return original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("compressbench.report.catalog.sources_of", noted)
    assert call(["table", str(folder), "--max-stratum-drop", "0.05"]) == 2
    assert capsys.readouterr().err.count("inconclusive int8") == 5
    assert len(asked) == 1
