"""A candidate's codes in compressed-tensors' format: unpacked by that library, they are the candidate's own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import FAMILIES
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import load_file

from compressbench.core import registry
from compressbench.core.errors import ModelError, UnsupportedError
from compressbench.methods.maths.uniform import Grid, rtn
from compressbench.models.exports.compressed_tensors import schemes_of, write
from compressbench.models.exports.reading import read_export
from compressbench.models.handle import ModelHandle
from compressbench.models.packed_linear import PackedLinear
from compressbench.models.parts import replace_module
from compressbench.models.quantized_weight import QuantizedWeight
from compressbench.models.semi_structured_linear import SemiStructuredLinear, without_zeros

KEY, UP = "model.layers.0.self_attn.k_proj", "model.layers.1.mlp.up_proj"
INT4 = QuantizedWeight(torch.full((32, 64), 3, dtype=torch.uint8), torch.ones(32, 2), bits=4, group_size=32)


def compressed(use: str = "rtn", family: str = "llama-untied", **options: Any) -> ModelHandle:
    made: ModelHandle = registry.methods.resolve(use)(**options).apply(FAMILIES[family].build())
    return made


def in_place_of_the_keys(layer: torch.nn.Module) -> ModelHandle:
    handle = compressed(bits=4, group_size=32)
    replace_module(handle.model, KEY, layer)
    return handle


def unpacked_by_the_library(folder: Path, name: str) -> torch.Tensor:
    """The layer's matrix in float32, by the scheme that config.json says."""
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    groups = QuantizationConfig.model_validate(config).config_groups.values()
    scheme = next(each for each in groups if each.targets == ["Linear"] or name in each.targets)
    stored = {
        full.removeprefix(f"{name}."): tensor
        for full, tensor in load_file(folder / "model.safetensors").items()
        if full.startswith(f"{name}.weight")
    }
    # the library computes in the type of the scales
    stored["weight_scale"] = stored["weight_scale"].float()
    found: torch.Tensor = PackedQuantizationCompressor.decompress(stored, scheme)["weight"]
    return found


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group_size", [32, -1])
@pytest.mark.parametrize("sym", [True, False])
def test_the_library_reads_the_candidates_own_numbers(bits: int, group_size: int, *, sym: bool, tmp_path: Path) -> None:
    handle = compressed(bits=bits, group_size=group_size, sym=sym)
    assert write(handle, tmp_path) == "14 layers with the candidate's own codes"
    layers = {name: each for name, each in handle.model.named_modules() if isinstance(each, PackedLinear)}
    assert len(layers) == 14
    for name, layer in layers.items():
        assert torch.equal(unpacked_by_the_library(tmp_path, name), layer.dequantized()), name


def test_codes_that_rounding_again_would_change_stay_as_they_are(tmp_path: Path) -> None:
    """GPTQ doesn't choose the nearest code: from the dense matrix alone nobody can tell the scales that it used."""
    handle = compressed("gptq", bits=4, group_size=32, sym=True)
    write(handle, tmp_path)
    layer: Any = handle.model.get_submodule(UP)
    again = rtn(layer.dequantized(), Grid(4, 32, sym=True)).dequantize()
    assert not torch.equal(again, layer.dequantized())
    assert torch.equal(unpacked_by_the_library(tmp_path, UP), layer.dequantized())


@pytest.mark.parametrize("sym", [True, False])
def test_transformers_loads_it_and_answers_alike(*, sym: bool, tmp_path: Path) -> None:
    handle = compressed(family="llama-tied", bits=4, group_size=32, sym=sym)
    write(handle, tmp_path)
    found = read_export(tmp_path, "causal-lm", "cpu")
    assert found is not None
    family = FAMILIES["llama-tied"]
    expected, logits = family.logits(handle.model), family.logits(found.model)
    # with zero points the library multiplies in the scales' float16
    tolerance = 1e-5 if sym else 5e-3 * expected.abs().max().item()
    torch.testing.assert_close(logits, expected, atol=tolerance, rtol=1e-5)


def test_a_group_size_that_vllms_first_kernel_lacks_is_said(tmp_path: Path) -> None:
    note = "14 layers with the candidate's own codes; vLLM's Marlin kernel has no groups of 16"
    assert write(compressed(bits=4, group_size=16, sym=True), tmp_path) == note


def test_layers_of_several_widths_have_a_group_each(tmp_path: Path) -> None:
    handle = compressed(bits=8, group_size=32)
    for name in [each for each in schemes_of(handle) if each.endswith("down_proj")]:
        weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
        replace_module(handle.model, name, PackedLinear(rtn(weight, Grid(4, 64, sym=True))))
    write(handle, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    groups = config["quantization_config"]["config_groups"].values()
    assert sorted((each["weights"]["num_bits"], len(each["targets"])) for each in groups) == [(4, 2), (8, 12)]
    assert config["quantization_config"]["ignore"] == ["lm_head"]
    assert config["architectures"] == ["LlamaForCausalLM"]
    for name in ("model.layers.0.mlp.down_proj", KEY):
        layer: Any = handle.model.get_submodule(name)
        assert torch.equal(unpacked_by_the_library(tmp_path, name), layer.dequantized())


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (PackedLinear(INT4, input_scale=torch.ones(64)), "divides its inputs"),
        (PackedLinear(replace(INT4, codebook=torch.linspace(-1, 1, 16))), "has a codebook"),
        (PackedLinear(replace(INT4, bits=3)), "take 4 and 8 bits, this layer has 3"),
        (PackedLinear(replace(INT4, zero=torch.full((32, 2), 7.5))), "floating-point zero points"),
        (PackedLinear(replace(INT4, group_of=torch.arange(64).int() % 2)), "activation order.*desc_act: false"),
        (PackedLinear(replace(INT4, group_size=48)), "64 inputs are no multiple of the group size 48"),
        (SemiStructuredLinear(without_zeros(torch.eye(32, 64))), "vLLM has dropped 2:4"),
        (torch.nn.Linear(64, 32), "vLLM fuses q_proj, k_proj, v_proj, which are quantized differently"),
        (PackedLinear(replace(INT4, bits=8)), "vLLM fuses q_proj, k_proj, v_proj, which are quantized differently"),
    ],
    ids=["input scale", "codebook", "bits", "float zeros", "act-order", "odd group", "2:4", "plain", "mixed"],
)
def test_what_no_engine_loads_is_refused_before_a_file_is_written(
    layer: torch.nn.Module, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        write(in_place_of_the_keys(layer), tmp_path)
    assert not any(tmp_path.iterdir())


def test_other_heads_other_layers_and_plain_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="the head sequence-classification"):
        write(compressed(family="bert", bits=4, group_size=32), tmp_path)
    with pytest.raises(UnsupportedError, match="a layer of the kind int8-weight"):
        write(compressed("int8-weight-only"), tmp_path)
    with pytest.raises(UnsupportedError, match="no layer is quantized"):
        write(FAMILIES["llama-tied"].build(), tmp_path)


def test_an_export_without_some_weights_is_an_error(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    write(compressed(bits=4, group_size=32, sym=True), tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {name: each for name, each in load_file(path).items() if name != f"{KEY}.weight_packed"}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights.*k_proj"):
        read_export(tmp_path, "causal-lm", "cpu")


def test_other_folders_are_no_exports(tmp_path: Path) -> None:
    assert read_export(tmp_path, "causal-lm", "cpu") is None
    FAMILIES["llama-tied"].build().model.save_pretrained(tmp_path)
    assert read_export(tmp_path, "causal-lm", "cpu") is None
