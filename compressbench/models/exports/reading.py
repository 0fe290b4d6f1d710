"""Exports for other programs, opened again by transformers: how a fresh process sees what vLLM or llama.cpp would load."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressbench.core.errors import ModelError
from compressbench.models.handle import ModelHandle
from compressbench.models.heads import automatic_class
from compressbench.models.quiet import quiet
from compressbench.records.record import ModelSource


def read_export(folder: Path, head: str, device: str) -> ModelHandle | None:
    """The model in `folder` if that is an export to compressed-tensors or gguf, else None.

    Raises ModelError if transformers can't load it, or finds no weights for a part of the model.
    """
    files = sorted(folder.glob("*.gguf"))
    if files:
        return _load(folder, head, device, "gguf", {"gguf_file": files[0].name, "dtype": _dtype_of(files[0])})
    quantization = _quantization_of(folder)
    if quantization.get("quant_method") == "compressed-tensors":
        options = {"dtype": "auto", "use_safetensors": True, **_unpacking(quantization)}
        return _load(folder, head, device, "packed", options)
    return None


def _unpacking(quantization: Mapping[str, Any]) -> dict[str, Any]:
    """How transformers is asked to load it: as it does by itself, but dequantized where there are zero points.

    In transformers 5.23 with compressed-tensors 0.20 a module that waits for packed weights expects zero points that are
    not packed, and refuses the file (the shapes differ).
    """
    groups = quantization.get("config_groups", {}).values()
    if all(each["weights"]["symmetric"] for each in groups):
        return {}
    from transformers import CompressedTensorsConfig

    return {"quantization_config": CompressedTensorsConfig(dequantize=True)}


def _load(folder: Path, head: str, device: str, weights: str, options: dict[str, Any]) -> ModelHandle:
    import transformers

    tokenizer_options = {"gguf_file": options["gguf_file"]} if "gguf_file" in options else {}
    try:
        with quiet(), warnings.catch_warnings():
            # that the file's quantization_config counts, and only how to load it is ours, is what is wanted
            warnings.filterwarnings("ignore", message="You passed `quantization_config`")
            model, info = automatic_class(head).from_pretrained(
                str(folder), local_files_only=True, output_loading_info=True, **options
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, **tokenizer_options
            )
    except Exception as error:
        # the libraries raise what their parsers do: struct errors, KeyError, ValueError of numpy
        raise ModelError("the export can't be loaded", where=str(folder), got=f"{error!r}"[:300]) from error
    # zero points that the library fills in itself are no weights
    if missing := sorted(name for name in info["missing_keys"] if not name.endswith("_zero_point")):
        raise ModelError("the export lacks weights", where=str(folder), got=", ".join(missing[:3]))
    source = ModelSource(
        id=str(folder), revision="", architecture=type(model).__name__, dtype=str(model.dtype).removeprefix("torch.")
    )
    return ModelHandle(model.to(device).eval(), tokenizer, source, head, weights, device)


def _quantization_of(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config.get("quantization_config") or {}


def _dtype_of(path: Path) -> Any:
    """The type of the embedding, which is never quantized: what the candidate computed in."""
    import torch
    from gguf import GGUFReader

    try:
        kinds = {each.name: each.tensor_type.name for each in GGUFReader(path).tensors}
    except Exception as error:
        raise ModelError("the file is no whole GGUF file", where=str(path), got=f"{error!r}"[:300]) from error
    return {"F16": torch.float16, "BF16": torch.bfloat16}.get(kinds.get("token_embd.weight", ""), torch.float32)
