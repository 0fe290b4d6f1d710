"""A candidate that was saved is the same model again in a fresh process: the same outputs, in the bytes its bits imply."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from compressbench.core.errors import ModelError
from compressbench.methods.pruning.depth_pruning import DepthPruning
from compressbench.methods.pruning.magnitude import Magnitude
from compressbench.methods.quantization.cast import Cast
from compressbench.methods.quantization.int8_dynamic import Int8Dynamic
from compressbench.methods.quantization.int8_weight_only import Int8WeightOnly
from compressbench.models.artefact import MANIFEST, TENSORS, save_artefact
from compressbench.models.config import weight_format
from compressbench.models.handle import ModelHandle
from compressbench.models.load import load_model
from compressbench.models.low_rank_linear import LowRankLinear
from compressbench.models.packed_linear import PackedLinear
from compressbench.models.parts import bias_of, matrix, replace_module, target_linears
from compressbench.models.quantized_weight import QuantizedWeight
from compressbench.recipe.schema import ModelSpec
from compressbench.testing import tiny_causal_lm, tiny_classifier

IDS = torch.tensor([[2, 4, 6, 8, 3], [2, 5, 7, 9, 3]])

IN_A_FRESH_PROCESS = """
import sys, torch
torch.set_num_threads(1)
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
model = load_model(ModelSpec(id=sys.argv[1]), sys.argv[2]).model
with torch.inference_mode():
    logits = model(input_ids=torch.tensor([[2, 4, 6, 8, 3], [2, 5, 7, 9, 3]])).logits
