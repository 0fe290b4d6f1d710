"""How long and in which order the arms of a comparison run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from compressbench.measure.steady_state import WarmUpRule
from compressbench.recipe.schema import Workload
from compressbench.records.measurement import Arm, Tier

ARMS: tuple[Arm, ...] = ("baseline", "candidate", "control")
_HALVES: tuple[tuple[Arm, ...], ...] = (
    ("baseline", "candidate", "control"),
    ("candidate", "control", "baseline"),
    ("control", "baseline", "candidate"),
)


# calls beside timed blocks in which a meter is read: the arms' order, and how many of its shortest windows in a generation
ORDER: tuple[Arm, ...] = ("baseline", "candidate", "candidate", "baseline")
NUM_WINDOWS = 5
# how long it takes, before and after a block together, to see the meter move: so many of its ticks
_TICKS_OF_LEADS = 2.3


class TierRule(NamedTuple):
    """What a tier means: rounds of six blocks, two per arm, and `idle_s` of reading nothing before and after.

    Disturbed rounds are repeated, up to `extra` as a share of the rounds, so that a comparison ends all the same. `audit`
    has the 600 s per arm of MLPerf's single stream.
    """

    rounds: int
    block_s: float
    warm_up: WarmUpRule
    idle_s: float
    extra: float = 0.5


TIERS: dict[Tier, TierRule] = {
    "smoke": TierRule(6, 0.25, WarmUpRule(min_s=0.5, max_s=3.0), 0.25, extra=1 / 6),
    "standard": TierRule(20, 0.75, WarmUpRule(min_s=1.0, max_s=8.0), 5.0),
    "audit": TierRule(100, 3.0, WarmUpRule(min_s=3.0, max_s=60.0), 30.0),
}


class Schedule(NamedTuple):
    """`rounds` of six blocks, each of about `block_s` seconds; disturbed ones are repeated, as far as the tier allows."""

    rounds: int
    block_s: float
    output_tokens: int | None = None
    warm_up: WarmUpRule = WarmUpRule()
    tier: Tier = "smoke"
    idle_s: float = 0.0

    @classmethod
    def of(cls, workload: Workload) -> Schedule:
        rule = TIERS[workload.tier]
        rounds, block_s = workload.rounds or rule.rounds, workload.block_s or rule.block_s
        # a comparison that is shorter than its tier's doesn't warm up longer than it measures
        least, measured_s = 2 * rule.warm_up.min_s, 2 * rounds * block_s
        return cls(
            rounds=rounds,
            block_s=block_s,
            output_tokens=workload.output_tokens,
            warm_up=rule.warm_up._replace(max_s=min(rule.warm_up.max_s, max(least, 2 * measured_s))),
            tier=workload.tier,
            idle_s=rule.idle_s,
        )

    @property
    def max_extra_rounds(self) -> int:
        return int(self.rounds * TIERS[self.tier].extra)

    @property
    def seconds(self) -> float:
        """About how long one comparison takes, if no round has to be repeated."""
        warm_up_s = (len(ARMS) - 1) * self.warm_up.min_s
        return self.rounds * 2 * len(ARMS) * self.block_s + warm_up_s + 2 * self.idle_s

    def beside_s(self, min_window_s: float, tick_s: float) -> float:
        """Seconds of untimed calls beside the blocks, for a meter of that tick that must not be read within them."""
        if not tick_s:
            return 0.0
        pairs = num_pairs(min_window_s, self.block_s, is_generation=self.output_tokens is not None)
        return self.rounds * 2 * len(ARMS) * _TICKS_OF_LEADS * tick_s + pairs * len(ORDER) * self.block_s

    def announcement(self, min_window_s: float, num_cells: int, lead_tick_s: float = 0.0) -> str:
        """One line that says how long measuring will take, before it starts; evaluation and compression come on top.

        `min_window_s` is what the slowest meter asks of a block, `lead_tick_s` the tick of one that wants a lead.
        """
        real = self._replace(block_s=max(self.block_s, min_window_s), idle_s=max(self.idle_s, min_window_s))
        per_arm_s, beside_s = 2 * real.rounds * real.block_s, real.beside_s(min_window_s, lead_tick_s)
        beside = " with untimed calls beside them" if beside_s else ""
        seconds = real.seconds + beside_s
        return (
            f"tier {self.tier}: {real.rounds} rounds of 6 blocks of {real.block_s:.3g} s{beside}, "
            f"{per_arm_s:.3g} s per arm; "
            f"measuring takes about {duration(seconds)} for each of {num_cells} models, "
            f"{duration(num_cells * seconds)} in all"
        )


def num_pairs(min_window_s: float, block_s: float, *, is_generation: bool) -> int:
    """How often all of `ORDER` is read within, beside the timed blocks."""
    return math.ceil((NUM_WINDOWS if is_generation else 1) * min_window_s / (2 * block_s))


def order_of(round_number: int) -> tuple[Arm, ...]:
    """A B C C B A, B C A A C B, C A B B A C, and again: mirrored, so that a linear drift meets all arms alike."""
    half = _HALVES[round_number % len(_HALVES)]
    return (*half, *reversed(half))


def positions(round_number: int) -> Iterator[tuple[int, Arm]]:
    yield from enumerate(order_of(round_number))


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
