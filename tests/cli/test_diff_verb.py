"""`compressbench diff`: exit codes and forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import record_builder as build

from compressbench.cli.main import call
from compressbench.records.store import RecordStore, dump

RECIPES = Path(__file__).parents[2] / "recipes"
RECIPE = """\
name: one
model: embedded:shakespeare-lm
tasks: [{use: perplexity, data: embedded:tinyshakespeare}]
candidates: [{name: half, compress: [{use: cast}]}]
"""


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = call(["diff", *map(str, arguments)])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_what_could_be_read_exits_0_different_or_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text(RECIPE)
    other.write_text(RECIPE.replace("cast", "rtn"))
    code, out, err = said(capsys, one, one)
    assert (code, err) == (0, "")
    assert "no differences" in out
    code, out, _ = said(capsys, one, other)
    assert code == 0
    assert "no differences" not in out
    assert "    - {use: cast}\n    + {use: rtn}\n" in out
    code, out, _ = said(capsys, one, other, "--json")
    assert json.loads(out)["is_equal"] is False
    assert json.loads(out)["is_rankable"] is None


def test_what_is_neither_recipe_nor_record_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = tmp_path / "one.yaml"
    whole.write_text(RECIPE)
    (tmp_path / "broken.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for odd in ("nothing.yaml", "nothing.json", "broken.json", "empty"):
        code, out, err = said(capsys, whole, tmp_path / odd)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")


@pytest.mark.parametrize("evil", ["../../x\x1b[31m", "=cmd()", "[red]x", "\u202ename", "x\0y"])
def test_hostile_names_stay_text(tmp_path: Path, evil: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "1.json", tmp_path / "2.json"]
    records = build.record(), build.record(recipe=build.recipe((evil,), name=evil, **{evil: [evil]}))
    for file, record in zip(files, records, strict=True):
        file.write_bytes(dump(record))
    code, out, err = said(capsys, *files)
    assert (code, err) == (0, "")
    assert not {"\x1b", "\u202e", "\0"} & set(out)


def test_a_folder_is_its_newest_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = RecordStore(tmp_path)
    store.append(build.record())
    newest = store.append(build.record(run_id="20261123T074513.926665Z"))
    code, out, _ = said(capsys, tmp_path, newest, "--json")
    assert (code, json.loads(out)["ours"]) == (0, str(newest))
    assert json.loads(out)["is_equal"]
    assert json.loads(out)["is_rankable"]


def test_the_repositorys_recipe_is_that_of_its_records(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, RECIPES / "quickstart.yaml", RECIPES.parent / "results" / "quickstart")
    assert code == 0
    assert "The recipes' content is the same." in out
