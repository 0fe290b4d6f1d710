"""Models that are made from a configuration and a seed, so that the speed of a shape can be measured without a download.

What they answer means nothing: a task on one says only that the answers are numbers.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
import transformers

from compressbench.core.errors import ModelError
from compressbench.models.config import model_folder, random_config
from compressbench.models.heads import automatic_class
from compressbench.recipe.schema import ModelSpec

_SEED = 0
_TOKENIZER_OF = "embedded:shakespeare-lm"


def make_random(spec: ModelSpec, head: str) -> tuple[Any, Any, str]:
    """Model, tokenizer (of the embedded language model, whose ids all fit) and a revision that says what was made.

    The same weights at every call, in `spec.dtype`. Raises ModelError if the configuration is of another head.
    """
    path = random_config(spec.id)
    text = path.read_text(encoding="utf-8")
    if head != "causal-lm":
        raise ModelError(f"{spec.id} is a language model and can't be used as {head}")
    config = transformers.AutoConfig.for_model(**json.loads(text))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = automatic_class(head).from_config(config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(model_folder(_TOKENIZER_OF)), local_files_only=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return model, tokenizer, f"random weights (seed {_SEED}) of config sha256:{digest}"
