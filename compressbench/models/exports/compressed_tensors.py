"""`compressed-tensors`: a candidate's own codes, scales and zero points as vLLM and transformers read them, unrounded.

Packed by the library compressed-tensors itself, in its layout `pack-quantized`: nothing is quantized a second time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from compressbench.core.errors import MissingDependencyError, UnsupportedError
from compressbench.models.artefact import plain_tensors, write_config, write_tensors
from compressbench.models.packed_linear import PackedLinear
from compressbench.models.stored_layer import StoredLayer

if TYPE_CHECKING:
    from compressbench.models.handle import ModelHandle

LAYOUT = "pack-quantized"
_BITS = (4, 8)
_MARLIN_GROUPS = (None, 32, 64, 128)
"""Group sizes of the kernel that vLLM prefers; others run in a slower one, or in none, depending on the GPU."""
_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that vLLM puts into one matrix, which has one scheme."""
_SAFETENSORS = "Export it to safetensors."


class Scheme(NamedTuple):
    """How a layer is quantized: `group_size` None is one scale per output channel."""

    bits: int
    group_size: int | None
    is_symmetric: bool


def write(handle: ModelHandle, folder: Path) -> str:
    """Weights, configuration and tokenizer. Raises UnsupportedError with the reason for what the engines can't load."""
    schemes = schemes_of(handle)
    model: Any = handle.model
    tensors = dict(plain_tensors(model, schemes))
    for name in schemes:
        tensors.update({f"{name}.{part}": each for part, each in packed_tensors(model.get_submodule(name)).items()})
    write_config(model, folder)
    _add_to_config(folder / "config.json", _quantization_config(model, schemes))
    write_tensors(tensors, folder / "model.safetensors")
    handle.tokenizer.save_pretrained(folder)
    return _note(schemes)


def schemes_of(handle: ModelHandle) -> dict[str, Scheme]:
    """Every packed layer's scheme, by name. Raises UnsupportedError if an engine couldn't load one of them."""
    if handle.head != "causal-lm":
        raise UnsupportedError(
            "vLLM's quantized layers are for language models", got=f"the head {handle.head}", do=_SAFETENSORS
        )
    stored = {name: each for name, each in handle.model.named_modules() if isinstance(each, StoredLayer)}
    if not stored:
        raise UnsupportedError("no layer is quantized, so there is nothing to pack", do=_SAFETENSORS)
    found = {name: _scheme(name, layer) for name, layer in stored.items()}
    _require_one_scheme_where_fused(found)
    if getattr(handle.model.config, "tie_word_embeddings", False):
        output = handle.model.get_output_embeddings()
        if any(handle.model.get_submodule(name) is output for name in found):
            raise UnsupportedError("a quantized output layer can't share the embedding's matrix", do=_SAFETENSORS)
    return found


def packed_tensors(layer: PackedLinear) -> dict[str, torch.Tensor]:
    """The layer's tensors by their names in the format. Codes and zero points are shifted to signed integers and packed by
    the library, scales are as they were stored.
    """
    pack_to_int32 = _library().pack_to_int32
    quantized, half = layer.quantized(), 2 ** (layer.bits - 1)
    found = {
        "weight_packed": pack_to_int32(_signed(quantized.codes, half), layer.bits),
        "weight_scale": quantized.scale,
        "weight_shape": torch.tensor(quantized.codes.shape),
    }
    if quantized.zero is not None:
        found["weight_zero_point"] = pack_to_int32(_signed(quantized.zero, half), layer.bits, packed_dim=0)
    if layer.bias is not None:
        found["bias"] = layer.bias
    return found


def _note(schemes: Mapping[str, Scheme]) -> str:
    said = f"{len(schemes)} layers with the candidate's own codes"
    others = {each.group_size for each in schemes.values()} - set(_MARLIN_GROUPS)
    return (
        said
        if not others
        else f"{said}; vLLM's Marlin kernel has no groups of {', '.join(map(str, sorted(filter(None, others))))}"
    )


def _signed(codes: torch.Tensor, half: int) -> torch.Tensor:
    return (codes.to(torch.int16) - half).to(torch.int8)


def _library() -> Any:
    try:
        from compressed_tensors.compressors import pack_quantized
    except ImportError as error:
        raise MissingDependencyError(
            "the format needs compressed-tensors", do='pip install "compressbench[exports]"'
        ) from error
    return pack_quantized


def _scheme(name: str, layer: StoredLayer) -> Scheme:
    if layer.kind == "semi-structured":
        raise UnsupportedError("vLLM has dropped 2:4 sparsity", where=name, do=_SAFETENSORS)
    if not isinstance(layer, PackedLinear):
        raise UnsupportedError(
            "only packed integer weights (of rtn, gptq, awq) have this format",
            where=name,
            got=f"a layer of the kind {layer.kind}",
            do=_SAFETENSORS,
        )
    if (reason := _reason_against(layer)) is not None:
        raise UnsupportedError(reason, where=name, do=_SAFETENSORS)
    is_whole_row = layer.group_size == -1 or layer.group_size > layer.in_features
    return Scheme(layer.bits, None if is_whole_row else layer.group_size, layer.zero is None)


def _reason_against(layer: PackedLinear) -> str | None:
    """Why no engine loads this layer, or None."""
    if layer.input_scale is not None:
        return "the layer divides its inputs, which no engine's packed layer does"
    if layer.codebook is not None:
        return "the layer has a codebook; the format has evenly spaced integers"
    if layer.bits not in _BITS:
        return f"engines of this format take 4 and 8 bits, this layer has {layer.bits}"
    if layer.zero is not None and not layer.has_integer_zero:
        return "the layer has floating-point zero points (HQQ's); the format has integer ones"
    if layer.group_of is not None:
        return "columns are in groups by activation order, which compressed-tensors no longer has; use desc_act: false"
    if layer.scale.shape[1] > 1 and layer.in_features % layer.group_size:
        return f"{layer.in_features} inputs are no multiple of the group size {layer.group_size}"
    return None


def _require_one_scheme_where_fused(schemes: Mapping[str, Scheme]) -> None:
    parents = {name.rpartition(".")[0] for name in schemes}
    for parent in sorted(parents):
        for names in _FUSED:
            full = [f"{parent}.{each}" for each in names]
            there = {schemes.get(each) for each in full}
            if len(there) > 1:
                raise UnsupportedError(
                    f"vLLM fuses {', '.join(names)}, which are quantized differently", where=parent, do=_SAFETENSORS
                )


def _quantization_config(model: nn.Module, schemes: Mapping[str, Scheme]) -> dict[str, Any]:
    """One group per scheme. A single one is for all linear layers but those named, as vLLM's own examples are."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme

    groups: dict[Scheme, list[str]] = {}
    for name, scheme in schemes.items():
        groups.setdefault(scheme, []).append(name)
    plain = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    found = {}
    for number, (scheme, names) in enumerate(groups.items()):
        arguments = QuantizationArgs(
            num_bits=scheme.bits,
            type="int",
            symmetric=scheme.is_symmetric,
            strategy="channel" if scheme.group_size is None else "group",
            group_size=scheme.group_size,
        )
        found[f"group_{number}"] = QuantizationScheme(
            targets=["Linear"] if len(groups) == 1 else names, weights=arguments, format=LAYOUT
        )
    config = QuantizationConfig(config_groups=found, format=LAYOUT, quantization_status="compressed", ignore=plain)
    data: dict[str, Any] = config.model_dump(mode="json", exclude_none=True)
    return data


def _add_to_config(path: Path, quantization: Mapping[str, Any]) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    config["quantization_config"] = quantization
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
