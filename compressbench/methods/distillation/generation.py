"""Language models that go on with a text, for methods that learn from what a model writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Batch
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_ENDINGS = ("ForCausalLM", "LMHeadModel")


def check_is_language_model(config: Mapping[str, Any]) -> None:
    """Raise UnsupportedError if the configuration names an architecture that is no causal language model."""
    names = [str(name) for name in config.get("architectures") or ()]
    if names and not any(name.endswith(_ENDINGS) for name in names):
        raise UnsupportedError("this step is for language models only", got=", ".join(names))


def check_positions(config: Mapping[str, Any], prompt_tokens: int, max_new_tokens: int) -> None:
    """Raise UnsupportedError if the configuration says that the model can't read so many tokens at once."""
    _require_positions(config.get("max_position_embeddings", config.get("n_positions")), prompt_tokens, max_new_tokens)


def _require_positions(longest: object, prompt_tokens: int, max_new_tokens: int, where: str = "") -> None:
    if isinstance(longest, int) and prompt_tokens + max_new_tokens > longest:
        raise UnsupportedError(
            f"the model reads at most {longest} tokens at once",
            where=where,
            got=f"prompt_tokens {prompt_tokens} + max_new_tokens {max_new_tokens}",
            do="Lower one of them.",
        )


def require_language_model(handle: ModelHandle) -> None:
    """Raise UnsupportedError if the handle's model is no causal language model."""
    if handle.head != "causal-lm":
        raise UnsupportedError("this step is for language models only", where=handle.source.id, got=handle.head)


def num_known_tokens(handle: ModelHandle) -> int:
    """How many entries of the vocabulary, from the first, the tokenizer knows; a model's may have been padded."""
    return int(max(handle.tokenizer.get_vocab().values())) + 1


@dataclass(frozen=True)
class Writing:
    """How a text is continued: the first `prompt_tokens` of a window, `max_new_tokens` more; greedily for temperature
    None, otherwise drawn from the softmax at that temperature. Only the first `num_tokens` entries of the vocabulary are
    written: `num_known_tokens`.
    """

    prompt_tokens: int
    max_new_tokens: int
    num_tokens: int
    temperature: float | None = None

    def require_positions(self, *models: PreTrainedModel) -> None:
        """Raise UnsupportedError if one of the models can't read so many tokens at once."""
        for model in models:
            longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
            _require_positions(longest, self.prompt_tokens, self.max_new_tokens, where=type(model).__name__)

    def prompt(self, batch: Batch) -> torch.Tensor:
        """The beginnings of the windows (batch x prompt_tokens). Raises UnsupportedError if there is padding in them."""
        ids, mask = batch["input_ids"], batch.get("attention_mask")
        prompt = ids[:, : self.prompt_tokens]
        if prompt.shape[1] < self.prompt_tokens or (mask is not None and not mask[:, : self.prompt_tokens].all()):
            raise UnsupportedError(
                f"a training window has fewer than {self.prompt_tokens} tokens",
                got=f"{ids.shape[1]} with padding",
                do="Lower prompt_tokens, or raise the task's window.",
            )
        return prompt  # type: ignore[no-any-return]

    def continued(self, model: PreTrainedModel, batch: Batch) -> dict[str, torch.Tensor]:
        """The prompts of `batch` with what `model` writes after them, ready to train on.

        input_ids, attention_mask and labels are (batch x (prompt_tokens + max_new_tokens)). Labels are -100 but for new
        tokens up to the first end of text, which is one of them; what stands after it means nothing. The model is in
        eval mode and without gradients meanwhile, and is drawn from with the process's random state.
        """
        import torch

        prompt = self.prompt(batch)
        with torch.no_grad(), _in_eval_mode(model):
            new = self._write(model, prompt)
        ends = torch.isin(new, torch.tensor(end_tokens(model), device=new.device, dtype=new.dtype))
        is_after_end = ends.long().cumsum(dim=1) - ends.long() > 0
        ids = torch.cat([prompt, new], dim=1)
        labels = torch.cat([torch.full_like(prompt, -100), new.masked_fill(is_after_end, -100)], dim=1)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    def _write(self, model: PreTrainedModel, prompt: torch.Tensor) -> torch.Tensor:
        """batch x max_new_tokens. A model without a key-value cache reads the whole text for every token."""
        import torch

        text, cache, unread = prompt, None, prompt
        for _ in range(self.max_new_tokens):
            mask = torch.ones_like(text)
            output = model(input_ids=unread, attention_mask=mask, past_key_values=cache, use_cache=True)
            token = self._choose(output.logits[:, -1, : self.num_tokens].float())
            text, cache = torch.cat([text, token], dim=1), getattr(output, "past_key_values", None)
            unread = text if cache is None else token
        return text[:, prompt.shape[1] :]

    def _choose(self, logits: torch.Tensor) -> torch.Tensor:
        """batch x 1 token ids from logits (batch x vocabulary)."""
        import torch

        if self.temperature is None:
            return logits.argmax(dim=-1, keepdim=True)
        return torch.multinomial((logits / self.temperature).softmax(dim=-1), 1)


def end_tokens(model: PreTrainedModel) -> list[int]:
    """The ids after which a text is over; none if the model has no such token."""
    found = getattr(model.generation_config, "eos_token_id", None)
    found = model.config.get_text_config().eos_token_id if found is None else found
    if found is None:
        return []
    return [int(each) for each in found] if isinstance(found, list | tuple) else [int(found)]


@contextmanager
def _in_eval_mode(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout for as long as the block lasts."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
