"""What other tools wrote ends up in the model in hand: their codes and scales, their zeros, and nothing else unseen.

Most tests use checkpoints made by hand, and an interpreter that answers with them. Those marked slow run the tools, from
the interpreters that COMPRESSBENCH_GPTQMODEL_PYTHON and the like name.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_stand_in import write_tool
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from compressbench.core.calibration import Calibration, CalibrationSet
from compressbench.core.errors import CellError, UnsupportedError
from compressbench.methods.foreign.step import ForeignStep, put_quantized, take_over
from compressbench.methods.maths.uniform import Grid, rtn
from compressbench.methods.quantization.auto_round import AutoRound
from compressbench.methods.quantization.gptqmodel import GptqModel
from compressbench.methods.quantization.llm_compressor import LlmCompressor
from compressbench.models.foreign_formats import read_checkpoint
from compressbench.models.handle import ModelHandle, Supplies
from compressbench.models.int8_linear import Int8DynamicLinear
from compressbench.models.packed_linear import PackedLinear
from compressbench.models.parts import matrix, target_linears
from compressbench.testing import tiny_causal_lm, tiny_classifier

IDS = torch.tensor([[2, 4, 6, 8, 10, 12, 14, 3]])
DOWN = "model.layers.0.mlp.down_proj"
NORM = "model.layers.0.input_layernorm.weight"
GPTQ = {"quant_method": "gptq", "checkpoint_format": "gptq_v2", "group_size": 32}
W8A8 = {"num_bits": 8, "type": "int", "strategy": "channel"}
INT_QUANTIZED = {
    "quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": {"weights": W8A8}},
}  # fmt: skip


def drawn(_: Calibration) -> CalibrationSet:
    """Two samples in one batch, the second shorter."""
    batch = {
        "input_ids": torch.tensor([[2, 4, 5, 3], [2, 6, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
    }
    return CalibrationSet([batch], "here", "train", "0", 2, 6, 0)


@pytest.fixture(scope="module")
def original() -> ModelHandle:
    return tiny_causal_lm(num_layers=1)


@pytest.fixture
def handle(original: ModelHandle) -> ModelHandle:
    return original.copy(Supplies(calibration=drawn))


def dense_tensors(handle: ModelHandle) -> dict[str, torch.Tensor]:
    """What isn't a matrix that gets quantized, as float16: the tools store it so."""
    chosen = {f"{name}.weight" for name in target_linears(handle.model)}
    return {name: each.detach().half() for name, each in handle.model.named_parameters() if name not in chosen}


def words(codes: torch.Tensor) -> torch.Tensor:
    """4-bit codes (rows x columns) in int32 words, by hand: eight to a word, the first lowest."""
    parts = codes.long().view(len(codes), -1, 8)
    packed = sum(parts[:, :, at] << 4 * at for at in range(8))
    assert isinstance(packed, torch.Tensor)
    return torch.where(packed >= 1 << 31, packed - (1 << 32), packed).to(torch.int32).contiguous()


