"""Runs whose truth is known: made-up models that are so much slower and lose so many answers, measured with noise."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import record_builder as build

from compressbench.records.measurement import Measurement
from compressbench.records.record import Record
from compressbench.records.score import Score
from compressbench.records.store import Located
from compressbench.report.catalog import Catalog, catalog_of

BASELINE_S = 0.010
BASELINE_ACCURACY = 0.93


class Truth(NamedTuple):
    """What a model is: its time in times the baseline's, and how probably an answer becomes wrong or right."""

    times: float = 1.0
    lost: float = 0.01
    won: float = 0.01

    @property
    def loss(self) -> float:
        return self.lost - self.won


class World(NamedTuple):
    """How it is measured: the spreads (of logarithms) of a round, which all arms share, of a block and of a call."""

    of_round: float = 0.05
    of_block: float = 0.01
    of_call: float = 0.02
    num_samples: int = 3080
    num_rounds: int = 6
    num_calls: int = 20

    def quantile(self, z: float, times: float = 1.0) -> float:
        """Of the durations of all calls, by the quantile of the normal distribution."""
        return times * BASELINE_S * math.exp(z * math.hypot(self.of_round, self.of_block, self.of_call))


STEADY = World(of_round=0.0, num_rounds=4, num_calls=10)
DRIFTING = World(num_samples=100, num_calls=10)


def mean_rate(world: World) -> float:
    """Of the baseline, per second: one over a mean duration, which noise of logarithms makes longer."""
    return 1 / BASELINE_S / math.exp((world.of_round**2 + world.of_block**2 + world.of_call**2) / 2)


def catalog(truths: Mapping[str, Truth], seed: int, world: World = STEADY) -> Catalog:
    """One run of a baseline and these candidates, in memory."""
    records = list(_records(truths, random.Random(seed), world))
    return catalog_of([Located(Path(f"{each.candidate}.json"), each) for each in records])


def _records(truths: Mapping[str, Truth], rng: random.Random, world: World) -> Iterator[Record]:
    said = build.recipe(tuple(truths))
    measured, score = _measured(1.0, rng, world), _baseline_score(world)
    yield _like("baseline").model_copy(update={"recipe": said, "measurement": measured, "scores": (score,)})
    for name, truth in truths.items():
        measured, score = _measured(truth.times, rng, world), _score(truth, rng, world)
        changed = {"recipe": said, "candidate": name, "key": name, "measurement": measured, "scores": (score,)}
        yield _like("int8").model_copy(update=changed)


@lru_cache
def _like(candidate: str) -> Record:
    """Made once: a thousand runs differ in what was measured only."""
    return build.record(candidate)


def _baseline_score(world: World) -> Score:
    return build.accuracy(
        round(BASELINE_ACCURACY * world.num_samples) / world.num_samples, num_samples=world.num_samples
    )


def _score(truth: Truth, rng: random.Random, world: World) -> Score:
    changed = _binomial(world.num_samples, truth.lost + truth.won, rng)
    lost = sum(rng.random() * (truth.lost + truth.won) < truth.lost for _ in range(changed))
    won = changed - lost
    before = _baseline_score(world).value
    assert before is not None
    return build.accuracy_after(lost, won, before=before, num_samples=world.num_samples)


def _binomial(count: int, probability: float, rng: random.Random) -> int:
    """From one success to the next, because few of the samples change; 0 < probability < 1."""
    at, found = -1, -1
    while at < count:
        at += 1 + int(math.log(1 - rng.random()) / math.log1p(-probability))
        found += 1
    return found


def _measured(times: float, rng: random.Random, world: World) -> Measurement:
    shared = [rng.gauss(0, world.of_round) for _ in range(world.num_rounds)]
    arms = [_calls(shared, each, rng, world) for each in (1.0, times, 1.0)]
    return build.interleaved(*arms, rounds=world.num_rounds, calls=world.num_calls)


def _calls(shared: list[float], times: float, rng: random.Random, world: World) -> Callable[[int], float]:
    """An arm has two blocks in a round."""
    found: list[float] = []
    for of_round in shared:
        for _ in range(2):
            block = of_round + rng.gauss(0, world.of_block)
            found += [
                times * BASELINE_S * math.exp(block + rng.gauss(0, world.of_call)) for _ in range(world.num_calls)
            ]
    return found.__getitem__
