"""The verb `audit`: what it prints, and the exit codes that scripts rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import record_builder as build
import typer

from compressbench.cli import audit as verb
from compressbench.cli.main import call
from compressbench.core.protocols import Claim
from compressbench.records.audit import Audit, ClaimAudit, DiskAudit, DtypeUse, Finding, ModuleAudit, NotChecked
from compressbench.records.record import Record
from compressbench.records.store import RecordStore

RECORDED = Path(__file__).parent.parent / "data" / "records-v1"
STAYED = Finding(
    code="stayed-full-precision",
    message="1 of 12 modules are still float32 where 4 bits are claimed",
    is_false_claim=True,
    step="gptq",
    modules=("layers.3.mlp.up_proj",),
)
SLOW = Finding(code="dequantizes-every-call", message="12 of 12 dequantize", is_false_claim=False)
UNTIMED = NotChecked(what="faster", reason="there is no paired verdict on the latency", step="gptq")


@pytest.fixture(autouse=True)
def one_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line with this verb alone, on a wide terminal."""
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("audit")(verb.audit)
    monkeypatch.setattr("compressbench.cli.main.app", app)
    monkeypatch.setenv("COLUMNS", "200")


def an_audit(*findings: Finding, **changed: Any) -> Audit:
    claim = Claim(step="gptq", modules=("layers",), bits=4, kernels=("int4pack",), is_smaller=True)
    fields: dict[str, Any] = {
        "modules": (
            ModuleAudit(
                name="layers.3.mlp.up_proj", kind="packed", num_weights=4096, stored_bytes=2304, bits=4.5, sparsity=0.25,
                dtype="uint8", steps=("gptq",),
            ),
            ModuleAudit(
                name="lm_head", kind="Linear", num_weights=64, stored_bytes=256, bits=32.0, sparsity=None, dtype="float32",
                left_out="gptq: an output head", tied_to="embed_tokens",
            ),
        ),
        "num_parameters": 4160,
        "effective_bits_compressed": 4.5,
        "effective_bits_all": 6.25,
        "dtypes": {"uint8": DtypeUse(num_elements=2304, num_bytes=2304)},
        "disk": DiskAudit(implied_bytes=2_000_000, disk_bytes=2_500_000, tolerance_bytes=100, ratio=1.25),
        "claims": (ClaimAudit(claim=claim, num_matrices=12, bits=6.5, kernels=("aten::_weight_int4pack_mm",)),),
        "kernels": {"aten::view": 90, "aten::_weight_int4pack_mm": 11, "aten::mm": 2},
        "findings": findings,
        "not_checked": (),
        "claim_ok": not any(finding.is_false_claim for finding in findings),
    }  # fmt: skip
    return Audit(**{**fields, **changed})


def written(folder: Path, candidate: str, audit: Audit | None, **changed: Any) -> Path:
    record = build.record(candidate, **changed).model_copy(update={"audit": audit})
    return RecordStore(folder).append(Record.model_validate(record.model_dump()))


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = call(["audit", *map(str, arguments)])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_a_record_whose_claims_hold_is_exit_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, written(tmp_path, "gptq-4", an_audit(SLOW)))
    assert (code, err) == (0, "")
    assert "Every claim holds." in out
    for words in (
        "gptq-4", "12 matrices; bits 4 -> 6.50; kernels int4pack -> aten::_weight_int4pack_mm; smaller",
        "4.50 over what was compressed, 6.25 over all", "2.50 MB; the bits imply 2.00 MB, 1.25 times that",
        "lm_head: gptq: an output head", "11 x aten::_weight_int4pack_mm", "12 of 12 dequantize",
    ):  # fmt: skip
        assert words in out
    assert "aten::view" not in out


def test_a_false_claim_is_exit_code_3_and_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, written(tmp_path, "gptq-4", an_audit(STAYED, SLOW, not_checked=(UNTIMED,))))
    lines = [line.strip() for line in out.splitlines()]
    assert (code, err) == (3, "")
    assert lines[2] == "1 false claim"
    assert lines[3].split(maxsplit=1) == ["FALSE", f"gptq: {STAYED.message} [stayed-full-precision]"]
    assert lines[4] == "layers.3.mlp.up_proj"
    assert lines[5] == f"not checked  gptq: faster: {UNTIMED.reason}"
    assert lines[6].startswith("note")


