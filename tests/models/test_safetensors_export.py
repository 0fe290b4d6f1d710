"""Compressed tables are plain tables again in an export; linear layers are tried where exports are proved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressbench.methods.pruning.row_pruning import RowPruning
from compressbench.methods.quantization.embedding_quantization import EmbeddingQuantization
from compressbench.models.exports.safetensors import dense_model, write
from compressbench.models.load import load_model
from compressbench.models.parts import cast_weights
from compressbench.recipe.schema import ModelSpec
from compressbench.testing import tiny_click_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_pruned_and_quantized_tables_are_plain_ones_of_the_same_answers(dtype: torch.dtype, tmp_path: Path) -> None:
    handle = tiny_click_model()
    cast_weights(handle.model, dtype)
    handle = EmbeddingQuantization(bits=8).apply(RowPruning(sparsity=0.5).apply(handle))
    inputs = {
        "dense_features": torch.ones(8, 2, dtype=dtype),
        "sparse_ids": torch.tensor([[at * 7, at * 5, at % 5] for at in range(8)]),
    }
    plain = dense_model(handle.model)
    write(handle, tmp_path)
    name = str(dtype).removeprefix("torch.")
    again = load_model(ModelSpec(id=str(tmp_path), dtype=name), "click-prediction").model
    with torch.inference_mode():
        wanted = handle.model(**inputs).logits
        for model in (plain, again):
            assert {type(table) for table in model.tables} == {torch.nn.Embedding}
            assert {table.weight.dtype for table in model.tables} == {dtype}
            torch.testing.assert_close(model(**inputs).logits, wanted)
