"""Fakes for tests, ours and those of plug-in authors: a clock that is set by hand, a session that takes as long as it is
told, an instrument that replays, and models small enough to make on the spot.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Batch, Provenance

if TYPE_CHECKING:
    from compressbench.models.handle import ModelHandle

_WORDS = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "a", "cat", "dog", "sat", "ran", "on", "mat", "home", "good", "bad",
    "very", "not", "is", "was",
)  # fmt: skip


class FakeClock:
    """Monotonic nanoseconds that stand still until something advances them."""

    def __init__(self, start_ns: int = 1_000_000_000) -> None:
        self.now_ns = start_ns

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


class FakeSession:
    """A session whose n-th call takes durations_s[n] (round and round), or what a function of n says."""

    device = "cpu"

    def __init__(self, clock: FakeClock, durations_s: Sequence[float] | Callable[[int], float]) -> None:
        self._clock, self._durations, self.num_calls = clock, durations_s, 0

    def __call__(self, batch: Batch) -> Any:
        given = self._durations
        seconds = given(self.num_calls) if callable(given) else given[self.num_calls % len(given)]
        self._clock.advance(seconds)
        self.num_calls += 1
        return batch

    def generate(self, batch: Batch, num_tokens: int) -> Any:
        return self(batch)

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        pass


class ReplayInstrument:
    """An instrument that gives the windows it was made with, one after the other; an exception is raised in its place."""

    min_window_s = 0.0

    def __init__(self, windows: Iterable[dict[str, float] | Exception], kind: Any = "measured") -> None:
        self._windows = itertools.cycle(windows)
        self.provenance = Provenance(kind=kind, source="replayed", relative_uncertainty=0.0)
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> dict[str, float]:
        self.calls.append("stop")
        window = next(self._windows)
        if isinstance(window, Exception):
            raise window
        return window

    def close(self) -> None:
        self.calls.append("close")


class BrokenInstrument(ReplayInstrument):
    """Fails with a MeterError in its n-th window (from 0) and in all after it."""

    def __init__(self, after: int, window: dict[str, float]) -> None:
        super().__init__([*[window] * after, *[MeterError("the instrument was unplugged")] * 10_000])


def tiny_tokenizer() -> Any:
    """A word-level tokenizer of 19 words with [CLS] and [SEP] around a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(_WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=64, **special)


def tiny_classifier(num_labels: int = 3, num_layers: int = 2, seed: int = 0) -> ModelHandle:
    """A randomly initialised BERT classifier (hidden size 64) in a handle."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(_WORDS), hidden_size=64, num_hidden_layers=num_layers, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=64, num_labels=num_labels,
    )  # fmt: skip
    return _handle(BertForSequenceClassification(config).eval(), "sequence-classification")


def tiny_causal_lm(num_layers: int = 3, tied: bool = True, seed: int = 0) -> ModelHandle:
    """A randomly initialised Llama (hidden size 64, grouped-query attention) in a handle."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(_WORDS), hidden_size=64, intermediate_size=128, num_hidden_layers=num_layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied,
        bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    return _handle(LlamaForCausalLM(config).eval(), "causal-lm")


def _handle(model: Any, head: str) -> ModelHandle:
    from compressbench.models.handle import ModelHandle
    from compressbench.records.record import ModelSource

    architecture = type(model).__name__
    source = ModelSource(id="testing:tiny", revision="random", architecture=architecture, dtype="float32")
    return ModelHandle(model, tiny_tokenizer(), source, head, "float32")
