"""Checkpoints that other quantization tools write, as quantized weights of our own: GPTQ's format and compressed-tensors.

Both pack codes into int32 words without gaps: a stream of bits, the lowest first, that runs on from word to word. GPTQ
packs qweight along the input features and qzeros along the outputs (Frantar et al. 2022, arXiv:2210.17323; AutoGPTQ's
layout); compressed-tensors packs weights along the inputs and zero points along the outputs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from compressbench.core.errors import CellError, UnsupportedError
from compressbench.models.quantized_weight import QuantizedWeight

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class ForeignCheckpoint:
    """`quantized` by module name, `dense` every other tensor by parameter name, in the types they were stored in."""

    quantized: Mapping[str, QuantizedWeight]
    dense: Mapping[str, torch.Tensor]


def read_checkpoint(folder: Path) -> ForeignCheckpoint:
    """Read config.json and every safetensors file of `folder`.

    A checkpoint without a quantization_config has dense tensors only. Raises CellError if a file is missing or broken,
    UnsupportedError for a format that isn't read here.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = {
            name: each for path in sorted(folder.glob("*.safetensors")) for name, each in load_file(path).items()
        }
    except (OSError, ValueError, SafetensorError) as error:
        raise CellError("the tool's checkpoint can't be read", got=" ".join(str(error).split())[:300]) from error
    if not tensors:
        raise CellError("the tool's checkpoint has no safetensors file")
    return parse_checkpoint(config.get("quantization_config") or {}, tensors)


