"""A language model behind `compressbench.testing.endpoint`: one request after the other, greedy or sampled."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

from compressbench.core.protocols import Decoding
from compressbench.models.handle import ModelHandle
from compressbench.models.own_decoding import special_tokens
from compressbench.models.writing import StopStrings, sample
from compressbench.testing.endpoint_answers import Token


class ModelTokens:
    """Takes prompts as token ids or as text, and max_tokens, temperature, top_p, top_k, seed, stop, ignore_eos."""

    engine = "testing-model"

    def __init__(self, handle: ModelHandle) -> None:
        self._model, self._tokenizer = handle.model, handle.tokenizer
        self._end = special_tokens(handle.model, handle.tokenizer).end
        self._lock = threading.Lock()

    def __call__(self, request: Mapping[str, Any]) -> Iterator[Token]:
        with self._lock:
            yield from self._tokens(request)

    def _tokens(self, request: Mapping[str, Any]) -> Iterator[Token]:
        import torch

        prompt = request.get("prompt") or request["messages"][-1]["content"]
        ids = torch.tensor([prompt if isinstance(prompt, list) else self._tokenizer(prompt)["input_ids"]])
        most, is_forced = int(request.get("max_tokens", 16)), bool(request.get("ignore_eos"))
        stop = StopStrings(self._tokenizer, request.get("stop") or (), ids.shape[1])
        draw = torch.Generator().manual_seed(int(request.get("seed", 0)))
        cache, given, shown = None, ids, ""
        for number in range(most):
            with torch.inference_mode():
                made = self._model(input_ids=given, past_key_values=cache, use_cache=True)
            cache, logits = made.past_key_values, made.logits[:, -1].clone()
            if is_forced:
                logits[:, list(self._end)] = -torch.inf
            given = self._chosen(logits, request, draw)
            ids = torch.cat([ids, given], dim=1)
            token = int(given)
            has_ended = token in self._end or bool(stop and stop(ids, None).all())
            whole = self._tokenizer.decode(ids[0, -number - 1 :], skip_special_tokens=True)
            text, shown = (whole[len(shown) :], whole) if not whole.endswith("�") else ("", shown)
            yield Token(token, text, "stop" if has_ended else "length" if number + 1 == most else "")
            if has_ended:
                return

    def _chosen(self, logits: Any, request: Mapping[str, Any], draw: Any) -> Any:
        import torch

        temperature = float(request.get("temperature", 1.0))
        if not temperature:
            return logits.argmax(dim=-1, keepdim=True)
        decoding = Decoding(temperature=temperature, top_p=request.get("top_p", 1.0), top_k=request.get("top_k"))
        return sample(logits, torch.rand(1, generator=draw, dtype=torch.float64), decoding)[:, None]
