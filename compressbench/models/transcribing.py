"""Texts from sounds by an encoder-decoder in transformers: greedy, each up to its own end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel

from compressbench.core.errors import NotFiniteError
from compressbench.core.protocols import Batch
from compressbench.models.own_generation import ids_of, only
from compressbench.models.parts import inputs_of
from compressbench.models.quiet import quiet


def transcribe(model: PreTrainedModel, batch: Batch, prompt: Sequence[int], max_new_tokens: int) -> list[list[int]]:
    """The token ids that the decoder writes after `prompt` for every sound of `batch`, without its end token and padding.

    Of the model's own generation_config count the special tokens and those that it never writes (`suppress_tokens`, and
    `begin_suppress_tokens` at the start), which belong to what a Whisper model is; languages, tasks and timestamps that
    it forces don't. Raises NotFiniteError if a logit is no number.
    """
    inputs = inputs_of(model, batch)
    sounds = next(iter(inputs.values()))
    begun = torch.tensor([list(prompt)] * len(sounds), device=sounds.device)
    config, watch = _config(model, max_new_tokens), _Finite(sounds.device)
    with torch.inference_mode(), only(model, config), quiet():
        # not the model's own `generate`: Whisper's forces a language and cuts long sounds into pieces
        whole = GenerationMixin.generate(
            model, **inputs, decoder_input_ids=begun, generation_config=config, logits_processor=[watch]
        )
    watch.raise_if_broken()
    return [_up_to_the_end(row, ids_of(config.eos_token_id)) for row in whole[:, len(prompt) :].tolist()]


def _up_to_the_end(tokens: list[int], eos: Sequence[int]) -> list[int]:
    return tokens[: next((at for at, token in enumerate(tokens) if token in eos), len(tokens))]


def _config(model: PreTrainedModel, max_new_tokens: int) -> GenerationConfig:
    its_own = model.generation_config
    kept = ("bos_token_id", "eos_token_id", "decoder_start_token_id", "suppress_tokens", "begin_suppress_tokens")
    options = {name: getattr(its_own, name, None) for name in kept}
    pad = ids_of(getattr(its_own, "pad_token_id", None)) or ids_of(options["eos_token_id"]) or [0]
    return GenerationConfig(
        **options, pad_token_id=pad[0], do_sample=False, use_cache=True, max_new_tokens=max_new_tokens
    )


class _Finite:
    """Remembers whether any logit was no number. It has the members of transformers' LogitsProcessor."""

    def __init__(self, device: Any) -> None:
        self._is_broken = torch.zeros((), dtype=torch.bool, device=device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._is_broken |= (scores.isnan() | scores.isposinf()).any()
        return scores

    def raise_if_broken(self) -> None:
        if bool(self._is_broken):
            raise NotFiniteError("the model gave logits that are not finite", do="Try bfloat16 or a milder setting.")
