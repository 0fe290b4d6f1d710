from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from pydantic import ValidationError
from transformers import BertModel

from compressbench.core.errors import ModelError
from compressbench.core.progress import SilentProgress
from compressbench.core.watching import Unwatched
from compressbench.data.text import load_text
from compressbench.models.handle import ModelHandle
from compressbench.models.load import load_model
from compressbench.models.quiet import quiet
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks.perplexity import Perplexity
from compressbench.testing import tiny_causal_lm, tiny_classifier

CLASSIFIER, CAUSAL_LM = "sequence-classification", "causal-lm"
IDS = torch.tensor([[2, 4, 6, 8, 3]])


def written(handle: ModelHandle, folder: Path) -> Path:
    with quiet():
        handle.model.save_pretrained(folder)
    handle.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tiny_classifier(), tmp_path_factory.mktemp("classifier"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture(scope="module")
def shakespeare() -> ModelHandle:
    return load_model(ModelSpec(id="embedded:shakespeare-lm"), CAUSAL_LM)


def load(where: Path | str, head: str = CLASSIFIER, **options: Any) -> ModelHandle:
    return load_model(ModelSpec(id=str(where), **options), head)


def test_a_local_folder_comes_back_as_it_was_saved(saved: Path) -> None:
    original, loaded = tiny_classifier(), load(saved)
    for name, tensor in original.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)
    assert torch.equal(loaded.model(IDS).logits, original.model(IDS).logits)
    assert loaded.tokenizer("the cat sat")["input_ids"] == original.tokenizer("the cat sat")["input_ids"]
    assert not loaded.model.training
    assert (loaded.head, loaded.weights, loaded.device) == (CLASSIFIER, "float32", "cpu")
    assert loaded.source.id == str(saved)
    assert loaded.source.architecture == "BertForSequenceClassification"


def test_a_tied_language_model_is_not_said_to_lack_its_head(tmp_path: Path) -> None:
    handle = tiny_causal_lm(num_layers=1)
    loaded = load(written(handle, tmp_path), CAUSAL_LM)
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    assert torch.equal(loaded.model(IDS).logits, handle.model(IDS).logits)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_load_in_the_format_that_is_asked_for(saved: Path, dtype: str) -> None:
    loaded = load(saved, dtype=dtype)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {getattr(torch, dtype)}
    assert loaded.weights == loaded.source.dtype == dtype


def test_the_revision_is_a_digest_that_changes_with_every_byte(folder: Path) -> None:
    first = load(folder).source.revision
    assert first.startswith("sha256:")
    assert len(first) == len("sha256:") + 64
    assert load(folder).source.revision == first
    (folder / "notes.log").write_text("not part of the model")
    (folder / "training.json").write_text("{}")
    assert load(folder).source.revision == first
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    flipped = load(folder).source.revision
    weights.write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-5}))
    other_config = load(folder).source.revision
    (folder / "modeling_own.py").write_text("# code that came with the model")
    assert len({first, flipped, other_config, load(folder).source.revision}) == 4


