"""What a model of speech writes: its prompt, and the one place that asks for transcripts."""

from __future__ import annotations

from collections.abc import Sequence

from compressbench.core.errors import ModelError
from compressbench.core.protocols import Batch
from compressbench.models.handle import ModelHandle


def write(handle: ModelHandle, features: Batch, prompt: Sequence[int], max_new_tokens: int) -> list[list[int]]:
    """Transcripts as token ids, without prompts and ends. Asks the model itself, and not its session."""
    from compressbench.models.transcribing import transcribe

    return transcribe(handle.model, features, prompt, max_new_tokens)


def prompt_of(handle: ModelHandle, language: str | None) -> list[int]:
    """What stands before a transcript: what the tokenizer puts before a text in this language, or else the decoder's
    start token. Raises ModelError for a language that the tokenizer doesn't know, and for none where it knows many.
    """
    tokenizer, config = handle.tokenizer.tokenizer, handle.model.generation_config
    if language is not None:
        _set_language(handle, language)
    elif getattr(config, "is_multilingual", False):
        raise ModelError(
            "a model of many languages must be told which one it hears",
            where=handle.source.id,
            do="Set the task's language.",
        )
    return list(getattr(tokenizer, "prefix_tokens", ())) or [int(config.decoder_start_token_id)]


def _set_language(handle: ModelHandle, language: str) -> None:
    tokenizer = handle.tokenizer.tokenizer
    if not hasattr(tokenizer, "set_prefix_tokens"):
        raise ModelError("the model has one language and no name for it", where=handle.source.id, got=repr(language))
    try:
        tokenizer.set_prefix_tokens(language=language, task="transcribe", predict_timestamps=False)
        is_known = None not in tokenizer.prefix_tokens
    except ValueError:
        is_known = False
    if not is_known:
        raise ModelError("the tokenizer doesn't know this language", where=handle.source.id, got=repr(language))


def require_length(handle: ModelHandle, num_tokens: int, do: str) -> None:
    """Raise ModelError if the decoder can't hold so many tokens."""
    longest = getattr(handle.model.config, "max_target_positions", None)
    if longest is not None and num_tokens > longest:
        raise ModelError(
            f"the model's decoder holds at most {longest} tokens, its prompt included",
            where=handle.source.id,
            got=f"{num_tokens} tokens",
            do=do,
        )
