from __future__ import annotations

import pytest
import torch
from torch import nn

from compressbench.methods.maths.integers import per_channel_symmetric
from compressbench.methods.pruning.depth_pruning import DepthPruning
from compressbench.models.against_original import compare_models
from compressbench.models.handle import ModelHandle
from compressbench.models.int8_linear import Int8WeightLinear
from compressbench.models.parts import replace_module
from compressbench.testing import tiny_causal_lm, tiny_classifier

QUERY = "bert.encoder.layer.0.attention.self.query"


@pytest.fixture(scope="module")
def original() -> ModelHandle:
    return tiny_classifier()


def changed(model: nn.Module, original: nn.Module) -> dict[str, str]:
    """What happened to the modules to which something happened."""
    return {name: each for name, each in compare_models(model, original).by_module.items() if each != "same"}


def test_a_copy_is_the_same(original: ModelHandle) -> None:
    found = compare_models(original.copy().model, original.model)
    assert set(found.by_module.values()) == {"same"}
    assert "classifier" in found.by_module
    assert (found.removed, found.untied) == ([], [])


def test_one_changed_value_is_found(original: ModelHandle) -> None:
    model = original.copy().model
    with torch.no_grad():
        model.bert.embeddings.LayerNorm.bias[3] += 1e-6
        model.get_submodule(QUERY).weight[1, 2] = 0
    assert changed(model, original.model) == {"bert.embeddings.LayerNorm": "values", QUERY: "values"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_values_in_another_dtype_are_rounded_and_not_changed(original: ModelHandle, dtype: torch.dtype) -> None:
    model = original.copy().model.to(dtype)
    found = compare_models(model, original.model)
    assert set(found.by_module.values()) == {"rounded"}
    with torch.no_grad():
        model.classifier.weight[0, 0] *= 1.1
    assert compare_models(model, original.model).by_module["classifier"] == "values"
    wide = original.copy().model.to(dtype).to(torch.float32)
    assert compare_models(wide, original.model).by_module["classifier"] == "values"


def test_another_shape_and_another_form_are_told_apart(original: ModelHandle) -> None:
    model = original.copy().model
    model.classifier = nn.Linear(64, 2)
    layer = model.get_submodule(QUERY)
    replace_module(model, QUERY, Int8WeightLinear(*per_channel_symmetric(layer.weight.detach()), layer.bias))
    assert changed(model, original.model) == {"classifier": "shape", QUERY: "form"}


def test_a_float_layer_of_another_class_is_another_form(original: ModelHandle) -> None:
    class Masked(nn.Linear):
        pass

    model = original.copy().model
    masked = Masked(64, 3)
    masked.load_state_dict(model.classifier.state_dict())
    model.classifier = masked
    assert changed(model, original.model) == {"classifier": "form"}


def test_layers_that_moved_up_are_recognised_by_what_they_hold() -> None:
    original = tiny_causal_lm(num_layers=4)
    done = DepthPruning(keep=(0, 3)).apply(original.copy())
    found = compare_models(done.model, original.model)
    moved = {name for name, each in found.by_module.items() if each == "moved"}
    inside = {name for name in found.by_module if name.startswith("model.layers.1.") and name.endswith("_proj")}
    assert (moved, len(inside)) == (inside, 7)
    assert found.by_module["model.layers.0.mlp.up_proj"] == "same"
    assert {".".join(name.split(".")[:3]) for name in found.removed} == {"model.layers.2", "model.layers.3"}
    with torch.no_grad():
        done.model.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    assert compare_models(done.model, original.model).by_module["model.layers.1.mlp.up_proj"] == "values"


def test_layers_that_swapped_places_have_changed() -> None:
    original = tiny_causal_lm(num_layers=2)
    model = original.copy().model
    model.model.layers = nn.ModuleList([model.model.layers[1], model.model.layers[0]])
    found = changed(model, original.model)
    assert found["model.layers.0.mlp.up_proj"] == found["model.layers.1.mlp.up_proj"] == "values"


def test_weights_that_cannot_be_read_are_not_taken_for_the_same() -> None:
    original, hidden = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2, device="meta"))
    assert changed(hidden, original) == changed(original, hidden) == changed(hidden, hidden) == {"0": "unknown"}


def test_new_modules_are_added(original: ModelHandle) -> None:
    model = original.copy().model
    model.adapter = nn.Linear(2, 2)
    assert changed(model, original.model) == {"adapter": "added"}


def test_a_head_that_lost_its_tie_is_found_with_equal_values_too() -> None:
    original = tiny_causal_lm(num_layers=1)
    copy = original.copy().model
    assert compare_models(copy, original.model).untied == []
    copy.lm_head.weight = nn.Parameter(copy.lm_head.weight.detach().clone())
    found = compare_models(copy, original.model)
    assert [set(group) for group in found.untied] == [{"lm_head.weight", "model.embed_tokens.weight"}]
    assert found.by_module["lm_head"] == "same"


def test_a_tied_head_that_was_replaced_is_untied() -> None:
    original = tiny_causal_lm(num_layers=1)
    copy = original.copy().model
    copy.lm_head = Int8WeightLinear(*per_channel_symmetric(copy.lm_head.weight.detach()), None)
    assert len(compare_models(copy, original.model).untied) == 1
    assert not compare_models(copy, copy).untied