def test_what_was_not_checked_is_not_said_to_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, written(tmp_path, "gptq-4", an_audit(not_checked=(UNTIMED,))))
    assert code == 0
    assert "No false claim; 1 could not be checked." in out
    assert "Every claim holds" not in out


def test_a_candidate_that_claims_nothing_is_said_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, written(tmp_path, "half", an_audit(claims=(), effective_bits_compressed=None)))
    assert code == 0
    assert "Nothing was claimed." in out
    assert "— over what was compressed" in out


def test_full_shows_every_module_and_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "gptq-4", an_audit())
    out = said(capsys, path, "--full")[1]
    assert "packed uint8, 4.50 bits, 25.0 % zeros; gptq" in out
    assert "tied to embed_tokens" in out
    assert "90 x aten::view" in out


def test_json_of_one_file_is_the_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audit = an_audit(STAYED)
    code, out, _ = said(capsys, written(tmp_path, "gptq-4", audit), "--json")
    data = json.loads(out)
    assert (code, data["candidate"], data["claim_ok"]) == (3, "gptq-4", False)
    assert data["findings"][0]["code"] == "stayed-full-precision"
    names = {"recipe", "candidate", "run_id"}
    assert Audit.model_validate({key: value for key, value in data.items() if key not in names}) == audit


def test_a_folder_is_audited_whole_and_the_worst_code_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = written(tmp_path, "good", an_audit())
    bad = written(tmp_path, "bad", an_audit(STAYED))
    none = written(tmp_path / "more", "none", None)
    assert said(capsys, good, good.parent / "more")[0] == 4
    code, out, err = said(capsys, tmp_path, "--json")
    assert (code, {each["candidate"]: each["claim_ok"] for each in json.loads(out)}) == (
        3,
        {"good": True, "bad": False},
    )
    assert err.count("\n") == 1
    assert "example none" in err
    out = said(capsys, tmp_path)[1]
    assert out.index("bad") < out.index("good")
    assert said(capsys, good, bad, none)[0] == 3
    assert said(capsys, good, good)[0] == 0


def test_a_broken_record_is_said_and_weighs_more_than_one_without_an_audit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, "good", an_audit())
    written(tmp_path, "none", None)
    path.write_bytes(path.read_bytes().replace(b"gptq", b"qtpg"))
    code, _, err = said(capsys, tmp_path)
    assert (code, "the file was changed" in err) == (2, True)
    assert said(capsys, path)[0] == 2
    written(tmp_path, "bad", an_audit(STAYED))
    assert said(capsys, tmp_path)[0] == 3


@pytest.mark.parametrize(("name", "reason"), [("int8", "schema 1"), ("broken", "it failed: CUDA ran out of memory")])
def test_a_record_without_an_audit_is_exit_code_4_with_the_reason(
    name: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, next(RECORDED.glob(f"*{name}*.json")))
    assert (code, out) == (4, "")
    assert "the record has no audit" in err
    assert reason in err


def test_a_new_record_without_an_audit_is_not_told_that_schema_1_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = said(capsys, written(tmp_path, "int8", None, measurement=build.interleaved()))[2]
    assert "of schema 5 that was written without one" in err
    assert "schema 1" not in err


def test_what_is_not_there_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, tmp_path / "nothing.json")[0] == 2
    assert said(capsys, tmp_path)[0] == 2


def test_names_from_a_record_neither_steer_the_terminal_nor_vanish_as_markup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = STAYED.model_copy(update={"message": "[red]odd[/red] \x1b[31mmessage\n", "modules": ("[bold]a[/bold]",)})
    out = said(capsys, written(tmp_path, "gptq-4", an_audit(odd)))[1]
    assert "[red]odd[/red]" in out
    assert "[bold]a[/bold]" in out
    assert "\x1b" not in out


def test_an_audit_is_printed_without_torch(tmp_path: Path) -> None:
    path = written(tmp_path, "gptq-4", an_audit(STAYED))
    script = (
        "import sys, pathlib; from compressbench.cli.audit import audit; import typer\n"
        "try: audit([pathlib.Path(sys.argv[1])], False, True)\n"
        "except typer.Exit as done: print(done.exit_code, {'torch', 'transformers'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.stderr == "3 set()\n"
    assert "1 false claim" in done.stdout
