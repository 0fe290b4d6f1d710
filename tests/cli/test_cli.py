"""The command line: exit codes, JSON, one message for what is wrong, and no torch where none is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import record_builder as build

import compressbench
from compressbench.cli.main import call
from compressbench.core.errors import CellError
from compressbench.plan import plan_file
from compressbench.records.record import Record
from compressbench.records.store import RecordStore

RECORDED = Path(__file__).parent.parent / "data" / "records-v1"
INT8 = next(RECORDED.glob("*int8*.json"))
GOOD = """\
name: lm
model: {id: embedded:shakespeare-lm}
tasks: [{use: perplexity, data: embedded:tinyshakespeare}]
candidates: [{name: half, compress: [{use: cast}]}]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD)
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = call([str(each) for each in arguments])
    found = capsys.readouterr()
    return code, found.out, found.err


HOOK = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "datasets", "accelerate", "codecarbon"):
            raise AssertionError(name + " was imported")
sys.meta_path.insert(0, NoTorch())
from compressbench.cli.main import call
codes = [call(arguments.split("|")) for arguments in sys.argv[1:]]
print(codes, file=sys.stderr)
"""


def test_no_verb_that_only_reads_imports_torch(recipe: Path) -> None:
    commands = [
        "--help", "run|--help", "--version", f"validate|{recipe}", f"plan|{recipe}", f"plan|{recipe}|--json",
        f"table|{RECORDED}", f"table|{RECORDED}|--json", f"show|{INT8}", "list", "list|methods|--json",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", HOOK, *commands], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1:] == [str([0] * len(commands))], done.stderr[-2000:]


def test_python_m_is_the_same_command_and_a_broken_recipe_is_one_message_without_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(GOOD.replace("use: cast", "use: kast"))
    command = [sys.executable, "-m", "compressbench", "validate", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {path}:4: candidates[0].compress[0].use: unknown method 'kast'. Did you mean 'cast'?\n"
    )


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "--version") == (0, f"compressbench {compressbench.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["validate", "{recipe}"], 0),
        (["plan", "{recipe}"], 0),
        (["table", "{records}"], 0),
        (["list"], 0),
        (["validate", "{out}/nothing.yaml"], 2),
        (["plan", "{out}/nothing.yaml"], 2),
        (["run", "{out}/nothing.yaml", "--out", "{out}/x"], 2),
        (["run", "{recipe}", "--out", "{recipe}/below-a-file"], 2),
        (["table", "{out}/nowhere"], 2),
        (["table", "{out}"], 2),
        (["table", "{records}", "--out", "{out}/x.txt"], 2),
        (["table", "{records}", "--format", "md", "--out", "{recipe}/x.md"], 2),
        (["table", "{records}", "--format", "xml"], 2),
        (["show", "{recipe}"], 2),
        (["show", "{out}/nothing.json"], 2),
        (["list", "nonsense"], 2),
        (["nonsense"], 2),
        (["run"], 2),
    ],
)
def test_exit_codes_are_those_that_scripts_rely_on(
    arguments: list[str], code: int, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    given = [each.format(recipe=recipe, out=out, records=RECORDED) for each in arguments]
    found, _, err = said(capsys, *given)
    assert found == code
    assert "Traceback" not in err
    assert bool(err) == (code != 0)
    assert recipe.read_text() == GOOD


def test_an_error_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "table", "no\x1b[31mwhere")
    assert code == 2
    assert "\x1b" not in err


def test_validate_and_plan_say_the_same_hash(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = plan_file(str(recipe))
    _, out, _ = said(capsys, "validate", recipe, "--json")
    assert json.loads(out) == {"recipe": "lm", "hash": expected.recipe_hash, "is_valid": True}
    assert said(capsys, "validate", recipe)[1] == (
        f"{recipe}: valid; 1 baseline, 1 candidate, hash {expected.recipe_hash}\n"
    )
    _, out, _ = said(capsys, "plan", recipe, "--json")
    data = json.loads(out)
    assert data["hash"] == expected.recipe_hash
    assert [(cell["name"], cell["role"], cell["key"]) for cell in data["cells"]] == [
        (cell.name, cell.role, cell.key) for cell in expected.cells
    ]
    assert data["cells"][1]["steps"] == [{"use": "cast", "dtype": "bfloat16"}]


def test_the_plan_for_people_has_every_cell(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    _, out, _ = said(capsys, "plan", recipe)
    for cell in plan_file(str(recipe)).cells:
        assert any(cell.name in line and cell.key in line for line in out.splitlines())
    assert "In all about" in out


def test_the_plan_of_a_model_that_is_not_here_has_no_duration_rather_than_a_vague_one(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(GOOD.replace("embedded:shakespeare-lm", "nobody/has-this-model, revision: " + "0" * 40))
    code, out, _ = said(capsys, "plan", recipe)
    assert code == 0
    assert "How long it takes in all can't be told before the model is on this machine." in out
    assert "within a factor" not in out
    assert "about unknown" not in out


def test_list_has_every_name_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(said(capsys, "list", "--json")[1])
    assert set(data) == {"methods", "tasks", "runtimes", "meters"}
    methods = {entry["name"]: entry for entry in data["methods"]}
    assert methods["depth-pruning"]["options"].keys() >= {"num_layers", "keep"}
    assert methods["smoothquant"]["accepts"] == ["float32"]
    tasks = {entry["name"]: entry for entry in json.loads(said(capsys, "list", "tasks", "--json")[1])}
    assert (tasks["perplexity"]["metric"], tasks["perplexity"]["direction"]) == ("perplexity", "lower")
    text = said(capsys, "list", "methods")[1]
    assert all(name in text for name in methods)


def test_a_false_claim_is_the_first_thing_below_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    audited = RECORDED.parent / "records-v2"
    for form in ("md", "terminal"):
        out = " ".join(said(capsys, "table", audited, "--format", form)[1].split())
        assert "FALSE CLAIM gptq-in-name: 8 bits are stored per weight where 4 are claimed" in out
        assert "FALSE CLAIM gptq:" not in out
    rows = {row["candidate"]: row for row in json.loads(said(capsys, "table", audited, "--format", "json")[1])}
    assert rows["gptq"]["false_claims"] == []
    assert rows["baseline"]["false_claims"] is None, "it was not audited"
    assert said(capsys, "audit", audited)[0] == 3
    assert said(capsys, "audit", next(audited.glob("*.gptq.*")))[0] == 0
    shown = said(capsys, "show", next(audited.glob("*.gptq.*")))[1]
    assert "Every claim holds." in shown
    assert "loaded again, logits differ by at most 0" in shown


def test_the_table_as_json_keeps_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "table", RECORDED, "--format", "json")
    rows = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["candidate"] for row in rows] == ["baseline", "bf16", "int8-dynamic", "half-the-layers", "broken"]
    assert out == said(capsys, "table", RECORDED, "--json")[1]
    assert rows[4]["cells"]["latency_p50_s"]["value"] is None
    assert rows[2]["against_baseline"]["latency_p50_s"]["verdict"] == "faster"


@pytest.mark.parametrize("form", ["md", "csv", "json"])
def test_a_table_in_a_file_is_the_printed_one(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "table"
    printed = said(capsys, "table", RECORDED, "-f", form)[1]
    assert said(capsys, "table", RECORDED, "-f", form, "-o", path) == (0, "", "")
    assert path.read_text() == printed


def test_the_printed_table_has_the_width_of_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert said(capsys, "table", RECORDED)[1] == (RECORDED.parent / "records-v1.table.txt").read_text()


def test_a_record_that_cannot_be_read_is_told_and_the_rest_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RecordStore(tmp_path).append(build.record())
    bad = tmp_path / INT8.name
    bad.write_bytes(INT8.read_bytes().replace(b"0.9", b"1.9", 1))
    code, out, err = said(capsys, "table", tmp_path, "--json")
    assert code == 0
    assert [row["candidate"] for row in json.loads(out)] == ["baseline"]
    assert err.startswith(f"warning: left out: {bad}: the file was changed after it was written")


def test_records_of_other_conditions_stand_in_a_table_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    store = RecordStore(tmp_path)
    long = {"scenario": "single-stream", "batch_size": 1, "sequence_length": 128}
    store.append(build.record())
    store.append(build.record("int8", run_id="20261123T000000.000000Z", workload=long))
    out = said(capsys, "table", tmp_path)[1]
    short_part, _, long_part = out.partition(
        "example · embedded:minilm-banking77 · Example CPU, 2 threads · single-stream, batch 1, 128"
    )
    assert "int8" not in short_part
    assert "int8" in long_part


def test_all_runs_are_shown_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in ("20261121T000000.000000Z", "20261122T000000.000000Z"):
        RecordStore(tmp_path).append(build.record(run_id=run))
    assert len(json.loads(said(capsys, "table", tmp_path, "--json")[1])) == 1
    assert len(json.loads(said(capsys, "table", tmp_path, "--json", "--all")[1])) == 2


def test_show_has_every_number_with_its_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = said(capsys, "show", INT8)[1]
    for words in ("int8-dynamic", "92.87 %", "91.91, ", "4.00 ms", "a made-up meter", "estimated", "steady: yes"):
        assert words in out
    data = json.loads(said(capsys, "show", INT8, "--json")[1])
    assert Record.model_validate(data).candidate == "int8-dynamic"
    failed = next(RECORDED.glob("*broken*.json"))
    assert "CellError: CUDA ran out of memory" in said(capsys, "show", failed)[1]


def runs(monkeypatch: pytest.MonkeyPatch, *found: Record | BaseException) -> list[dict[str, Any]]:
    """Let `run` find these records instead of measuring, and an exception in the place of one; how it was asked."""
    asked: list[dict[str, Any]] = []

    def run_recipe(path: str | Path, out: str | Path, **options: Any) -> Iterator[Record]:
        asked.append({"path": Path(path), "out": Path(out), **options})
        plan, store = plan_file(str(path)), RecordStore(Path(out))
        for cell, each in zip(plan.cells, found, strict=False):
            if isinstance(each, BaseException):
                raise each
            recipe = build.recipe(("half",), name="lm").model_copy(update={"hash": plan.recipe_hash})
            record = each.model_copy(update={"recipe": recipe, "key": cell.key})
            store.append(record)
            yield record

    monkeypatch.setattr("compressbench.run.run_recipe", run_recipe)
    return asked


def test_a_run_prints_its_table_and_where_the_records_are(
    monkeypatch: pytest.MonkeyPatch, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = runs(monkeypatch, build.record(), build.record("half"))
    out = tmp_path / "out"
    code, text, _ = said(capsys, "run", recipe, "--out", out, "--resume")
    assert code == 0
    assert text.splitlines()[-1] == f"records: {out}"
    assert "half" in text
    assert (asked[0]["path"], asked[0]["out"], asked[0]["resume"]) == (recipe, out, True)


def test_a_run_with_json_prints_json_alone(
    monkeypatch: pytest.MonkeyPatch, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs(monkeypatch, build.record(), build.record("half"))
    code, text, err = said(capsys, "run", recipe, "--out", tmp_path / "out", "--json")
    assert code == 0
    assert [row["candidate"] for row in json.loads(text)] == ["baseline", "half"]
    assert "records: " in err


def test_a_run_shows_only_its_own_recipe(
    monkeypatch: pytest.MonkeyPatch, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RecordStore(tmp_path / "out").append(build.record("other"))
    runs(monkeypatch, build.record(), build.record("half"))
    text = said(capsys, "run", recipe, "--out", tmp_path / "out", "--json")[1]
    assert [row["candidate"] for row in json.loads(text)] == ["baseline", "half"]


def test_what_was_kept_from_before_the_recipe_grew_is_shown(
    monkeypatch: pytest.MonkeyPatch, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    runs(monkeypatch, build.record(), build.record("half"))
    said(capsys, "run", recipe, "--out", out)
    recipe.write_text(GOOD.replace("]}]\n", "]}, {name: new, compress: [{use: magnitude, sparsity: 0.5}]}]\n"))
    runs(monkeypatch)
    rows = json.loads(said(capsys, "run", recipe, "--out", out, "--json", "--resume")[1])
    assert [row["candidate"] for row in rows] == ["baseline", "half"]


@pytest.mark.parametrize(("status", "code"), [("failed", 1), ("unsupported", 0)])
def test_a_cell_that_failed_is_exit_code_1_and_the_others_are_kept(
    status: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs(monkeypatch, build.record(), build.failed("half", "out of\x1b[31m memory", status=status))
    found, text, err = said(capsys, "run", recipe, "--out", tmp_path / "out")
    assert found == code
    assert f"{status}: out of [31m memory" in err
    assert "half" in text
    assert len(list((tmp_path / "out").glob("*.json"))) == 2


def test_a_baseline_that_failed_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs(monkeypatch, build.failed("baseline"), CellError("the baseline failed", got="out of memory"))
    code, _, err = said(capsys, "run", recipe, "--out", tmp_path / "out")
    assert code == 1
    assert "error: the baseline failed (got out of memory)" in err


def test_ctrl_c_is_exit_code_130_and_keeps_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs(monkeypatch, build.record(), KeyboardInterrupt())
    out = tmp_path / "out"
    code, _, err = said(capsys, "run", recipe, "--out", out)
    assert code == 130
    assert err.splitlines()[-1] == f"error: {out}: stopped; what was already measured is kept"
    assert len(list(out.glob("*.json"))) == 1


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = f"{sys.executable} -m compressbench table {RECORDED} --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.stdout == "["
    assert "Traceback" not in done.stderr
