"""`gguf`: a Llama-shaped language model in one file for llama.cpp, codes of 4 and 8 bits kept where its blocks hold them.

Names, metadata and the order of the rows of queries and keys are those of llama.cpp's own converter.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from compressbench.core.errors import MissingDependencyError, UnsupportedError
from compressbench.models.exports.gguf_blocks import blocks_of, permute_rows
from compressbench.models.exports.gguf_tokenizer import Vocabulary, vocabulary_of
from compressbench.models.exports.safetensors import dense_model
from compressbench.models.size import stored_layers

if TYPE_CHECKING:
    import numpy as np

    from compressbench.models.handle import ModelHandle

FILE = "model.gguf"
_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_FILE_TYPES = {
    "F32": "ALL_F32",
    "F16": "MOSTLY_F16",
    "BF16": "MOSTLY_BF16",
    "Q8_0": "MOSTLY_Q8_0",
    "Q4_0": "MOSTLY_Q4_0",
}
_ELSE = "Export it to safetensors."


class Tensor(NamedTuple):
    """`kind` is a GGMLQuantizationType by name; `data` are its values, or bytes of its blocks."""

    data: np.ndarray
    kind: str


def write(handle: ModelHandle, folder: Path) -> str:
    """One file. Says how many layers kept their codes. Raises UnsupportedError for what llama.cpp's Llama is not."""
    writer_class = _library().GGUFWriter
    _refuse_others(handle)
    vocabulary = vocabulary_of(handle)
    tensors = dict(_tensors(handle.model))
    writer = writer_class(folder / FILE, "llama")
    try:
        _add_metadata(writer, handle, _main_kind(tensors))
        _add_vocabulary(writer, vocabulary)
        for name, tensor in tensors.items():
            _add_tensor(writer, name, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    return _note(handle.model, tensors)


def _library() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise MissingDependencyError("the format needs gguf", do='pip install "compressbench[exports]"') from error
    return gguf


def _refuse_others(handle: ModelHandle) -> None:
    config: Any = handle.model.config
    if handle.head != "causal-lm" or config.model_type != "llama":
        got = f"{config.model_type} as {handle.head}"
        raise UnsupportedError("only language models of the Llama architecture are written as gguf", got=got, do=_ELSE)
    rope = dict(getattr(config, "rope_parameters", None) or {})
    if rope.get("rope_type", "default") != "default":
        raise UnsupportedError("scaled rotary positions are not written as gguf", got=str(rope["rope_type"]), do=_ELSE)
    if config.hidden_act not in ("silu", "swish"):
        raise UnsupportedError("llama.cpp's Llama has the activation silu", got=str(config.hidden_act), do=_ELSE)
    biases = [name for name, _ in handle.model.named_parameters() if name.endswith("_proj.bias")]
    if biases:
        raise UnsupportedError("biases of Llama's layers are not written as gguf", where=biases[0], do=_ELSE)
    widths = {each.out_features for name, each in handle.model.named_modules() if name.endswith("mlp.up_proj")}
    if widths != {config.intermediate_size}:
        raise UnsupportedError("the layers differ in width, and gguf has one number for all", got=str(widths), do=_ELSE)


def _tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """All weights by their names in the file; a tied output matrix once."""
    gguf, config = _library(), model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    codes = {name: found for name, each in model.named_modules() if (found := blocks_of(each)) is not None}
    dense = dense_model(model)
    is_tied = dense.get_input_embeddings().weight.data_ptr() == dense.get_output_embeddings().weight.data_ptr()
    for full, parameter in dense.named_parameters(remove_duplicate=False):
        if is_tied and full.startswith("lm_head."):
            continue
        name = names.get_name(full, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise UnsupportedError("llama.cpp's Llama has no such weight", where=full, do=_ELSE)
        heads = _heads_of(full, config)
        if (blocks := codes.get(full.removesuffix(".weight"))) is not None:
            yield name, Tensor(blocks.packed(heads), blocks.kind)
        else:
            yield name, _plain(parameter, heads)


def _heads_of(name: str, config: Any) -> int | None:
    """How many heads the rows of a query or key matrix belong to; None for anything else."""
    if name.endswith("q_proj.weight"):
        return int(config.num_attention_heads)
    return int(config.num_key_value_heads) if name.endswith("k_proj.weight") else None


def _plain(parameter: nn.Parameter, heads: int | None) -> Tensor:
    """In its own type; vectors in float32, as llama.cpp wants them."""
    gguf = _library()
    values = parameter.detach().float().cpu()
    if heads is not None:
        values = permute_rows(values, heads)
    kind = "F32" if values.ndim == 1 else _TYPES.get(parameter.dtype, "F32")
    return Tensor(gguf.quants.quantize(values.contiguous().numpy(), gguf.GGMLQuantizationType[kind]), kind)


def _main_kind(tensors: dict[str, Tensor]) -> str:
    """The type of most of the weights."""
    counts: dict[str, int] = {}
    for name, tensor in tensors.items():
        if name.startswith("blk.") and tensor.data.ndim > 1:
            counts[tensor.kind] = counts.get(tensor.kind, 0) + 1
    return max(counts, key=lambda kind: counts[kind])


def _add_metadata(writer: Any, handle: ModelHandle, kind: str) -> None:
    gguf, config = _library(), handle.model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name(Path(handle.source.id.rpartition(":")[2]).name or "model")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(int(gguf.LlamaFileType[_FILE_TYPES[kind]]))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.splitting)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    for name, number in vocabulary.special.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(vocabulary.adds_bos)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)


def _add_tensor(writer: Any, name: str, tensor: Tensor) -> None:
    writer.add_tensor(name, tensor.data, raw_dtype=_library().GGMLQuantizationType[tensor.kind])


def _note(model: nn.Module, tensors: dict[str, Tensor]) -> str:
    stored = len(stored_layers(model))
    if not stored:
        return ""
    kept = [each.kind for each in tensors.values() if each.kind.startswith("Q")]
    kinds = " and ".join(sorted(set(kept)))
    parts = [f"{len(kept)} layers with the candidate's own codes ({kinds})"] if kept else []
    if stored > len(kept):
        parts.append(f"{stored - len(kept)} compressed layers dequantized, because no block of gguf holds their codes")
    return ", ".join(parts)