def test_pickled_weights_are_never_loaded(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(tiny_classifier().model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \.safetensors file") as caught:
        load(folder)
    assert "save_pretrained" in caught.value.do


def test_random_weights_are_never_benchmarked(tmp_path: Path) -> None:
    base = BertModel(tiny_classifier().model.config)
    with quiet():
        base.save_pretrained(tmp_path)
    tiny_classifier().tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no trained weights for classifier\.bias, classifier\.weight") as caught:
        load(tmp_path)
    assert "random weights are never benchmarked" in caught.value.do


def test_weights_of_another_shape_are_not_replaced_by_random_ones(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(index): f"LABEL_{index}" for index in range(5)}
    config["label2id"] = {name: int(index) for index, name in config["id2label"].items()}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"classifier|can't be loaded"):
        load(folder)


@pytest.mark.parametrize("spoil", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_broken_file_is_a_model_error_that_names_the_folder(folder: Path, spoil: str) -> None:
    (folder / spoil).write_text("{broken")
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_a_folder_without_a_configuration_is_no_model(tmp_path: Path) -> None:
    for where in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ModelError, match=r"config\.json is missing"):
            load(where)


def test_a_misspelt_embedded_model_is_told_the_nearest_name() -> None:
    with pytest.raises(ModelError, match=r"unknown embedded model 'shakespear-lm'.*Did you mean 'shakespeare-lm'\?"):
        load("embedded:shakespear-lm", CAUSAL_LM)


def test_a_classifier_is_no_language_model(saved: Path) -> None:
    with pytest.raises(ModelError):
        load("embedded:minilm-banking77", CAUSAL_LM)
    with pytest.raises(ModelError, match=r"no trained weights|can't be loaded"):
        load(saved, CAUSAL_LM)


def test_loading_leaves_the_terminal_and_the_settings_of_transformers_alone(
    saved: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    had_bar = transformers.utils.logging.is_progress_bar_enabled()
    load(saved)
    assert transformers.utils.logging.is_progress_bar_enabled() == had_bar
    assert capfd.readouterr() == ("", "")


def test_a_model_specification_is_closed() -> None:
    for wrong in ({"dtype": "int8"}, {"quantize": True}, {"trust_remote_code": "yes"}):
        with pytest.raises(ValidationError):
            ModelSpec(id="a/b", **wrong)


def test_the_embedded_language_model_writes_words(shakespeare: ModelHandle) -> None:
    tokenizer = shakespeare.tokenizer
    ids = torch.tensor([tokenizer("ROMEO:\n", add_special_tokens=False)["input_ids"]])
    session = TorchEager().prepare(shakespeare, "cpu")
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    found = session.generate(batch, 40)
    assert found.shape == (1, ids.shape[1] + 40)
    assert torch.equal(found, session.generate(batch, 40)), "greedy decoding has no chance in it"
    text = tokenizer.decode(found[0])
    assert text.startswith("ROMEO:")
    known = set(re.findall(r"[\w']+", load_text("embedded:tinyshakespeare", split="train").text))
    written = re.findall(r"[\w']+", text)
    # tokens are pieces of words, so an untrained model writes almost none that is a word
    assert sum(word in known for word in written) >= 0.9 * len(written) >= 10
    assert shakespeare.source.revision.startswith("sha256:")


def test_the_embedded_language_model_keeps_its_perplexity(shakespeare: ModelHandle) -> None:
    task = Perplexity(data="embedded:tinyshakespeare", window=256, limit=20)
    text = task.load()
    task.check_model(shakespeare, text)
    rows = task.evaluate(TorchEager().prepare(shakespeare, "cpu"), shakespeare, text, SilentProgress(), Unwatched())
    total = sum(row.weight for row in rows)
    assert total == 20 * 255
    assert task.summarize(rows) == pytest.approx(18.1925, rel=1e-3)


def test_a_checkpoint_that_is_quantized_already_keeps_its_codes(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from compressbench.models.config import weight_format
    from compressbench.models.size import count_weights, stored_layers

    plain = tiny_causal_lm()
    plain.model.save_pretrained(tmp_path / "plain")
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=["lm_head"])
    quantized = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=four_bits)
    quantized.save_pretrained(tmp_path / "quantized")
    plain.tokenizer.save_pretrained(tmp_path / "quantized")
    loaded = load_model(ModelSpec(id=str(tmp_path / "quantized")), "causal-lm")
    assert loaded.weights == weight_format(str(tmp_path / "quantized"), "float32") == "packed"
    assert {layer.kind for layer in stored_layers(loaded.model).values()} == {"bnb-4bit"}
    assert count_weights(loaded.model).num_bytes < 0.4 * count_weights(plain.model).num_bytes
    ids = torch.arange(4, 19)[None]
    with torch.inference_mode():
        assert torch.allclose(loaded.model(ids).logits, quantized(ids).logits, atol=0.02)
