"""A model without weights: everything but the values is as if they had been loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from compressbench.core.errors import ModelError
from compressbench.models.config import model_folder
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec

SPEC = ModelSpec(id="embedded:shakespeare-lm")


def test_it_is_the_same_model_in_all_that_a_plan_and_a_task_ask_for() -> None:
    whole, without = (load_model(SPEC, "causal-lm", weights=weights) for weights in (True, False))
    assert without.source == whole.source
    assert without.tokenizer_id == whole.tokenizer_id
    assert (without.head, without.weights, without.device) == (whole.head, whole.weights, whole.device)
    assert without.config == whole.config
    ours, theirs = ({name: each.shape for name, each in m.model.named_parameters()} for m in (whole, without))
    assert ours == theirs


def test_it_holds_no_memory_and_can_be_copied() -> None:
    without = load_model(SPEC, "causal-lm", weights=False)
    assert {each.device.type for each in without.model.parameters()} == {"meta"}
    assert {each.device.type for each in without.copy().model.parameters()} == {"meta"}


def test_files_without_weights_are_enough(tmp_path: Path) -> None:
    folder = model_folder(SPEC.id)
    assert folder is not None
    shutil.copytree(folder, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    spec = ModelSpec(id=str(tmp_path / "m"))
    assert load_model(spec, "causal-lm", weights=False).source.architecture
    with pytest.raises(ModelError, match="safetensors"):
        load_model(spec, "causal-lm")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError):
        load_model(ModelSpec(id=str(tmp_path)), "causal-lm", weights=False)
