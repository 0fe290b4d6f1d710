from __future__ import annotations

import pytest

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Clock, Instrument, Session
from compressbench.testing import (
    BrokenInstrument,
    FakeClock,
    FakeSession,
    ReplayInstrument,
    tiny_causal_lm,
    tiny_classifier,
    tiny_tokenizer,
)


def test_the_fake_clock_stands_still_until_it_is_set() -> None:
    clock = FakeClock(start_ns=5)
    as_clock: Clock = clock
    assert (as_clock(), as_clock()) == (5, 5)
    clock.advance(1.5)
    assert clock() == 1_500_000_005


def test_a_fake_session_takes_as_long_as_it_is_told() -> None:
    clock = FakeClock(start_ns=0)
    session = FakeSession(clock, [0.1, 0.2])
    as_session: Session = session
    assert as_session({"x": 1}) == {"x": 1}
    session({})
    stamps: list[int] = []
    grown = session.generate({"input_ids": [[7, 8], [9, 9]]}, 3, lambda: stamps.append(clock()))
    assert grown == [[7, 8, 0, 0, 0], [9, 9, 0, 0, 0]]
    assert stamps == [400_000_000, 600_000_000, 700_000_000]
    assert session.num_calls == 5
    growing = FakeSession(clock, lambda call: float(call))
    for _ in range(4):
        growing({})
    assert clock() == 700_000_000 + 6_000_000_000
    session.synchronize()
    session.close()
    assert session.device == "cpu"


def test_an_instrument_replays_its_windows_and_raises_what_it_was_given() -> None:
    instrument = ReplayInstrument([{"energy_j": 1.0}, "counter reset", MeterError("lost")])
    as_instrument: Instrument = instrument
    assert as_instrument.provenances["energy_j"].kind == "measured"
    for _ in range(2):  # round and round
        instrument.start()
        instrument.stop()
        instrument.stop()
        with pytest.raises(MeterError, match="lost"):
            instrument.stop()
        first, second = instrument.collect()
        assert (dict(first.values), first.reason) == ({"energy_j": 1.0}, "")
        assert (dict(second.values), second.reason) == ({}, "counter reset")
        assert instrument.collect() == []
    instrument.close()
    assert instrument.calls == ["start", "stop", "stop", "stop", "collect", "collect"] * 2 + ["close"]


def test_a_broken_instrument_works_until_it_breaks_and_stays_broken() -> None:
    instrument = BrokenInstrument(2, {"energy_j": 3.0})
    for _ in range(2):
        instrument.stop()
    assert [dict(window.values) for window in instrument.collect()] == [{"energy_j": 3.0}] * 2
    for _ in range(20):
        with pytest.raises(MeterError, match="unplugged"):
            instrument.stop()


def test_tiny_models_are_made_from_their_seed() -> None:
    for make in (tiny_classifier, tiny_causal_lm):
        one, same, other = (make(num_layers=1, seed=seed).model.state_dict() for seed in (0, 0, 1))
        assert all(bool((tensor == same[name]).all()) for name, tensor in one.items())
        assert not all(bool((tensor == other[name]).all()) for name, tensor in one.items())
    assert tiny_causal_lm(num_layers=4).config["num_hidden_layers"] == 4
    assert tiny_classifier(num_labels=7).model.config.num_labels == 7


def test_the_tiny_tokenizer_knows_nineteen_words() -> None:
    tokenizer = tiny_tokenizer()
    assert len(tokenizer) == 19 == tiny_causal_lm(num_layers=1).model.config.vocab_size
    assert tokenizer("the cat flew")["input_ids"] == [2, 4, 6, 1, 3]
    assert tokenizer.pad_token_id == 0
