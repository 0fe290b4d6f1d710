from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressbench.methods.pruning.magnitude import Magnitude
from compressbench.methods.quantization.cast import Cast
from compressbench.methods.quantization.int8_dynamic import Int8Dynamic
from compressbench.methods.quantization.int8_weight_only import Int8WeightOnly
from compressbench.models.handle import ModelHandle
from compressbench.models.parts import target_linears
from compressbench.models.quiet import quiet
from compressbench.models.size import count_weights, disk_bytes
from compressbench.testing import tiny_causal_lm, tiny_classifier

VOCABULARY, HIDDEN, INNER, POSITIONS, LABELS, LAYERS = 19, 64, 128, 64, 3, 2
IN_LAYERS = 4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER
CHANNELS = 4 * HIDDEN + INNER + HIDDEN


def bert_parameters() -> int:
    embeddings = (VOCABULARY + POSITIONS + 2) * HIDDEN + 2 * HIDDEN
    layer = IN_LAYERS + CHANNELS + 4 * HIDDEN
    return embeddings + LAYERS * layer + HIDDEN * HIDDEN + HIDDEN + LABELS * HIDDEN + LABELS


@pytest.fixture(scope="module")
def classifier() -> ModelHandle:
    return tiny_classifier()


def test_parameters_and_bytes_agree_with_the_formula_of_the_architecture(classifier: ModelHandle) -> None:
    count = count_weights(classifier.model)
    assert count.num_parameters == bert_parameters()
    assert count.num_bytes == 4 * bert_parameters()
    assert count_weights(Cast().apply(classifier.copy()).model).num_bytes == 2 * bert_parameters()
    assert not count.has_opaque_weights


def test_a_tied_head_is_counted_once() -> None:
    tied, untied = (count_weights(tiny_causal_lm(num_layers=1, tied=tied).model) for tied in (True, False))
    assert untied.num_parameters - tied.num_parameters == VOCABULARY * HIDDEN
    assert untied.num_bytes - tied.num_bytes == 4 * VOCABULARY * HIDDEN


def test_parameters_that_share_their_storage_are_counted_once() -> None:
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    assert count_weights(nn.Sequential(first, second)).num_parameters == 32
    second.weight = nn.Parameter(first.weight.data)
    assert count_weights(nn.Sequential(first, second)).num_parameters == 16


def test_zeros_are_those_of_all_weights_and_biases() -> None:
    first, second = nn.Linear(4, 3), nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        first.weight.fill_(1).fill_diagonal_(0)
        first.bias.zero_()
        second.weight.fill_(2)
        second.weight[0, 0] = -0.0
    count = count_weights(nn.Sequential(first, second))
    assert (count.num_parameters, count.num_zeros) == (12 + 3 + 6, 3 + 3 + 1)


def test_pruning_adds_exactly_its_zeros(classifier: ModelHandle) -> None:
    done = Magnitude(mask_structure="2:4").apply(classifier.copy())
    assert count_weights(done.model).num_zeros - count_weights(classifier.model).num_zeros == LAYERS * IN_LAYERS // 2
    assert count_weights(done.model).num_parameters == bert_parameters()


@pytest.mark.parametrize("method", [Int8Dynamic, Int8WeightOnly])
def test_int8_models_cost_a_byte_per_weight_and_four_per_scale(classifier: ModelHandle, method: Any) -> None:
    done = method().apply(classifier.copy()).model
    count = count_weights(done)
    assert count.num_parameters == bert_parameters(), "scales are no parameters"
    expected = 4 * bert_parameters() - 3 * LAYERS * IN_LAYERS + 4 * LAYERS * CHANNELS
    assert count.num_bytes == expected
    assert 8 * count.num_bytes / count.num_parameters == 8 * expected / bert_parameters()
    assert count.has_opaque_weights == (method is Int8Dynamic)


@pytest.mark.parametrize("method", [Int8Dynamic, Int8WeightOnly])
def test_zeros_of_an_int8_model_are_those_of_its_codes(classifier: ModelHandle, method: Any) -> None:
    pruned = Magnitude(sparsity=0.5).apply(classifier.copy())
    before = count_weights(pruned.model).num_zeros
    rounded = 0
    for module in target_linears(pruned.model).values():
        step = module.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        rounded += int(((module.weight != 0) & (module.weight.abs() < step / 2)).sum())
    assert count_weights(method().apply(pruned).model).num_zeros == before + rounded


def test_bytes_on_disk_are_those_of_the_files(classifier: ModelHandle, tmp_path: Path) -> None:
    with quiet():
        classifier.model.save_pretrained(tmp_path)
    files = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors"} <= set(files)
    assert disk_bytes(classifier.model) == sum(files.values())


@pytest.mark.parametrize("method", [Cast, Int8Dynamic, Int8WeightOnly])
def test_bytes_on_disk_follow_the_width_of_the_weights(classifier: ModelHandle, method: Any) -> None:
    done = method().apply(classifier.copy()).model
    saved = disk_bytes(classifier.model) - disk_bytes(done)
    expected = count_weights(classifier.model).num_bytes - count_weights(done).num_bytes
    assert expected > 0
    assert abs(saved - expected) < 4096, "only the headers may differ"


def test_zeros_do_not_shrink_a_dense_file(classifier: ModelHandle) -> None:
    assert disk_bytes(Magnitude(sparsity=0.9).apply(classifier.copy()).model) == disk_bytes(classifier.model)
