"""`compressbench compare`: exit codes, forms, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import compare_parts as parts
import pytest
import record_builder as build

from compressbench.cli.main import call
from compressbench.records.store import RecordStore, dump

ANSWERS = {"baseline": parts.answers_of(1), "one": parts.answers_of(2, right=0.9), "two": parts.answers_of(3)}


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Path]:
    return parts.written(tmp_path, ANSWERS, baseline={"measurement": build.interleaved()})


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = call(["compare", *map(str, arguments)])
    found = capsys.readouterr()
    return code, found.out, found.err


@pytest.mark.usefixtures("run")
def test_a_folder_is_compared_in_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, tmp_path)
    assert (code, err) == (0, "")
    assert "one against baseline" in out
    code, out, _ = said(capsys, tmp_path, "--format", "md")
    assert (code, out.splitlines()[2]) == (0, "|  | **baseline** | **one** | **two** |")
    for form in (("--json",), ("--format", "json")):
        code, out, _ = said(capsys, tmp_path, *form)
        assert code == 0
        assert [each["candidate"] for each in json.loads(out)["candidates"]] == ["one", "two"]
    code, out, _ = said(capsys, tmp_path, "--full")
    assert code == 0
    assert "parameters" in out


def test_files_are_compared_with_the_first(
    tmp_path: Path, run: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said(capsys, run["two"], run["one"], "--json")
    found = json.loads(out)
    assert (code, found["reference"]["candidate"]) == (0, "two")
    assert found["candidates"][0]["against_reference"]["latency_p50_s"]["how"] == "through the baseline"
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(run["one"], alone)
    code, out, _ = said(capsys, alone, run["two"], "--json")
    assert (code, json.loads(out)["reference"]["candidate"]) == (0, "one")


def test_other_conditions_exit_5_and_are_named(
    tmp_path: Path, run: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    other = parts.written(
        tmp_path / "other", ANSWERS, run_id=parts.SECOND_RUN, environment=build.environment(num_threads=1)
    )
    code, out, err = said(capsys, run["one"], other["one"])
    assert (code, out) == (5, "")
    assert "threads: 2 on 2 cores | 1 on 2 cores" in err
    code, out, _ = said(capsys, run["one"], other["one"], "--force")
    assert code == 0
    mark = "NOT COMPARABLE, forced: these rows differ in threads"
    assert (out.splitlines()[0], out.splitlines()[-1]) == (mark, mark)
    code, out, _ = said(capsys, run["one"], other["one"], "--force", "--json")
    assert json.loads(out)["watermark"] == mark


def test_what_cannot_be_compared_exits_2(
    tmp_path: Path, run: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path.parent / f"{tmp_path.name}-odd"
    odd.mkdir()
    broken = odd / "broken.json"
    broken.write_bytes(run["one"].read_bytes().replace(b"cpu", b"gpu", 1))
    for arguments, words in (
        ((run["one"],), "no record of its baseline"),
        ((run["one"], run["one"]), "given twice"),
        ((run["one"], tmp_path), "must hold one record"),
        ((run["one"], broken), "its checksum doesn't match"),
        ((run["one"], tmp_path / "nothing.json"), "no such file"),
        ((run["one"], run["two"], "--recipe", "example"), "--recipe chooses in one folder"),
        ((tmp_path, "--recipe", "another"), "no row has recipe 'another'"),
    ):
        code, out, err = said(capsys, *arguments)
        assert (code, out) == (2, ""), arguments
        assert words in err
    shutil.copy(broken, tmp_path)
    code, _, err = said(capsys, tmp_path)
    assert code == 0
    assert "left out" in err


def test_several_recipes_need_a_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = RecordStore(tmp_path)
    for name in ("a", "b"):
        said_by = build.recipe(("x",), name=name)
        for candidate in ("baseline", "x"):
            store.append(build.record(candidate, recipe=said_by))
    code, _, err = said(capsys, tmp_path)
    assert code == 2
    assert "Choose one with --recipe" in err
    code, out, _ = said(capsys, tmp_path, "--recipe", "b", "--json")
    assert (code, json.loads(out)["reference"]["recipe"]) == (0, "b")


@pytest.mark.parametrize("evil", ["../../x\x1b[31m", "a" * 400, "=cmd()", "<b>|`x`</b>", "\u202ename", "x\0y"])
def test_hostile_names_stay_text(tmp_path: Path, evil: str, capsys: pytest.CaptureFixture[str]) -> None:
    said_by = build.recipe((evil, "two"), name=evil)
    records = [build.record(name, recipe=said_by) for name in ("baseline", evil, "two")]
    files = [tmp_path / f"{number}.json" for number in range(3)]
    for file, record in zip(files, records, strict=True):
        file.write_bytes(dump(record))
    for arguments in ((tmp_path,), files, files[1:], (tmp_path, "--format", "md"), (*files[1:], "--format", "md")):
        code, out, err = said(capsys, *arguments)
        assert (code, err) == (0, "")
        assert not {"\x1b", "\u202e", "\0"} & set(out)
    files[2].write_bytes(dump(build.record("two", recipe=said_by, device="cuda:0")))
    code, out, err = said(capsys, *files[1:])
    assert (code, out) == (5, "")
    assert not {"\x1b", "\u202e", "\0"} & set(err)


@pytest.mark.usefixtures("run")
def test_a_folder_is_compared_without_anything_heavy(tmp_path: Path) -> None:
    script = (
        "import sys; from compressbench.cli.main import call;"
        f"code = call(['compare', {str(tmp_path)!r}, '--json']);"
        "heavy = {'torch', 'transformers', 'numpy', 'scipy', 'pyarrow', 'duckdb', 'rich.markdown'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else code)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
