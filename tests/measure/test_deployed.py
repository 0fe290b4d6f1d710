"""What was deployed is the candidate: proven for a real engine, and noticed where it isn't so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from compressbench.core.deploying import Deployed, KernelUse, RuntimeFacts
from compressbench.core.errors import CellError
from compressbench.core.registry import Resolved
from compressbench.measure.deployed import Subject, prove_deployed
from compressbench.measure.engine_checks import with_deployment
from compressbench.models.handle import ModelHandle
from compressbench.records.audit import Audit, DiskAudit
from compressbench.records.deployment import Deployment, Parity
from compressbench.runtimes.torch_eager import TorchEager, TorchSession
from compressbench.testing.models import tiny_classifier

TORCH = Resolved("torch", TorchEager(), {})


def inputs() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for ids in (torch.randint(2, 10, (2, 9), generator=generator) for _ in range(3))
    ]


def subject(handle: ModelHandle, runtime: Resolved, session: Any) -> Subject:
    return Subject(handle, runtime, session, inputs(), 1)


@pytest.fixture(scope="module")
def onnx() -> Resolved:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    from compressbench.runtimes.onnxruntime import OnnxRuntime

    value = OnnxRuntime()
    return Resolved("onnxruntime", value, value.model_dump(mode="json"))


def test_an_export_is_compared_with_its_model_and_with_itself_in_a_fresh_process(onnx: Resolved) -> None:
    handle = tiny_classifier()
    proof = prove_deployed(subject(handle, onnx, onnx.value.prepare(handle, "cpu")), weighs=True)
    found = proof.deployment
    assert found is not None
    assert found.fresh is not None
    assert found.to_torch is not None
    assert not found.broken
    assert (found.to_torch.num_rows, found.to_torch.top1_agreement) == (6, 1.0)
    assert found.fresh.parity.max_difference == 0
    assert len(found.sha256 or "") == 64
    assert {"export_seconds", "open_seconds"} < {reading.name for reading in proof.readings}


def test_an_export_of_another_model_fails_the_cell(onnx: Resolved) -> None:
    ours, theirs = tiny_classifier(), tiny_classifier(seed=1)
    with pytest.raises(CellError, match="not the candidate"):
        prove_deployed(subject(ours, onnx, onnx.value.prepare(theirs, "cpu")), weighs=False)


def test_files_that_were_broken_after_they_were_opened_fail_the_cell(onnx: Resolved) -> None:
    handle = tiny_classifier()
    session = onnx.value.prepare(handle, "cpu")
    model = Path(session.owned_folder.name) / "model.onnx"
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(CellError, match="fresh process"):
        prove_deployed(subject(handle, onnx, session), weighs=False)


def test_the_models_own_modules_need_no_proof_but_may_be_weighed() -> None:
    handle = tiny_classifier()
    session = TorchSession(handle.model, "cpu")
    assert prove_deployed(subject(handle, TORCH, session), weighs=False) == (None, ())
    proof = prove_deployed(subject(handle, TORCH, session), weighs=True)
    assert [reading.name for reading in proof.readings] == ["resident_memory_bytes"]


class Elsewhere:
    """A runtime whose server is out of sight, or one that rounds."""

    def __init__(self, facts: RuntimeFacts) -> None:
        self.facts = facts


class Rounding(TorchSession):
    """The model's answers plus some noise."""

    noise = 0.0

    def __call__(self, batch: Any) -> torch.Tensor:
        found = super().__call__(batch)
        return found + self.noise * torch.randn(found.shape, generator=torch.Generator().manual_seed(0))

    @property
    def deployed(self) -> Deployed:
        return Deployed(engine="made up 1.0", precision="int4", seconds={"compile_s": 1.5})

    def kernels(self, batch: Any, output_tokens: int | None = None) -> KernelUse | None:
        return None


def test_a_server_is_not_compared_and_says_so() -> None:
    handle = tiny_classifier()
    runtime = Resolved("endpoint", Elsewhere(RuntimeFacts(is_remote=True)), {})
    found = prove_deployed(subject(handle, runtime, Rounding(handle.model, "cpu")), weighs=False).deployment
    assert found is not None
    assert "a server" in found.not_compared


def test_an_engine_that_rounds_may_be_far_away_and_one_that_is_exact_may_not() -> None:
    handle = tiny_classifier()
    session = Rounding(handle.model, "cpu")
    session.noise = 3.0
    rounds = Resolved("x", Elsewhere(RuntimeFacts(is_exact=False)), {})
    proof = prove_deployed(subject(handle, rounds, session), weighs=False)
    assert proof.deployment is not None
    assert proof.deployment.broken
    assert [reading.name for reading in proof.readings] == ["compile_seconds"]
    with pytest.raises(CellError, match="not the candidate"):
        prove_deployed(subject(handle, Resolved("x", Elsewhere(RuntimeFacts()), {}), session), weighs=False)


def an_audit() -> Audit:
    return Audit(
        modules=(), num_parameters=100, effective_bits_compressed=32.0, effective_bits_all=32.0, dtypes={},
        disk=DiskAudit(implied_bytes=None, disk_bytes=None, tolerance_bytes=0, ratio=None), claims=(), kernels={},
        findings=(), not_checked=(), claim_ok=True,
    )  # fmt: skip


def deployment(**changes: Any) -> Deployment:
    return Deployment(engine="made up 1.0", precision="int8", **changes)


def test_a_wanted_kernel_that_did_not_run_is_a_false_claim_and_a_fall_back_a_note() -> None:
    used = KernelUse({"MatMul float32": 36}, wanted=("MatMulInteger",), fallbacks=("36 products ran in float32",))
    found = with_deployment(an_audit(), deployment(), used)
    assert [each.code for each in found.false_claims] == ["kernel-did-not-run"]
    assert [each.code for each in found.notes] == ["engine-fell-back"]
    assert not found.claim_ok
    fine = with_deployment(an_audit(), deployment(), used._replace(wanted=("MatMul",), fallbacks=()))
    assert (fine.findings, fine.claim_ok, fine.not_checked) == ((), True, ())


def test_bits_are_those_of_the_files_and_an_engine_that_says_nothing_was_not_checked() -> None:
    found = with_deployment(an_audit(), deployment(num_files_bytes=125), None)
    assert found.effective_bits_all == 10.0
    assert found.effective_bits_compressed is None
    assert [each.what for each in found.not_checked] == ["kernels", "what the engine stores of each module"]


def test_parity_beyond_the_limits_is_a_note_of_the_audit() -> None:
    broken = Parity(reference="x", num_rows=1, max_difference=9.0, broken=("mean KL divergence 3 nats",))
    found = with_deployment(an_audit(), deployment(to_torch=broken), KernelUse({"a": 1}))
    assert [each.code for each in found.notes] == ["far-from-torch"]
