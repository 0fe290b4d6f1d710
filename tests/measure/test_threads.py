"""Threads and a limit of latency in the sweep: each arm runs where it is best, and never where it is too slow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from compressbench.core.protocols import Batch
from compressbench.measure.sweep import SweepRule, Swept, sweep
from compressbench.measure.threads import Threaded, best_of_threads
from compressbench.records.measurement import SweepPoint


@pytest.fixture(autouse=True)
def _threads_as_they_were() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Watcher:
    """A session that notes with how many threads it was called."""

    device = "cpu"

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, batch: Batch) -> int:
        self.seen.append(torch.get_num_threads())
        return 0

    def generate(self, batch: Batch, num_tokens: int, on_token: Any = None) -> int:
        return self(batch)

    def synchronize(self) -> None: ...

    def close(self) -> None: ...


def test_every_arm_runs_with_its_own_threads_whatever_ran_before() -> None:
    inner = Watcher()
    one, two = Threaded(inner, 1), Threaded(inner, 2)
    for session in (one, two, two, one):
        session({})
    one.generate({}, 3)
    assert inner.seen == [1, 2, 2, 1, 1]


def point(arm: Any, size: int, rate: float) -> SweepPoint:
    return SweepPoint(arm=arm, batch_size=size, samples_per_s=rate, num_calls=10)


def test_the_best_threads_are_those_of_the_highest_rate_and_few_where_more_gain_nothing() -> None:
    tried = {
        1: Swept([point("baseline", 4, 100.0), point("candidate", 8, 200.0)], {"baseline": 4, "candidate": 8}),
        2: Swept([point("baseline", 16, 170.0), point("candidate", 4, 201.0)], {"baseline": 16, "candidate": 4}),
    }
    found, threads = best_of_threads(tried)
    assert threads == {"baseline": 2, "candidate": 1}
    assert found.best == {"baseline": 16, "candidate": 8}
    assert [each.num_threads for each in found.points] == [1, 1, 2, 2]


def test_an_arm_that_failed_with_one_number_of_threads_runs_with_another() -> None:
    tried = {1: Swept([], {}), 2: Swept([point("baseline", 1, 10.0)], {"baseline": 1})}
    assert best_of_threads(tried)[1] == {"baseline": 2}


class Clock:
    """A call of a batch of so many takes as many milliseconds as `cost` says."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 1
        return self.now_ns


def test_a_size_above_the_limit_is_measured_and_not_chosen() -> None:
    clock = Clock()

    def call_of(_: Any, size: int) -> Any:
        def call(index: int) -> None:
            clock.now_ns += int((4 + size) * 1e6) + 0 * index  # the larger the batch, the more samples a second

        return call

    found = sweep(["baseline"], call_of, [1, 4, 16, 64], SweepRule(limit_s=0.021), clock)
    assert found.best == {"baseline": 16}
    assert [(each.batch_size, each.is_within_limit) for each in found.points] == [
        (1, True), (4, True), (16, True), (64, False)
    ]  # fmt: skip
    unlimited = sweep(["baseline"], call_of, [1, 4, 16, 64], SweepRule(), clock)
    assert unlimited.best == {"baseline": 64}
    assert {each.is_within_limit for each in unlimited.points} == {None}
    assert sweep(["baseline"], call_of, [1, 4], SweepRule(limit_s=0.001), clock).best == {}
