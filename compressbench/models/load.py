"""Weights into a handle: embedded, from a local folder, or from the Hub. Safetensors only, or random by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
from safetensors import SafetensorError

from compressbench.core.errors import ModelError, UnsupportedError
from compressbench.models.artefact import load_artefact, read_manifest
from compressbench.models.config import encoder_folder, is_embedded, is_random, model_folder
from compressbench.models.handle import ModelHandle, Supplies
from compressbench.models.heads import automatic_class, load_processor
from compressbench.models.library_layers import adopt_library_layers
from compressbench.models.parts import cast_weights
from compressbench.models.quiet import quiet
from compressbench.models.random_model import make_random
from compressbench.models.size import stored_layers
from compressbench.recipe.schema import ModelSpec
from compressbench.records.record import ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LOADING_FAILS_WITH = (
    OSError, ValueError, ImportError, RuntimeError, KeyError, SafetensorError, HFValidationError, OfflineModeIsEnabled,
)  # fmt: skip


def load_model(
    spec: ModelSpec, head: str, *, device: str = "cpu", supplies: Supplies | None = None, weights: bool = True
) -> ModelHandle:
    """Load `spec` with the given head (a name of models.heads.HEADS) and put it on `device` in eval mode.

    Without `weights` only its configuration and what prepares its inputs: the model then has shapes and no values.
    Raises ModelError if the model isn't there, isn't safetensors, needs code that wasn't allowed, or lacks weights for
    its head; MissingDependencyError if an embedded model's weights, or what prepares its inputs, aren't installed.
    """
    if not weights and not is_random(spec.id):  # of random weights there is no configuration apart
        return _load_without_weights(spec, head, device, supplies or Supplies())
    with quiet():
        model, tokenizer, revision, quantized = _load(spec, head)
    if not quantized:  # an artefact's layers keep the formats in which they were saved
        cast_weights(model, getattr(torch, spec.dtype))
    model = model.to(device).eval()
    source = _source(spec, revision, model, quantized or spec.dtype)
    return ModelHandle(model, tokenizer, source, head, quantized or spec.dtype, device, supplies or Supplies())


def _load_without_weights(spec: ModelSpec, head: str, device: str, supplies: Supplies) -> ModelHandle:
    from compressbench.models.weightless import without_weights

    folder = model_folder(spec.id)
    revision = _resolve_commit(spec, head) if folder is None else _sha256_of(folder)
    options = {"revision": revision} if folder is None else {"local_files_only": True}
    try:
        with quiet():
            model, tokenizer = without_weights(spec, head, str(folder or spec.id), options)
    except _LOADING_FAILS_WITH as error:
        raise _explain(spec, head, error) from error
    return ModelHandle(model, tokenizer, _source(spec, revision, model, spec.dtype), head, spec.dtype, device, supplies)


def _source(spec: ModelSpec, revision: str, model: PreTrainedModel, weights: str) -> ModelSource:
    return ModelSource(
        id=spec.id,
        revision=revision,
        trust_remote_code=spec.trust_remote_code,
        architecture=type(model).__name__,
        dtype=weights,
    )


def _load(spec: ModelSpec, head: str) -> tuple[PreTrainedModel, Any, str, str]:
    """Model, tokenizer, revision, and the weight format of what is quantized already ("" for anything else)."""
    if is_random(spec.id):
        return (*make_random(spec, head), "")
    folder = model_folder(spec.id)
    if is_embedded(spec.id) and spec.id.endswith("minilm-banking77"):
        return (*_load_minilm(spec, head, folder), "")
    if folder is not None:
        manifest = read_manifest(folder)
        if manifest is not None:
            return (*_load_artefact(spec, head, folder, manifest), manifest["weights"])
        _require_safetensors(folder)
        model, tokenizer = _from_pretrained(spec, head, str(folder), {"local_files_only": True})
        return model, tokenizer, _sha256_of(folder), _quantized_format(model)
    commit = _resolve_commit(spec, head)
    model, tokenizer = _from_pretrained(spec, head, spec.id, {"revision": commit})
    return model, tokenizer, commit, _quantized_format(model)


def _quantized_format(model: PreTrainedModel) -> str:
    """The weight format of a checkpoint that came quantized, its library's layers exchanged for ours; else ""."""
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return ""
    try:
        adopted = adopt_library_layers(model)
    except UnsupportedError as error:
        raise ModelError(f"the quantized checkpoint can't be used: {error}") from error
    if not adopted:
        raise ModelError(
            "the checkpoint is quantized in a way whose weights can't be counted or saved here",
            got=str(getattr(config, "quant_method", config)),
            do="Use the unquantized checkpoint, and compress it in the recipe.",
        )
    return "int8" if {layer.kind for layer in stored_layers(model).values()} == {"bnb-int8"} else "packed"


