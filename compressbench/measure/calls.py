"""One call of a session as it is timed: a forward pass, or a generation with a clock stamp at each of its tokens."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from compressbench.core.errors import CellError
from compressbench.core.protocols import Batch, Clock, Session

_process_cpu_ns = time.process_time_ns


class _GivenUpError(Exception):
    """A generation has lasted long enough."""


class CallDetails(NamedTuple):
    """What a block's calls were made of; empty for forward passes. The columns of records.measurement.Block.

    `prefill_cpu_share` is the CPU time of this process until the first tokens over that of the whole calls; None if the
    clock of CPU time saw none. It splits an estimate that follows CPU time, and says nothing of a GPU's energy.
    """

    first_token_ns: tuple[int, ...] = ()
    token_gaps_ns: tuple[int, ...] = ()
    num_tokens: tuple[int, ...] = ()
    prefill_cpu_share: float | None = None


class Keep(Protocol):
    """Takes over what calls answered, such as measure.outputs.KeptAnswers."""

    def __call__(self, slot: int, output: Any) -> None:
        """Inside the timed call: may take a reference to `output`, and computes nothing."""
        ...

    def settle(self, last: tuple[int, Any] | None) -> None:
        """After a block, outside of all clocks and meters; `last` is the last call's input and output."""
        ...


class Caller(Protocol):
    """Runs calls of one arm. Warm up with a caller of its own, so that only timed calls are stamped and kept."""

    def __call__(self, index: int) -> None:
        """The call for input index % num_inputs; returns when the device is done.

        Raises CellError if a generation gave another number of tokens than it was asked for.
        """
        ...

    def take(self) -> CallDetails:
        """What the calls since the last `take` were made of. Call it after a block, when its meters have stopped."""
        ...


class Untimed(Caller, Protocol):
    """A caller that can also work for no number's sake."""

    def until(self, index: int, is_over: Callable[[], bool]) -> int | None:
        """The same call untimed, and given up at the first token at which `is_over`; nothing of it is kept.

        Nanoseconds to the first token of a generation.
        """
        ...


def caller(
    session: Session,
    inputs: list[Batch],
    output_tokens: int | None,
    clock: Clock = time.perf_counter_ns,
    keep: Keep | None = None,
) -> Untimed:
    """Forward passes of `session` over the inputs, round and round, or generations if there are `output_tokens`."""
    if output_tokens is None:
        return _Forward(session, inputs, keep)
    return _Generation(session, inputs, output_tokens, clock, keep)


def time_calls(call: Callable[[int], None], counter: Iterator[int], count: int, clock: Clock) -> tuple[int, ...]:
    """Nanoseconds of each of `count` calls. Nothing but the call stands between two readings of the clock."""
    latencies = [0] * count
    for position in range(count):
        index = next(counter)
        before = clock()
        call(index)
        latencies[position] = clock() - before
    return tuple(latencies)


class _Forward:
    def __init__(self, session: Session, inputs: list[Batch], keep: Keep | None) -> None:
        self._session, self._inputs, self._num_inputs = session, inputs, len(inputs)
        self._keep = keep
        self._last: tuple[int, Any] | None = None

    def __call__(self, index: int) -> None:
        slot = index % self._num_inputs
        if self._keep is None:
            self._session(self._inputs[slot])
            self._session.synchronize()
            return
        self._last = None  # before the next one is made: two outputs at once could be more than there is room for
        output = self._session(self._inputs[slot])
        self._session.synchronize()
        self._last = (slot, output)
        self._keep(slot, output)

    def until(self, index: int, is_over: Callable[[], bool]) -> None:
        self._session(self._inputs[index % self._num_inputs])
        self._session.synchronize()

    def take(self) -> CallDetails:
        if self._keep is not None:
            last, self._last = self._last, None
            self._keep.settle(last)
        return CallDetails()


class _Generation:
    def __init__(
        self, session: Session, inputs: list[Batch], output_tokens: int, clock: Clock, keep: Keep | None
    ) -> None:
        self._session, self._inputs, self._output_tokens = session, inputs, output_tokens
        self._clock, self._keep = clock, keep
        self._prompts = [len(batch["input_ids"][0]) for batch in inputs]
        self._clear()

    def _clear(self) -> None:
        self._first: list[int] = []
        self._gaps: list[int] = []
        self._counts: list[int] = []
        self._prefill_cpu_ns = self._cpu_ns = 0

    def __call__(self, index: int) -> None:
        slot, clock, cpu_clock = index % len(self._inputs), self._clock, _process_cpu_ns
        stamps: list[int] = []
        cpu_at_first = 0

        def on_token() -> None:
            nonlocal cpu_at_first
            stamps.append(clock())
            if len(stamps) == 1:
                cpu_at_first = cpu_clock()

        began, cpu_before = clock(), cpu_clock()
        output = self._session.generate(self._inputs[slot], self._output_tokens, on_token)
        self._session.synchronize()
        cpu_after = cpu_clock()
        self._counts.append(self._counted(output, slot, len(stamps)))
        self._first.append(stamps[0] - began)
        self._gaps.extend(later - earlier for earlier, later in itertools.pairwise(stamps))
        self._prefill_cpu_ns += cpu_at_first - cpu_before
        self._cpu_ns += cpu_after - cpu_before
        if self._keep is not None:
            self._keep(slot, output)

    def until(self, index: int, is_over: Callable[[], bool]) -> int:
        began, first = self._clock(), list[int]()

        def on_token() -> None:
            if not first:
                first.append(self._clock() - began)
            if is_over():
                raise _GivenUpError

        with contextlib.suppress(_GivenUpError):
            self._session.generate(self._inputs[index % len(self._inputs)], self._output_tokens, on_token)
        self._session.synchronize()
        return first[0]

    def _counted(self, output: Any, slot: int, num_stamps: int) -> int:
        """Tokens per sequence that are really there, by the output itself and by the stamps."""
        length = output.shape[-1] if hasattr(output, "shape") else min(map(len, output))
        produced = int(length) - self._prompts[slot]
        if produced != self._output_tokens or len(output) != len(self._inputs[slot]["input_ids"]):
            raise CellError(
                f"a generation must give {self._output_tokens} tokens for each sequence",
                got=f"{produced} tokens, {len(output)} of {len(self._inputs[slot]['input_ids'])} sequences",
                do="Shorter outputs only look faster: the runtime's minimum of new tokens must be its maximum.",
            )
        if num_stamps != produced:
            raise CellError(
                "the runtime must say when each token is there, once per position",
                got=f"{num_stamps} times for {produced} tokens",
                do="Call on_token in Session.generate as core/protocols.py says.",
            )
        return produced

    def take(self) -> CallDetails:
        if self._keep is not None:
            self._keep.settle(None)
        share = min(1.0, self._prefill_cpu_ns / self._cpu_ns) if self._cpu_ns > 0 else None
        found = CallDetails(tuple(self._first), tuple(self._gaps), tuple(self._counts), share)
        self._clear()
        return found
