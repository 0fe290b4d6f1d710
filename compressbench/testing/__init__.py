"""Fakes for tests, ours and those of plug-in authors: clocks, sessions, instruments, hardware counters, tiny models."""

from compressbench.testing.click_models import tiny_click_model
from compressbench.testing.fakes import BrokenInstrument, FakeClock, FakeSession, ReplayInstrument
from compressbench.testing.models import (
    tiny_causal_lm,
    tiny_classifier,
    tiny_encoder,
    tiny_image_classifier,
    tiny_tokenizer,
)
from compressbench.testing.speech_models import tiny_speech_model, tiny_speech_processor

__all__ = [
    "BrokenInstrument",
    "FakeClock",
    "FakeSession",
    "ReplayInstrument",
    "tiny_causal_lm",
    "tiny_classifier",
    "tiny_click_model",
    "tiny_encoder",
    "tiny_image_classifier",
    "tiny_speech_model",
    "tiny_speech_processor",
    "tiny_tokenizer",
]
