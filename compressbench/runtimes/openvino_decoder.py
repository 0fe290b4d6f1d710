"""A session over a decoder of OpenVINO, whose keys and values stay in the engine between steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from compressbench.core.protocols import Batch, Decoding, Written
from compressbench.models.own_decoding import Special, greedy, write
from compressbench.runtimes.openvino_feeding import as_array, mask_of, texts, whole_texts
from compressbench.runtimes.openvino_session import Compiled, OpenVinoSession, answer, infer, set_input

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
        return greedy(self._steps, batch, num_tokens, self._special.end, on_token)

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


class Steps:
    """See `models.own_decoding.Steps`. What keeps its shape from step to step is set once and written in place."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._held: list[Any] = []

    def start(self, batch: Batch, num_tokens: int) -> torch.Tensor:
        import torch

        mask = mask_of(batch)
        rows, length = mask.shape
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        self._request.reset_state()
        logits = self.run(*texts(batch["input_ids"], mask, positions, torch.tensor([length - 1])))[:, 0]
        total = length + num_tokens
        self._length, self._is_padded = length, bool((mask == 0).any())
        self._added = torch.zeros(rows, total)
        self._added[:, :length].masked_fill_(mask == 0, -torch.inf)
        self._nothing = torch.zeros(rows * total)
        self._tokens, self._position = torch.zeros(rows, 1, dtype=torch.int64), positions[:, -1:].clone()
        first = torch.zeros(1, dtype=torch.int64)
        self._set(self._tokens, self._mask(), self._position, first, torch.arange(rows, dtype=torch.int32))
        return logits

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        self._length += 1
        self._position += 1
        self._tokens.copy_(tokens[:, None])
        self._held[1] = as_array(self._mask())
        set_input(self._request, 1, self._held[1])
        return self._infer()[:, 0]

    def run(self, *inputs: torch.Tensor) -> torch.Tensor:
        """One pass: logits (batch x wanted x vocabulary)."""
        self._set(*inputs)
        return self._infer()

    def _mask(self) -> torch.Tensor:
        """Of a step (batch x 1 x 1 x length): nothing is hidden, or the padding on the left."""
        rows, length = len(self._tokens), self._length
        added = self._added[:, :length].contiguous() if self._is_padded else self._nothing[: rows * length]
        return added.view(rows, 1, 1, length)

    def _set(self, *inputs: torch.Tensor) -> None:
        self._held = [as_array(tensor) for tensor in inputs]  # the engine reads this memory, and doesn't own it
        for number, array in enumerate(self._held):
            set_input(self._request, number, array)

    def _infer(self) -> torch.Tensor:
        infer(self._request)
        return answer(self._request)  # type: ignore[no-any-return]
