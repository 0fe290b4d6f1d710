"""A model without its weights, for arms that a server runs: its configuration, its tokenizer, and shapes on no device."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from compressbench.models.heads import automatic_class, load_processor
from compressbench.recipe.schema import ModelSpec


def without_weights(spec: ModelSpec, head: str, where: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """The model on the meta device and what prepares its inputs, from the files in `where`.

    Raises what transformers raises, as loading weights does.
    """
    more = {**options, "trust_remote_code": spec.trust_remote_code}
    config = transformers.AutoConfig.from_pretrained(where, **more)
    config.dtype = getattr(torch, spec.dtype)
    with torch.device("meta"):
        model = automatic_class(head).from_config(config)
    return model, load_processor(head, where, **more)
