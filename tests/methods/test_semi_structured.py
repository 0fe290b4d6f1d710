"""2:4 from the mask to what is stored: the same outputs, fewer bytes, and claims that an audit finds true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass
from transformers import GPT2Config, GPT2LMHeadModel

from compressbench.core.calibration import CalibrationSet
from compressbench.core.errors import UnsupportedError
from compressbench.core.registry import methods
from compressbench.measure.audited import audit
from compressbench.measure.claim_checks import Evidence
from compressbench.methods.pruning.magnitude import Magnitude
from compressbench.methods.pruning.semi_structured import SemiStructured
from compressbench.models import semi_structured_linear
from compressbench.models.artefact import save_artefact
from compressbench.models.handle import ModelHandle, Supplies
from compressbench.models.load import load_model
from compressbench.models.parts import cast_weights, matrix, replace_module, target_linears
from compressbench.models.semi_structured_linear import SemiStructuredLinear
from compressbench.models.size import count_weights, disk_bytes
from compressbench.recipe.schema import ModelSpec
from compressbench.records.audit import Audit
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import tiny_causal_lm, tiny_classifier

BATCH = {"input_ids": torch.tensor([[2, 4, 6, 8, 3], [2, 5, 7, 9, 3]])}
DTYPES = {"float32": (torch.float32, 17), "bfloat16": (torch.bfloat16, 9), "float16": (torch.float16, 9)}


def llama() -> ModelHandle:
    return tiny_causal_lm(num_layers=2)


def gpt2() -> ModelHandle:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=19, n_embd=64, n_layer=2, n_head=4, n_positions=64, bos_token_id=2, eos_token_id=3)
    return replace(llama(), model=GPT2LMHeadModel(config).eval())


MODELS: dict[str, Callable[[], ModelHandle]] = {"bert": tiny_classifier, "llama": llama, "gpt2": gpt2}


def pruned(handle: ModelHandle, dtype: str = "float32", **options: Any) -> ModelHandle:
    cast_weights(handle.model, DTYPES[dtype][0])
    return Magnitude(mask_structure="2:4", **options).apply(replace(handle, weights=dtype))


def logits(handle: ModelHandle) -> torch.Tensor:
    found: torch.Tensor = TorchEager().prepare(handle, "cpu")(BATCH)
    return found


def audited(baseline: ModelHandle, handle: ModelHandle) -> Audit:
    session = TorchEager().prepare(handle, "cpu")
    session(BATCH)
    evidence = Evidence(disk_bytes=disk_bytes(handle.model), baseline_disk_bytes=disk_bytes(baseline.model))
    return audit(handle, baseline, session, BATCH, evidence)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_the_model_computes_what_the_pruned_one_did(model: str, dtype: str) -> None:
    before = pruned(MODELS[model](), dtype)
    matrices = {name: matrix(module).clone() for name, module in target_linears(before.model).items()}
    done = SemiStructured().apply(before.copy())
    found, expected = logits(done), logits(before)
    if model == "gpt2":
        # a Conv1D multiplies the transposed matrix, which adds up in another order
        difference = (found - expected).float().norm() / expected.float().norm()
        assert float(difference) <= 4 * torch.finfo(found.dtype).eps
    else:
        assert torch.equal(found, expected)
    layers = {name: each for name, each in done.model.named_modules() if isinstance(each, SemiStructuredLinear)}
    assert layers.keys() == matrices.keys()
    assert all(torch.equal(layer.weight().dense(), matrices[name]) for name, layer in layers.items())
    assert done.weights == "packed"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_an_audit_finds_the_bits_zeros_and_structure_that_are_claimed(model: str, dtype: str) -> None:
    baseline = MODELS[model]()
    cast_weights(baseline.model, DTYPES[dtype][0])
    done = SemiStructured().apply(pruned(baseline.copy(), dtype))
    found = audited(baseline, done)
    assert found.claim_ok, [finding.message for finding in found.false_claims]
    assert not found.not_checked
    of_mask, of_layer = found.claims
    bits = DTYPES[dtype][1]
    assert (of_layer.claim.bits, of_layer.bits) == (bits, bits)
    assert of_mask.sparsity == of_layer.sparsity == 0.5
    assert of_mask.holds_structure is of_layer.holds_structure is True
    assert of_layer.claim.kernels == ()
    assert {row.bits for row in found.modules if "semi-structured" in row.steps} == {bits}
    assert {row.kind for row in found.modules if "semi-structured" in row.steps} == {"semi-structured"}
    assert found.effective_bits_compressed == bits


def test_the_bytes_that_go_are_those_of_the_zeros() -> None:
    before = pruned(tiny_classifier(), "bfloat16")
    dense, num_weights = count_weights(before.model), sum(map(torch.numel, map(matrix, targets(before))))
    done = SemiStructured().apply(before)
    sparse = count_weights(done.model)
    assert dense.num_bytes - sparse.num_bytes == num_weights * (16 - 9) / 8
    assert (sparse.num_parameters, sparse.num_zeros) == (dense.num_parameters, dense.num_zeros)


def targets(handle: ModelHandle) -> list[nn.Linear]:
    return list(target_linears(handle.model).values())


@pytest.mark.parametrize("step", ["wanda", "sparsegpt"])
def test_it_follows_every_step_that_prunes_2_of_4(step: str) -> None:
    ids = torch.randint(4, 19, (8, 12), generator=torch.Generator().manual_seed(0))
    samples = CalibrationSet(
        [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}], "made", "train", "0", 8, 96, 0
    )
    baseline = llama()
    handle = replace(baseline.copy(), supplies=Supplies(calibration=lambda _: samples))
    before = methods.resolve(step)(mask_structure="2:4").apply(handle)
    done = methods.resolve("semi-structured")().apply(before.copy())
    assert torch.equal(logits(done), logits(before))
    assert audited(baseline, done).claim_ok


def test_a_matrix_that_is_not_2_of_4_is_refused_by_name_and_nothing_is_changed() -> None:
    handle = pruned(llama())
    names = list(target_linears(handle.model))
    matrix(target_linears(handle.model)[names[3]])[0, :4] = 1.0
    with pytest.raises(UnsupportedError, match=r'1 of its 1,024 groups .* mask_structure: "2:4"') as error:
        SemiStructured().apply(handle)
    assert error.value.where == names[3]
    assert not any(isinstance(module, SemiStructuredLinear) for module in handle.model.modules())
    done = SemiStructured(ignore=(names[3],)).apply(handle)
    assert done.claims[-1].modules == (*names[:3], *names[4:])
    assert done.claims[-1].left_out[names[3]] == "ignored by the recipe"


def test_unstructured_zeros_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="more than 2 non-zeros"):
        SemiStructured().apply(Magnitude(sparsity=0.5).apply(llama()))


def test_inputs_that_are_no_multiple_of_4_are_refused_by_name() -> None:
    handle = pruned(llama())
    names = list(target_linears(handle.model))
    replace_module(handle.model, names[1], nn.Linear(62, 32))
    with pytest.raises(UnsupportedError, match="62 inputs are no multiple of 4") as error:
        SemiStructured().apply(handle)
    assert error.value.where == names[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", MODELS)
def test_what_was_saved_gives_the_same_outputs_again(model: str, dtype: str, tmp_path: Path) -> None:
    done = SemiStructured().apply(pruned(MODELS[model](), dtype))
    save_artefact(done, tmp_path, {})
    again = load_model(ModelSpec(id=str(tmp_path)), done.head)
    assert again.weights == "packed"
    assert torch.equal(logits(again), logits(done))
    assert count_weights(again.model) == count_weights(done.model)


def test_the_notes_say_why_products_are_dense() -> None:
    done = SemiStructured().apply(pruned(llama()))
    assert dict(done.notes) == {
        "num_modules": 14,
        "num_sparse_products": 0,
        "why_dense": "there are no sparse kernels for cpu",
    }


class OnCpu(torch.sparse.SparseSemiStructuredTensorCUTLASS):
    """PyTorch's sparse tensor with a dense product under the name of the sparse kernel."""

    @classmethod
    def from_dense(cls, original_tensor: torch.Tensor, alg_id: int = 0) -> Any:
        packed, meta = sparse_semi_structured_from_dense_cutlass(original_tensor)  # type: ignore[no-untyped-call]
        return cls(original_tensor.shape, packed, meta, None, None, None)

    def _mm(self, B: torch.Tensor, *, bias: torch.Tensor | None = None, **_: Any) -> torch.Tensor:  # noqa: N803
        with torch.profiler.record_function("aten::_cslt_sparse_mm"):
            return functional.linear(B, self.to_dense(), bias)  # type: ignore[no-untyped-call]


