"""What a search for the highest rate must find, and how it shares out its time before it begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
# what a search takes: in its first round from a computed rate, in later ones from the rate of the round before
_FIRST_TRIALS, _LATER_TRIALS = 6, 3
# calls one after the other before the search: this share of the budget, but no more seconds than these
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


@dataclass
class SearchPlan:
    """How many rounds there are, of how many queries in every trial, and where each arm's search begins.

    `services_ns` are calls one after the other, without a queue; `reasons` has the arms that aren't searched at all, and
    `num_simulated` how many queries of an ideal server are.
    """

    services_ns: Mapping[Arm, Sequence[int]]
    reasons: dict[Arm, str]
    num_simulated: int
    num_rounds: int = 0
    num_queries: int = 0
    guesses: dict[Arm, float] = field(default_factory=dict)

    def going(self) -> list[Arm]:
        return [arm for arm in self.services_ns if arm not in self.reasons]

    def service_ns(self, arm: Arm) -> float:
        return sum(self.services_ns[arm]) / len(self.services_ns[arm])

    def capacity_per_s(self, arm: Arm) -> float:
        """What the worker could answer if queries stood in line."""
        return 1e9 / self.service_ns(arm)


def time_services(calls: Mapping[Arm, Callable[[int], None]], rule: ServerRule, clock: Clock) -> dict[Arm, list[int]]:
    """Nanoseconds of calls one after the other, arms in mirrored order."""
    arms = list(calls)
    each_s = min(_MAX_SERVICE_S, _SERVICE_SHARE * rule.budget_s / len(arms)) / 2
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


def plan_search(
    services_ns: Mapping[Arm, Sequence[int]], rule: ServerRule, left_s: float, num_simulated: int
) -> SearchPlan:
    """Rounds and queries that fit into `left_s`, with at least the queries that the quantile needs in every trial.

    Where not all rounds fit, fewer are run: a trial with too few queries shows nothing at all.
    """
    plan = SearchPlan(services_ns, _hopeless(services_ns, rule), num_simulated)
    if not plan.going():
        return plan
    least = _least_queries(plan, rule)
    per_query_s = sum(1 / plan.guesses[arm] for arm in plan.going())
    for num_rounds in range(rule.rounds, 0, -1):
        count = int(left_s / (_num_trials(num_rounds) * per_query_s))
        if count >= least:
            plan.num_rounds, plan.num_queries = num_rounds, min(count, _ENOUGH * rule.needed)
            _guess(plan, rule, plan.num_queries)
            return plan
    wanted_s = _num_trials(1) * per_query_s * least
    reason = (
        f"{rule.name} needs {least} queries in every trial here, about {wanted_s:.0f} s for a search, and {left_s:.0f} s "
        "of the budget are left: give it more, or state a lower quantile"
    )
    plan.reasons.update(dict.fromkeys(plan.going(), reason))
    return plan


def _least_queries(plan: SearchPlan, rule: ServerRule) -> int:
    """As many queries as the quantile needs, or more where they cluster so that fewer would show nothing of any rate."""
    count = rule.needed
    while not _guess(plan, rule, count):
        if 2 * count > _ENOUGH * rule.needed:
            return count
        count *= 2
    return count


def _hopeless(services_ns: Mapping[Arm, Sequence[int]], rule: ServerRule) -> dict[Arm, str]:
    """Arms that need longer than the limit even for a query that nobody stands before."""
    reasons: dict[Arm, str] = {}
    for arm, services in services_ns.items():
        alone_ns = quantile_type_8(sorted(services), rule.quantile)
        if alone_ns > rule.limit_ns:
            reasons[arm] = (
                f"no rate can be kept: {rule.name} of {len(services)} calls one after the other is already "
                f"{alone_ns / 1e9:.4g} s, above the limit of {rule.limit_s:g} s"
            )
    return reasons


def _guess(plan: SearchPlan, rule: ServerRule, num_queries: int) -> bool:
    """Where to begin: the highest rate that a replay of the measured services keeps, to within 5 %.

    False if some arm keeps none in so short a trial; its search then begins at a low rate.
    """
    ideal = IdealServer(num_queries, plan.num_simulated // 10)
    judge = Judge(unit_arrivals(num_queries, rule.seed), rule.quantile, rule.limit_ns, ideal)
    is_found = True
    for arm in plan.going():
        found = _kept_in_replay(plan.services_ns[arm], judge, plan.capacity_per_s(arm))
        plan.guesses[arm] = found or _LOW_LOAD * plan.capacity_per_s(arm)
        is_found = is_found and found is not None
    return is_found


def _kept_in_replay(services_ns: Sequence[int], judge: Judge, capacity: float) -> float | None:
    count = len(judge.unit)
    services = [services_ns[index % len(services_ns)] for index in range(count)]

    def replay(rate: float) -> list[int]:
        return replayed(arrivals_ns(judge.unit, rate), services)

    def has_few_late(rate: float) -> bool:
        return sum(latency > judge.limit_ns for latency in replay(rate)) <= count * (1 - judge.quantile)

    low, high = FLOOR_LOAD * capacity, _TOP_LOAD * capacity
    by_luck = highest_where(has_few_late, low, high, 0.05) or low
    # the luck of one pattern may be bad
    return first_from_above(
        lambda rate: judge.is_within(replay(rate), services, rate), low, min(high, 1.2 * by_luck), 0.05
    )


def _num_trials(num_rounds: int) -> int:
    return _FIRST_TRIALS + _LATER_TRIALS * (num_rounds - 1)
