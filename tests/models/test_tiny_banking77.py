"""The task-specific small model: small enough, and as often right as its training says."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest
import torch

import compressbench
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec

PACKAGE = Path(compressbench.__file__).parent
FOLDER = PACKAGE / "models/embedded/tiny_banking77"


def test_it_is_small() -> None:
    assert sum(each.stat().st_size for each in FOLDER.iterdir()) <= 1_200_000
    tokenizer = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    assert len(tokenizer["model"]["vocab"]) <= 4096


def test_it_knows_the_intents_of_the_test_split_about_as_often_as_its_training_says() -> None:
    handle = load_model(ModelSpec(id="embedded:tiny-banking77"), "sequence-classification")
    table = pyarrow.parquet.read_table(PACKAGE / "data/embedded/banking77/test.parquet")
    every = range(0, len(table), 5)
    sentences = [table["text"][at].as_py() for at in every]
    labels = torch.tensor([table["label"][at].as_py() for at in every])
    batch = handle.tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        logits = handle.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    said = json.loads((FOLDER / "training.json").read_text(encoding="utf-8"))["test"]["accuracy"]
    assert logits.shape == (len(every), 77)
    # 616 of 3,080 questions: three standard errors of so many
    assert float((logits.argmax(dim=1) == labels).float().mean()) == pytest.approx(said, abs=0.05)


def test_its_intents_are_named_as_the_bigger_models() -> None:
    own, bigger = (
        json.loads((PACKAGE / "models/embedded" / name / "config.json").read_text(encoding="utf-8"))["id2label"]
        for name in ("tiny_banking77", "minilm_banking77")
    )
    assert own == bigger