def gptq_tensors(handle: ModelHandle) -> dict[str, torch.Tensor]:
    """The model rounded to nearest with 4 bits in groups of 32, in GPTQ's second layout."""
    found = dense_tensors(handle)
    for name, module in target_linears(handle.model).items():
        quantized = rtn(matrix(module), Grid(4, 32, sym=True))
        found[f"{name}.qweight"] = words(quantized.codes).t().contiguous()
        found[f"{name}.qzeros"] = words(torch.full(quantized.scale.t().shape, 8))
        found[f"{name}.scales"] = quantized.scale.t().contiguous()
        found[f"{name}.g_idx"] = (torch.arange(module.in_features) // 32).to(torch.int32)
    return found


def int8_tensors(handle: ModelHandle) -> dict[str, torch.Tensor]:
    found = dense_tensors(handle)
    for name, module in target_linears(handle.model).items():
        scale = matrix(module).abs().amax(dim=1, keepdim=True) / 127
        found[f"{name}.weight"] = (matrix(module) / scale).round().to(torch.int8)
        found[f"{name}.weight_scale"] = scale
    return found


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a tool answer with tensors; the job it was given can be read afterwards."""

    def use(
        method: ForeignStep, tensors: dict[str, torch.Tensor], config: dict[str, Any] | None, **remarks: int
    ) -> Path:
        folder = tmp_path / "canned"
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({} if config is None else {"quantization_config": config}))
        monkeypatch.setenv(method.tool.variable, write_tool(tmp_path, folder, **remarks))
        return tmp_path / "job.json"

    return use


@pytest.mark.parametrize(
    "method", [GptqModel(group_size=32), AutoRound(group_size=32)], ids=["gptqmodel", "auto-round"]
)
def test_the_tools_codes_and_scales_stand_in_packed_layers(
    method: GptqModel | AutoRound, original: ModelHandle, handle: ModelHandle, answer: Any
) -> None:
    answer(method, gptq_tensors(handle), GPTQ, num_samples=2)
    name = method.tool.name
    found = method.apply(handle)
    expected = rtn(matrix(original.model.get_submodule(DOWN)), Grid(4, 32, sym=True))
    layers = {name: each for name, each in found.model.named_modules() if isinstance(each, PackedLinear)}
    assert set(layers) == set(target_linears(original.model))
    assert torch.equal(layers[DOWN].quantized().codes, expected.codes)
    assert torch.equal(layers[DOWN].dequantized(), expected.dequantize())
    assert (found.weights, method.weights_after("float32")) == ("packed", "packed")
    (claim,) = found.claims
    assert (claim.step, claim.bits, claim.is_smaller, set(claim.modules)) == (name, 4, True, set(layers))
    assert claim.left_out == {"lm_head": "its weights are tied to another module's"}
    assert found.notes["version_of_tool"] == "1.2"
    assert found.notes["version_of_python"] == "3.99"
    assert found.notes["num_samples"] == 2
    assert found.notes["calibration"] == drawn(Calibration()).describe()


def test_what_only_lost_digits_on_the_way_stays_as_it_was(
    original: ModelHandle, handle: ModelHandle, answer: Any
) -> None:
    """The canned tensors are float16; embeddings and norms come back rounded, and are kept in float32."""
    method = GptqModel(group_size=32)
    answer(method, gptq_tensors(handle), GPTQ)
    found = method.apply(handle)
    before = dict(original.model.named_parameters())
    assert not torch.equal(before["model.embed_tokens.weight"].half().float(), before["model.embed_tokens.weight"])
    kept = [name for name, each in found.model.named_parameters() if torch.equal(each, before[name])]
    assert set(kept) == set(dense_tensors(original))


def test_what_the_tool_really_changed_is_taken_over_and_claimed(handle: ModelHandle, answer: Any) -> None:
    tensors, method = gptq_tensors(handle), GptqModel(group_size=32)
    tensors[NORM] = tensors[NORM] * 1.5
    answer(method, tensors, GPTQ)
    found = method.apply(handle)
    assert torch.equal(found.model.get_parameter(NORM), tensors[NORM].float())
    folded, quantized = found.claims
    assert (folded.step, folded.modules, folded.bits) == ("gptqmodel, folded in", (NORM.removesuffix(".weight"),), None)
    assert quantized.step == "gptqmodel"


def test_the_tool_is_told_what_to_do_with_what(handle: ModelHandle, answer: Any) -> None:
    method = GptqModel(bits=4, group_size=32, damp_percent=0.1, ignore=("k_proj",))
    tensors = gptq_tensors(handle)
    left = "model.layers.0.self_attn.k_proj"
    kept = {name: each for name, each in tensors.items() if not name.startswith(left)}
    kept[f"{left}.weight"] = matrix(handle.model.get_submodule(left)).half()
    job = answer(method, kept, GPTQ)
    found = method.apply(handle)
    told = json.loads(job.read_text())
    assert told["rows"] == [[2, 4, 5, 3], [2, 6]], "without padding"
    assert told["options"] == {
        "bits": 4, "group_size": 32, "sym": True, "desc_act": False, "act_group_aware": True, "damp_percent": 0.1,
    }  # fmt: skip
    assert set(told["left_out"]) == {left, "lm_head"}
    assert set(told["modules"]) == set(target_linears(tiny_causal_lm(num_layers=1).model)) - {left}
    assert type(found.model.get_submodule(left)) is torch.nn.Linear
    assert found.claims[0].left_out[left] == "ignored by the recipe"


def test_modules_that_nobody_asked_for_are_an_error(handle: ModelHandle, answer: Any) -> None:
    method = GptqModel(group_size=32, ignore=("k_proj",))
    answer(method, gptq_tensors(handle), GPTQ)
    with pytest.raises(CellError, match="did not quantize just the modules that it was given") as caught:
        method.apply(handle)
    assert caught.value.got == "model.layers.0.self_attn.k_proj"


def test_modules_that_came_back_dense_are_an_error(handle: ModelHandle, answer: Any) -> None:
    method = GptqModel(group_size=32)
    answer(method, {name: each for name, each in gptq_tensors(handle).items() if not name.startswith(DOWN)}, GPTQ)
    with pytest.raises(CellError, match="did not quantize just the modules"):
        method.apply(handle)


def test_tensors_that_the_model_does_not_have_are_an_error(handle: ModelHandle, answer: Any) -> None:
    method = GptqModel(group_size=32)
    answer(method, {**gptq_tensors(handle), "model.rotation": torch.ones(2)}, GPTQ)
    with pytest.raises(CellError, match=r"a tensor that the model doesn't have \(got model.rotation"):
        method.apply(handle)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scales_that_are_no_numbers_are_an_error(handle: ModelHandle, answer: Any, value: float) -> None:
    tensors, method = gptq_tensors(handle), GptqModel(group_size=32)
    tensors[f"{DOWN}.scales"][0, 0] = value
    answer(method, tensors, GPTQ)
    with pytest.raises(CellError, match="doesn't fit"):
        method.apply(handle)


def test_w8a8_weights_run_in_dynamic_int8_layers(original: ModelHandle, handle: ModelHandle, answer: Any) -> None:
    method = LlmCompressor(scheme="W8A8")
    tensors = int8_tensors(handle)
    job = answer(method, tensors, INT_QUANTIZED)
    found = method.apply(handle)
    layer = found.model.get_submodule(DOWN)
    assert isinstance(layer, Int8DynamicLinear)
    stored = layer.stored_tensors()
    assert torch.equal(stored["weight"], tensors[f"{DOWN}.weight"])
    assert torch.equal(stored["weight_scale"], tensors[f"{DOWN}.weight_scale"][:, 0])
    assert (found.weights, method.weights_after("float32")) == ("int8", "int8")
    assert (found.claims[0].bits, found.claims[0].kernels) == (8, ("linear_dynamic",))
    assert json.loads(job.read_text())["options"]["modifier"] == "gptq"
    with torch.no_grad():
        here, before = found.model(input_ids=IDS).logits, original.model(input_ids=IDS).logits
    assert float((here - before).norm() / before.norm()) < 0.03


@pytest.mark.parametrize("is_changed", [True, False])
def test_biases_go_into_the_layers_that_replace_their_modules(
    handle: ModelHandle, answer: Any, is_changed: bool
) -> None:
    bias = torch.linspace(-1, 1, 64)
    handle.model.get_submodule(DOWN).bias = torch.nn.Parameter(bias.clone())
    method, tensors = LlmCompressor(scheme="W8A8"), int8_tensors(handle)
    tensors[f"{DOWN}.bias"] = (bias * 2 if is_changed else bias).half()
    answer(method, tensors, INT_QUANTIZED)
    found = method.apply(handle)
    layer = found.model.get_submodule(DOWN)
    assert isinstance(layer, Int8DynamicLinear)
    assert torch.equal(layer.stored_tensors()["bias"], (bias * 2).half().float() if is_changed else bias)
    assert [claim.modules for claim in found.claims[:-1]] == ([(DOWN,)] if is_changed else [])


def test_gpt2s_transposed_layers_are_refused_before_the_tool_ignores_them(handle: ModelHandle) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=19, n_embd=64, n_layer=1, n_head=2, n_positions=32))
    with pytest.raises(UnsupportedError, match="leaves the transposed layers of GPT-2 as they are"):
        LlmCompressor(modifier="wanda", sparsity=0.5).apply(replace(handle, model=model))


def test_w4a16_needs_whole_groups(handle: ModelHandle) -> None:
    with pytest.raises(UnsupportedError, match="a multiple of 128 inputs") as caught:
        LlmCompressor(scheme="W4A16").apply(handle)
    assert "with 64" in caught.value.got


def pruned_tensors(handle: ModelHandle, mask_of: Any) -> dict[str, torch.Tensor]:
    found = dense_tensors(handle)
    for name, module in target_linears(handle.model).items():
        found[f"{name}.weight"] = matrix(module) * mask_of(matrix(module))
    return found


def half_of_every_row(weight: torch.Tensor) -> torch.Tensor:
    return (torch.arange(weight.shape[1]) % 2).expand(weight.shape)


def one_of_four(weight: torch.Tensor) -> torch.Tensor:
    return (torch.arange(weight.shape[1]) % 4 == 1).expand(weight.shape)


def test_the_tools_zeros_are_taken_over_and_counted(handle: ModelHandle, answer: Any) -> None:
    method = LlmCompressor(modifier="wanda", sparsity=0.5)
    job = answer(method, pruned_tensors(handle, half_of_every_row), None)
    found = method.apply(handle)
    weight = matrix(found.model.get_submodule(DOWN))
    assert bool((weight[:, ::2] == 0).all())
    assert bool((weight[:, 1::2] != 0).all())
    assert (found.weights, method.weights_after("float32")) == ("float32", "float32")
    (claim,) = found.claims
    assert (claim.step, claim.sparsity, claim.mask_structure) == ("llm-compressor", 0.5, None)
    assert found.notes["realised_sparsity"] == 0.5
    assert found.notes["version_of_tool"] == "1.2"
    told = json.loads(job.read_text())["options"]
    assert (told["sparsity"], told["mask_structure"]) == (0.5, "0:0")


def test_a_mask_structure_says_here_what_stays_and_there_what_goes(handle: ModelHandle, answer: Any) -> None:
    method = LlmCompressor(modifier="sparsegpt", mask_structure="1:4")
    job = answer(method, pruned_tensors(handle, one_of_four), None)
    (claim,) = method.apply(handle).claims
    assert (claim.sparsity, claim.mask_structure) == (0.75, "1:4")
    told = json.loads(job.read_text())["options"]
    assert (told["sparsity"], told["mask_structure"]) == (0.75, "3:4")


def test_a_pruning_that_did_nothing_is_an_error(handle: ModelHandle, answer: Any) -> None:
    method = LlmCompressor(modifier="wanda", sparsity=0.5)
    answer(method, pruned_tensors(handle, torch.ones_like), None)
    with pytest.raises(CellError, match=r"llm-compressor did not prune model\.layers\.0") as caught:
        method.apply(handle)
    assert "0.0000 where 0.5" in caught.value.got


def test_enough_zeros_in_the_wrong_places_are_an_error(handle: ModelHandle, answer: Any) -> None:
    """Half of every matrix is zero, but not two of every four neighbours."""
    method = LlmCompressor(modifier="wanda", mask_structure="2:4")
    answer(
        method,
        pruned_tensors(handle, lambda weight: (torch.arange(weight.shape[1]) // 4 % 2).expand(weight.shape)),
        None,
    )
    with pytest.raises(CellError, match="did not prune"):
        method.apply(handle)


def test_pruning_an_embedding_on_the_way_is_an_error(handle: ModelHandle, answer: Any) -> None:
    """What llm-compressor does to a tied head if it is asked to prune every linear module but that one."""
    method, name = LlmCompressor(modifier="wanda", sparsity=0.5), "model.embed_tokens.weight"
    tensors = pruned_tensors(handle, half_of_every_row)
    tensors[name] = tensors[name] * half_of_every_row(tensors[name])
    answer(method, tensors, None)
    with pytest.raises(CellError, match="changed more than the modules it was given") as caught:
        method.apply(handle)
    assert caught.value.got == name


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "gptq needs a scheme: W4A16, W8A16, W8A8"),
        ({"modifier": "rtn"}, "rtn needs a scheme"),
        ({"scheme": "W4A4"}, "'W4A16', 'W8A16' or 'W8A8'"),
        ({"scheme": "W8A8", "sparsity": 0.5}, "gptq quantizes; leave sparsity and mask_structure out"),
        ({"modifier": "wanda"}, "Value error, give sparsity, or mask_structure"),
        ({"modifier": "wanda", "sparsity": 0.5, "scheme": "W8A8"}, "wanda prunes; leave scheme out"),
        ({"modifier": "sparsegpt", "mask_structure": "4:2"}, "must keep between 1 and 1 of 2"),
        ({"modifier": "sparsegpt", "mask_structure": "2:4", "sparsity": 0.6}, "has sparsity 0.5"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        LlmCompressor(**options)


def test_columns_have_one_order() -> None:
    with pytest.raises(ValidationError, match="two orders of the columns"):
        GptqModel(desc_act=True, act_group_aware=True)
    with pytest.raises(ValidationError, match="act_group_aware needs groups"):
        GptqModel(group_size=-1, act_group_aware=True)
    orders = {
        (desc_act, size): GptqModel(desc_act=desc_act, group_size=size).tool_options()["act_group_aware"]
        for desc_act in (False, True)
        for size in (-1, 32)
    }
    assert orders == {(False, -1): False, (False, 32): True, (True, -1): False, (True, 32): False}


@pytest.mark.parametrize(
    "method", [GptqModel(), LlmCompressor(scheme="W8A8"), AutoRound()], ids=lambda each: each.tool.name
)
def test_only_decoders_are_taken(method: ForeignStep) -> None:
    method.check_model({})
    method.check_model(tiny_causal_lm(num_layers=1).config | {"architectures": ["GPT2LMHeadModel"]})
    method.check_model({"architectures": ["LlamaForCausalLM"]})
    with pytest.raises(UnsupportedError, match=f"{method.tool.name} compresses decoders"):
        method.check_model(tiny_classifier().config | {"architectures": ["BertForSequenceClassification"]})


def test_without_calibration_samples_nothing_is_started(original: ModelHandle) -> None:
    with pytest.raises(UnsupportedError, match="was given none"):
        GptqModel(group_size=32).apply(original.copy())


# --- the tools themselves


@pytest.fixture(scope="module")
def shakespeare() -> ModelHandle:
    from compressbench.models.load import load_model
    from compressbench.recipe.schema import ModelSpec
    from compressbench.tasks.calibration import draw_calibration
    from compressbench.tasks.perplexity import Perplexity

    handle = load_model(ModelSpec(id="embedded:shakespeare-lm"), "causal-lm")
    task = Perplexity(data="embedded:tinyshakespeare")
    return handle.copy(Supplies(calibration=lambda calibration: draw_calibration(task, handle, calibration, 0)))


def require(method: ForeignStep) -> str:
    """The tool's interpreter; the test is skipped where nobody named one."""
    python = os.environ.get(method.tool.variable)
    if not python:
        pytest.skip(f"{method.tool.variable} is not set: {method.tool.how_to_install}")
    return python


FEW = Calibration(num_samples=16)
PROMPT = "torch.arange(3 * 64).reshape(3, 64) * 5 % 1000"
LOAD_WITH_GPTQMODEL = "import gptqmodel; model = gptqmodel.GPTQModel.load(sys.argv[1], device='cpu', \
dtype=torch.float16, backend=gptqmodel.BACKEND.TORCH).model.float()"
LOAD_WITH_TRANSFORMERS = "from transformers import AutoModelForCausalLM as Auto; \
model = Auto.from_pretrained(sys.argv[1], dtype=torch.float32, device_map='cpu')"
LOGITS = f"""
with torch.no_grad():
    logits = model(input_ids={PROMPT}).logits
from safetensors.torch import save_file
save_file({{"logits": logits.float().contiguous()}}, sys.argv[2])
"""


def logits_of_the_tool(python: str, load: str, checkpoint: Path, folder: Path) -> torch.Tensor:
    script = f"import sys, torch\n{load}\n{LOGITS}"
    done = subprocess.run(
        [python, "-I", "-c", script, str(checkpoint), str(folder / "logits")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(folder / "logits")["logits"]


def largest_difference(method: Any, load: str, handle: ModelHandle, folder: Path, python: str) -> float:
    """Between the logits of our packed layers and those of the tool's checkpoint in the tool's own layers."""
    ours = handle.copy(handle.supplies)
    choice = method.choose(ours)
    with method.run(ours, choice, method.draw(ours)) as output:
        found = read_checkpoint(output.checkpoint)
        theirs = logits_of_the_tool(python, load, output.checkpoint, folder)
    take_over(ours, found)
    put_quantized(ours, choice, found, PackedLinear)
    with torch.no_grad():
        here = ours.model(input_ids=torch.arange(3 * 64).reshape(3, 64) * 5 % 1000).logits
    return float((here - theirs).abs().max())


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sym": False, "group_size": 32, "desc_act": True},
        {"bits": 3, "sym": False, "group_size": 32, "desc_act": True},
        {"bits": 2, "sym": False, "group_size": 64},
        {"bits": 8, "group_size": -1, "ignore": ("k_proj", "model.layers.0.mlp")},
    ],
    ids=str,
)
def test_gptqmodel_gives_the_same_logits_in_our_layers(
    options: dict[str, Any], shakespeare: ModelHandle, tmp_path: Path
) -> None:
    method = GptqModel(**options, calibration=FEW)
    assert largest_difference(method, LOAD_WITH_GPTQMODEL, shakespeare, tmp_path, require(method)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "W4A16"},
        {"scheme": "W4A16", "modifier": "rtn", "ignore": ("k_proj",)},
        {"scheme": "W8A16", "modifier": "smoothquant+gptq"},
    ],
    ids=str,
)
def test_llm_compressor_gives_the_same_logits_in_our_layers(
    options: dict[str, Any], shakespeare: ModelHandle, tmp_path: Path
) -> None:
    method = LlmCompressor(**options, calibration=FEW)
    assert largest_difference(method, LOAD_WITH_TRANSFORMERS, shakespeare, tmp_path, require(method)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"iters": 0}, {"iters": 3, "group_size": 32, "bits": 3}], ids=str)
