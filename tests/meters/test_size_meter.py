from __future__ import annotations

from typing import Any

import pytest

from compressbench.core.protocols import Probe
from compressbench.core.reading import Reading
from compressbench.core.registry import meters
from compressbench.meters.size import Size
from compressbench.methods.pruning.depth_pruning import DepthPruning
from compressbench.methods.pruning.magnitude import Magnitude
from compressbench.methods.quantization.cast import Cast
from compressbench.methods.quantization.int8_weight_only import Int8WeightOnly
from compressbench.models.handle import ModelHandle
from compressbench.models.size import count_weights, disk_bytes
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import tiny_classifier

IN_LAYERS, CHANNELS = 2 * (4 * 64 * 64 + 2 * 64 * 128), 2 * (4 * 64 + 128 + 64)


@pytest.fixture(scope="module")
def classifier() -> ModelHandle:
    return tiny_classifier()


def read(handle: ModelHandle) -> dict[str, Reading]:
    found = Size().read(handle, TorchEager().prepare(handle, "cpu"), {})
    return {reading.name: reading for reading in found}


def values(handle: ModelHandle) -> dict[str, float]:
    return {name: reading.value for name, reading in read(handle).items()}


def test_the_word_size_is_this_meter(classifier: ModelHandle) -> None:
    probe: Probe[ModelHandle] = Size()
    assert meters.resolve("size") is Size
    assert probe.scope == "model"
    readings = read(classifier)
    assert set(readings) == {"disk_bytes", "num_parameters", "sparsity", "effective_bits"}
    assert {reading.kind for reading in readings.values()} == {"measured"}


def test_a_plain_model_has_the_bits_of_its_type(classifier: ModelHandle) -> None:
    assert values(classifier)["effective_bits"] == 32
    assert values(classifier)["num_parameters"] == count_weights(classifier.model).num_parameters
    assert values(classifier)["disk_bytes"] == disk_bytes(classifier.model)
    assert values(Cast().apply(classifier.copy()))["effective_bits"] == 16


def test_effective_bits_of_an_int8_model_follow_the_formula(classifier: ModelHandle) -> None:
    total = values(classifier)["num_parameters"]
    found = values(Int8WeightOnly().apply(classifier.copy()))
    assert found["num_parameters"] == total
    assert found["effective_bits"] == pytest.approx(32 - 24 * IN_LAYERS / total + 32 * CHANNELS / total, rel=1e-12)


def test_sparsity_is_over_all_weights_not_only_the_pruned_ones(classifier: ModelHandle) -> None:
    before, after = values(classifier), values(Magnitude(mask_structure="2:4").apply(classifier.copy()))
    gained = (after["sparsity"] - before["sparsity"]) * before["num_parameters"]
    assert gained == pytest.approx(IN_LAYERS / 2, rel=1e-9)
    assert 0 < after["sparsity"] < 0.5
    assert after["disk_bytes"] == before["disk_bytes"], "a dense file does not shrink"
    assert after["effective_bits"] == 32


@pytest.mark.parametrize("step", [DepthPruning(num_layers=1)])
def test_removed_layers_are_gone_from_the_count_and_from_the_disk(classifier: ModelHandle, step: Any) -> None:
    before, after = values(classifier), values(step.apply(classifier.copy()))
    layer = IN_LAYERS // 2 + CHANNELS // 2 + 4 * 64
    assert before["num_parameters"] - after["num_parameters"] == layer
    assert before["disk_bytes"] - after["disk_bytes"] == pytest.approx(4 * layer, abs=4096)
    assert after["effective_bits"] == 32
