"""A kept candidate as files that others read, with a proof that notices when they change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressbench.core import registry
from compressbench.core.errors import CellError, ModelError, UnsupportedError
from compressbench.measure.exporting import export, parity_of
from compressbench.measure.parity import ParityLimits
from compressbench.models.artefact import save_artefact
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed language model, as --save keeps it."""
    handle = load_model(ModelSpec(id="embedded:shakespeare-lm"), "causal-lm", device="cpu")
    made = registry.methods.resolve("rtn")(bits=4, group_size=32).apply(handle)
    folder = tmp_path_factory.mktemp("kept") / "artefact"
    save_artefact(made, folder, {})
    return folder


def inputs() -> list[dict[str, torch.Tensor]]:
    ids = torch.randint(3, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": each[None], "attention_mask": torch.ones_like(each[None])} for each in ids]


@pytest.fixture(scope="module")
def exported(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "plain"
    found = export(kept, "safetensors", folder, options={}, inputs=inputs())
    assert not found.parity.broken
    assert found.parity.num_equal_texts == found.parity.num_texts == 2
    return folder


def test_a_packed_model_becomes_one_that_transformers_loads_alone(exported: Path, kept: Path) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(exported).eval()
    packed = load_model(ModelSpec(id=str(kept)), "causal-lm", device="cpu").model
    with torch.inference_mode():
        expected, found = (model(**inputs()[0]).logits for model in (packed, plain))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_changed_weights_are_noticed(exported: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(exported, tmp_path / "copy")
    assert not parity_of(copy).broken
    tensors = load_file(copy / "model.safetensors")
    name = next(each for each in tensors if each.endswith("down_proj.weight"))
    tensors[name] = tensors[name].roll(1, 0)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert parity_of(copy).broken
    # the reader's own limits decide, if there are any
    assert not parity_of(copy, ParityLimits()).broken


def test_a_truncated_file_is_an_error_of_the_fresh_process(exported: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(exported, tmp_path / "copy")
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CellError, match="fresh process"):
        parity_of(copy)


def test_without_its_proof_an_export_can_not_be_checked(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no proof beside the export"):
        parity_of(tmp_path)


def test_what_can_not_be_exported_says_why(kept: Path, tmp_path: Path, exported: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"unknown format 'onx'.*onnx"):
        export(kept, "onx", tmp_path / "x", options={}, inputs=inputs())
    with pytest.raises(ModelError, match="files already"):
        export(kept, "safetensors", exported, options={}, inputs=inputs())
    with pytest.raises(UnsupportedError, match="no options"):
        export(kept, "safetensors", tmp_path / "y", options={"bits": 4}, inputs=inputs())
    with pytest.raises(ModelError, match="no artefact"):
        export(tmp_path, "safetensors", tmp_path / "z", options={}, inputs=inputs())
