"""What a model's own generation_config says, kept from deciding a text that its weights should decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel


def ids_of(given: int | Sequence[int] | None) -> list[int]:
    """Token ids as transformers writes them: none, one, or several."""
    return [] if given is None else [given] if isinstance(given, int) else list(given)


@contextmanager
def only(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """transformers fills what an explicit configuration leaves open from the model's own."""
    its_own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = its_own
