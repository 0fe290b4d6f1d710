"""A model on a fake GPU in simulated time: its calls draw the power that they are told to."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from compressbench.core.protocols import Batch
from compressbench.testing.fakes import FakeClock, FakeSession
from compressbench.testing.nvml import FakeNvml


class Times(NamedTuple):
    """Seconds to the first token, and of every other one."""

    prefill_s: float
    token_s: float


class Watts(NamedTuple):
    """Power of prefill and of decode."""

    prefill_w: float
    decode_w: float


class OnFakeGpu(FakeSession):
    """A generation whose prefill draws another power than its decoding; each step takes up to 5 % more or less.

    `clock` is that of `nvml`, and `joules` of first token and rest are exact.
    """

    def __init__(self, nvml: FakeNvml, clock: FakeClock, times: Times, watts: Watts, seed: int = 3) -> None:
        super().__init__(clock, [0.0])
        self._nvml, self._times, self._watts, self._draw = nvml, times, watts, random.Random(seed)  # noqa: S311 -- a fake

    def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> Any:
        self._nvml.set_power(self._watts.prefill_w)
        for index in range(num_tokens):
            seconds = self._times.token_s if index else self._times.prefill_s
            self._clock.advance(seconds * self._draw.uniform(0.95, 1.05))
            self._nvml.set_power(self._watts.decode_w)
            if on_token is not None:
                on_token()
        return [[*row, *[0] * num_tokens] for row in batch["input_ids"]]

    def joules(self, prefill_s: float, decode_s: float) -> float:
        """Of so many seconds in the two phases."""
        return self._watts.prefill_w * prefill_s + self._watts.decode_w * decode_s
