"""Word errors of a transcript, counted by jiwer, and the texts that are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from compressbench.core.errors import MissingDependencyError, ModelError

Normalizer = Literal["none", "basic", "whisper-english"]


class WordErrors(NamedTuple):
    """Substituted, deleted and inserted words, and how many words the reference has."""

    num_errors: int
    num_words: int


def require_jiwer() -> None:
    """Raise MissingDependencyError if jiwer isn't installed."""
    _jiwer()


def count_word_errors(reference: str, hypothesis: str) -> WordErrors:
    """The fewest edits of words that turn the reference into the hypothesis; words are what white space separates.

    A reference without words has as many errors as the hypothesis has words.
    """
    if not reference.split():
        return WordErrors(len(hypothesis.split()), 0)
    found = _jiwer().process_words(reference, hypothesis)
    missed = found.substitutions + found.deletions
    return WordErrors(missed + found.insertions, found.hits + missed)


def normalizer_of(name: Normalizer, tokenizer: Any) -> Callable[[str], str]:
    """What is done to both texts before they are compared.

    `basic` and `whisper-english` are those of Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision"
    (2022), appendix C; the English one needs the spellings that a Whisper tokenizer brings. Raises ModelError without them.
    """
    if name == "none":
        return _single_spaces
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    if name == "basic":
        basic: Callable[[str], str] = BasicTextNormalizer()
        return basic
    spellings = getattr(tokenizer, "english_spelling_normalizer", None)
    if not spellings:
        raise ModelError(
            "the tokenizer has no list of English spellings (normalizer.json)",
            got=type(tokenizer).__name__,
            do="Set the task's normalizer to basic.",
        )
    english: Callable[[str], str] = EnglishTextNormalizer(spellings)
    return english


def _single_spaces(text: str) -> str:
    return " ".join(text.split())


def _jiwer() -> Any:
    try:
        import jiwer
    except ImportError as error:
        raise MissingDependencyError(
            "word errors are counted by jiwer", do='Install it: pip install "compressbench[speech]".'
        ) from error
    return jiwer
