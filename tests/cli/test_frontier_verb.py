"""`compressbench frontier`: what it prints in each format, and its exit codes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import frontier_parts as parts
import pytest
import record_builder as build
from reading_verbs import text_within

from compressbench.cli.main import call
from compressbench.records.record import Record
from compressbench.records.store import RecordStore


def write(folder: Path, records: list[Record]) -> str:
    store = RecordStore(folder)
    for record in records:
        store.append(record)
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return write(tmp_path / "records", parts.family())


@pytest.mark.parametrize("width", [80, 120])
def test_it_says_where_returns_stop_and_shows_every_step(
    folder: str, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    text = text_within(capsys, width, "frontier", folder, "--cost", "size")
    assert "Above 27.0 MB (four) nothing more is shown to be gained" in text
    assert "returns stop here" in text
    assert "accuracy, better above" in text


def test_every_format_has_every_row_of_the_front(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {}
    for form in ("terminal", "md", "csv", "json"):
        assert call(["frontier", folder, "--cost", "size", "--format", form]) == 0
        texts[form] = capsys.readouterr().out
        assert all(name in texts[form] for name in ("two", "three", "four", "eight", "baseline"))
    lines = list(csv.DictReader(io.StringIO(texts["csv"])))
    assert [line["candidate"] for line in lines if line["is_stop"] == "True"] == ["four"]
    found = json.loads(texts["json"])
    assert found["stop"]["label"] == "four"
    assert len(found["rows"]) == 6
    assert [step["is_shown"] for step in found["steps"]] == [True, True, False, False]
    assert found["num_rivals"] == 0
    assert call(["frontier", folder, "--cost", "size", "--json"]) == 0
    assert capsys.readouterr().out == texts["json"]


def test_rivals_are_added_to_the_recipe_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rivals = [
        *parts.rival("tiny", "embedded:tiny", 0.915, 0.15, 3e6),
        *parts.rival("other", "embedded:other", 0.5, 2, 9e7),
    ]
    folder = write(tmp_path, [*parts.family(), *rivals])
    asked = ["frontier", folder, "--cost", "size", "--recipe", "family", "--json"]
    assert call(asked) == 0
    assert json.loads(capsys.readouterr().out)["num_rivals"] == 0
    assert call([*asked, "--rival", "tiny"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["rival"] for row in found["rows"] if row["rival"]] == ["smaller dense model"]
    assert call([*asked[:4], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["rival"] for row in found["rows"] if row["rival"]] == ["smaller dense model", "larger dense model"]
    assert call([*asked, "--rival", "nobody"]) == 2
    assert "no row has recipe 'nobody'" in capsys.readouterr().err


def test_the_picture_is_written_where_it_was_asked_for(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "frontier.svg"
    assert call(["frontier", folder, "--cost", "size", "--svg", str(picture)]) == 0
    assert picture.read_text().startswith("<svg ")
    assert call(["frontier", folder, "--cost", "size", "--svg", str(tmp_path / "no" / "where.svg")]) == 2
    assert "can't be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--cost", "enrgy"], 2, "Did you mean 'energy'?"),
        (["--cost", "sparsity"], 2, "it is no cost"),
        (["--cost", "ttft"], 4, "no row has both accuracy and ttft_p50_s"),
        (["--smallest-gain", "-1"], 2, "at least 0"),
        (["--recipe", "other"], 2, "no row has recipe 'other'"),
    ],
)
def test_what_can_not_be_done_has_its_exit_code(
    folder: str, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    assert call(["frontier", folder, *options]) == code
    assert said in capsys.readouterr().err


def test_groups_are_refused_until_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = parts.family(environment=build.environment(cpu_model="Other CPU"), run_id="20261122T094513.926665Z")
    folder = write(tmp_path, [*parts.family(), *other])
    assert call(["frontier", folder, "--cost", "size"]) == 5
    assert "can't be ranked together" in capsys.readouterr().err
    assert call(["frontier", folder, "--cost", "size", "--force"]) == 0
    assert capsys.readouterr().out.startswith("NOT COMPARABLE, forced")


def test_a_hostile_name_stays_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = parts.family()
    records[1] = records[1].model_copy(update={"candidate": "[red]=x|<b>[-red]\x1b[31m\u202e"})
    folder = write(tmp_path, records)
    for form in ("terminal", "md", "csv", "json"):
        assert call(["frontier", folder, "--cost", "size", "--format", form]) == 0
        printed = capsys.readouterr().out
        assert "\x1b" not in printed
        assert "\u202e" not in printed
        if form == "md":
            assert "<b>" not in printed
        if form == "terminal":
            assert "[red]=x|<b>[-red] [31m" in printed


@pytest.mark.parametrize("form", ["terminal", "md"])
def test_a_row_that_is_better_only_over_several_steps_says_so_itself(
    form: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folder = Path(__file__).parents[1] / "data" / "quickstart"
    assert call(["frontier", str(folder), "--format", form]) == 0
    out = capsys.readouterr().out
    if form == "md":
        row = next(line for line in out.splitlines() if line.startswith("| **int8-dynamic**"))
    else:
        row = out.partition("row of the front")[2].partition("int8-dynamic  ")[2].partition("NOT RANKED")[0]
    assert "no gain shown" in row
    assert "+1.07 pp over 4-layers-distilled-int8 shown" in row
