"""A Llama in one file for llama.cpp: read by the gguf library and by transformers, it is the candidate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import FAMILIES
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from compressbench.core import registry
from compressbench.core.errors import ModelError, UnsupportedError
from compressbench.models.exports.gguf import write
from compressbench.models.exports.gguf_blocks import permute_rows
from compressbench.models.exports.reading import read_export
from compressbench.models.handle import ModelHandle
from compressbench.models.packed_linear import PackedLinear
from compressbench.models.parts import cast_weights

END = "<|endoftext|>"
UP = "blk.1.ffn_up.weight"
TEXTS = ["Hello, world! It's  2026.", "né\n\n<|endoftext|> 12345 a", " \tROMEO:\n"]


def byte_level(pre_tokenizer: Any = None, **model: Any) -> PreTrainedTokenizerFast:
    """256 bytes, two merges and a token that ends texts."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {each: number for number, each in enumerate([END, *letters, "lo", "Hel"])}
    vocabulary["He"] = len(vocabulary)
    merges = [("l", "o"), ("H", "e"), ("He", "l")]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, **model))
    backend.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=END, eos_token=END, pad_token=END)


def llama(family: str = "llama-untied", tokenizer: Any = None, **changed: Any) -> ModelHandle:
    made = FAMILIES[family]
    made = replace(made, options={**made.options, "vocab_size": 300, "eos_token_id": 0, "bos_token_id": 0, **changed})
    return replace(made.build(), tokenizer=tokenizer or byte_level())


def compressed(handle: ModelHandle, use: str = "rtn", **options: Any) -> ModelHandle:
    made: ModelHandle = registry.methods.resolve(use)(**options).apply(handle)
    return made


def tensors_of(folder: Path) -> dict[str, Any]:
    return {each.name: each for each in GGUFReader(folder / "model.gguf").tensors}


def matrix(tensor: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type)))


def logits_of(model: Any) -> torch.Tensor:
    ids = torch.randint(1, 250, (2, 12), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids).logits.float()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["llama-tied", "llama-untied"])
