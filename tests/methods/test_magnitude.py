from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressbench.core.errors import UnsupportedError
from compressbench.methods.pruning.magnitude import Magnitude
from compressbench.models.handle import ModelHandle
from compressbench.models.parts import target_linears
from compressbench.testing import tiny_causal_lm, tiny_classifier


@pytest.fixture(scope="module")
def classifier() -> ModelHandle:
    return tiny_classifier()


@pytest.fixture(scope="module")
def causal_lm() -> ModelHandle:
    return tiny_causal_lm(num_layers=2)


def pruned(handle: ModelHandle, **options: Any) -> ModelHandle:
    return Magnitude(**options).apply(handle.copy())


def zeros(handle: ModelHandle) -> dict[str, torch.Tensor]:
    return {name: module.weight == 0 for name, module in target_linears(handle.model).items()}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "give sparsity, or mask_structure"),
        ({"mask_structure": "unstructured"}, "give sparsity, or mask_structure"),
        ({"mask_structure": "2:4", "sparsity": 0.3}, '"2:4" has sparsity 0.5; leave sparsity out'),
        ({"mask_structure": "4:2"}, "must keep between 1 and 1 of 2"),
        ({"mask_structure": "4:4"}, "must keep between 1 and 3 of 4"),
        ({"mask_structure": "0:4"}, "must keep between 1 and 3 of 4"),
        ({"mask_structure": "2-4"}, "pattern"),
        ({"mask_structure": "two:four"}, "pattern"),
        ({"sparsity": 0.0}, "greater than 0"),
        ({"sparsity": 1.0}, "less than 1"),
        ({"sparsity": float("nan")}, "finite"),
        ({"sparsity": 0.5, "group": "matrix"}, "'global', 'layer' or 'row'"),
        ({"sparsity": 0.5, "amount": 0.5}, "Extra inputs"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Magnitude(**options)


def test_the_sparsity_of_a_structure_may_be_repeated() -> None:
    assert Magnitude(mask_structure="2:4", sparsity=0.5).n_of_m == (2, 4)
    assert Magnitude(sparsity=0.5).n_of_m is None


@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.77])
def test_every_matrix_or_every_row_loses_the_exact_number_of_its_smallest(
    classifier: ModelHandle, sparsity: float
) -> None:
    before = {name: module.weight.detach().abs() for name, module in target_linears(classifier.model).items()}
    for name, mask in zeros(pruned(classifier, sparsity=sparsity)).items():
        assert int(mask.sum()) == int(sparsity * mask.numel() + 1e-9)
        assert float(before[name][mask].max()) <= float(before[name][~mask].min())
    for name, mask in zeros(pruned(classifier, sparsity=sparsity, group="row")).items():
        assert mask.sum(dim=1).tolist() == [int(sparsity * mask.shape[1] + 1e-9)] * len(mask)
        for row, row_mask in zip(before[name], mask, strict=True):
            assert float(row[row_mask].max()) <= float(row[~row_mask].min())


def test_the_global_threshold_spares_the_layer_with_the_larger_weights(classifier: ModelHandle) -> None:
    model = classifier.copy()
    with torch.no_grad():
        for module in target_linears(model.model, [r"re:.*layer\.1\."]).values():
            module.weight.mul_(100)
    together = pruned(model, sparsity=0.25, group="global")
    counts = {name: int(mask.sum()) for name, mask in zeros(together).items()}
    total = sum(mask.numel() for mask in zeros(together).values())
    assert sum(counts.values()) == int(0.25 * total)
    of_large = sum(count for name, count in counts.items() if "layer.1." in name)
    assert of_large < 0.02 * total
    by_layer = zeros(pruned(model, sparsity=0.25))
    assert {int(mask.sum()) / mask.numel() for mask in by_layer.values()} == {0.25}


def test_more_sparsity_keeps_the_zeros_of_less(causal_lm: ModelHandle) -> None:
    for group in ("global", "layer", "row"):
        less = zeros(pruned(causal_lm, sparsity=0.3, group=group))
        more = zeros(pruned(causal_lm, sparsity=0.5, group=group))
        assert all(bool(more[name][mask].all()) for name, mask in less.items())


@pytest.mark.parametrize(("structure", "kept", "group"), [("2:4", 2, 4), ("4:8", 4, 8), ("1:4", 1, 4)])
def test_every_aligned_group_of_neighbours_has_exactly_its_zeros(
    causal_lm: ModelHandle, structure: str, kept: int, group: int
) -> None:
    done = pruned(causal_lm, mask_structure=structure)
    for mask in zeros(done).values():
        assert set(mask.reshape(-1, group).sum(dim=1).tolist()) == {group - kept}
    assert done.notes["realised_sparsity"] == 1 - kept / group


def test_a_group_that_does_not_divide_the_inputs_is_unsupported(causal_lm: ModelHandle) -> None:
    with pytest.raises(UnsupportedError, match="64 inputs, which is no multiple of 3"):
        pruned(causal_lm, mask_structure="1:3")


def test_kept_weights_and_all_else_are_bitwise_as_they_were(classifier: ModelHandle, causal_lm: ModelHandle) -> None:
    for handle in (classifier, causal_lm):
        before = {name: tensor.clone() for name, tensor in handle.model.state_dict().items()}
        done = pruned(handle, sparsity=0.5)
        chosen = {f"{name}.weight" for name in target_linears(handle.model)}
        assert chosen
        for name, tensor in done.model.state_dict().items():
            expected = torch.where(tensor == 0, 0, before[name]) if name in chosen else before[name]
            assert torch.equal(tensor, expected), name
        for name, tensor in handle.model.state_dict().items():
            assert torch.equal(tensor, before[name]), "the model that was copied stays as it was"


def test_a_tied_head_stays_tied_and_whole(causal_lm: ModelHandle) -> None:
    model = pruned(causal_lm, sparsity=0.9, group="global").model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.count_nonzero(model.lm_head.weight[1:]) == model.lm_head.weight[1:].numel()


def test_targets_and_ignore_decide_which_modules_lose_weights(classifier: ModelHandle) -> None:
    def touched(**options: Any) -> set[str]:
        model = pruned(classifier, sparsity=0.5, **options).model
        return {
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and bool((module.weight == 0).any())
        }

    layers = "bert.encoder.layer"
    assert touched(targets=("query",), ignore=(r"re:.*\.1\.",)) == {f"{layers}.0.attention.self.query"}
    assert touched(targets=("classifier",)) == {"classifier"}
    assert len(touched(ignore=("attention",))) == 4
    with pytest.raises(UnsupportedError):
        touched(targets=("qurey",))


def test_the_notes_tell_how_many_modules_and_zeros_there_are(classifier: ModelHandle) -> None:
    done = pruned(classifier, sparsity=0.3)
    masks = list(zeros(done).values())
    assert done.notes["num_modules"] == len(masks) == 12
    counted = sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    assert done.notes["realised_sparsity"] == counted == pytest.approx(0.3, abs=1e-3)
    assert done.weights == classifier.weights
