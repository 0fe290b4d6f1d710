"""How many operations and bytes one call of a model asks for, counted by running it once under a tally."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from torch import nn

from compressbench.core.protocols import Batch
from compressbench.models.op_tally import Parts, Tally
from compressbench.models.parts import inputs_of
from compressbench.records.limits import Work

_IDS = "input_ids"
# of transformers: keys and values that grow, the second kind up to a window
_CACHES = ("DynamicLayer", "DynamicSlidingWindowLayer")
# what a model answers with that can't be run under a tally, lacks a part of generation, or a place for so many tokens
_FAILS_WITH = (TypeError, ValueError, AttributeError, IndexError, KeyError, RuntimeError, NotImplementedError)


class _Counts(NamedTuple):
    """Of one pass; None with the reason where something of it could not be counted."""

    flops: dict[str, float] | None
    num_bytes: int | None
    reason: str


class _Decoding(NamedTuple):
    step: _Counts
    kv_bytes: int | None


def count_work(model: nn.Module, batch: Batch, output_tokens: int | None = None) -> Work:
    """The work of one forward pass over `batch`, which is really run, on the device where the model is.

    With `output_tokens` the pass is the one over the prompt, as generation runs it (logits of the last position only,
    where the model can do that), and the step at the middle of the generation is counted, too. Nothing is timed here.
    What isn't understood is None with its reason.
    """
    parts, inputs = Parts(model), inputs_of(model, batch)
    extra = {} if output_tokens is None else _for_generation(model)
    try:
        forward, output = _count(model, parts, {**inputs, **extra})
    except _FAILS_WITH as error:
        return Work(reason=f"the pass can't be run while it is counted: {_short(error)}")
    decoding, why_not = None, ""
    if output_tokens is not None:
        decoding, why_not = _decode(model, parts, inputs, output, output_tokens)
    step = decoding.step if decoding else _Counts(None, None, "")
    reasons = dict.fromkeys(each for each in (forward.reason, step.reason, why_not) if each)
    return Work(
        flops=None if forward.flops is None else sum(forward.flops.values()),
        flops_by_dtype=forward.flops or {},
        weight_bytes=forward.num_bytes,
        decode_flops_by_dtype=step.flops or {},
        decode_weight_bytes=step.num_bytes,
        kv_bytes=decoding.kv_bytes if decoding else None,
        compute_dtype=max(forward.flops, key=forward.flops.__getitem__) if forward.flops else "",
        reason="; ".join(reasons),
    )


def _count(model: nn.Module, parts: Parts, inputs: dict[str, Any]) -> tuple[_Counts, Any]:
    """Run one pass under a tally: the counts, and what the model gave."""
    tally = Tally(parts)
    with tally.watching():
        output = model(**inputs)
    unknown = f"not counted: {', '.join(dict.fromkeys(tally.unknown))}" if tally.unknown else ""
    hidden = f"bytes not seen: {parts.hidden[0]}" if parts.hidden else ""
    counts = _Counts(
        None if unknown else {name: flops for name, flops in tally.flops.items() if flops},
        None if hidden else tally.read.total,
        "; ".join(each for each in (unknown, hidden) if each),
    )
    return counts, output


def _for_generation(model: nn.Module) -> dict[str, Any]:
    known = inspect.signature(model.forward).parameters
    return {name: value for name, value in (("use_cache", True), ("logits_to_keep", 1)) if name in known}


def _decode(
    model: nn.Module, parts: Parts, inputs: dict[str, torch.Tensor], prefill: Any, output_tokens: int
) -> tuple[_Decoding | None, str]:
    """The step at the middle of a generation, or None and why not."""
    if output_tokens < 2:
        return None, "one token comes from the prompt's pass: there is no decode step"
    if getattr(model.config, "is_encoder_decoder", False):
        return None, "decode steps of encoder-decoder models aren't counted"
    cache = getattr(prefill, "past_key_values", None)
    if cache is None or _IDS not in inputs:
        return None, f"{type(model).__name__} keeps no key-value cache"
    try:
        # steps 1 .. n - 1 attend to prompt + step positions
        _extend(model, inputs, cache, output_tokens // 2 - 1)
        length = inputs[_IDS].shape[1] + output_tokens // 2
        step, _ = _count(model, parts, _step_inputs(model, inputs, cache, length, 1))
    except _FAILS_WITH as error:
        return None, f"a decode step can't be run alone: {_short(error)}"
    kv_bytes, why_not = _cache_bytes(cache, length)
    return _Decoding(step, kv_bytes), why_not


def _extend(model: nn.Module, inputs: dict[str, torch.Tensor], cache: Any, num_tokens: int) -> None:
    """Let the cache grow by so many tokens of whatever kind."""
    if num_tokens > 0:
        length = inputs[_IDS].shape[1] + num_tokens
        with torch.no_grad():
            model(**_step_inputs(model, inputs, cache, length, num_tokens))


def _step_inputs(
    model: nn.Module, inputs: dict[str, torch.Tensor], cache: Any, length: int, num_tokens: int
) -> dict[str, Any]:
    """The last `num_tokens` of `length` positions, all others in the cache."""
    ids = inputs[_IDS]
    found = {_IDS: ids[:, -1:].expand(-1, num_tokens), "past_key_values": cache, **_for_generation(model)}
    mask = inputs.get("attention_mask")
    if mask is not None:
        found["attention_mask"] = torch.cat([mask, mask.new_ones(len(mask), length - mask.shape[1])], dim=1)
    return found


def _cache_bytes(cache: Any, length: int) -> tuple[int | None, str]:
    """Bytes of the keys and values that a step reads at a length (its own token included), or None and why not."""
    layers = getattr(cache, "layers", None)
    if not layers:
        return None, f"a {type(cache).__name__} isn't understood"
    total = 0
    for layer in layers:
        if type(layer).__name__ not in _CACHES:
            return None, f"a cache of {type(layer).__name__} isn't only keys and values that grow"
        # one that slides keeps one position less than it has just read
        positions = min(length, getattr(layer, "sliding_window", length))
        total += (layer.keys.nbytes + layer.values.nbytes) // layer.keys.shape[-2] * positions
    return total, ""


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
