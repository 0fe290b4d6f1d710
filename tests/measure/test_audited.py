"""Every kind of false claim, planted, and beside it the honest twin that passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from compressbench.core import registry
from compressbench.core.protocols import Claim
from compressbench.measure.audited import audit
from compressbench.measure.claim_checks import Evidence
from compressbench.methods.maths.integers import per_channel_symmetric
from compressbench.models.handle import ModelHandle
from compressbench.models.int8_linear import Int8DynamicLinear, Int8WeightLinear, best_engine
from compressbench.models.packed_linear import PackedLinear
from compressbench.models.parts import replace_module, target_linears
from compressbench.models.quantized_weight import QuantizedWeight
from compressbench.models.size import disk_bytes
from compressbench.records.audit import Audit
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import FakeClock, FakeSession, tiny_causal_lm

BATCH = {"input_ids": torch.tensor([[2, 4, 6, 8, 3]])}
HEAD = {"lm_head": "its weights are tied to another module's"}


@pytest.fixture(scope="module")
def baseline() -> ModelHandle:
    return tiny_causal_lm(num_layers=1)


@pytest.fixture
def model(baseline: ModelHandle) -> Any:
    return baseline.copy().model


def audited(baseline: ModelHandle, model: Any, *claims: Claim, **evidence: Any) -> Audit:
    return audited_against(baseline, candidate(baseline, model, *claims), **evidence)


def candidate(baseline: ModelHandle, model: Any, *claims: Claim) -> ModelHandle:
    handle = baseline.with_model(model)
    for claim in claims:
        handle = handle.with_model(model, claim=claim)
    return handle


def audited_against(baseline: ModelHandle | None, handle: ModelHandle, **evidence: Any) -> Audit:
    return audit(handle, baseline, TorchEager().prepare(handle, "cpu"), BATCH, Evidence(**evidence))


def files(baseline: ModelHandle, model: Any) -> dict[str, int]:
    """The bytes that both really take on disk."""
    return {"disk_bytes": disk_bytes(model), "baseline_disk_bytes": disk_bytes(baseline.model)}


def names(model: nn.Module) -> tuple[str, ...]:
    return tuple(target_linears(model))


def a_claim(modules: tuple[str, ...], **said: Any) -> Claim:
    return Claim(step="it", modules=modules, left_out=HEAD, **said)


def codes_of(audit: Audit) -> set[str]:
    return {finding.code for finding in audit.findings}


def false(audit: Audit) -> dict[str, tuple[str, ...]]:
    """The false claims with the modules they are about."""
    assert audit.claim_ok == (not audit.false_claims)
    return {finding.code: finding.modules for finding in audit.false_claims}


def unchecked(audit: Audit) -> set[str]:
    return {each.what for each in audit.not_checked}


def replace(model: nn.Module, make: Callable[[nn.Linear], nn.Module], leave: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Put another layer in the place of every target but those to leave; the names of all targets."""
    chosen = names(model)
    for name in set(chosen) - set(leave):
        module = model.get_submodule(name)
        assert isinstance(module, nn.Linear)
        replace_module(model, name, make(module))
    return chosen


def int8(module: nn.Linear) -> nn.Module:
    return Int8WeightLinear(*per_channel_symmetric(module.weight.detach()), module.bias)


def dynamic(module: nn.Linear) -> nn.Module:
    codes, scale = per_channel_symmetric(module.weight.detach())
    return Int8DynamicLinear(codes, scale, module.bias, engine=best_engine(), reduce_range=False)


def packed4(module: nn.Linear) -> nn.Module:
    weight = module.weight.detach()
    scale = weight.abs().amax(dim=1, keepdim=True) / 7
    return PackedLinear(QuantizedWeight(codes=(weight / scale).round().add(8).to(torch.uint8), scale=scale, bits=4))


MAKERS: list[Any] = [(int8, 8), (dynamic, 8), (packed4, 4)]