def test_transformers_reads_the_same_model(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    handle = llama(family)
    cast_weights(handle.model, dtype)
    assert write(handle, tmp_path) == ""
    found = read_export(tmp_path, "causal-lm", "cpu")
    assert found is not None
    assert found.model.dtype == dtype
    assert torch.equal(logits_of(found.model), logits_of(handle.model))
    assert ("output.weight" in tensors_of(tmp_path)) == (family == "llama-untied")


@pytest.mark.parametrize(("bits", "kind"), [(8, "Q8_0"), (4, "Q4_0")])
@pytest.mark.parametrize("group_size", [32, 64, -1])
def test_symmetric_codes_are_kept_bit_for_bit(bits: int, kind: str, group_size: int, tmp_path: Path) -> None:
    handle = compressed(llama(), bits=bits, group_size=group_size, sym=True)
    assert write(handle, tmp_path) == f"14 layers with the candidate's own codes ({kind})"
    found = tensors_of(tmp_path)
    layer: Any = handle.model.get_submodule("model.layers.1.mlp.up_proj")
    assert found[UP].tensor_type.name == kind
    assert torch.equal(matrix(found[UP]), layer.dequantized())
    keys: Any = handle.model.get_submodule("model.layers.0.self_attn.k_proj")
    assert torch.equal(matrix(found["blk.0.attn_k.weight"]), permute_rows(keys.dequantized(), 2))
    again = read_export(tmp_path, "causal-lm", "cpu")
    assert again is not None
    assert torch.equal(logits_of(again.model), logits_of(handle.model))


@pytest.mark.parametrize(
    ("use", "options"),
    [
        ("rtn", {"bits": 4, "group_size": 32}),
        ("rtn", {"bits": 4, "group_size": 16, "sym": True}),
        ("rtn", {"bits": 3, "group_size": 32, "sym": True}),
        ("int8-weight-only", {}),
    ],
    ids=["zero points", "half a block", "3 bits", "float32 scales"],
)
def test_other_codes_are_written_as_the_numbers_that_they_mean(use: str, options: Any, tmp_path: Path) -> None:
    handle = compressed(llama(), use, **options)
    assert write(handle, tmp_path).startswith("14 compressed layers dequantized")
    layer: Any = handle.model.get_submodule("model.layers.1.mlp.up_proj")
    found = tensors_of(tmp_path)[UP]
    assert found.tensor_type.name == "F32"
    assert torch.equal(matrix(found), layer.dequantized())


def test_scales_that_float16_does_not_hold_are_not_rounded(tmp_path: Path) -> None:
    handle = compressed(llama(), bits=8, group_size=32, sym=True)
    layer = handle.model.get_submodule("model.layers.1.mlp.up_proj")
    assert isinstance(layer, PackedLinear)
    layer.scale = layer.scale.float() * 1.0001
    note = write(handle, tmp_path)
    assert note.startswith("13 layers with the candidate's own codes (Q8_0), 1 compressed layers dequantized")
    assert torch.equal(matrix(tensors_of(tmp_path)[UP]), layer.dequantized())


def test_the_order_of_a_heads_rows_is_the_converters() -> None:
    """convert_hf_to_gguf.py, LlamaModel.permute: reshape(heads, 2, half, ...).swapaxes(1, 2)."""
    rows = torch.arange(16.0)[:, None].repeat(1, 3)
    assert permute_rows(rows, 2)[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]


def test_texts_become_the_same_tokens(tmp_path: Path) -> None:
    handle = llama()
    write(handle, tmp_path)
    found = read_export(tmp_path, "causal-lm", "cpu")
    assert found is not None
    for text in TEXTS:
        assert found.tokenizer(text)["input_ids"] == handle.tokenizer(text)["input_ids"]
    assert found.tokenizer.eos_token_id == 0
    fields = GGUFReader(tmp_path / "model.gguf").fields
    kinds = fields["tokenizer.ggml.token_type"].contents()
    # the end of a text is a control token, and what has no token is unused
    assert (kinds[0], kinds[1], kinds[299]) == (3, 1, 5)
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert fields["llama.attention.head_count_kv"].contents() == 2


def test_llama_3s_way_of_cutting_texts_has_its_name(tmp_path: Path) -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    cut = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS["llama-bpe"]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    write(llama(tokenizer=byte_level(cut, ignore_merges=True)), tmp_path)
    assert GGUFReader(tmp_path / "model.gguf").fields["tokenizer.ggml.pre"].contents() == "llama-bpe"
    with pytest.raises(UnsupportedError, match="merges tokens of 'llama-bpe' in another way"):
        write(llama(tokenizer=byte_level(cut)), tmp_path)


def test_what_llama_cpp_reads_otherwise_is_refused_before_a_file_is_written(tmp_path: Path) -> None:
    lower = byte_level()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    refused = {
        "mistral as causal-lm": FAMILIES["mistral"].build(),
        "bert as sequence-classification": FAMILIES["bert"].build(),
        "biases of Llama's layers": llama(attention_bias=True),
        "scaled rotary positions": llama(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
        "activation silu": llama(hidden_act="gelu"),
        "more tokens than the model": llama(vocab_size=200),
        "without a normalizer": llama(tokenizer=lower),
        "no such way of cutting text": llama(tokenizer=byte_level(pre_tokenizers.Whitespace())),
    }
    for reason, handle in refused.items():
        with pytest.raises(UnsupportedError, match=reason):
            write(handle, tmp_path)
    with pytest.raises(UnsupportedError, match="byte-level BPE"):
        write(FAMILIES["llama-tied"].build(), tmp_path)
    assert not any(tmp_path.iterdir())


def test_half_a_file_is_an_error(tmp_path: Path) -> None:
    write(llama(), tmp_path)
    path = tmp_path / "model.gguf"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ModelError, match="no whole GGUF file"):
        read_export(tmp_path, "causal-lm", "cpu")
