"""What trials of arrival rates say: the highest rate that an arm keeps, and how two arms' highest rates compare.

A round has one pattern of arrivals for all arms and rates. With the pattern fixed, a lower rate gives no query a longer
latency (Lindley 1952: less work is in the queue at every arrival), so a round's highest kept rate and the lowest one above
it that was not kept enclose the rate where keeping ends, for this pattern and this length of trial. Rounds differ in their
pattern and in what the machine did meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from compressbench.core.statistics import Interval, mean_interval

MIN_ROUNDS = 3


class Trial(Protocol):
    """One rate as it was tried (compressbench.records.measurement.RateTrial)."""

    @property
    def arm(self) -> str: ...
    @property
    def round(self) -> int: ...
    @property
    def rate_per_s(self) -> float: ...
    @property
    def is_kept(self) -> bool: ...


class Bracket(NamedTuple):
    """The highest rate of a round that was kept and the lowest above it that was not; None where there is none."""

    kept: float | None
    not_kept: float | None


class HighestRate(NamedTuple):
    """Queries per second: the lower median of the rounds' highest kept rates, so that half of the rounds kept it.

    `low` was kept in every round and `high` in none; `high` is None if the trials ended before it was found.
    """

    value: float
    low: float
    high: float | None
    num_rounds: int


def of_finished_rounds(trials: Iterable[Trial], num_finished: int) -> list[Trial]:
    """The trials without those of a last round that was broken off; of the first one there is at least something."""
    return [trial for trial in trials if trial.round < max(1, num_finished)]


def brackets(trials: Iterable[Trial], arm: str) -> dict[int, Bracket]:
    """Of one arm, by round.

    A rate counts as kept only if no lower rate of the round was not kept: where a disturbed machine contradicts itself,
    the doubt goes against the server.
    """
    rounds: dict[int, list[Trial]] = {}
    for trial in trials:
        if trial.arm == arm:
            rounds.setdefault(trial.round, []).append(trial)
    return {number: _bracket(tried) for number, tried in sorted(rounds.items())}


def _bracket(tried: list[Trial]) -> Bracket:
    not_kept = min((trial.rate_per_s for trial in tried if not trial.is_kept), default=None)
    kept = [trial.rate_per_s for trial in tried if trial.is_kept and (not_kept is None or trial.rate_per_s < not_kept)]
    return Bracket(max(kept, default=None), not_kept)


def highest_rate(trials: Iterable[Trial], arm: str) -> HighestRate | None:
    """None if there was no trial of the arm, or a round in which it kept no rate."""
    rounds = list(brackets(trials, arm).values())
    kept = sorted(bracket.kept for bracket in rounds if bracket.kept is not None)
    if not rounds or len(kept) < len(rounds):
        return None
    ends = [bracket.not_kept for bracket in rounds if bracket.not_kept is not None]
    high = max(ends) if len(ends) == len(rounds) else None
    return HighestRate(kept[(len(kept) - 1) // 2], kept[0], high, len(rounds))


def rate_ratio(trials: Iterable[Trial], arm: str, baseline: str = "baseline") -> Interval | str:
    """`arm` / baseline of the highest kept rates with its 95 % interval, or the reason why there is none.

    One log ratio per round, of the brackets' middles; Student's interval over rounds, widened at both ends by the mean
    half width of the brackets, which bounds what the resolution of the search can hide. Rounds in which one of the two
    has no bracket can't be used; fewer than three rounds say nothing about what differs from one round to the next.
    """
    every = list(trials)
    ours, theirs = brackets(every, arm), brackets(every, baseline)
    pairs = [(_log(ours[number]), _log(theirs[number])) for number in ours if number in theirs]
    whole = [(mine, other) for mine, other in pairs if mine is not None and other is not None]
    if len(whole) < MIN_ROUNDS:
        return f"a ratio needs {MIN_ROUNDS} rounds in which both keep a rate and fail at another (got {len(whole)})"
    mean = mean_interval([mine.middle - other.middle for mine, other in whole])
    slack = math.fsum(mine.half_width + other.half_width for mine, other in whole) / len(whole)
    return Interval(math.exp(mean.value), math.exp(mean.low - slack), math.exp(mean.high + slack))


class _LogBracket(NamedTuple):
    middle: float
    half_width: float


def _log(bracket: Bracket) -> _LogBracket | None:
    if bracket.kept is None or bracket.not_kept is None:
        return None
    low, high = math.log(bracket.kept), math.log(bracket.not_kept)
    return _LogBracket((low + high) / 2, (high - low) / 2)
