from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import BertConfig, BertForMaskedLM, BertModel

from compressbench.core.errors import MissingDependencyError, ModelError
from compressbench.models.artefact import save_artefact
from compressbench.models.handle import ModelHandle
from compressbench.models.heads import HEADS, processor_id
from compressbench.models.load import load_model
from compressbench.models.parts import require_described
from compressbench.models.quiet import quiet
from compressbench.recipe.schema import ModelSpec
from compressbench.testing import (
    tiny_causal_lm,
    tiny_classifier,
    tiny_click_model,
    tiny_encoder,
    tiny_image_classifier,
    tiny_speech_model,
    tiny_tokenizer,
)

MAKERS: dict[str, Any] = {
    "sequence-classification": tiny_classifier,
    "causal-lm": tiny_causal_lm,
    "feature-extraction": tiny_encoder,
    "image-classification": tiny_image_classifier,
    "speech-seq2seq": tiny_speech_model,
    "click-prediction": tiny_click_model,
}
CONFIG = BertConfig(
    vocab_size=19, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
    max_position_embeddings=64,
)  # fmt: skip


def written(model: Any, processor: Any, folder: Path) -> Path:
    with quiet():
        model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("head", HEADS)
def test_a_model_of_every_head_is_loaded_with_what_makes_its_inputs(head: str, tmp_path: Path) -> None:
    made = MAKERS[head]()
    found = load_model(ModelSpec(id=str(written(made.model, made.tokenizer, tmp_path))), head)
    assert type(found.model) is type(made.model)
    assert found.head == head
    assert type(found.model).__name__.endswith(HEADS[head].endings)
    assert found.tokenizer_id == made.tokenizer_id, "the same before and after it was saved"
    assert all(
        torch.equal(*both) for both in zip(found.model.parameters(), made.model.parameters(), strict=True)
    )  # fmt: skip


def test_the_automatic_classes_are_those_of_transformers() -> None:
    for head in (head for head in HEADS.values() if head.auto_class):
        assert hasattr(transformers, head.auto_class)
        assert hasattr(transformers, head.processor)


@pytest.mark.parametrize("has_pooler", [True, False])
def test_an_encoder_is_loaded_without_a_pooler_whether_the_checkpoint_has_one_or_not(
    has_pooler: bool, tmp_path: Path
) -> None:
    saved = BertModel(CONFIG, add_pooling_layer=has_pooler).eval()
    found = load_model(ModelSpec(id=str(written(saved, tiny_tokenizer(), tmp_path))), "feature-extraction")
    assert found.model.pooler is None
    assert not [name for name, _ in found.model.named_parameters() if "pooler" in name]
    ids = torch.tensor([[2, 5, 6, 3]])
    assert torch.equal(found.model(ids).last_hidden_state, saved(ids).last_hidden_state)


def test_the_encoder_of_a_model_for_masked_words_will_do(tmp_path: Path) -> None:
    saved = BertForMaskedLM(CONFIG).eval()
    found = load_model(ModelSpec(id=str(written(saved, tiny_tokenizer(), tmp_path))), "feature-extraction")
    ids = torch.tensor([[2, 5, 6, 3]])
    assert torch.equal(found.model(ids).last_hidden_state, saved.bert(ids).last_hidden_state)


def test_an_encoder_with_a_layer_that_was_not_trained_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = written(BertModel(CONFIG), tiny_tokenizer(), tmp_path)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: each for name, each in tensors.items() if not name.startswith("encoder.layer.1")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"no trained weights for encoder\.layer\.1"):
        load_model(ModelSpec(id=str(folder)), "feature-extraction")


def test_an_encoder_without_its_pooler_is_described_by_its_configuration() -> None:
    made = tiny_encoder()
    made.model.pooler = None
    require_described(made.model, "nothing")


def test_an_artefact_of_an_encoder_is_an_encoder_again(tmp_path: Path) -> None:
    from compressbench.methods.quantization.int8_dynamic import Int8Dynamic

    made = load_model(
        ModelSpec(id=str(written(BertModel(CONFIG), tiny_tokenizer(), tmp_path / "m"))), "feature-extraction"
    )
    ids = torch.tensor([[2, 5, 6, 3]])
    packed = Int8Dynamic().apply(made.copy())
    for name, each in (("plain", made), ("packed", packed)):
        save_artefact(each, tmp_path / name, {})
        again = load_model(ModelSpec(id=str(tmp_path / name)), "feature-extraction")
        assert torch.equal(again.model(ids).last_hidden_state, each.model(ids).last_hidden_state)


def test_the_extra_that_images_need_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny_image_classifier()
    folder = written(made.model, made.tokenizer, tmp_path)
    monkeypatch.setattr("compressbench.models.heads.missing_distributions", lambda names: list(names))
    with pytest.raises(MissingDependencyError, match=r"needs pillow.*compressbench\[vision\]"):
        load_model(ModelSpec(id=str(folder)), "image-classification")


def test_what_makes_inputs_is_known_by_all_that_changes_them() -> None:
    def ids_of(*handles: ModelHandle) -> set[str]:
        return {processor_id(each.tokenizer) for each in handles}

    grey, colour = tiny_image_classifier(num_channels=1), tiny_image_classifier()
    assert len(ids_of(grey, colour, tiny_image_classifier(num_labels=7))) == 2
    speech = processor_id(tiny_speech_model().tokenizer)
    assert speech.startswith("WhisperFeatureExtractor-")
    assert "+WhisperTokenizer-37-" in speech
    assert processor_id(tiny_tokenizer()).split("-")[1] == "19"
