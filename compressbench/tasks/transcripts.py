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
    if language is not None:
        return _in_language(handle, language)
    config = handle.model.generation_config
    if getattr(config, "is_multilingual", False):
        raise ModelError(
            "a model of many languages must be told which one it hears",
            where=handle.source.id,
            do="Set the task's language.",
        )
    return list(getattr(handle.tokenizer.tokenizer, "prefix_tokens", ())) or [int(config.decoder_start_token_id)]


def _in_language(handle: ModelHandle, language: str) -> list[int]:
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    tokenizer = handle.tokenizer.tokenizer
    if not hasattr(tokenizer, "set_prefix_tokens"):
        raise ModelError("the model has one language and no name for it", where=handle.source.id, got=repr(language))
    code = TO_LANGUAGE_CODE.get(language.lower(), language.lower())
    before = tokenizer.language, tokenizer.task, tokenizer.predict_timestamps
    tokenizer.language, tokenizer.task, tokenizer.predict_timestamps = code, "transcribe", False
    try:
        found = list(tokenizer.prefix_tokens)
        # it counts from the first language, and ends up at another token where the vocabulary hasn't all of them
        is_known = tokenizer.convert_ids_to_tokens(found)[1] == f"<|{code}|>"
    except ValueError:
        is_known = False
    finally:
        tokenizer.language, tokenizer.task, tokenizer.predict_timestamps = before
    if not is_known:
        raise ModelError("the tokenizer doesn't know this language", where=handle.source.id, got=repr(language))
    return found


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