def _load_artefact(
    spec: ModelSpec, head: str, folder: Path, manifest: Mapping[str, Any]
) -> tuple[PreTrainedModel, Any, str]:
    from compressbench.models.mean_pool import register

    if manifest["head"] != head:
        raise ModelError(f"the artefact has the head {manifest['head']}", where=spec.id, got=f"a task for {head}")
    register()
    try:
        model: Any = load_artefact(automatic_class(head), folder, manifest)
        tokenizer = load_processor(head, str(folder), local_files_only=True)
    except _LOADING_FAILS_WITH as error:
        raise _explain(spec, head, error) from error
    return model, tokenizer, _sha256_of(folder)


def _resolve_commit(spec: ModelSpec, head: str) -> str:
    """The commit that a branch or tag means now, so that model and tokenizer come from the same one."""
    try:
        return Path(hf_hub_download(spec.id, "config.json", revision=spec.revision or "main")).parent.name
    except _LOADING_FAILS_WITH as error:
        raise _explain(spec, head, error) from error


def _load_minilm(spec: ModelSpec, head: str, folder: Path | None) -> tuple[PreTrainedModel, Any, str]:
    from compressbench.models.mean_pool import build

    if head != "sequence-classification" or folder is None:
        raise ModelError(f"{spec.id} is a classifier and can't be used as {head}")
    encoder = encoder_folder()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(encoder), local_files_only=True)
    return build(encoder, folder), tokenizer, _sha256_of(encoder, folder)


def _from_pretrained(spec: ModelSpec, head: str, where: str, extra: dict[str, Any]) -> tuple[Any, Any]:
    options = {**extra, "trust_remote_code": spec.trust_remote_code}
    try:
        model, info = automatic_class(head).from_pretrained(
            where, use_safetensors=True, dtype=getattr(torch, spec.dtype), output_loading_info=True, **options
        )
        tokenizer = load_processor(head, where, **options)
    except _LOADING_FAILS_WITH as error:
        raise _explain(spec, head, error) from error
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise ModelError(
            f"the checkpoint has no trained weights for {', '.join(missing[:3])}",
            where=spec.id,
            do=f"Use a checkpoint that was trained for {head}; random weights are never benchmarked.",
        )
    return model, tokenizer


def _explain(spec: ModelSpec, head: str, error: BaseException) -> ModelError:
    text = " ".join(str(error).split())
    chain = f"{error!r} {error.__cause__!r} {error.__context__!r}"
    if "trust_remote_code" in text:
        return ModelError(
            "the model runs code of its own, which is off",
            where=spec.id,
            do="Read that code; then set trust_remote_code: true in the recipe's model, and pin its revision.",
        )
    if "RevisionNotFound" in chain or "not a valid git identifier" in text:
        return ModelError(
            f"the repository has no revision '{spec.revision}'", where=spec.id, do="Check model.revision."
        )
    if "RepositoryNotFound" in chain or "is not a local folder and is not a valid model identifier" in text:
        return ModelError(
            "no such model on the Hub, or it is private", where=spec.id, do="Check the spelling; log in if it is yours."
        )
    if "LocalEntryNotFound" in chain or "OfflineModeIsEnabled" in chain:
        return ModelError(
            "the Hub can't be reached, and the model isn't in the local cache",
            where=spec.id,
            do="Check the connection, or give a local folder.",
        )
    if isinstance(error, ImportError):
        return ModelError(
            "the checkpoint is quantized by a library that isn't installed", where=spec.id, got=_short(text)
        )
    if "safetensors" in text:
        return ModelError(
            "the repository has no safetensors weights",
            where=spec.id,
            got=_short(text),
            do="Pickled weights are never loaded; convert them with save_pretrained.",
        )
    return ModelError(f"the model can't be loaded as {head}", where=spec.id, got=_short(text))


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:297] + "..."


def _require_safetensors(folder: Path) -> None:
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            "the folder has no .safetensors file",
            where=str(folder),
            do="Pickled weights are never loaded; write the model with save_pretrained.",
        )


def _sha256_of(*folders: Path) -> str:
    """One digest over the weights, configuration, tokenizer and code files, in the order of their names."""
    digest = hashlib.sha256()
    for folder in folders:
        files = [path for path in folder.iterdir() if path.suffix in {".safetensors", ".json", ".txt", ".model", ".py"}]
        for path in sorted(files):
            if path.name == "training.json":
                continue
            digest.update(path.name.encode())
            with path.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
