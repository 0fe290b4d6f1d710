"""What a search for the highest rate must find, and how it shares out its time before it begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from compressbench.core.protocols import Clock
from compressbench.core.quantiles import smallest_count_for_bound
from compressbench.core.statistics import quantile_type_8
from compressbench.measure.arrivals import arrivals_ns, unit_arrivals
from compressbench.measure.queue_bound import IdealServer, Judge
from compressbench.measure.rate_search import first_from_above, highest_where, replayed
from compressbench.records.measurement import Arm

# the lowest load that is worth a trial: queries hardly ever meet there, so what isn't kept is due to single calls
FLOOR_LOAD = 0.05
_LOW_LOAD, _TOP_LOAD = 0.2, 0.99
# what the search of one arm in one round takes
_NUM_TRIALS = 5
# calls one after the other before each round: this share of the budget in all, but no more seconds at a time than these
_SERVICE_SHARE, _MAX_SERVICE_S, _MIN_SERVICE_CALLS = 0.05, 2.0, 5
# a trial has at most so many times the queries that the quantile needs: it ends earlier then than the budget allows
_ENOUGH = 10
_LEAST_QUERIES = 200


class ServerRule(NamedTuple):
    """What must be kept, and for how long and how finely the highest rate that keeps it is looked for.

    `budget_s` is for all arms together. `rounds` are run as far as they fit; each has its own arrivals.
    """

    quantile: float
    limit_s: float
    rounds: int = 3
    budget_s: float = 300.0
    resolution: float = 0.02
    seed: int = 0

    @property
    def limit_ns(self) -> int:
        return round(self.limit_s * 1e9)

    @property
    def needed(self) -> int:
        """The least number of queries of a trial, as MLPerf's LoadGen with one of them above the limit: 662 for p99.

        No fewer than 200, because how queries cluster is judged from 20 batches of them.
        """
        return max(_LEAST_QUERIES, smallest_count_for_bound(self.quantile, 1))

    @property
    def name(self) -> str:
        return f"p{100 * self.quantile:g}"


class SearchPlan(NamedTuple):
    """How many rounds there are, and of how many queries every trial; or why there are none."""

    num_rounds: int = 0
    num_queries: int = 0
    reason: str = ""


def time_services(calls: Mapping[Arm, Callable[[int], None]], rule: ServerRule, clock: Clock) -> dict[Arm, list[int]]:
    """Nanoseconds of calls one after the other, without a queue; arms in mirrored order."""
    arms = list(calls)
    each_s = min(_MAX_SERVICE_S, _SERVICE_SHARE * rule.budget_s / len(arms) / rule.rounds) / 2
    found: dict[Arm, list[int]] = {arm: [] for arm in arms}
    for arm in (*arms, *reversed(arms)):
        found[arm] += closed_loop(calls[arm], each_s, _MIN_SERVICE_CALLS, clock)
    return found


def closed_loop(call: Callable[[int], None], min_s: float, min_calls: int, clock: Clock) -> list[int]:
    """Nanoseconds of call(0), call(1), ... until they are enough and have taken long enough."""
    durations: list[int] = []
    begun = clock()
    while len(durations) < min_calls or clock() - begun < min_s * 1e9:
        before = clock()
        call(len(durations))
        durations.append(clock() - before)
    return durations


def hopeless(services_ns: Mapping[Arm, Sequence[int]], rule: ServerRule) -> dict[Arm, str]:
    """Arms that need longer than the limit even for a query that nobody stands before, and how much longer."""
    reasons: dict[Arm, str] = {}
    for arm, services in services_ns.items():
        alone_ns = quantile_type_8(sorted(services), rule.quantile)
        if alone_ns > rule.limit_ns:
            reasons[arm] = (
                f"no rate can be kept: {rule.name} of {len(services)} calls one after the other is already "
                f"{alone_ns / 1e9:.4g} s, above the limit of {rule.limit_s:g} s"
            )
    return reasons


def plan_search(
    services_ns: Mapping[Arm, Sequence[int]], rule: ServerRule, left_s: float, num_simulated: int
) -> SearchPlan:
    """Rounds and queries that fit into `left_s`, with at least the queries that the quantile needs in every trial.

    Where not all rounds fit, fewer are run: a trial with too few queries shows nothing at all.
    """
    least, per_query_s = _least(services_ns, rule, num_simulated)
    for num_rounds in range(rule.rounds, 0, -1):
        count = int(left_s / (_NUM_TRIALS * num_rounds * per_query_s))
        if count >= least:
            return SearchPlan(num_rounds, min(count, _ENOUGH * rule.needed))
    wanted_s = _NUM_TRIALS * per_query_s * least
    return SearchPlan(
        reason=f"{rule.name} needs {least} queries in every trial here, about {wanted_s:.0f} s for a search, and "
        f"{left_s:.0f} s of the budget are left: give it more, or state a lower quantile"
    )


def _least(services_ns: Mapping[Arm, Sequence[int]], rule: ServerRule, num_simulated: int) -> tuple[int, float]:
    """The least queries of a trial, and the seconds that one of them takes in all arms together.

    As many as the quantile needs, or more where they cluster so that fewer would show nothing of any rate.
    """
    count = rule.needed
    while True:
        judge = Judge(unit_arrivals(count, rule.seed), rule.quantile, rule.limit_ns, IdealServer(count, num_simulated))
        found = [guess_rate(services, judge, 0.05) for services in services_ns.values()]
        if None not in found or 2 * count > _ENOUGH * rule.needed:
            rates = [rate or low_rate(services) for rate, services in zip(found, services_ns.values(), strict=True)]
            return count, sum(1 / rate for rate in rates)
        count *= 2


def low_rate(services_ns: Sequence[int]) -> float:
    """Where to begin if nobody knows better."""
    return _LOW_LOAD * capacity_per_s(services_ns)


def capacity_per_s(services_ns: Sequence[int]) -> float:
    """What the worker could answer if queries stood in line."""
    return 1e9 * len(services_ns) / sum(services_ns)


def guess_rate(services_ns: Sequence[int], judge: Judge, resolution: float) -> float | None:
    """The highest rate that a replay of measured services keeps, on the arrivals of the round; None if it keeps none."""
    count = len(judge.unit)
    services = [services_ns[index % len(services_ns)] for index in range(count)]

    def replay(rate: float) -> list[int]:
        return replayed(arrivals_ns(judge.unit, rate), services)

    def has_few_late(rate: float) -> bool:
        return sum(latency > judge.limit_ns for latency in replay(rate)) <= count * (1 - judge.quantile)

    capacity = capacity_per_s(services_ns)
    low, high = FLOOR_LOAD * capacity, _TOP_LOAD * capacity
    by_luck = highest_where(has_few_late, low, high, 0.05) or low
    # the luck of one pattern may be bad
    high = min(high, 1.2 * by_luck)
    return first_from_above(lambda rate: judge.is_within(replay(rate), services, rate), low, high, resolution)
