"""Candidates on disk: safetensors, config, tokenizer and a manifest, from which a fresh process makes the same model.

A model of plain modules is written by save_pretrained, so transformers loads it without compressbench. One with stored
layers (packed, int8, factors) has its tensors in compressbench.safetensors, which transformers leaves alone rather than
filling the gaps with random weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.initialization import no_init_weights

from compressbench.core import registry
from compressbench.core.errors import CompressbenchError, ModelError
from compressbench.models.handle import ModelHandle
from compressbench.models.parts import replace_module
from compressbench.models.quiet import quiet
from compressbench.models.stored_layer import StoredLayer

MANIFEST = "compressbench.json"
TENSORS = "compressbench.safetensors"
FORMAT = 1
_VERSIONS = ("compressbench", "torch", "transformers", "safetensors")


def write_model(model: nn.Module, folder: Path) -> None:
    """Weights and configuration into `folder`, in as many bytes as the layers store."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, StoredLayer)}
    if not layers:
        with quiet():
            model.save_pretrained(folder)  # type: ignore[operator]
        return
    write_config(model, folder)
    write_tensors(_tensors(model, layers), folder / TENSORS)


def write_config(model: nn.Module, folder: Path) -> None:
    """What save_pretrained writes besides weights."""
    config: Any = model.config
    config.architectures = [type(model).__name__]
    with quiet():
        config.save_pretrained(folder)
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.save_pretrained(folder)  # type: ignore[union-attr, operator]


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    # a clone, because safetensors refuses views of one memory
    whole = {name: each.detach().cpu().clone(memory_format=torch.contiguous_format) for name, each in tensors.items()}
    save_file(whole, path, metadata={"format": "pt"})


def _tensors(model: nn.Module, layers: Mapping[str, StoredLayer]) -> dict[str, torch.Tensor]:
    """Everything that has to be stored, by name."""
    leaves = {name: layer for name, layer in layers.items() if not layer.is_container}
    found = {
        f"{name}.{part}": tensor for name, layer in leaves.items() for part, tensor in layer.stored_tensors().items()
    }
    return found | dict(plain_tensors(model, leaves))


def plain_tensors(model: nn.Module, layers: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors outside of these layers, by name; what shares its memory once."""
    inside = tuple(f"{name}." for name in layers)
    seen: set[tuple[int, int]] = set()
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.numel())
        if name.startswith(inside) or (place in seen and tensor.numel()):
            continue
        seen.add(place)
        yield name, tensor


def save_artefact(handle: ModelHandle, folder: Path, about: Mapping[str, Any]) -> None:
    """The whole candidate: model, tokenizer and a manifest that holds `about` (its recipe and steps) and the versions."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(handle.model, folder)
    handle.tokenizer.save_pretrained(folder)
    layers = {
        name: {"kind": module.kind, "layout": dict(module.layout())}
        for name, module in handle.model.named_modules()
        if isinstance(module, StoredLayer)
    }
    manifest = {
        "format": FORMAT,
        "head": handle.head,
        "weights": handle.weights,
        "architecture": type(handle.model).__name__,
        "source": handle.source.model_dump(mode="json"),
        # a checkout can be run without being installed
        "versions": {name: registry.installed_version(name) or "not installed" for name in _VERSIONS},
        "layers": layers,
        **about,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an artefact, or None if the folder is no artefact. Raises ModelError if it can't be read."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:
        raise ModelError(f"{MANIFEST} can't be read", where=str(folder), got=str(error)) from error
    if manifest.get("format") != FORMAT:
        raise ModelError(
            f"this version reads artefacts of format {FORMAT}",
            where=str(folder),
            got=f"format {manifest.get('format')!r}",
            do="Upgrade compressbench.",
        )
    return manifest


def load_artefact(auto_class: Any, folder: Path, manifest: Mapping[str, Any]) -> nn.Module:
    """The model of an artefact, in evaluation mode on the CPU, its weights in the formats in which they were saved.

    Raises ModelError if a file or a tensor is missing, or a kind of layer is unknown.
    """
    with quiet():
        if not manifest["layers"]:
            model: nn.Module = auto_class.from_pretrained(
                folder, use_safetensors=True, dtype="auto", local_files_only=True
            )
            return model.eval()
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        with no_init_weights():
            model = auto_class.from_config(config)
    tensors = _read(folder / TENSORS)
    for name, entry in manifest["layers"].items():
        replace_module(model, name, _restore(name, entry, tensors, folder))
    _fill(model, tensors, folder)
    return model.eval()


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        # clones, because kernels add up in another order where the memory isn't aligned as the allocator aligns it
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise ModelError("the weights can't be read", where=str(path), got=str(error), do="Save it again.") from error


def _restore(name: str, entry: Mapping[str, Any], tensors: dict[str, torch.Tensor], folder: Path) -> nn.Module:
    """The layer `name`; its tensors are taken out of `tensors`, so that no more than one copy lives."""
    try:
        kind = registry.layers.resolve(entry["kind"])
        parts = {} if kind.is_container else {
            full.removeprefix(f"{name}."): tensors.pop(full) for full in list(tensors) if full.startswith(f"{name}.")
        }  # fmt: skip
        layer: nn.Module = kind.restore(entry["layout"], parts)
    except CompressbenchError as error:
        raise ModelError(f"the layer '{name}' can't be made again: {error}", where=str(folder)) from error
    except KeyError as error:
        raise ModelError(f"the layer '{name}' lacks {error}", where=str(folder), do="Save it again.") from error
    return layer


def _fill(model: nn.Module, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """The plain tensors into their places; tied ones follow from the configuration."""
    inside = tuple(f"{name}." for name, m in model.named_modules() if isinstance(m, StoredLayer) and not m.is_container)
    found = model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()  # type: ignore[operator]
    shared: Any = getattr(model, "all_tied_weights_keys", None) or {}
    missing = [name for name in found.missing_keys if not name.startswith(inside) and name not in shared]
    if missing or found.unexpected_keys:
        raise ModelError(
            "the saved tensors are not those of the model",
            where=str(folder),
            got=f"missing {missing[:3]}, unexpected {found.unexpected_keys[:3]}",
            do="Save it again.",
        )
