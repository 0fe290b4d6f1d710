from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from compressbench.core.protocols import Batch, Probe
from compressbench.core.reading import Reading
from compressbench.core.registry import meters
from compressbench.meters import memory
from compressbench.meters.memory import Memory, resident_bytes
from compressbench.methods.maths.integers import per_channel_symmetric
from compressbench.methods.quantization.cast import Cast
from compressbench.methods.quantization.int8_dynamic import Int8Dynamic
from compressbench.methods.quantization.int8_weight_only import Int8WeightOnly
from compressbench.models.handle import ModelHandle
from compressbench.models.int8_linear import Int8DynamicLinear
from compressbench.models.size import count_weights
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import tiny_causal_lm, tiny_classifier

ENGINES = [
    name for name in ("onednn", "x86", "fbgemm", "qnnpack") if name in torch.backends.quantized.supported_engines
]
BATCH = {"input_ids": torch.tensor([[2, 4, 6, 8, 3]])}


class NetworkSession:
    """Calls a plain network on batch["x"] and keeps nothing."""

    device = "cpu"

    def __init__(self, network: nn.Module) -> None:
        self.network, self.num_calls = network, 0

    def __call__(self, batch: Batch) -> Any:
        self.num_calls += 1
        with torch.inference_mode():
            return self.network(batch["x"])

    def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> Any:
        raise NotImplementedError

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def classifier() -> ModelHandle:
    return tiny_classifier()


def read(network: nn.Module, handle: ModelHandle, x: torch.Tensor) -> dict[str, Reading]:
    readings = Memory().read(replace(handle, model=network), NetworkSession(network), {"x": x})
    return {reading.name: reading for reading in readings}


def test_the_word_memory_is_this_meter() -> None:
    probe: Probe[ModelHandle] = Memory()
    assert meters.resolve("memory") is Memory
    assert probe.scope == "model"


@pytest.mark.parametrize(("inputs", "inner", "outputs"), [(8, 300, 20), (300, 16, 500), (64, 64, 64)])
def test_the_peak_of_a_known_network_is_the_sum_of_its_tensors(
    classifier: ModelHandle, inputs: int, inner: int, outputs: int
) -> None:
    network = nn.Sequential(nn.Linear(inputs, inner), nn.ReLU(), nn.Linear(inner, outputs))
    found = read(network, classifier, torch.randn(32, inputs))
    weights = 4 * (inputs * inner + inner + inner * outputs + outputs)
    at_relu, at_end = 2 * 32 * inner, 32 * inner + 32 * outputs  # a layer's input is there until its output is
    assert found["weights_memory_bytes"].value == weights
    assert found["peak_memory_bytes"].value == weights + 4 * max(at_relu, at_end)
    assert {reading.kind for reading in found.values()} == {"measured"}
    assert {reading.unit for reading in found.values()} == {"B"}


def test_working_in_place_needs_less(classifier: ModelHandle) -> None:
    def peak(in_place: bool) -> float:
        network = nn.Sequential(nn.Linear(8, 300), nn.ReLU(inplace=in_place), nn.Linear(300, 4))
        return read(network, classifier, torch.randn(32, 8))["peak_memory_bytes"].value

    assert peak(in_place=False) - peak(in_place=True) == 4 * 32 * (300 - 4)


def test_the_call_that_is_counted_is_not_the_first(classifier: ModelHandle) -> None:
    class CachesOnce(nn.Module):
        cache: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.cache = torch.zeros(10_000) if self.cache is None else self.cache
            return x + x

    found = read(CachesOnce(), classifier, torch.randn(5))
    assert found["weights_memory_bytes"].value == 0
    assert found["peak_memory_bytes"].value == 5 * 4


def test_what_the_weights_occupy_follows_their_type_and_counts_tied_ones_once() -> None:
    handle = tiny_causal_lm(num_layers=1)
    buffers = sum(buffer.untyped_storage().nbytes() for buffer in handle.model.buffers())
    count = count_weights(handle.model)
    assert resident_bytes(handle.model, "cpu") == (4 * count.num_parameters + buffers, True)
    half = Cast().apply(handle.copy())
    buffers = sum(buffer.untyped_storage().nbytes() for buffer in half.model.buffers())
    assert resident_bytes(half.model, "cpu") == (2 * count.num_parameters + buffers, True)


