from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from compressbench.core.protocols import Claim
from compressbench.records.audit import Audit, ClaimAudit, DiskAudit, DtypeUse, Finding, ModuleAudit, NotChecked

FALSE = Finding(code="not-faster", message="its speed is: same", is_false_claim=True, step="wanda")
NOTE = Finding(code="dequantizes-every-call", message="12 of 12", is_false_claim=False, modules=("a", "b"))


def an_audit(**changed: Any) -> Audit:
    fields: dict[str, Any] = {
        "modules": (
            ModuleAudit(
                name="a", kind="packed", num_weights=64, stored_bytes=40, bits=5.0, sparsity=0.25, dtype="uint8",
                steps=("gptq",),
            ),
            ModuleAudit(
                name="head", kind="Linear", num_weights=64, stored_bytes=None, bits=None, sparsity=None, dtype="",
                left_out="gptq: an output head", unknown="weight has no storage that can be read",
            ),
        ),
        "num_parameters": None,
        "effective_bits_compressed": 5.0,
        "effective_bits_all": None,
        "dtypes": {"uint8": DtypeUse(num_elements=32, num_bytes=32)},
        "disk": DiskAudit(implied_bytes=40, disk_bytes=None, tolerance_bytes=10, ratio=None),
        "claims": (ClaimAudit(claim=Claim(step="gptq", modules=("a",), bits=4), num_matrices=1, bits=4.0),),
        "kernels": {"aten::mm": 3},
        "findings": (NOTE,),
        "not_checked": (NotChecked(what="faster", reason="there is no paired verdict", step="gptq"),),
        "claim_ok": True,
    }  # fmt: skip
    return Audit(**{**fields, **changed})


def test_an_audit_survives_json() -> None:
    for audit in (an_audit(), an_audit(findings=(FALSE, NOTE), claim_ok=False)):
        assert Audit.model_validate_json(audit.model_dump_json()) == audit


@pytest.mark.parametrize(("findings", "claim_ok"), [((FALSE,), True), ((NOTE,), False), ((), False)])
def test_claim_ok_cannot_contradict_the_findings(findings: tuple[Finding, ...], claim_ok: bool) -> None:
    with pytest.raises(ValidationError, match="contradicts"):
        an_audit(findings=findings, claim_ok=claim_ok)


def test_notes_and_false_claims_are_told_apart() -> None:
    audit = an_audit(findings=(NOTE, FALSE), claim_ok=False)
    assert (audit.false_claims, audit.notes) == ([FALSE], [NOTE])


def test_an_audit_is_closed_to_unknown_codes_and_keys() -> None:
    with pytest.raises(ValidationError):
        Finding.model_validate({"code": "something-else", "message": "", "is_false_claim": True})
    with pytest.raises(ValidationError):
        an_audit(verdict="fine")
