"""Calls on a clock that is set by hand: every stamp is known, and faults of a session are seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from compressbench.core.errors import CellError
from compressbench.core.generation_times import time_per_output_token_s, time_to_first_token_s
from compressbench.core.protocols import Batch
from compressbench.measure import calls
from compressbench.measure.calls import CallDetails, caller
from compressbench.testing import FakeClock, FakeSession

INPUTS: list[Batch] = [{"input_ids": torch.full((2, 5), index)} for index in range(3)]


class Generating(FakeSession):
    """Token i of any call takes steps_s[i]; the device is busy for another `after_s`, and every input is noted.

    A call gives `missing` tokens fewer than asked, and says so `silent` times too seldom.
    """

    def __init__(self, clock: FakeClock, steps_s: Sequence[float], after_s: float = 0.0) -> None:
        super().__init__(clock, [0.0])
        self.clock, self.steps_s, self.after_s, self.seen = clock, steps_s, after_s, list[int]()
        self.missing = self.silent = self.lost = 0

    def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> Any:
        ids = batch["input_ids"]
        self.seen.append(int(ids[0, 0]))
        for index in range(num_tokens - self.missing):
            self.clock.advance(self.steps_s[index])
            if on_token is not None and index >= self.silent:
                on_token()
        made = torch.arange(num_tokens - self.missing).expand(len(ids), -1)
        return torch.cat([ids, made], dim=1)[self.lost :]

    def synchronize(self) -> None:
        self.clock.advance(self.after_s)


def test_a_generation_is_stamped_at_every_token() -> None:
    clock = FakeClock()
    call = caller(Generating(clock, [0.020, 0.003, 0.003, 0.006], after_s=0.001), INPUTS, 4, clock)
    before = clock()
    call(0)
    call(1)
    assert clock() - before == 2 * 33_000_000
    found = call.take()
    assert found.first_token_ns == (20_000_000, 20_000_000)
    assert found.token_gaps_ns == (3_000_000, 3_000_000, 6_000_000) * 2
    assert found.num_tokens == (4, 4)
    assert time_to_first_token_s(found.first_token_ns) == [0.020, 0.020]
    assert time_per_output_token_s(found.num_tokens, found.token_gaps_ns) == pytest.approx([0.004, 0.004])


def test_what_is_taken_is_gone() -> None:
    clock = FakeClock()
    call = caller(Generating(clock, [0.01, 0.02]), INPUTS, 2, clock)
    call(0)
    assert len(call.take().num_tokens) == 1
    assert call.take() == CallDetails()
    call(1)
    assert call.take().token_gaps_ns == (20_000_000,)


def test_a_single_token_has_no_gaps() -> None:
    clock = FakeClock()
    call = caller(Generating(clock, [0.01]), INPUTS, 1, clock)
    call(0)
    found = call.take()
    assert (found.first_token_ns, found.token_gaps_ns, found.num_tokens) == ((10_000_000,), (), (1,))


@pytest.mark.parametrize("output_tokens", [None, 2])
def test_inputs_come_round_and_round(output_tokens: int | None) -> None:
    clock, seen = FakeClock(), list[int]()

    class Listening(Generating):
        def __call__(self, batch: Batch) -> Any:
            seen.append(int(batch["input_ids"][0, 0]))

    session = Listening(clock, [0.01, 0.01])
    call = caller(session, INPUTS, output_tokens, clock)
    for index in range(7):
        call(index)
    assert (seen or session.seen) == [0, 1, 2, 0, 1, 2, 0]


def test_a_forward_pass_has_no_details_and_reads_no_clock() -> None:
    def no_clock() -> int:
        raise AssertionError("a forward pass is timed by the loop")

    clock = FakeClock()
    session = FakeSession(clock, [0.010])
    call = caller(session, INPUTS, None, no_clock)
    before = clock()
    for index in range(4):
        call(index)
    assert (session.num_calls, clock() - before) == (4, 40_000_000)
    assert call.take() == CallDetails((), (), (), None)


@pytest.mark.parametrize("output_tokens", [None, 2])
def test_a_call_returns_when_the_device_is_done(output_tokens: int | None) -> None:
    done = list[str]()

    class Noting(Generating):
        def __call__(self, batch: Batch) -> Any:
            done.append("asked")

        def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> Any:
            done.append("asked")
            return super().generate(batch, num_tokens, on_token)

        def synchronize(self) -> None:
            done.append("synchronized")

    clock = FakeClock()
    caller(Noting(clock, [0.01, 0.01]), INPUTS, output_tokens, clock)(0)
    assert done == ["asked", "synchronized"]


@pytest.mark.parametrize(("missing", "got"), [(1, "2 tokens"), (3, "0 tokens"), (-1, "4 tokens")])
def test_a_generation_of_another_length_is_an_error_that_says_both_lengths(missing: int, got: str) -> None:
    clock = FakeClock()
    session = Generating(clock, [0.01] * 4)
    session.missing = missing
    with pytest.raises(CellError, match=f"must give 3 tokens .*{got}.*minimum of new tokens"):
        caller(session, INPUTS, 3, clock)(0)


def test_a_sequence_of_the_batch_that_is_lost_is_an_error() -> None:
    clock = FakeClock()
    session = Generating(clock, [0.01] * 3)
    session.lost = 1
    with pytest.raises(CellError, match="1 of 2 sequences"):
        caller(session, INPUTS, 3, clock)(0)


def test_sequences_of_lists_are_counted_by_the_shortest() -> None:
    clock = FakeClock()

    class Lists(Generating):
        def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> Any:
            ids = super().generate(batch, num_tokens, on_token).tolist()
            return [ids[0], ids[1][: len(ids[1]) - self.silent]]

    session = Lists(clock, [0.01] * 3)
    call = caller(session, INPUTS, 3, clock)
    call(0)
    assert call.take().num_tokens == (3,)
    session.silent = 1
    with pytest.raises(CellError, match="2 tokens, 2 of 2"):
        call(0)


@pytest.mark.parametrize("silent", [1, 3])
def test_a_runtime_that_does_not_stream_every_token_is_an_error(silent: int) -> None:
    clock = FakeClock()
    session = Generating(clock, [0.01] * 3)
    session.silent = silent
    with pytest.raises(CellError, match=f"when each token is there.*{3 - silent} times for 3 tokens.*on_token"):
        caller(session, INPUTS, 3, clock)(0)


def test_the_share_of_prefill_is_of_cpu_time_over_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU time runs at half the speed of the wall before a first token, and at its speed after."""
    clock, cpu = FakeClock(), FakeClock()

    class Computing(Generating):
        def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> Any:
            def also() -> None:
                assert on_token is not None
                cpu.advance(0.010 if self.num_tokens == 0 else 0.004)
                self.num_tokens += 1
                on_token()

            self.num_tokens = 0
            return super().generate(batch, num_tokens, also)

        def synchronize(self) -> None:
            cpu.advance(0.002)

    monkeypatch.setattr(calls, "_process_cpu_ns", cpu)
    call = caller(Computing(clock, [0.020, 0.004, 0.004]), INPUTS, 3, clock)
    call(0)
    call(1)
    assert call.take().prefill_cpu_share == pytest.approx(10 / (10 + 4 + 4 + 2))