torch.save(logits, sys.argv[3])
"""


def packed(handle: ModelHandle) -> ModelHandle:
    """Three-bit codes at random, with every kind of tensor that a packed layer can have."""
    generator = torch.Generator().manual_seed(0)
    for number, (name, module) in enumerate(target_linears(handle.model).items()):
        rows, columns = matrix(module).shape
        quantized = QuantizedWeight(
            codes=torch.randint(0, 8, (rows, columns), generator=generator).to(torch.uint8),
            scale=torch.rand(rows, columns // 16, generator=generator).half() / 16,
            bits=3,
            group_size=16,
            zero=[
                None,
                torch.full((rows, columns // 16), 3, dtype=torch.uint8),
                torch.full((rows, columns // 16), 2.5),
            ][number % 3],
            group_of=torch.randperm(columns, generator=generator).int() // 16 if number % 2 else None,
        )
        input_scale = torch.rand(columns, generator=generator) + 0.5 if number == 1 else None
        replace_module(handle.model, name, PackedLinear(quantized, bias_of(module), input_scale))
    return handle.with_model(handle.model, weights="packed")


def low_rank(handle: ModelHandle) -> ModelHandle:
    for name, module in target_linears(handle.model).items():
        u, s, v = torch.linalg.svd(matrix(module), full_matrices=False)
        replace_module(handle.model, name, LowRankLinear(u[:, :8] * s[:8], v[:8], bias_of(module)))
    return handle


def low_rank_then_int8(handle: ModelHandle) -> ModelHandle:
    return Int8WeightOnly().apply(low_rank(handle))


def shrunk(handle: ModelHandle) -> ModelHandle:
    return Magnitude(sparsity=0.5).apply(DepthPruning(num_layers=1).apply(handle))


STEPS: dict[str, Callable[[ModelHandle], ModelHandle]] = {
    "cast": Cast().apply,
    "int8-dynamic": Int8Dynamic().apply,
    "int8-weight-only": Int8WeightOnly().apply,
    "packed": packed,
    "low-rank": low_rank,
    "low-rank-int8": low_rank_then_int8,
    "shrunk": shrunk,
}
MODELS: dict[str, Callable[[], ModelHandle]] = {
    "classifier": lambda: tiny_classifier(),
    "tied": lambda: tiny_causal_lm(tied=True),
    "untied": lambda: tiny_causal_lm(tied=False),
}


def logits(handle: ModelHandle) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = handle.model(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("step", STEPS)
def test_what_was_saved_gives_the_same_outputs_again(step: str, model: str, tmp_path: Path) -> None:
    made = STEPS[step](MODELS[model]())
    save_artefact(made, tmp_path, {})
    again = load_model(ModelSpec(id=str(tmp_path)), made.head)
    assert again.weights == made.weights == weight_format(str(tmp_path), "float32")
    assert torch.equal(logits(again), logits(made))


@pytest.mark.parametrize("step", ["packed", "low-rank-int8"])
def test_and_so_it_does_in_a_fresh_process(step: str, tmp_path: Path) -> None:
    made = STEPS[step](tiny_causal_lm())
    save_artefact(made, tmp_path / "artefact", {})
    command = [
        sys.executable,
        "-c",
        IN_A_FRESH_PROCESS,
        str(tmp_path / "artefact"),
        made.head,
        str(tmp_path / "out.pt"),
    ]
    subprocess.run(command, check=True, timeout=120)
    assert torch.equal(torch.load(tmp_path / "out.pt"), logits(made))


def test_the_bytes_on_disk_follow_the_bits(tmp_path: Path) -> None:
    made = packed(tiny_classifier())
    save_artefact(made, tmp_path, {})
    stored = load_file(tmp_path / TENSORS)
    codes = {name: tensor for name, tensor in stored.items() if name.endswith(".packed")}
    weights = {
        name: module.num_weights for name, module in made.model.named_modules() if isinstance(module, PackedLinear)
    }
    assert {name.removesuffix(".packed"): tensor.nbytes * 8 for name, tensor in codes.items()} == {
        name: 3 * count for name, count in weights.items()
    }


def test_a_model_of_plain_modules_is_one_that_transformers_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    made = shrunk(tiny_causal_lm())
    save_artefact(made, tmp_path, {})
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(input_ids=IDS).logits, logits(made))


def test_transformers_alone_refuses_packed_weights_instead_of_inventing_some(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    save_artefact(packed(tiny_causal_lm()), tmp_path, {})
    with pytest.raises(OSError, match="no file named"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_the_manifest_says_what_was_done_and_with_which_versions(tmp_path: Path) -> None:
    save_artefact(packed(tiny_classifier()), tmp_path, {"steps": [{"use": "rtn", "bits": 3}]})
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["steps"] == [{"use": "rtn", "bits": 3}]
    assert manifest["versions"].keys() >= {"torch", "transformers", "compressbench"}
    assert manifest["layers"]["bert.encoder.layer.0.attention.self.query"]["kind"] == "packed"


def test_a_checkout_that_is_not_installed_has_no_version_and_is_saved_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("compressbench.core.registry.version", missing)
    save_artefact(packed(tiny_classifier()), tmp_path, {})
    assert set(json.loads((tmp_path / MANIFEST).read_text())["versions"].values()) == {"not installed"}


def edited(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / TENSORS)
    change(tensors)
    save_file(tensors, folder / TENSORS)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: edited(folder, lambda t: t.pop("model.norm.weight")), "not those of the model"),
        (lambda folder: edited(folder, lambda t: t.update(extra=torch.ones(1))), "not those of the model"),
        (lambda folder: edited(folder, lambda t: t.pop("model.layers.0.mlp.up_proj.scale")), "lacks 'scale'"),
        (lambda folder: (folder / TENSORS).write_bytes(b"nothing"), "can't be read"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "can't be read"),
        (lambda folder: (folder / MANIFEST).write_text('{"format": 99}'), "format 99"),
        (
            lambda folder: (folder / MANIFEST).write_text(
                (folder / MANIFEST).read_text().replace('"kind": "packed"', '"kind": "os:system"')
            ),
            "unknown layer 'os:system'",
        ),
    ],
)
def test_a_damaged_artefact_is_refused(damage: Callable[[Path], None], complaint: str, tmp_path: Path) -> None:
    save_artefact(packed(tiny_causal_lm()), tmp_path, {})
    damage(tmp_path)
    with pytest.raises(ModelError, match=complaint):
        load_model(ModelSpec(id=str(tmp_path)), "causal-lm")


def test_an_artefact_of_another_head_is_refused(tmp_path: Path) -> None:
    save_artefact(tiny_classifier(), tmp_path, {})
    with pytest.raises(ModelError, match="has the head sequence-classification"):
        load_model(ModelSpec(id=str(tmp_path)), "causal-lm")
