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


@pytest.mark.usefixtures("however")
@pytest.mark.parametrize("verb", ["table", "leaderboard", "recommend", "pareto", "frontier"])
def test_a_folder_without_a_readable_record_is_an_error(
    verb: str, folder: Path, capsys: Output, tmp_path: Path
) -> None:
    for path in folder.glob("*.json"):
        path.write_bytes(path.read_bytes()[:2000])
    (folder / "notes.json").write_text('{"some": "notes"}')
    more = ["--out", str(tmp_path / "site")] if verb == "leaderboard" else []
    assert call([verb, str(folder), *more]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert f"{folder}: 0 of 16 files could be read. The warnings above say why" in said.err
    assert not (tmp_path / "site").exists()


@pytest.mark.usefixtures("however")
def test_json_files_that_are_no_records_are_named(folder: Path, capsys: Output) -> None:
    (folder / "artefacts").mkdir()
    for name in ("table.json", "artefacts/config.json"):
        (folder / name).write_text("{}")
    assert call(["table", str(folder)]) == 0
    assert not capsys.readouterr().err
    (folder / "notes.json").write_text('{"some": "notes"}')
    assert call(["table", str(folder)]) == 0
    expected = f"warning: skipped: 1 JSON file is no record (they have no schema_version): {folder / 'notes.json'}"
    assert capsys.readouterr().err.strip() == expected.replace("they have", "it has")
    for number in range(6):
        (folder / f"a{number}.json").write_text("[]")
    assert call(["table", str(folder)]) == 0
    err = capsys.readouterr().err
    assert err.startswith("warning: skipped: 7 JSON files are no records (they have no schema_version): ")
    assert err.strip().endswith("a4.json, and 2 more")


@pytest.mark.usefixtures("however")
@pytest.mark.parametrize("form", ["terminal", "md"])
def test_older_rows_are_counted_and_other_conditions_are_not_older(form: str, folder: Path, capsys: Output) -> None:
    store = RecordStore(folder)
    again, longer = "20261201T000000.000000Z", {"scenario": "single-stream", "batch_size": 1, "sequence_length": 128}
    said = build.recipe(("int8", "int4"), name="recipe-1")
    for name in ("baseline", "int8"):
        store.append(build.record(name, run_id=again, recipe=said))
        store.append(build.record(name, run_id="20261202T000000.000000Z", recipe=said, workload=longer))
    assert call(["table", str(folder), "--format", form]) == 0
    out = " ".join(capsys.readouterr().out.split())
    # the older baseline stays beside int4, which was not measured again
    assert out.count("recipe-1 ·") == 2
    assert "1 row of an older run is left out" in out
    assert call(["table", str(folder), "--format", form, "--all"]) == 0
    assert "left out" not in capsys.readouterr().out


def test_a_leaderboard_says_how_many_older_rows_it_leaves_out(folder: Path, capsys: Output, tmp_path: Path) -> None:
    said = build.recipe(("int8", "int4"), name="recipe-1")
    for name in ("baseline", "int8", "int4"):
        RecordStore(folder).append(build.record(name, run_id="20261201T000000.000000Z", recipe=said))
    assert call(["leaderboard", str(folder), "--out", str(tmp_path / "site")]) == 0
    assert "3 rows of older runs are left out" in (tmp_path / "site" / "index.html").read_text()
    assert "3 rows of older runs are left out" in (tmp_path / "site" / "table.md").read_text()
    assert json.loads((tmp_path / "site" / "table.json").read_text())["num_older"] == 3
    capsys.readouterr()


def test_rows_of_one_heading_stand_apart_where_other_conditions_differ(folder: Path, capsys: Output) -> None:
    other = build.environment(cpu_flags=("avx2",))
    for name in ("baseline", "int8"):
        said = build.recipe(("int8", "int4"), name="recipe-1")
        RecordStore(folder).append(build.record(name, run_id="20261201T000000.000000Z", recipe=said, environment=other))
    assert call(["table", str(folder), "--format", "md"]) == 0
    tables = [part for part in capsys.readouterr().out.split("### ") if part.startswith("recipe-1 ")]
    assert [each.count("**int8**") for each in tables] == [1, 1]
