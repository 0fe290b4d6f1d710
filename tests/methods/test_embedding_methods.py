"""The methods on embedding tables, on a recommendation model and on token embeddings: done, audited, saved, loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Claim
from compressbench.measure.audited import audit
from compressbench.measure.claim_checks import Evidence
from compressbench.methods.pruning.rare_row_pruning import RareRowPruning
from compressbench.methods.pruning.row_pruning import RowPruning
from compressbench.methods.pruning.row_step import lowest
from compressbench.methods.quantization.cast import Cast
from compressbench.methods.quantization.embedding_quantization import EmbeddingQuantization
from compressbench.methods.quantization.int8_dynamic import Int8Dynamic
from compressbench.models.artefact import save_artefact
from compressbench.models.handle import ModelHandle, Supplies
from compressbench.models.load import load_model
from compressbench.models.size import count_weights, disk_bytes
from compressbench.models.stored_embedding import StoredEmbedding
from compressbench.recipe.schema import ModelSpec
from compressbench.records.audit import Audit
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import tiny_causal_lm, tiny_classifier, tiny_click_model

BATCHES = [
    {
        "dense_features": torch.ones(8, 2),
        "sparse_ids": torch.tensor([[at % 20, at % 10, at % 5] for at in range(start, start + 8)]),
        "labels": torch.zeros(8, dtype=torch.int64),
    }
    for start in range(0, 80, 8)
]
INPUTS = {name: tensor for name, tensor in BATCHES[3].items() if name != "labels"}
STEPS: dict[str, list[Any]] = {
    "int8": [EmbeddingQuantization(bits=8)],
    "int4": [EmbeddingQuantization(bits=4)],
    "int4-search": [EmbeddingQuantization(bits=4, search=True)],
    "int2": [EmbeddingQuantization(bits=2)],
    "rows": [RowPruning(sparsity=0.5)],
    "rows-zero": [RowPruning(sparsity=0.5, shared="zero")],
    "rare": [RareRowPruning(sparsity=0.5)],
    "rows-int4": [RowPruning(sparsity=0.5), EmbeddingQuantization(bits=4)],
    "int4-int8-mlp": [EmbeddingQuantization(bits=4), Int8Dynamic()],
    "int8-mlp-int4": [Int8Dynamic(), EmbeddingQuantization(bits=4)],
    "bf16-int8": [Cast(), EmbeddingQuantization(bits=8)],
    "int8-bf16": [EmbeddingQuantization(bits=8), Cast()],
    "rows-bf16": [RowPruning(sparsity=0.5), Cast()],
}


def supplied(handle: ModelHandle) -> ModelHandle:
    return replace(handle, supplies=Supplies(training_batches=lambda *_: BATCHES))


def done(steps: list[Any], handle: ModelHandle | None = None) -> ModelHandle:
    found = supplied((handle or tiny_click_model()).copy())
    for step in steps:
        found = step.apply(found)
    return found


def audited(found: ModelHandle, original: ModelHandle) -> Audit:
    session = TorchEager().prepare(found, "cpu")
    session(INPUTS)
    evidence = Evidence(disk_bytes(found.model), disk_bytes(original.model))
    return audit(found, original, session, INPUTS, evidence)


@pytest.mark.parametrize("name", STEPS)
def test_the_claims_hold_and_what_was_saved_gives_the_same_answers(name: str, tmp_path: Path) -> None:
    original = tiny_click_model()
    found = done(STEPS[name], original)
    result = audited(found, original)
    assert result.claim_ok, result.findings
    assert not result.not_checked
    assert count_weights(found.model).num_bytes < count_weights(original.model).num_bytes
    save_artefact(found, tmp_path, {})
    again = load_model(ModelSpec(id=str(tmp_path)), "click-prediction")
    assert again.weights == found.weights
    with torch.inference_mode():
        assert torch.equal(TorchEager().prepare(again, "cpu")(INPUTS), TorchEager().prepare(found, "cpu")(INPUTS))


def test_a_claim_of_fewer_bits_than_are_stored_is_false() -> None:
    original = tiny_click_model()
    found = done(STEPS["int8"], original)
    lie = Claim(step="embedding-quantization", modules=found.claims[0].modules, bits=4, is_smaller=True)
    result = audited(replace(found, claims=(lie,)), original)
    assert [finding.code for finding in result.findings if finding.is_false_claim] == ["wider-than-claimed"]


def test_bytes_of_tables_are_those_of_codes_scales_and_smallest_values() -> None:
    tables = [module for module in done(STEPS["int4"]).model.modules() if isinstance(module, StoredEmbedding)]
    stored = sum(tensor.nbytes for table in tables for tensor in table.stored_tensors().values())
    assert stored == (60 + 40 + 5) * (16 // 2 + 2 * 2)


def test_the_answers_are_those_of_a_model_with_the_dequantized_tables() -> None:
    found, plain = done(STEPS["int4"]), tiny_click_model()
    with torch.no_grad():
        for ours, theirs in zip(found.model.tables, plain.model.tables, strict=True):
            theirs.weight.copy_(ours.dequantized())
        torch.testing.assert_close(found.model(**INPUTS).logits, plain.model(**INPUTS).logits)


def test_the_shortest_rows_of_all_tables_are_pruned() -> None:
    original = tiny_click_model()
    found = done([RowPruning(sparsity=0.4, shared="zero")], original)
    lengths = torch.cat([table.weight.norm(dim=1) for table in original.model.tables])
    limit = lengths.sort().values[int(0.4 * 105)]
    for ours, theirs in zip(found.model.tables, original.model.tables, strict=True):
        if isinstance(ours, StoredEmbedding):
            wanted = torch.where((theirs.weight.norm(dim=1) < limit)[:, None], 0.0, theirs.weight)
            assert torch.equal(ours.dequantized(), wanted)


def test_the_rows_that_training_never_met_go_first_and_are_answered_with_their_mean() -> None:
    original = tiny_click_model()
    found = done([RareRowPruning(sparsity=0.5)], original)
    assert found.notes["num_samples"] == 80
    assert found.notes["num_unseen_rows"] == 40 + 30
    users = original.model.tables[0].weight
    gone = torch.zeros(60, dtype=torch.bool)
    # 52 rows go: all of the later table's 30 unseen ones, and the last 22 of the users'
    gone[38:] = True
    wanted = torch.where(gone[:, None], users[gone].mean(dim=0), users)
    torch.testing.assert_close(found.model.tables[0].dequantized(), wanted)
    assert "too few" in found.claims[0].left_out["tables.2"]


def test_the_lowest_are_chosen_over_all_tables_and_the_later_of_equal_ones() -> None:
    scores = {"a": torch.tensor([1.0, 5.0, 0.0]), "b": torch.tensor([0.0, 1.0])}
    found = {name: mask.tolist() for name, mask in lowest(scores, 0.6).items()}
    assert found == {"a": [False, False, True], "b": [True, True]}


def test_token_embeddings_are_quantized_and_a_tied_one_is_refused_with_the_reason() -> None:
    untied = EmbeddingQuantization(bits=8).apply(tiny_causal_lm(tied=False))
    assert untied.claims[0].modules == ("model.embed_tokens",)
    ids = {"input_ids": torch.tensor([[2, 4, 6]]), "attention_mask": torch.ones(1, 3, dtype=torch.int64)}
    with torch.inference_mode():
        difference = (untied.model(**ids).logits - tiny_causal_lm(tied=False).model(**ids).logits).abs().max()
    assert 0 < difference < 0.05
    for step in (EmbeddingQuantization(bits=8), RowPruning(sparsity=0.5)):
        with pytest.raises(UnsupportedError, match="tied to another module"):
            step.apply(tiny_causal_lm(tied=True))


def test_targets_and_ignore_choose_among_the_tables() -> None:
    only = EmbeddingQuantization(bits=8, targets=("word_embeddings",)).apply(tiny_classifier())
    assert only.claims[0].modules == ("bert.embeddings.word_embeddings",)
    assert set(only.claims[0].left_out.values()) == {"not among the targets"}
    with pytest.raises(UnsupportedError, match="ignored by the recipe"):
        EmbeddingQuantization(ignore=("tables",)).apply(tiny_click_model())


def test_tables_that_would_not_become_smaller_are_left_with_the_reason() -> None:
    with pytest.raises(UnsupportedError, match="would not become smaller"):
        EmbeddingQuantization(bits=8).apply(tiny_click_model(embedding_dim=2))
    with pytest.raises(UnsupportedError, match="don't fill whole bytes"):
        EmbeddingQuantization(bits=2).apply(tiny_click_model(embedding_dim=6))


def test_counting_needs_training_data() -> None:
    with pytest.raises(UnsupportedError, match="counts over training data"):
        RareRowPruning(sparsity=0.5).apply(tiny_click_model())


def test_a_search_at_8_bits_and_a_share_of_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="search is for 4 and 2 bits"):
        EmbeddingQuantization(bits=8, search=True)
    for sparsity in (0, 1):
        with pytest.raises(ValidationError):
            RowPruning(sparsity=sparsity)
