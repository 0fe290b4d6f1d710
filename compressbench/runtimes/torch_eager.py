"""`torch`: PyTorch as it is, without a compiler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from compressbench.core.protocols import Batch, Decoding, Written
from compressbench.core.spec import Spec
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel


class TorchEager(Spec):
    """Eager execution in inference mode."""

    requires: ClassVar[tuple[str, ...]] = ("torch",)

    def prepare(self, handle: ModelHandle, device: str) -> TorchSession:
        return TorchSession(handle.model.to(device).eval(), device, handle.tokenizer)


class TorchSession:
    def __init__(self, model: PreTrainedModel, device: str, tokenizer: Any = None) -> None:
        import torch

        self.device, self._model, self._torch, self._tokenizer = device, model, torch, tokenizer
        self._dtype = model.dtype
        self._is_cuda = device.startswith("cuda")
        self._greedy: GenerationConfig | None = None

    @property
    def module(self) -> PreTrainedModel:
        """The model itself, for a library that calls it."""
        return self._model

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Logits; of an encoder without a head its last hidden states (batch x length x hidden)."""
        with self._torch.inference_mode():
            output = self._model(**self.on_device(batch))
        return output.logits if hasattr(output, "logits") else output.last_hidden_state  # type: ignore[no-any-return]

    def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> torch.Tensor:
        """Greedy with a key-value cache, and nothing else, whatever the model's own generation_config asks for.

        Penalties, forced tokens, beams, sampling and time limits would make an arm do other work than its rival. No
        sequence ends before its last token, which is why tokens that end a text are never chosen.
        """
        model, inputs, config = self._model, self.on_device(batch), self._greedy_config(num_tokens)
        streamer = None if on_token is None else _Streamer(on_token)
        its_own = model.generation_config
        model.generation_config = config  # transformers fills what an explicit one leaves open from this one
        try:
            with self._torch.inference_mode():
                return model.generate(**inputs, generation_config=config, streamer=streamer)  # type: ignore[no-any-return]
        finally:
            model.generation_config = its_own

    def write(self, batch: Batch, decoding: Decoding) -> list[Written]:
        """Texts for left-padded prompts, each up to its own end (`models.writing`)."""
        from compressbench.models.writing import write

        return write(self._model, self._tokenizer, self.on_device(batch), decoding)

    def kv_cache_bytes(self, batch: Batch, num_tokens: int) -> int | None:
        """What the key-value cache holds when the last of `num_tokens` tokens is there (0: after a forward pass); None
        for a model without one.
        """
        from compressbench.models.kv_cache import cache_bytes

        return cache_bytes(self._model, self.on_device(batch), num_tokens)

    def last_logits(
        self, sequences: Sequence[Sequence[int]], num_last: Sequence[int], groups: Sequence[int]
    ) -> Iterable[tuple[Sequence[int], torch.Tensor]] | None:
        from compressbench.models.shared_prefix import can_share_prefix, last_logits

        if not can_share_prefix(self._model):
            return None
        return last_logits(self._model, self.device, sequences, num_last, groups)

    def synchronize(self) -> None:
        if self._is_cuda:
            self._torch.cuda.synchronize(self.device)

    def close(self) -> None:
        """Let go of the model."""
        del self._model

    def on_device(self, batch: Batch) -> dict[str, Any]:
        """The inputs where the model is; floating ones (pixels, audio features) in its type."""
        if not self._is_cuda and not any(tensor.is_floating_point() for tensor in batch.values()):
            return dict(batch)
        return {
            name: tensor.to(self.device, self._dtype if tensor.is_floating_point() else None, non_blocking=True)
            for name, tensor in batch.items()
        }

    def _greedy_config(self, num_tokens: int) -> GenerationConfig:
        if self._greedy is None or self._greedy.max_new_tokens != num_tokens:
            from transformers import GenerationConfig

            its_own = self._model.generation_config
            special = {name: getattr(its_own, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
            self._greedy = GenerationConfig(
                **special, do_sample=False, use_cache=True, min_new_tokens=num_tokens, max_new_tokens=num_tokens
            )
        return self._greedy


class _Streamer:
    """What `generate` hands token ids to, of all sequences of a batch at once, after it has copied them to the host.

    The first it hands over is the prompt. It has the members of transformers' BaseStreamer.
    """

    def __init__(self, on_token: Callable[[], None]) -> None:
        self._on_token, self._is_prompt = on_token, True

    def put(self, value: torch.Tensor) -> None:
        if self._is_prompt:
            self._is_prompt = False
        else:
            self._on_token()

    def end(self) -> None:
        """Nothing is held back."""
