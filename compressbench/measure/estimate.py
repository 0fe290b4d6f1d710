"""How long a run will take, roughly, from the size of the model and the speed of this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_START_UP_S = 8.0
_SHARE_OF_MATMUL_RATE = 0.5
_TRAINING_PASSES = 4  # the student forward and twice that backward, and the teacher forward


def matmul_parameters(config: Mapping[str, Any]) -> int | None:
    """Weights that a token is multiplied with (layers and language-model head, no embedding), from config.json.

    None if the configuration doesn't name its sizes in the usual words.
    """
    try:
        hidden, inner, layers = (config[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
        shared = config.get("num_key_value_heads") or config["num_attention_heads"]
        key_value = hidden * shared // config["num_attention_heads"]
        is_decoder = any(str(name).endswith("CausalLM") for name in config.get("architectures") or ())
        per_layer = 2 * hidden * (hidden + key_value) + (3 if is_decoder else 2) * hidden * inner
        return int(layers * per_layer + (config["vocab_size"] * hidden if is_decoder else 0))
    except (KeyError, TypeError, ZeroDivisionError):
        return None


@lru_cache(maxsize=1)
def matmul_rate() -> float:
    """float32 operations per second of this machine's matrix product, measured in about a tenth of a second."""
    import numpy as np

    size = 768
    left, right = np.ones((size, size), np.float32), np.ones((size, size), np.float32)
    left @ right
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < 0.1:
        left @ right
        count += 1
    return 2.0 * size**3 * count / (time.perf_counter() - begun)


def forward_seconds(parameters: int, num_tokens: float) -> float:
    """One pass over `num_tokens` on CPU in float32."""
    return 2.0 * parameters * num_tokens / (matmul_rate() * _SHARE_OF_MATMUL_RATE)


def training_seconds(parameters: int, num_tokens: float) -> float:
    """One pass of distillation over `num_tokens` on CPU in float32."""
    return _TRAINING_PASSES * forward_seconds(parameters, num_tokens)


def start_up_seconds() -> float:
    """Importing torch and transformers, and loading a small model."""
    return _START_UP_S