def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose kernels refuse the matrices of 32 rows (key and value)."""
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", OnCpu.from_dense)
    monkeypatch.setattr(
        semi_structured_linear, "why_dense", lambda _device, _dtype, rows, _columns: "too few" if rows == 32 else ""
    )


def test_kernels_are_claimed_of_the_modules_whose_products_are_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch)
    baseline = llama()
    cast_weights(baseline.model, torch.bfloat16)
    done = SemiStructured().apply(pruned(baseline.copy(), "bfloat16"))
    assert (done.notes["num_sparse_products"], done.notes["why_dense"]) == (10, "too few")
    _, sparse, dense = done.claims
    assert (sparse.step, dense.step) == ("semi-structured", "semi-structured (dense products)")
    assert (sparse.kernels, dense.kernels) == (("_cslt_sparse_mm", "_sparse_semi_structured"), ())
    assert {name.rpartition(".")[2] for name in dense.modules} == {"k_proj", "v_proj"}
    assert len(sparse.modules) + len(dense.modules) == 14
    found = audited(baseline, done)
    assert found.claim_ok, [finding.message for finding in found.false_claims]
    assert [each.kernels for each in found.claims] == [(), ("aten::_cslt_sparse_mm",), ()]
    assert [each.bits for each in found.claims] == [9, 9, 9]


def test_an_audit_finds_modules_that_fell_back_to_dense_products(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch)
    baseline = llama()
    cast_weights(baseline.model, torch.bfloat16)
    done = SemiStructured().apply(pruned(baseline.copy(), "bfloat16"))
    monkeypatch.setattr(semi_structured_linear, "why_dense", lambda *_: "nothing is sparse any more")
    assert {finding.code for finding in audited(baseline, done).false_claims} == {"kernel-did-not-run"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_on_cuda_a_whole_model_runs_the_sparse_kernels(dtype: str) -> None:
    baseline = llama()
    cast_weights(baseline.model, DTYPES[dtype][0])
    before = pruned(baseline.copy(), dtype)
    expected = logits(before).float()
    on_cuda = replace(before, model=before.copy().model.to("cuda"), device="cuda")
    done = SemiStructured().apply(on_cuda)
    assert (done.notes["num_sparse_products"], "why_dense" in done.notes) == (14, False)
    session = TorchEager().prepare(done, "cuda")
    found = session(BATCH).float().cpu()
    assert float((found - expected).norm() / expected.norm()) < 0.03
    evidence = Evidence(disk_bytes=disk_bytes(done.model), baseline_disk_bytes=disk_bytes(baseline.model))
    report = audit(done, baseline, session, BATCH, evidence)
    assert report.claim_ok, [finding.message for finding in report.false_claims]
    assert report.claims[-1].bits == 9
    assert report.claims[-1].kernels
