from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressbench.core.errors import UnsupportedError
from compressbench.methods.pruning.depth_pruning import DepthPruning
from compressbench.methods.quantization.cast import Cast
from compressbench.methods.quantization.transformers import Transformers
from compressbench.models.artefact import write_model
from compressbench.models.handle import ModelHandle
from compressbench.models.library_layers import adopt_library_layers
from compressbench.models.mean_pool import MeanPoolConfig, MeanPoolForSequenceClassification
from compressbench.models.parts import matrix
from compressbench.models.stored_layer import StoredLayer
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import tiny_causal_lm, tiny_classifier

pytest.importorskip("bitsandbytes", reason="bitsandbytes is installed on x86-64 Linux and Windows only")

BATCH = {"input_ids": torch.tensor([[2, 4, 6, 8, 3], [2, 5, 7, 9, 3]])}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
FP4_TWICE = {
    "load_in_4bit": True, "bnb_4bit_use_double_quant": True, "bnb_4bit_quant_type": "fp4",
    "bnb_4bit_compute_dtype": "bfloat16",
}  # fmt: skip
INT8 = {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 5.0}


@pytest.fixture(scope="module", params=[tiny_classifier, tiny_causal_lm])
def handle(request: pytest.FixtureRequest) -> ModelHandle:
    made: ModelHandle = request.param(num_layers=2)
    return made


def logits(handle: ModelHandle) -> torch.Tensor:
    found: torch.Tensor = TorchEager().prepare(handle, "cpu")(BATCH)
    return found.float()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def layers_of(handle: ModelHandle) -> dict[str, StoredLayer]:
    return {name: module for name, module in handle.model.named_modules() if isinstance(module, StoredLayer)}


@pytest.mark.parametrize(
    ("config", "kind", "bits"), [(NF4, "bnb-4bit", 4), (FP4_TWICE, "bnb-4bit", 4), (INT8, "bnb-int8", 8)]
)
def test_the_model_is_quantized_by_transformers_and_stored_by_us(
    handle: ModelHandle, config: dict[str, Any], kind: str, bits: int, tmp_path: Path
) -> None:
    method = Transformers(quantization_config=config)
    done = method.apply(handle.copy())
    layers = layers_of(done)
    (claim,) = done.claims
    assert set(layers) == set(claim.modules)
    assert len(layers) == 14
    assert {layer.kind for layer in layers.values()} == {kind}
    assert (claim.bits, claim.is_smaller) == (bits, True)
    assert done.weights == method.weights_after("float32") == ("int8" if bits == 8 else "packed")
    plain = handle.copy()
    for name, layer in layers.items():
        matrix(plain.model.get_submodule(name)).copy_(layer.dequantized())
    assert relative(logits(done), logits(plain)) < 0.05
    assert 0 < relative(logits(done), logits(handle)) < 0.5
    for name, tensor in handle.model.state_dict().items():
        if name.rpartition(".")[0] not in layers:
            assert torch.equal(done.model.state_dict()[name], tensor), name
    assert torch.equal(logits(done.copy()), logits(done))
    assert "quantization_config" not in done.config
    done.model.to("cpu")
    write_model(done.model, tmp_path)


def test_what_transformers_computed_is_computed_still(handle: ModelHandle, tmp_path: Path) -> None:
    """The library's modules in transformers' model against ours, after their own first forward."""
    handle.model.save_pretrained(tmp_path)
    skip = {
        "llm_int8_skip_modules": ["classifier", "lm_head"]
    }  # 3 outputs, which the library's CPU kernel doesn't take
    for config in (NF4, INT8):
        done = Transformers(quantization_config={**config, **skip}).apply(handle.copy())
        theirs = type(handle.model).from_pretrained(
            tmp_path, quantization_config={**config, **skip}, dtype=torch.float32, device_map={"": "cpu"}
        )
        with torch.no_grad():
            assert torch.equal(theirs.eval()(**BATCH).logits, logits(done))
        assert type(done.model.get_submodule("classifier" if handle.head != "causal-lm" else "lm_head")) is nn.Linear


@pytest.mark.parametrize("config", [NF4, FP4_TWICE, INT8])
def test_a_checkpoint_that_is_quantized_already_becomes_the_same_stored_layers(
    handle: ModelHandle, config: dict[str, Any], tmp_path: Path
) -> None:
    done = Transformers(quantization_config=config).apply(handle.copy())
    handle.model.save_pretrained(tmp_path / "plain")
    kind, place = type(handle.model), {"device_map": {"": "cpu"}, "dtype": torch.float32}
    theirs = kind.from_pretrained(tmp_path / "plain", quantization_config=dict(config), **place)
    theirs.save_pretrained(tmp_path / "quantized")
    again = kind.from_pretrained(tmp_path / "quantized", **place).eval()
    assert set(adopt_library_layers(again)) == set(layers_of(done))
    for name, layer in layers_of(done).items():
        found: Any = again.get_submodule(name)
        assert found.layout() == layer.layout()
        for part, tensor in layer.stored_tensors().items():
            assert torch.equal(found.stored_tensors()[part], tensor), (name, part)
    assert torch.equal(again.to("cpu")(**BATCH).logits.detach(), logits(done))