def test_a_view_is_charged_with_the_storage_it_keeps_alive() -> None:
    network = nn.Linear(10, 10)
    network.weight = nn.Parameter(torch.zeros(1000, 10)[:10])
    assert resident_bytes(network, "cpu")[0] == 4 * (10_000 + 10)


@pytest.mark.parametrize("engine", ENGINES)
def test_packed_weights_occupy_at_least_what_they_store(engine: str) -> None:
    codes, scale = per_channel_symmetric(torch.randn(64, 256, generator=torch.Generator().manual_seed(0)))
    network = nn.Sequential(Int8DynamicLinear(codes, scale, torch.zeros(64), engine=engine, reduce_range=False))
    stored = 64 * 256 + 4 * 64 + 4 * 64
    found, is_exact = resident_bytes(network, "cpu")
    assert stored <= found < 2.5 * stored, "some engines keep the weights both as they came and packed"
    assert is_exact or found == stored


def test_int8_layers_in_the_form_for_cuda_hold_plain_tensors() -> None:
    codes, scale = torch.ones(64, 32, dtype=torch.int8), torch.ones(64)
    layer = Int8DynamicLinear(codes, scale, torch.zeros(64), engine="cuda", reduce_range=False)
    assert resident_bytes(nn.Sequential(layer), "cpu") == (64 * 32 + 64 * 4 + 64 * 4, True)
    assert not count_weights(nn.Sequential(layer)).has_opaque_weights


@pytest.mark.parametrize("method", [Int8Dynamic, Int8WeightOnly])
def test_an_int8_model_occupies_its_stored_bytes_and_less_than_before(classifier: ModelHandle, method: Any) -> None:
    done = method().apply(classifier.copy())
    found = {
        reading.name: reading for reading in Memory().read(done, TorchEager().prepare(done, "cpu"), BATCH)
    }  # fmt: skip
    weights = found["weights_memory_bytes"].value
    assert count_weights(done.model).num_bytes <= weights < resident_bytes(classifier.model, "cpu")[0]
    assert found["peak_memory_bytes"].value > weights


def test_what_the_allocators_cannot_see_is_called_an_estimate(
    classifier: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for is_exact, kind in ((True, "measured"), (False, "estimated")):
        monkeypatch.setattr(memory, "resident_bytes", lambda *_, exact=is_exact: (100, exact))
        found = read(nn.Identity(), classifier, torch.randn(5))
        assert {reading.kind for reading in found.values()} == {kind}
        assert all(reading.uncertainty_reason for reading in found.values())


def test_two_calls_are_made_and_the_second_is_read(classifier: ModelHandle) -> None:
    session = NetworkSession(nn.Identity())
    Memory().read(replace(classifier, model=session.network), session, {"x": torch.ones(1)})
    assert session.num_calls == 2


@pytest.mark.parametrize(
    ("name", "options", "bits"),
    [
        ("rtn", {"bits": 4, "group_size": 32, "sym": True}, 4 + 16 / 32),
        ("rtn", {"bits": 3, "group_size": 32}, 3 + 16 / 32 + 3 / 32),
        ("int4-weight-only", {"group_size": 32}, 4 + 32 / 32),
        ("torchao", {"config": "Int8WeightOnlyConfig"}, 8 + 32 / 64),
    ],
)
def test_low_bit_layers_occupy_what_their_bits_say(name: str, options: dict[str, Any], bits: float) -> None:
    from compressbench.core.registry import methods
    from compressbench.models.parts import target_linears

    if name == "torchao":
        pytest.importorskip("torchao", reason="torchao isn't installed")
    plain = tiny_classifier()
    weights = sum(module.weight.numel() for module in target_linears(plain.model).values())
    before, _ = resident_bytes(plain.model, "cpu")
    after, is_exact = resident_bytes(methods.resolve(name)(**options).apply(plain.copy()).model, "cpu")
    assert is_exact
    assert 8 * (before - after) / weights == pytest.approx(32 - bits, rel=0.02)
