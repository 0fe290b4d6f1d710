from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from compressbench.core.errors import MissingDependencyError, UnsupportedError
from compressbench.methods.quantization.cast import Cast
from compressbench.methods.quantization.torchao import TorchAo
from compressbench.models import torchao_linear
from compressbench.models.handle import ModelHandle
from compressbench.models.parts import matrix, target_linears
from compressbench.models.torchao_linear import TorchaoLinear
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import tiny_causal_lm

BATCH = {"input_ids": torch.tensor([[2, 4, 6, 8, 3], [2, 5, 7, 9, 3]])}


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    return tiny_causal_lm(num_layers=2)


def logits(handle: ModelHandle) -> torch.Tensor:
    found: torch.Tensor = TorchEager().prepare(handle, "cpu")(BATCH)
    return found.float()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_without_torchao_the_method_says_what_to_install(handle: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.core.config", None)
    torchao_linear.torchao.cache_clear()
    with pytest.raises(MissingDependencyError, match="pip install torchao"):
        TorchAo(config="Int8WeightOnlyConfig").apply(handle.copy())
    assert TorchAo.facts.requires == ("torchao",)


@pytest.fixture
def installed() -> None:
    pytest.importorskip("torchao", reason="torchao is not installed: pip install torchao")


INTX4: dict[str, Any] = {"weight_dtype": "torch.int4", "granularity": {"PerGroup": {"group_size": 32}}}
GIVEN: list[tuple[str, dict[str, Any], float]] = [
    ("Int8WeightOnlyConfig", {}, 8),
    ("Int8DynamicActivationInt8WeightConfig", {"granularity": {"PerRow": {}}}, 8),
    ("IntxWeightOnlyConfig", INTX4, 4),
    ("IntxWeightOnlyConfig", {"mapping_type": "MappingType.ASYMMETRIC"}, 8),
    ("Float8WeightOnlyConfig", {"weight_dtype": "torch.float8_e4m3fn"}, 8),
    ("PrototypeInt4WeightOnlyConfig", {"group_size": 32}, 4),
]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("config", "options", "bits"), GIVEN)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_chosen_modules_compute_with_torchao_s_weights(
    handle: ModelHandle, config: str, options: dict[str, Any], bits: float, dtype: str
) -> None:
    start = handle.copy() if dtype == "float32" else Cast().apply(handle.copy())
    done = TorchAo(config=config, options=options).apply(start.copy())
    layers = {name: module for name, module in done.model.named_modules() if isinstance(module, TorchaoLinear)}
    claim = done.claims[-1]
    assert set(layers) == set(claim.modules) == set(target_linears(handle.model))
    assert (claim.bits, claim.step, claim.is_smaller, done.weights) == (bits, "torchao", True, "packed")
    plain = start.copy()
    for name, layer in layers.items():
        matrix(plain.model.get_submodule(name)).copy_(layer.dequantized())
    assert relative(logits(done), logits(plain)) < (0.02 if dtype == "bfloat16" or "Dynamic" in config else 1e-5)
    assert 1e-3 < relative(logits(done), logits(start)) < 0.2


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("config", ["Int8DynamicActivationInt8WeightConfig", "PrototypeInt4WeightOnlyConfig"])
def test_claimed_kernels_run(handle: ModelHandle, config: str) -> None:
    options: dict[str, Any] = {"group_size": 32} if "Int4" in config else {}
    done = TorchAo(config=config, options=options).apply(handle.copy())
    with torch.profiler.profile() as profile:
        logits(done)
    names = [event.key for event in profile.key_averages()]
    assert any(kernel in name for kernel in done.claims[0].kernels for name in names)


@pytest.mark.usefixtures("installed")
def test_modules_that_torchao_refuses_are_left_out_with_its_reason(handle: ModelHandle) -> None:
    done = TorchAo(config="PrototypeInt4WeightOnlyConfig", options={"group_size": 128}).apply(handle.copy())
    (claim,) = done.claims
    assert set(claim.modules) == {name for name in target_linears(handle.model) if "down" in name}
    assert claim.left_out["model.layers.0.mlp.up_proj"]
    assert done.notes["num_modules"] == 2


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ("Int8WeightOnly", {}, "Did you mean 'Int8WeightOnlyConfig'"),
        ("quantize_", {}, "torchao has no 'quantize_'"),
        ("Int8WeightOnlyConfig", {"bits": 4}, "unexpected keyword argument 'bits'"),
        ("IntxWeightOnlyConfig", {"mapping_type": "MappingType.NONE"}, "NONE"),
        ("IntxWeightOnlyConfig", {"granularity": {"PerThing": {}}}, "torchao.quantization has no PerThing"),
        ("IntxWeightOnlyConfig", {"granularity": {"PerGroup": 32}}, "PerGroup needs a mapping"),
        ("SemiSparseWeightConfig", {}, "CUDA"),
    ],
)
def test_what_torchao_does_not_take_is_unsupported(
    handle: ModelHandle, config: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        TorchAo(config=config, options=options).apply(handle.copy())


@pytest.mark.usefixtures("installed")
def test_the_compiler_s_settings_are_left_alone(handle: ModelHandle) -> None:
    import torch._inductor.config as inductor

    before = inductor.coordinate_descent_tuning
    TorchAo(config="Int8WeightOnlyConfig").apply(handle.copy())
    assert inductor.coordinate_descent_tuning == before


@pytest.mark.usefixtures("installed")
def test_targets_narrow_what_is_quantized(handle: ModelHandle) -> None:
    done = TorchAo(config="Int8WeightOnlyConfig", targets=("mlp",), ignore=("down_proj",)).apply(handle.copy())
    layers = [name for name, module in done.model.named_modules() if isinstance(module, TorchaoLinear)]
    assert [name.rpartition(".")[2] for name in layers] == ["gate_proj", "up_proj"] * 2
    copied = done.copy()
    assert torch.equal(logits(copied), logits(done))