def test_it_starts_from_the_model_in_hand_and_keeps_its_type(handle: ModelHandle) -> None:
    short = Cast().apply(DepthPruning(num_layers=1).apply(handle.copy()))
    with torch.no_grad():
        next(short.model.parameters()).mul_(2)
    done = Transformers(quantization_config=NF4).apply(short.copy())
    assert done.config["num_hidden_layers"] == 1
    assert TorchEager().prepare(done, "cpu")(BATCH).dtype == torch.bfloat16
    assert relative(logits(done), logits(short)) < 0.5
    assert len(done.claims) == len(short.claims) + 1


def test_models_of_our_own_classes_go_the_same_way() -> None:
    start = tiny_classifier(num_layers=1)
    torch.manual_seed(0)
    config = MeanPoolConfig(**{**start.config, "num_labels": 5})
    start = start.with_model(MeanPoolForSequenceClassification(config).eval())
    done = Transformers(quantization_config=INT8).apply(start.copy())
    assert type(done.model) is MeanPoolForSequenceClassification
    assert relative(logits(done), logits(start)) < 0.1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "nope"}, "Unknown quantization type, got nope"),
        ({"quant_method": "gptq", "bits": 7}, "Only support quantization to"),
        ({"quant_method": "awq"}, "pre-quantized"),
        ({**NF4, "bnb_4bit_compute_dtype": 3}, "bnb_4bit_compute_dtype must be"),
        ({**NF4, "bnb_4bit_quant_typ": "nf4"}, "no 'bnb_4bit_quant_typ'.*Did you mean 'bnb_4bit_quant_type'"),
        ({**NF4, "load_in_8bit": True}, "only one can be used"),
        ({**INT8, "llm_int8_has_fp16_weight": True}, "float16"),
    ],
)
def test_what_transformers_refuses_is_unsupported_in_its_own_words(
    handle: ModelHandle, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        Transformers(quantization_config=config).apply(handle.copy())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_float8_without_a_gpu_is_refused_with_the_reason(handle: ModelHandle) -> None:
    with pytest.raises(UnsupportedError, match="GPU"):
        Transformers(quantization_config={"quant_method": "fp8"}).apply(handle.copy())


def test_inputs_that_bitsandbytes_dequantizes_wrongly_are_refused() -> None:
    start = tiny_causal_lm(num_layers=1)
    config = type(start.model.config)(**{**start.config, "intermediate_size": 96})
    odd = start.with_model(type(start.model)(config).eval())
    with pytest.raises(UnsupportedError, match=r"down_proj: .*multiples of 64.*96.*llm_int8_skip_modules"):
        Transformers(quantization_config=NF4).apply(odd.copy())
    skip = {"llm_int8_skip_modules": ["down_proj", "lm_head"]}
    done = Transformers(quantization_config={**NF4, **skip}).apply(odd.copy())
    (claim,) = done.claims
    assert claim.left_out["model.layers.0.mlp.down_proj"]


@pytest.mark.parametrize("config", [NF4, INT8])
def test_a_tied_head_that_only_looks_quantized_is_refused(config: dict[str, Any]) -> None:
    """Naming modules to skip replaces transformers' own list, on which the tied head stands."""
    method = Transformers(quantization_config={**config, "llm_int8_skip_modules": ["down_proj"]})
    with pytest.raises(UnsupportedError, match=r"lm_head: .*tied"):
        method.apply(tiny_causal_lm(num_layers=1))


def test_a_configuration_without_a_method_is_an_error_in_the_recipe() -> None:
    with pytest.raises(ValidationError, match="needs quant_method"):
        Transformers(quantization_config={"bits": 4})
    with pytest.raises(ValidationError):
        Transformers.model_validate({})


def test_torchao_s_tensors_become_stored_layers(handle: ModelHandle) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed: pip install torchao")
    kind = {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": {"set_inductor_config": False}}
    config: dict[str, Any] = {"quant_method": "torchao", "quant_type": {"default": kind}}
    done = Transformers(quantization_config=config).apply(handle.copy())
    layers = layers_of(done)
    assert {layer.kind for layer in layers.values()} == {"torchao"}
    assert set(done.claims[0].modules) == set(layers)
    assert done.claims[0].bits == 8
    assert relative(logits(done), logits(handle)) < 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("config", [NF4, INT8])
def test_on_cuda_the_model_is_near_what_it_was(config: dict[str, Any]) -> None:
    from dataclasses import replace

    start = tiny_causal_lm(num_layers=2)
    on_cuda = replace(start, model=start.copy().model.to("cuda"), device="cuda")
    done = Transformers(quantization_config=config).apply(on_cuda)
    found = TorchEager().prepare(done, "cuda")(BATCH).float().cpu()
    assert relative(found, logits(start)) < 0.5