def mask(
    model: nn.Module, keep: Callable[[torch.Tensor], torch.Tensor], leave: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Multiply every target but those to leave with a mask of its weights; the names of all targets."""
    chosen = target_linears(model)
    with torch.no_grad():
        for name in set(chosen) - set(leave):
            weight: Any = chosen[name].weight
            weight.mul_(keep(weight))
    return tuple(chosen)


def every_second(weight: torch.Tensor) -> torch.Tensor:
    return (torch.arange(weight.shape[1]) % 2 == 0).expand(weight.shape)


def random_half(weight: torch.Tensor) -> torch.Tensor:
    """Half of each row, anywhere."""
    order = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
    return order < weight.shape[1] // 2


# --- bits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "bits"), MAKERS)
def test_layers_that_store_what_they_claim_pass(make: Any, bits: int, baseline: ModelHandle, model: Any) -> None:
    claim = a_claim(replace(model, make), bits=bits, is_smaller=True)
    found = audited(baseline, model, claim, **files(baseline, model))
    assert false(found) == {}
    assert (found.claims[0].bits, found.claims[0].num_matrices) == (bits, 7)
    assert unchecked(found) == set()
    assert found.disk.ratio == pytest.approx(1.0, abs=0.15)  # 5 kB of names and configuration


def test_a_layer_that_silently_stayed_in_full_precision_is_found(baseline: ModelHandle, model: Any) -> None:
    stayed = "model.layers.0.mlp.up_proj"
    found = audited(baseline, model, a_claim(replace(model, int8, leave=(stayed,)), bits=8))
    assert false(found) == {"stayed-full-precision": (stayed,)}
    assert "1 of 7 modules are still float32 where 8 bits are claimed" in found.false_claims[0].message


def test_float_weights_rounded_to_few_values_are_still_full_precision(baseline: ModelHandle, model: Any) -> None:
    chosen = target_linears(model)
    with torch.no_grad():
        for module in chosen.values():
            weight: Any = module.weight
            weight.copy_((weight * 100).round() / 100)
    assert set(false(audited(baseline, model, a_claim(tuple(chosen), bits=4)))) == {"stayed-full-precision"}


def test_four_bits_in_a_container_of_eight_are_found(baseline: ModelHandle, model: Any) -> None:
    found = audited(baseline, model, a_claim(replace(model, int8), bits=4, is_smaller=True), **files(baseline, model))
    assert set(false(found)) == {"wider-than-claimed"}
    assert len(found.false_claims[0].modules) == 7
    assert found.claims[0].bits == 8


def test_codes_beside_which_the_weights_are_kept_are_found(baseline: ModelHandle, model: Any) -> None:
    chosen = replace(model, int8)
    layer = model.get_submodule(chosen[0])
    layer.register_buffer("cache", torch.ones(layer.out_features, layer.in_features), persistent=False)
    assert false(audited(baseline, model, a_claim(chosen, bits=8))) == {"stayed-full-precision": (chosen[0],)}


def test_norms_that_took_up_a_scale_have_no_bits_to_answer_for(baseline: ModelHandle, model: Any) -> None:
    norm = "model.layers.0.input_layernorm"
    with torch.no_grad():
        model.get_submodule(norm).weight.mul_(1.5)
    chosen = replace(model, packed4)
    assert false(audited(baseline, model, a_claim((*chosen, norm), bits=4))) == {}
    assert false(audited(baseline, model, a_claim(chosen, bits=4))) == {"changed-unclaimed": (norm,)}


# --- sparsity -----------------------------------------------------------------------------------------------------------


def test_a_real_mask_passes_in_dense_and_in_packed_layers(baseline: ModelHandle, model: Any) -> None:
    chosen = mask(model, every_second)
    claim = a_claim(chosen, sparsity=0.5, mask_structure="2:4")
    found = audited(baseline, model, claim)
    assert false(found) == {}
    assert (found.claims[0].sparsity, found.claims[0].holds_structure) == (0.5, True)
    replace(model, packed4)
    found = audited(baseline, model, claim, a_claim(chosen, bits=4))
    assert false(found) == {}
    assert (found.claims[0].sparsity or 0) >= 0.5


def test_a_mask_that_missed_a_module_is_found(baseline: ModelHandle, model: Any) -> None:
    dense = "model.layers.0.mlp.down_proj"
    found = audited(baseline, model, a_claim(mask(model, every_second, leave=(dense,)), sparsity=0.5))
    assert false(found) == {"less-sparse-than-claimed": (dense,)}


def test_pruning_that_changed_nothing_is_found(baseline: ModelHandle, model: Any) -> None:
    found = audited(baseline, model, a_claim(names(model), sparsity=0.5))
    assert set(false(found)) == {"less-sparse-than-claimed"}
    assert found.claims[0].sparsity == 0


def test_zeros_that_came_back_later_are_found(baseline: ModelHandle, model: Any) -> None:
    chosen = mask(model, every_second)
    with torch.no_grad():
        for module in target_linears(model).values():
            weight: Any = module.weight
            weight.add_(0.01)
    found = audited(baseline, model, a_claim(chosen, sparsity=0.5), Claim(step="recover", is_retrained=True))
    assert set(false(found)) == {"less-sparse-than-claimed"}


@pytest.mark.parametrize(("missing", "is_false"), [(0, False), (1, False), (2, True)])
def test_one_zero_may_lack_in_each_row(missing: int, is_false: bool, baseline: ModelHandle, model: Any) -> None:
    def all_but_some(weight: torch.Tensor) -> torch.Tensor:
        return torch.arange(weight.shape[1]).expand(weight.shape) < weight.shape[1] // 2 + missing

    found = audited(baseline, model, a_claim(mask(model, all_but_some), sparsity=0.5))
    assert (set(false(found)) == {"less-sparse-than-claimed"}) == is_false


def test_a_structure_that_breaks_in_one_group_is_found(baseline: ModelHandle, model: Any) -> None:
    chosen = mask(model, every_second)
    broken = "model.layers.0.self_attn.k_proj"
    with torch.no_grad():
        weight = model.get_submodule(broken).weight
        weight[5, 9], weight[5, 12] = 1.0, 0.0  # three of the third group, one of the fourth: as sparse as before
    found = audited(baseline, model, a_claim(chosen, sparsity=0.5, mask_structure="2:4"))
    assert false(found) == {"mask-structure-broken": (broken,)}
    assert found.false_claims[0].message.endswith("in 1 aligned groups")
    assert found.claims[0].holds_structure is False


def test_half_of_a_row_anywhere_is_not_two_of_four(baseline: ModelHandle, model: Any) -> None:
    found = audited(baseline, model, a_claim(mask(model, random_half), sparsity=0.5, mask_structure="2:4"))
    assert set(false(found)) == {"mask-structure-broken"}


def test_what_cannot_be_read_is_not_passed_in_silence(baseline: ModelHandle, model: Any) -> None:
    class Closed(nn.Module):
        def __init__(self, inner: nn.Linear) -> None:
            super().__init__()
            self.in_features, self.out_features, self._inner = inner.in_features, inner.out_features, [inner]
            self.register_buffer("qweight", torch.zeros(inner.out_features, inner.in_features // 8, dtype=torch.int32))

        def forward(self, x: torch.Tensor) -> Any:
            return self._inner[0](x)

    chosen = replace(model, Closed)
    found = audited(baseline, model, a_claim(chosen, sparsity=0.5, mask_structure="2:4", bits=4))
    assert false(found) == {}
    assert {"sparsity", "mask structure"} <= unchecked(found)
    assert found.claims[0].sparsity is found.claims[0].holds_structure is None
    found = audited(baseline, model, a_claim(chosen, mask_structure="butterfly"))
    assert "mask structure" in unchecked(found)


# --- smaller, faster ----------------------------------------------------------------------------------------------------


def test_a_masked_model_that_claims_to_be_smaller_is_found(baseline: ModelHandle, model: Any) -> None:
    claim = a_claim(mask(model, every_second), sparsity=0.5, is_smaller=True)
    found = audited(baseline, model, claim, disk_bytes=160_000, baseline_disk_bytes=160_000)
    assert set(false(found)) == {"not-smaller", "zeros-are-stored"}
    assert [finding.code for finding in found.false_claims].count("not-smaller") == 2  # in memory and on disk
    honest = audited(baseline, model, a_claim(names(model), sparsity=0.5), disk_bytes=160_000)
    assert false(honest) == {}


def test_zeros_do_not_hide_behind_another_steps_saving(baseline: ModelHandle, model: Any) -> None:
    chosen = mask(model, every_second)
    model.to(torch.bfloat16)
    claims = a_claim(chosen, sparsity=0.5, is_smaller=True), a_claim(chosen, bits=16, is_smaller=True)
    found = audited(baseline, model, *claims, **files(baseline, model))
    assert set(false(found)) == {"zeros-are-stored"}


def test_files_that_stay_big_are_found(baseline: ModelHandle, model: Any) -> None:
    claim = a_claim(replace(model, int8), bits=8, is_smaller=True)
    found = audited(baseline, model, claim, disk_bytes=160_000, baseline_disk_bytes=160_000)
    assert set(false(found)) == {"not-smaller", "disk-above-bits"}
    assert found.disk.implied_bytes is not None
    assert found.disk.ratio == 160_000 / found.disk.implied_bytes > 2
    assert false(audited(baseline, model, claim, **files(baseline, model))) == {}


def test_files_that_lack_weights_are_noted(baseline: ModelHandle, model: Any) -> None:
    claim = a_claim(replace(model, int8), bits=8, is_smaller=True)
    found = audited(baseline, model, claim, disk_bytes=10_000, baseline_disk_bytes=160_000)
    assert (false(found), "disk-below-bits" in codes_of(found)) == ({}, True)


def test_size_without_files_or_baseline_was_not_checked(baseline: ModelHandle, model: Any) -> None:
    claim = a_claim(replace(model, int8), bits=8, is_smaller=True)
    assert unchecked(audited(baseline, model, claim)) == {"smaller files", "bytes on disk"}
    alone = audited_against(None, candidate(baseline, model, claim))
    assert unchecked(alone) >= {"smaller files", "smaller weights", "what changed besides the claims"}
    assert alone.claim_ok


@pytest.mark.parametrize(
    ("verdict", "is_false"), [("faster", False), ("same", True), ("slower", True), ("undecided", True)]
)
def test_faster_is_what_the_clock_says(verdict: str, is_false: bool, baseline: ModelHandle, model: Any) -> None:
    claim = a_claim(mask(model, every_second), sparsity=0.5, is_faster=True)
    found = audited(baseline, model, claim, latency_verdict=verdict)
    assert set(false(found)) == ({"not-faster"} if is_false else set())
    if is_false:
        assert found.false_claims[0].message.endswith(verdict)


def test_faster_without_a_clock_was_not_checked(baseline: ModelHandle, model: Any) -> None:
    found = audited(baseline, model, a_claim(mask(model, every_second), sparsity=0.5, is_faster=True))
    assert (found.claim_ok, "faster" in unchecked(found)) == (True, True)


# --- what nobody claimed ------------------------------------------------------------------------------------------------


def test_a_tied_head_that_was_untied_is_found(baseline: ModelHandle, model: Any) -> None:
    chosen = replace(model, int8)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    found = audited(baseline, model, a_claim(chosen, bits=8))
    assert set(false(found)["untied"]) == {"lm_head", "model.embed_tokens"}
    model.lm_head = int8(model.lm_head)
    found = audited(baseline, model, a_claim(chosen, bits=8))
    assert set(false(found)) == {"untied", "changed-unclaimed"}
    found = audited(baseline, model, a_claim((*chosen, "lm_head"), bits=8))
    assert (false(found), "untied-as-claimed" in codes_of(found)) == ({}, True)


def test_an_embedding_that_changed_with_its_tied_head_is_found(baseline: ModelHandle, model: Any) -> None:
    chosen = replace(model, int8)
    with torch.no_grad():
        model.lm_head.weight.copy_((model.lm_head.weight * 50).round() / 50)
    claimed_head = a_claim((*chosen, "lm_head"), sparsity=0.0)
    assert false(audited(baseline, model, claimed_head)) == {"changed-unclaimed": ("model.embed_tokens",)}
    nobody = audited(baseline, model, a_claim(chosen, bits=8))
    assert set(false(nobody)["changed-unclaimed"]) == {"lm_head", "model.embed_tokens"}


def test_values_that_changed_besides_the_claims_are_found_unless_the_model_was_trained(
    baseline: ModelHandle, model: Any
) -> None:
    chosen = replace(model, int8)
    with torch.no_grad():
        model.model.norm.weight[0] = 2
    claim = a_claim(chosen, bits=8)
    assert false(audited(baseline, model, claim)) == {"changed-unclaimed": ("model.norm",)}
    assert false(audited(baseline, model, claim, Claim(step="distil", is_retrained=True))) == {}


def test_a_cast_that_nobody_claimed_is_a_note(baseline: ModelHandle, model: Any) -> None:
    chosen = replace(model, int8)
    model.to(torch.bfloat16)
    found = audited(baseline, model, a_claim(chosen, bits=8))
    assert (false(found), "rounded-unclaimed" in codes_of(found)) == ({}, True)
    found = audited(baseline, model, a_claim(chosen, bits=16), a_claim(chosen, bits=8))
    assert (false(found), "rounded-unclaimed" in codes_of(found)) == ({}, False)


def test_layers_may_go_if_a_step_says_that_the_model_is_smaller() -> None:
    deep = tiny_causal_lm(num_layers=3)
    copy = deep.copy().model
    copy.model.layers = nn.ModuleList([copy.model.layers[0], copy.model.layers[2]])
    copy.config.num_hidden_layers = 2
    for index, layer in enumerate(copy.model.layers):
        layer.self_attn.layer_idx = index
    smaller = a_claim(("model.layers",), is_smaller=True)
    assert false(audited(deep, copy, smaller, disk_bytes=300_000, baseline_disk_bytes=400_000)) == {}
    removed = a_claim(("model.layers.2",), is_smaller=True)
    assert false(audited(deep, copy, removed, disk_bytes=300_000, baseline_disk_bytes=400_000)) == {}
    silent = audited(deep, copy, a_claim(("model.norm",)))
    assert {name.split(".")[2] for name in false(silent)["removed-unclaimed"]} == {"2"}
    with torch.no_grad():
        copy.model.layers[1].mlp.up_proj.weight.mul_(2)
    norm = a_claim(("model.norm",), is_smaller=True)
    found = audited(deep, copy, norm, disk_bytes=300_000, baseline_disk_bytes=400_000)
    assert false(found) == {"changed-unclaimed": ("model.layers.1.mlp.up_proj",)}


def test_shapes_and_new_modules_that_nobody_claimed_are_found(baseline: ModelHandle, model: Any) -> None:
    chosen = replace(model, int8)
    model.model.norm.weight = nn.Parameter(torch.ones(1))
    model.extra = nn.Linear(2, 2)
    found = audited(baseline, model, a_claim(chosen, bits=8))
    assert false(found) == {"changed-unclaimed": ("model.norm",), "added-unclaimed": ("extra",)}
    found = audited(baseline, model, a_claim(chosen, bits=8, is_smaller=True), **files(baseline, model))
    assert false(found) == {}
    assert {"resized-unclaimed", "added-unclaimed"} <= codes_of(found)


# --- kernels ------------------------------------------------------------------------------------------------------------


def test_a_claimed_kernel_that_runs_in_every_layer_passes(baseline: ModelHandle, model: Any) -> None:
    found = audited(baseline, model, a_claim(replace(model, dynamic), bits=8, kernels=("linear_dynamic",)))
    assert (false(found), unchecked(found) - {"bytes on disk"}) == ({}, set())
    assert found.claims[0].kernels == ("quantized::linear_dynamic",)
    assert found.kernels["quantized::linear_dynamic"] == 7
    assert "dequantizes-every-call" not in codes_of(found)


def test_a_claimed_kernel_that_never_ran_is_found(baseline: ModelHandle, model: Any) -> None:
    found = audited(baseline, model, a_claim(replace(model, int8), bits=8, kernels=("int8pack_mm",)))
    assert set(false(found)) == {"kernel-did-not-run"}
    assert found.claims[0].kernels == ()
    assert "aten::mm" in found.kernels


def test_a_layer_that_fell_back_to_a_float_kernel_is_found(baseline: ModelHandle, model: Any) -> None:
    chosen = replace(model, dynamic, leave=("model.layers.0.mlp.up_proj",))
    replace_module(model, "model.layers.0.mlp.up_proj", int8(model.get_submodule("model.layers.0.mlp.up_proj")))
    found = audited(baseline, model, a_claim(chosen, bits=8, kernels=("linear_dynamic", "_int_mm")))
    assert false(found) == {"fell-back": ("model.layers.0.mlp.up_proj",)}


def test_dequantizing_in_every_call_is_a_note(baseline: ModelHandle, model: Any) -> None:
    chosen = replace(model, packed4)
    found = audited(baseline, model, a_claim(chosen, bits=4))
    (note,) = [each for each in found.notes if each.code == "dequantizes-every-call"]
    assert (found.claim_ok, set(note.modules)) == (True, set(chosen))
    assert "saves memory, not time" in note.message
    model.to(torch.bfloat16)
    copy = baseline.copy().model.to(torch.bfloat16)
    found = audited(baseline, copy, a_claim(replace(copy, int8), bits=8, kernels=("int8pack_mm",)))
    assert (false(found), "dequantizes-every-call" in codes_of(found)) == ({}, False)


def test_kernels_of_a_runtime_beside_pytorch_were_not_checked(baseline: ModelHandle, model: Any) -> None:
    handle = baseline.with_model(model, claim=a_claim(replace(model, dynamic), bits=8, kernels=("linear_dynamic",)))
    found = audit(handle, baseline, FakeSession(FakeClock(), [0.1]), BATCH, Evidence())
    assert (found.claim_ok, found.kernels, "kernels" in unchecked(found)) == (True, {}, True)


# --- nothing done -------------------------------------------------------------------------------------------------------


def test_a_step_that_worked_on_nothing_is_found(baseline: ModelHandle, model: Any) -> None:
    for claim in (Claim(step="it"), Claim(step="it", bits=4), Claim(step="it", bits=4, modules=("model.norm",))):
        assert set(false(audited(baseline, model, claim))) == {"no-modules"}


def test_modules_that_are_not_in_the_model_are_found(baseline: ModelHandle, model: Any) -> None:
    chosen = replace(model, int8)
    found = audited(baseline, model, a_claim((*chosen, "model.layers.7.mlp"), bits=8))
    assert false(found) == {"module-missing": ("model.layers.7.mlp",)}
    smaller = a_claim((*chosen, "model.layers.7.mlp"), bits=8, is_smaller=True)
    assert false(audited(baseline, model, smaller, **files(baseline, model))) == {
        "module-missing": ("model.layers.7.mlp",)
    }


def test_a_step_that_left_every_value_as_it_was_is_found(baseline: ModelHandle, model: Any) -> None:
    distilled, folded = Claim(step="distil", is_retrained=True), a_claim(("model.norm",))
    for claim in (distilled, folded):
        assert set(false(audited(baseline, model, claim))) == {"nothing-changed"}
    with torch.no_grad():
        model.model.norm.weight[0] = 2
    for claim in (distilled, folded):
        assert false(audited(baseline, model, claim)) == {}


# --- facts --------------------------------------------------------------------------------------------------------------


def test_nothing_claimed_means_facts_and_no_findings(baseline: ModelHandle, model: Any) -> None:
    with torch.no_grad():
        model.model.norm.weight[0] = 2
    found = audited(baseline, model, disk_bytes=10**9)
    assert (found.claims, found.findings, found.not_checked, found.claim_ok) == ((), (), (), True)
    assert found.effective_bits_compressed is None
    assert found.effective_bits_all == 32
    assert found.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.kernels["aten::linear"] == 8


def test_effective_bits_count_scales_and_leave_biases_to_the_whole_model(baseline: ModelHandle, model: Any) -> None:
    chosen = replace(model, packed4)
    weights = sum(model.get_submodule(name).num_weights for name in chosen)
    rows = sum(model.get_submodule(name).out_features for name in chosen)
    found = audited(baseline, model, a_claim(chosen, bits=4))
    assert found.effective_bits_compressed == 4 + 32 * rows / weights
    others = sum(parameter.numel() for parameter in model.parameters())
    assert found.num_parameters == weights + others
    assert found.effective_bits_all == (4 * weights + 32 * rows + 32 * others) / (weights + others)
    assert found.disk.implied_bytes == weights // 2 + 4 * rows + 4 * others


def test_rows_say_which_steps_worked_on_a_module_and_why_others_left_it_out(baseline: ModelHandle, model: Any) -> None:
    chosen = mask(model, every_second)
    found = audited(baseline, model, a_claim(chosen, sparsity=0.5), a_claim(replace(model, packed4), bits=4))
    rows = {row.name: row for row in found.modules}
    assert set(rows) == {*chosen, "lm_head", "model.embed_tokens"}
    assert rows[chosen[0]].steps == ("it", "it")
    assert rows["lm_head"].left_out == "; ".join(2 * [f"it: {HEAD['lm_head']}"])
    assert rows["lm_head"].tied_to == "model.embed_tokens"


def test_a_linear_module_that_was_left_out_without_a_reason_is_noted(baseline: ModelHandle, model: Any) -> None:
    chosen = replace(model, int8, leave=("model.layers.0.mlp.up_proj",))
    some = tuple(name for name in chosen if not name.endswith("up_proj"))
    found = audited(baseline, model, a_claim(some, bits=8))
    (note,) = [each for each in found.notes if each.code == "unmentioned"]
    assert (found.claim_ok, note.modules) == (True, ("model.layers.0.mlp.up_proj",))


def test_false_claims_come_first_and_the_audit_survives_json(baseline: ModelHandle, model: Any) -> None:
    chosen = replace(model, packed4, leave=("model.layers.0.mlp.up_proj",))
    found = audited(baseline, model, a_claim(chosen, bits=4, is_faster=True), latency_verdict="slower")
    kinds = [finding.is_false_claim for finding in found.findings]
    assert kinds == sorted(kinds, reverse=True)
    assert set(kinds) == {True, False}
    assert Audit.model_validate_json(found.model_dump_json()) == found


# --- the methods that ship ----------------------------------------------------------------------------------------------

SHIPPED: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "cast": [("cast", {})],
    "int8-dynamic": [("int8-dynamic", {})],
    "int8-weight-only": [("int8-weight-only", {})],
    "cast, int8-weight-only": [("cast", {}), ("int8-weight-only", {})],
    "magnitude 2:4": [("magnitude", {"mask_structure": "2:4"})],
    "magnitude, int8-dynamic": [("magnitude", {"sparsity": 0.6}), ("int8-dynamic", {})],
    "cast, depth-pruning": [("cast", {}), ("depth-pruning", {"keep": (0, 2)})],
}


@pytest.mark.parametrize("steps", SHIPPED.values(), ids=SHIPPED)
def test_the_claims_of_the_methods_hold(steps: list[tuple[str, dict[str, Any]]]) -> None:
    deep = tiny_causal_lm(num_layers=3)
    handle = deep.copy()
    for use, options in steps:
        handle = registry.methods.resolve(use)(**options).apply(handle)
    found = audited_against(deep, handle, **files(deep, handle.model))
    assert false(found) == {}
    assert [each.claim.step for each in found.claims] == [use for use, _ in steps]
    assert found.not_checked == ()


def test_two_of_four_zeros_do_not_survive_a_step_that_moves_the_weights() -> None:
    deep = tiny_causal_lm(num_layers=2)
    handle = registry.methods.resolve("magnitude")(mask_structure="2:4").apply(deep.copy())
    with torch.no_grad():
        for parameter in handle.model.parameters():
            parameter.add_(1e-3)
    handle = handle.with_model(handle.model, claim=Claim(step="recover", is_retrained=True))
    assert set(false(audited_against(deep, handle))) == {"less-sparse-than-claimed", "mask-structure-broken"}
