"""A session over a decoder of OpenVINO, whose keys and values stay in the engine between steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from compressbench.core.protocols import Batch, Decoding, Written
from compressbench.models.own_decoding import Special, greedy, write
from compressbench.runtimes.openvino_feeding import as_array, mask_of, texts, whole_texts
from compressbench.runtimes.openvino_session import Compiled, OpenVinoSession, answer, set_inputs

if TYPE_CHECKING:
    import torch


class DecoderSession(OpenVinoSession):
    """`special` and `tokenizer` are the model's: which tokens end a text, and what turns them into one."""

    def __init__(self, compiled: Compiled, device: str, special: Special, tokenizer: Callable[[], Any]) -> None:
        super().__init__(compiled, device)
        self._special, self._tokenizer = special, tokenizer
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
        """Of the state after the prompt, lengthened to what it is when the last token is there, in the type it has."""
        self._steps.start(batch, num_tokens)
        rows, length = batch["input_ids"].shape
        positions = length + max(0, num_tokens - 1)
        per_position = sum(heads * size for heads, size in self._compiled.about.cache)
        return rows * positions * per_position * self._compiled.cache_item_bytes

    def close(self) -> None:
        del self._steps
        super().close()


class Steps:
    """See `models.own_decoding.Steps`. All inputs of a step lie in memory that is made once per text."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._held: list[Any] = []

    def start(self, batch: Batch, num_tokens: int) -> torch.Tensor:
        import torch

        mask = mask_of(batch)
        rows, length = mask.shape
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        self._position = positions[:, -1:].clone()
        self._added = torch.zeros(rows, length + num_tokens).masked_fill_(_padding(mask, num_tokens), -torch.inf)
        self._is_padded, self._length, self._first = bool((mask == 0).any()), length, torch.zeros(1, dtype=torch.int64)
        self._free = torch.zeros(rows * (length + num_tokens))
        self._beams = torch.arange(rows, dtype=torch.int32)
        self._request.reset_state()
        return self.run(*texts(batch["input_ids"], mask, positions, torch.tensor([length - 1])))[:, 0]

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        self._length += 1
        self._position += 1
        rows, length = len(tokens), self._length
        if self._is_padded:
            added = self._added[:, :length].contiguous()
        else:
            added = self._free[: rows * length]
        mask = added.view(rows, 1, 1, length)
        return self.run(tokens[:, None], mask, self._position, self._first, self._beams)[:, 0]

    def run(self, *inputs: torch.Tensor) -> torch.Tensor:
        """One pass: logits (batch x wanted x vocabulary)."""
        self._held = [as_array(tensor) for tensor in inputs]  # the engine reads this memory, and doesn't own it
        set_inputs(self._request, self._held)
        self._request.infer()
        return answer(self._request)


def _padding(mask: torch.Tensor, num_tokens: int) -> torch.Tensor:
    import torch

    return torch.cat([mask == 0, torch.zeros(len(mask), num_tokens, dtype=torch.bool)], dim=1)
