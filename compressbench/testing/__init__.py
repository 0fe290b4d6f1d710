"""Fakes for tests, ours and those of plug-in authors: clocks, sessions, instruments, hardware counters, tiny models."""

from compressbench.testing.fakes import BrokenInstrument, FakeClock, FakeSession, ReplayInstrument
from compressbench.testing.models import tiny_causal_lm, tiny_classifier, tiny_tokenizer

__all__ = [
    "BrokenInstrument",
    "FakeClock",
    "FakeSession",
    "ReplayInstrument",
    "tiny_causal_lm",
    "tiny_classifier",
    "tiny_tokenizer",
]