def test_auto_rounds_checkpoint_gives_the_same_logits_here_and_in_gptqmodel(
    options: dict[str, Any], shakespeare: ModelHandle, tmp_path: Path
) -> None:
    method = AutoRound(**options, calibration=FEW)
    require(method)
    assert largest_difference(method, LOAD_WITH_GPTQMODEL, shakespeare, tmp_path, require(GptqModel())) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"modifier": "wanda", "sparsity": 0.5},
        {"modifier": "wanda", "mask_structure": "1:4"},
        {"modifier": "sparsegpt", "sparsity": 0.5, "ignore": ("k_proj",)},
        {"modifier": "sparsegpt", "mask_structure": "2:4"},
        {"modifier": "smoothquant+gptq", "scheme": "W8A8"},
    ],
    ids=str,
)
def test_llm_compressor_does_what_it_claims(options: dict[str, Any], shakespeare: ModelHandle) -> None:
    method = LlmCompressor(**options, calibration=FEW)
    require(method)
    found = method.apply(shakespeare.copy(shakespeare.supplies))
    claim = found.claims[-1]
    if method.scheme is None:
        for name in claim.modules:
            weight = matrix(found.model.get_submodule(name))
            assert float((weight == 0).float().mean()) == pytest.approx(claim.sparsity, abs=1e-3)
    else:
        assert all(isinstance(found.model.get_submodule(name), Int8DynamicLinear) for name in claim.modules)
    embedding = "model.embed_tokens.weight"
    assert torch.equal(found.model.get_parameter(embedding), shakespeare.model.get_parameter(embedding))