def test_a_cpu_clock_that_stands_still_gives_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr(calls, "_process_cpu_ns", FakeClock())
    call = caller(Generating(clock, [0.01, 0.01]), INPUTS, 2, clock)
    call(0)
    assert call.take().prefill_cpu_share is None


class Keeping:
    """Notes what it is handed, and when."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, Any]] = []
        self.settled: list[tuple[int, Any] | None] = []

    def __call__(self, slot: int, output: Any) -> None:
        self.kept.append((slot, output))

    def settle(self, last: tuple[int, Any] | None) -> None:
        self.settled.append(last)


def test_outputs_are_handed_over_under_their_inputs_and_settled_after_the_block() -> None:
    clock, keep = FakeClock(), Keeping()
    call = caller(FakeSession(clock, [0.01]), INPUTS, None, clock, keep)
    for index in range(4):
        call(index)
    assert keep.settled == []
    assert [slot for slot, _ in keep.kept] == [0, 1, 2, 0]
    assert [output is INPUTS[slot] for slot, output in keep.kept] == [True] * 4
    call.take()
    assert keep.settled == [keep.kept[-1]]
    call.take()
    assert keep.settled[1:] == [None], "a block without calls has no last output"


def test_generated_ids_are_handed_over() -> None:
    clock, keep = FakeClock(), Keeping()
    call = caller(Generating(clock, [0.01, 0.01]), INPUTS, 2, clock, keep)
    call(4)
    call.take()
    assert [(slot, output.tolist()) for slot, output in keep.kept] == [(1, [[1] * 5 + [0, 1]] * 2)]


def test_no_output_is_held_while_the_next_one_is_made() -> None:
    alive, most = 0, 0

    class Output:
        def __init__(self) -> None:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    class Making(FakeSession):
        def __call__(self, batch: Batch) -> Any:
            return Output()

    class TooLarge(Keeping):
        def __call__(self, slot: int, output: Any) -> None:
            """Takes none."""

    call = caller(Making(FakeClock(), [0.0]), INPUTS, None, keep=TooLarge())
    for index in range(5):
        call(index)
    assert (alive, most) == (1, 1)
