"""A session over a decoder of OpenVINO, whose keys and values stay in the engine between steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from compressbench.core.protocols import Batch, Decoding, Written
from compressbench.models.own_decoding import ArraySteps, Special, greedy_arrays, write
from compressbench.runtimes.openvino_feeding import as_array, mask_of, texts, whole_texts
from compressbench.runtimes.openvino_session import (
    Compiled,
    OpenVinoSession,
    first_output,
    infer,
    set_input,
    set_inputs,
)

if TYPE_CHECKING:
    import torch


class DecoderSession(OpenVinoSession):
    """`special` and `tokenizer` are the model's: which tokens end a text, and what loads the one for writing."""

    def __init__(self, compiled: Compiled, device: str, special: Special, tokenizer: Callable[[], Any]) -> None:
        super().__init__(compiled, device)
        self._special, self._tokenizer = special, cache(tokenizer)
        self._steps = Steps(self._request)

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Logits (batch x length x vocabulary)."""
        self._request.reset_state()
        return self._steps.run(*whole_texts(batch))

    def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> torch.Tensor:
        return greedy_arrays(self._steps, batch, num_tokens, self._special.end, on_token)

    def write(self, batch: Batch, decoding: Decoding) -> list[Written]:
        return write(self._steps, self._tokenizer(), self._special, batch, decoding)

    def kv_cache_bytes(self, batch: Batch, num_tokens: int) -> int:
        """Of the state when the last token is there, in the type that it is kept in."""
        rows, length = batch["input_ids"].shape
        positions = length + max(0, num_tokens - 1)
        per_position = sum(heads * size for heads, size in self._compiled.about.cache)
        return int(rows * positions * per_position * self._compiled.cache_item_bytes)

    def close(self) -> None:
        del self._steps
        super().close()


class Steps(ArraySteps):
    """Over a request. What keeps its shape from step to step is set once and written in place."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._held: list[Any] = []

    def prompt(self, batch: Batch, num_tokens: int) -> Any:
        import numpy

        ids, mask = as_array(batch["input_ids"]), as_array(mask_of(batch))
        rows, length = mask.shape
        positions = (mask.cumsum(axis=1) - 1).clip(min=0)
        self._request.reset_state()
        inputs = texts(ids, mask, positions, numpy.array([length - 1]))
        self._set(*inputs)
        logits = self._infer()[:, 0]
        self._length = length
        self._added = numpy.zeros((rows, 1, 1, length + num_tokens), dtype=numpy.float32)
        self._added[:, 0, 0, :length][mask == 0] = -numpy.inf
        self._tokens = numpy.zeros((rows, 1), dtype=numpy.int64)
        self._position = positions[:, -1:].copy()
        first, beams = numpy.zeros(1, dtype=numpy.int64), inputs[-1]
        self._set(self._tokens, self._mask(), self._position, first, beams)
        return logits

    def next(self, ids: Any) -> Any:
        self._length += 1
        self._position += 1
        self._tokens[:] = ids
        self._held[1] = self._mask()
        set_input(self._request, 1, self._held[1])
        return self._infer()[:, 0]

    def run(self, *inputs: Any) -> torch.Tensor:
        """One pass: logits (batch x wanted x vocabulary)."""
        import torch

        self._set(*inputs)
        return torch.from_numpy(self._infer())

    def _mask(self) -> Any:
        """Of a step (batch x 1 x 1 x length), without a gap: nothing is hidden, or the padding on the left."""
        import numpy

        return numpy.ascontiguousarray(self._added[..., : self._length])

    def _set(self, *arrays: Any) -> None:
        self._held = list(arrays)  # the engine reads this memory, and doesn't own it
        set_inputs(self._request, arrays)

    def _infer(self) -> Any:
        """Logits (batch x wanted x vocabulary)."""
        infer(self._request)
        return first_output(self._request)