def parse_checkpoint(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> ForeignCheckpoint:
    """The same from a quantization_config and the tensors by name. Raises UnsupportedError for other formats."""
    rest = dict(tensors)
    method = config.get("quant_method")
    if method is None:
        found: dict[str, QuantizedWeight] = {}
    elif method in ("gptq", "auto-round"):
        found = dict(_gptq_modules(config, rest))
    elif method == "compressed-tensors":
        found = dict(_compressed_modules(config, rest))
    else:
        raise UnsupportedError(f"checkpoints of the format '{method}' are not read")
    return ForeignCheckpoint(found, rest)


def unpack_words(words: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """Codes (rows x columns, uint8) from words (rows x n, int32): a gapless stream of bits per row, the lowest first.

    Raises CellError if the words hold fewer than `columns` codes.
    """
    if words.shape[1] * 32 < columns * bits:
        raise CellError(f"{words.shape[1]} words of 32 bits can't hold {columns} codes of {bits} bits")
    stream = words.contiguous().view(torch.uint8)
    stream = torch.nn.functional.pad(stream, (0, -stream.shape[1] % bits))
    # `bits` bytes are eight codes
    parts = stream.view(len(stream), -1, bits).long()
    joined = sum(parts[:, :, at] << 8 * at for at in range(bits))
    codes = [(joined >> at * bits & 2**bits - 1).to(torch.uint8) for at in range(8)]
    return torch.stack(codes, dim=2).flatten(1)[:, :columns]


def _gptq_modules(config: Mapping[str, Any], rest: Tensors) -> Iterator[tuple[str, QuantizedWeight]]:
    layout = str(config.get("checkpoint_format") or config.get("format") or "gptq")
    packing = str(config.get("packing_format") or "auto_round:auto_gptq")
    if layout not in ("gptq", "gptq_v2") or packing != "auto_round:auto_gptq":
        raise UnsupportedError(f"GPTQ checkpoints of the layout '{layout}', packing '{packing}' are not read")
    for name in _modules_with(rest, "qweight"):
        parts = {part: rest.pop(f"{name}.{part}", None) for part in ("qweight", "qzeros", "scales", "g_idx")}
        yield name, _gptq_weight(name, parts, int(config.get("group_size", -1)), is_v1=layout == "gptq")


def _gptq_weight(
    name: str, parts: Mapping[str, torch.Tensor | None], group_size: int, *, is_v1: bool
) -> QuantizedWeight:
    """qweight (in * bits / 32 x out), qzeros (groups x out * bits / 32), scales (groups x out), g_idx (in)."""
    qweight, qzeros, scales, groups = parts["qweight"], parts["qzeros"], parts["scales"], parts["g_idx"]
    if qweight is None or qzeros is None or scales is None or groups is None:
        missing = ", ".join(part for part, tensor in parts.items() if tensor is None)
        raise CellError(f"the checkpoint lacks {missing} of {name}")
    inputs, outputs = groups.numel(), scales.shape[1]
    bits, odd = divmod(qweight.shape[0] * 32, inputs)
    if odd or bits not in (2, 3, 4, 8):
        raise UnsupportedError(
            f"{name} has {qweight.shape[0]} words for {inputs} inputs, which is not 2, 3, 4 or 8 bits"
        )
    zero = unpack_words(qzeros, bits, outputs)
    zero = (_from_v1(zero, bits, name) if is_v1 else zero).t().contiguous()
    return QuantizedWeight(
        codes=unpack_words(qweight.t(), bits, inputs),
        scale=scales.t().contiguous(),
        bits=bits,
        group_size=-1 if scales.shape[0] == 1 else group_size,
        zero=None if bool((zero == 2 ** (bits - 1)).all()) else zero,
        group_of=_irregular(groups, group_size, scales.shape[0]),
    )


def _from_v1(stored: torch.Tensor, bits: int, name: str) -> torch.Tensor:
    """The first layout stores zero points less one. A zero point of 0 borrows from its neighbours or wraps around,
    depending on who wrote it, and can't be told afterwards.
    """
    if bool((stored == 2**bits - 1).any()):
        raise UnsupportedError(
            f"a zero point of 0 in {name} can't be read from the first GPTQ layout",
            do="Write the checkpoint in the layout gptq_v2, or with sym.",
        )
    return stored + 1


def _irregular(groups: torch.Tensor, group_size: int, num_groups: int) -> torch.Tensor | None:
    """g_idx (in) where columns of a group aren't neighbours, else None."""
    if num_groups == 1:
        return None
    regular = torch.arange(groups.numel(), device=groups.device) // group_size
    return None if torch.equal(groups.long(), regular) else groups.to(torch.int32)


def _compressed_modules(config: Mapping[str, Any], rest: Tensors) -> Iterator[tuple[str, QuantizedWeight]]:
    scheme = _weight_scheme(config)
    for name in _modules_with(rest, "weight_scale"):
        shape = rest.pop(f"{name}.weight_shape", None)
        scale, zero = rest.pop(f"{name}.weight_scale"), rest.pop(f"{name}.weight_zero_point", None)
        group_of, packed = rest.pop(f"{name}.weight_g_idx", None), rest.pop(f"{name}.weight_packed", None)
        bits, half = scheme.bits, 2 ** (scheme.bits - 1)
        if packed is not None and shape is not None:
            outputs, inputs = (int(size) for size in shape)
            codes = unpack_words(packed, bits, inputs)
            zero = None if zero is None else unpack_words(zero.t(), bits, outputs).t().contiguous()
        else:
            codes = (rest.pop(f"{name}.weight").to(torch.int16) + half).to(torch.uint8)
            zero = None if zero is None else (zero.to(torch.int16) + half).to(torch.uint8)
        if zero is not None and bool((zero == half).all()):
            zero = None
        if group_of is not None:
            group_of = _irregular(group_of, scheme.group_size, scale.shape[1])
        size = -1 if scale.shape[1] == 1 else scheme.group_size
        yield name, QuantizedWeight(codes, scale, bits, size, zero, group_of)


@dataclass(frozen=True)
class _Scheme:
    bits: int
    group_size: int


def _weight_scheme(config: Mapping[str, Any]) -> _Scheme:
    """The one way in which all weights of a compressed-tensors checkpoint are quantized."""
    schemes = [group["weights"] for group in config.get("config_groups", {}).values()]
    layout = config.get("format")
    if layout not in ("pack-quantized", "int-quantized") or not schemes or any(each != schemes[0] for each in schemes):
        raise UnsupportedError(f"compressed-tensors checkpoints of the format '{layout}' are not read")
    scheme = schemes[0]
    if scheme.get("type") != "int" or scheme.get("strategy") not in ("channel", "group"):
        raise UnsupportedError(f"weights of {scheme.get('type')} per {scheme.get('strategy')} are not read")
    return _Scheme(int(scheme["num_bits"]), int(scheme.get("group_size") or -1))


def _modules_with(tensors: Mapping[str, torch.Tensor], part: str) -> list[str]:
    return sorted(name.removesuffix(f".{part}") for name in tensors if name.endswith(f".{part}"))
