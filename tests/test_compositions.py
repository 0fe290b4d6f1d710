"""Prune, distil and quantize in one candidate: each composition runs, is saved, loads again with the same outputs, and
has done what its steps claim.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from line_parts import recipe_data, write_data, write_model, write_recipe

from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.records.record import Record
from compressbench.run import run_recipe
from compressbench.testing import tiny_causal_lm

_SHORT = {"num_epochs": 0.5, "batch_size": 8}
CALIBRATION: dict[str, Any] = {"num_samples": 12, "batch_size": 4}
CLASSIFIERS: dict[str, list[dict[str, Any]]] = {
    "depth-kd-int8": [
        {"use": "depth-pruning", "num_layers": 1},
        {"use": "logit-distillation", **_SHORT},
        {"use": "int8-dynamic"},
    ],
    "wanda-recover-rtn": [
        {"use": "wanda", "sparsity": 0.5, "calibration": CALIBRATION},
        {"use": "recover", **_SHORT},
        {"use": "rtn", "bits": 4, "group_size": 32},
    ],
    "sparsegpt-2of4-gptq": [
        {"use": "sparsegpt", "mask_structure": "2:4", "calibration": CALIBRATION},
        {"use": "gptq", "bits": 4, "group_size": 32, "calibration": CALIBRATION},
    ],
    "sparsegpt-2of4-stored": [
        {"use": "sparsegpt", "mask_structure": "2:4", "calibration": CALIBRATION},
        {"use": "semi-structured"},
    ],
    "width-kd-bf16": [
        {"use": "width-pruning", "ffn_ratio": 0.5},
        {"use": "logit-distillation", **_SHORT},
        {"use": "cast", "dtype": "bfloat16"},
    ],
    "low-rank-recover-int8": [
        {"use": "low-rank", "ratio": 0.3, "calibration": CALIBRATION},
        {"use": "recover", **_SHORT},
        {"use": "int8-weight-only"},
    ],
    "magnitude-kd-smoothquant": [
        {"use": "magnitude", "sparsity": 0.3},
        {"use": "logit-distillation", **_SHORT},
        {"use": "smoothquant", "calibration": CALIBRATION},
    ],
    "influence-hidden-kd-hqq": [
        {"use": "depth-pruning", "num_layers": 1, "importance": "block-influence", "calibration": CALIBRATION},
        {"use": "hidden-distillation", **_SHORT},
        {"use": "hqq", "nbits": 4, "group_size": 32},
    ],
    "width-wanda-recover-awq": [
        {"use": "width-pruning", "ffn_ratio": 0.5, "importance": "taylor", "num_samples": 8},
        {"use": "wanda", "mask_structure": "4:8", "calibration": CALIBRATION},
        {"use": "recover", "lora_rank": 4, **_SHORT},
        {"use": "awq", "bits": 4, "group_size": 32, "n_grid": 3, "calibration": CALIBRATION},
    ],
}
LANGUAGE_MODELS: dict[str, list[dict[str, Any]]] = {
    "heads-gkd-gptq": [
        {"use": "width-pruning", "head_ratio": 0.5, "ffn_ratio": 0.25},
        {"use": "gkd", "prompt_tokens": 8, "max_new_tokens": 4, "max_samples": 8, "batch_size": 4},
        {"use": "gptq", "bits": 3, "group_size": 32, "desc_act": True, "calibration": CALIBRATION},
    ],
    "depth-sequence-kd-awq": [
        {"use": "depth-pruning", "keep": [0, 2]},
        {"use": "sequence-distillation", "prompt_tokens": 8, "max_new_tokens": 4, "max_samples": 8, "batch_size": 4},
        {"use": "awq", "bits": 4, "group_size": 32, "n_grid": 3, "calibration": CALIBRATION},
    ],
    "bf16-sparsegpt-rtn": [
        {"use": "cast", "dtype": "bfloat16"},
        {"use": "sparsegpt", "sparsity": 0.5, "calibration": CALIBRATION},
        {"use": "rtn", "bits": 8, "group_size": -1},
    ],
}


def candidates(steps: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [{"name": name, "compress": compress} for name, compress in steps.items()]


def run(tmp_path: Path, data: dict[str, Any]) -> dict[str, Record]:
    recipe = write_recipe(tmp_path / "recipe.yaml", {**data, "meters": ["size"]})
    return {record.candidate: record for record in run_recipe(recipe, tmp_path / "out", save=True)}


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Record]]:
    folder = tmp_path_factory.mktemp("classifiers")
    parts = write_model(folder / "model"), write_data(folder / "data")
    # no sentence of the training split may stand in the evaluation
    train = parts[1] / "train.jsonl"
    train.write_text(train.read_text().replace('"text": "', '"text": "not on '))
    return folder / "out", run(folder, recipe_data(*parts, candidates(CLASSIFIERS)))


@pytest.fixture(scope="module")
def language_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Record]]:
    folder = tmp_path_factory.mktemp("language-models")
    handle = tiny_causal_lm()
    handle.model.save_pretrained(folder / "model")
    handle.tokenizer.save_pretrained(folder / "model")
    (folder / "data").mkdir()
    (folder / "data" / "train.txt").write_text("the cat sat on the mat the dog ran home very good " * 40)
    (folder / "data" / "test.txt").write_text("a dog is not on the mat a cat was bad " * 20)
    data = recipe_data(folder / "model", folder / "data", candidates(LANGUAGE_MODELS))
    data["tasks"] = [{"use": "perplexity", "data": str(folder / "data"), "window": 16}]
    return folder / "out", run(folder, data)


def check(out: Path, record: Record, head: str) -> None:
    assert record.status == "ok", record.failure
    assert record.artefact is not None
    assert record.artefact.max_difference == 0
    assert record.audit is not None
    assert record.audit.claim_ok, [finding.message for finding in record.audit.false_claims]
    again = load_model(ModelSpec(id=str(out / record.artefact.folder)), head)
    assert type(again.model).__name__ == record.model.architecture  # type: ignore[union-attr]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_composition_on_an_encoder(name: str, classifiers: tuple[Path, dict[str, Record]]) -> None:
    check(classifiers[0], classifiers[1][name], "sequence-classification")


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_composition_on_a_decoder(name: str, language_models: tuple[Path, dict[str, Record]]) -> None:
    check(language_models[0], language_models[1][name], "causal-lm")


def test_the_size_of_a_composition_is_that_of_what_was_saved(classifiers: tuple[Path, dict[str, Record]]) -> None:
    out, records = classifiers
    for name in CLASSIFIERS:
        record = records[name]
        assert record.artefact is not None
        reading = record.reading("disk_bytes")
        assert reading is not None
        files = [
            path
            for path in (out / record.artefact.folder).iterdir()
            if path.name.startswith(("model", "config", "compressbench.s"))
        ]
        assert reading.value == sum(path.stat().st_size for path in files)
