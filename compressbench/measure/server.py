"""The server scenario: the highest rate of random arrivals at which a stated quantile of latency stays within a limit.

A rate is kept if the one-sided 99 % upper bound of the quantile is within the limit and the worker is busy less than all of
the time. Too few queries for a bound is a rate that was not kept: what is found is what was demonstrated, with trials of
this length. Arms take turns trial by trial, on the same arrivals and inputs; each round has arrivals of its own.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from compressbench.core.garbage import no_garbage_collection
from compressbench.core.progress import Progress, SilentProgress
from compressbench.core.protocols import Clock
from compressbench.core.statistics import quantile_type_8
from compressbench.measure.arrivals import arrivals_ns, unit_arrivals
from compressbench.measure.calls import Caller
from compressbench.measure.open_loop import GiveUp, Served, WaitUntil, serve, sleep_then_spin
from compressbench.measure.queue_bound import IdealServer, Judge
from compressbench.measure.rate_search import RateSearch
from compressbench.measure.server_rule import (
    FLOOR_LOAD,
    SearchPlan,
    ServerRule,
    capacity_per_s,
    closed_loop,
    guess_rate,
    hopeless,
    low_rate,
    plan_search,
    time_services,
)
from compressbench.records.measurement import Arm, RateTrial, Server

__all__ = ["ServerRule", "ServerTools", "find_highest_rate"]

# before every trial, because the other arm has had the caches
_WARM_S, _MIN_WARM_CALLS = 0.05, 1
# the first step of a search, in resolutions
_FIRST_STEP = 2
# a rate to begin at may be computed less exactly than a rate is judged
_ROUGHLY = 10


class ServerTools(NamedTuple):
    """The clock, how to wait for a moment of it, and how many queries of an ideal server are simulated."""

    clock: Clock = time.perf_counter_ns
    wait_until: WaitUntil = sleep_then_spin(time.perf_counter_ns, time.sleep)
    num_simulated: int = 2_000_000


def find_highest_rate(
    calls: Mapping[Arm, Caller],
    rule: ServerRule,
    progress: Progress | None = None,
    tools: ServerTools | None = None,
) -> Server:
    """Search every arm's highest rate, trial by trial in turn. The arms are warm.

    A limit that no rate keeps, and a budget that is too short, are results with their reason by arm, not errors.
    """
    search = _Search(calls, rule, tools or ServerTools())
    search.prepare()
    with (progress or SilentProgress()).bar("search the highest rate", max(1, search.plan.num_rounds)) as bar:
        while search.num_finished < search.plan.num_rounds and search.run_round():
            bar.advance()
    return search.as_record()


@dataclass
class _Search:
    """Rounds are independent: each times the services anew and begins where they say, on arrivals of its own.

    Were a round to begin where the one before ended, it would mostly end there, too: on a noisy machine five such rounds
    agree better with each other than with the truth, and an arm differs from itself in a third of comparisons.
    """

    calls: Mapping[Arm, Caller]
    rule: ServerRule
    tools: ServerTools
    plan: SearchPlan = field(default_factory=SearchPlan)
    num_finished: int = 0
    trials: list[RateTrial] = field(default_factory=list)
    reasons: dict[Arm, str] = field(default_factory=dict)
    _services: dict[Arm, list[int]] = field(default_factory=dict)
    _turn: int = 0

    def __post_init__(self) -> None:
        self._deadline_ns = self.tools.clock() + round(self.rule.budget_s * 1e9)
        self._all_services: dict[Arm, list[int]] = {arm: [] for arm in self.calls}

    def prepare(self) -> None:
        """Time the services, and from them plan the rounds."""
        self._time_services()
        self.reasons.update(hopeless(self._services, self.rule))
        going = {arm: self._services[arm] for arm in self._going()}
        if not going:
            return
        left_s = (self._deadline_ns - self.tools.clock()) / 1e9
        self.plan = plan_search(going, self.rule, left_s, self.tools.num_simulated // _ROUGHLY)
        if self.plan.reason:
            self.reasons.update(dict.fromkeys(going, self.plan.reason))
        self._ideal, self._rough = (
            IdealServer(max(1, self.plan.num_queries), size)
            for size in (self.tools.num_simulated, self.tools.num_simulated // _ROUGHLY)
        )

    def _going(self) -> list[Arm]:
        return [arm for arm in self.calls if arm not in self.reasons]

    def _time_services(self) -> None:
        self._services = time_services({arm: self.calls[arm] for arm in self._going()}, self.rule, self.tools.clock)
        for arm, services in self._services.items():
            self.calls[arm].take()
            self._all_services[arm] += services

    def run_round(self) -> bool:
        """One search of every arm; False if the budget or all hope ended before it did."""
        gc.collect()
        if self.num_finished > 0:
            self._time_services()
        unit = unit_arrivals(self.plan.num_queries, self.rule.seed + self.num_finished)
        judge = Judge(unit, self.rule.quantile, self.rule.limit_ns, self._ideal)
        searches = {arm: self._search(arm, judge) for arm in self._going()}
        while any(search.next_rate is not None for search in searches.values()):
            for arm in self._order(searches):
                rate = searches[arm].next_rate
                if rate is None:
                    continue
                if self._has_no_time_for(rate):
                    self._give_reasons(searches)
                    return False
                trial = self._try(arm, rate, judge)
                self.trials.append(trial)
                searches[arm].tell(trial.is_kept)
        self._end_hopeless(searches)
        self.num_finished += 1
        return bool(self._going())

    def _search(self, arm: Arm, judge: Judge) -> RateSearch:
        services, resolution = self._services[arm], self.rule.resolution
        rough = replace(judge, ideal=self._rough)
        guess = guess_rate(services, rough, resolution) or low_rate(services)
        return RateSearch(guess, FLOOR_LOAD * capacity_per_s(services), resolution, (1 + resolution) ** _FIRST_STEP)

    def _order(self, searches: Mapping[Arm, RateSearch]) -> list[Arm]:
        """A B, B A, A B, ..., so that a drift meets all arms alike."""
        self._turn += 1
        return list(searches) if self._turn % 2 else list(reversed(list(searches)))

    def _has_no_time_for(self, rate: float) -> bool:
        return self.tools.clock() + self.plan.num_queries / rate * 1e9 > self._deadline_ns

    def _give_reasons(self, searches: Mapping[Arm, RateSearch]) -> None:
        for arm, search in searches.items():
            if search.next_rate is not None:
                self.reasons[arm] = (
                    f"the budget of {self.rule.budget_s:g} s ended in round {self.num_finished + 1} of "
                    f"{self.plan.num_rounds} before the highest rate was enclosed"
                )

    def _end_hopeless(self, searches: Mapping[Arm, RateSearch]) -> None:
        for arm, search in searches.items():
            if search.is_hopeless:
                self.reasons[arm] = (
                    f"no rate was kept, down to {search.floor:.4g} per second, {100 * FLOOR_LOAD:.0f} % of what the worker "
                    f"can answer: {self._last_reason(arm)}"
                )

    def _last_reason(self, arm: Arm) -> str:
        return next(trial.reason for trial in reversed(self.trials) if trial.arm == arm)

    def _try(self, arm: Arm, rate: float, judge: Judge) -> RateTrial:
        call, tools = self.calls[arm], self.tools
        give_up = GiveUp(self.rule.limit_ns, judge.max_over(rate, 1e9 / capacity_per_s(self._services[arm])))
        closed_loop(call, _WARM_S, _MIN_WARM_CALLS, tools.clock)
        call.take()
        with no_garbage_collection():
            served = serve(call, arrivals_ns(judge.unit, rate), tools.clock, tools.wait_until, give_up)
        first = call.take().first_token_ns
        bound_ns, reason = self._judged(served, rate, judge)
        return RateTrial(
            arm=arm,
            round=self.num_finished,
            rate_per_s=rate,
            num_queries=self.plan.num_queries,
            latencies_ns=served.latencies_ns,
            quantile_bound_s=None if bound_ns is None else bound_ns / 1e9,
            is_kept=not reason,
            reason=reason,
            load=_load(served, rate),
            lateness_p99_s=_lateness_p99_s(served),
            first_token_ns=tuple(wait + each for wait, each in zip(served.waits_ns, first, strict=True))
            if first
            else (),
        )

    def _judged(self, served: Served, rate: float, judge: Judge) -> tuple[float | None, str]:
        """The bound, and why the rate isn't kept; an empty reason if it is."""
        count, limit_ns, load = len(served.latencies_ns), self.rule.limit_ns, _load(served, rate)
        if count < self.plan.num_queries:
            num_over = sum(latency > limit_ns for latency in served.latencies_ns)
            return None, f"given up after {count} of {self.plan.num_queries} queries: {num_over} were above the limit"
        if load >= 1:
            return None, f"the queue has no end: the worker would have to be busy {100 * load:.1f} % of the time"
        bound = judge.bound(served.latencies_ns, served.services_ns, rate)
        if bound.bound_ns is None:
            return None, bound.reason
        if bound.bound_ns > limit_ns:
            return bound.bound_ns, f"{self.rule.name} may be as high as {bound.bound_ns / 1e9:.4g} s (99 % bound)"
        return bound.bound_ns, ""

    def as_record(self) -> Server:
        rule = self.rule
        return Server(
            quantile=rule.quantile,
            limit_s=rule.limit_s,
            seed=rule.seed,
            resolution=rule.resolution,
            num_rounds=self.num_finished,
            capacity_per_s={arm: capacity_per_s(services) for arm, services in self._all_services.items()},
            reasons=self.reasons,
            trials=tuple(self.trials),
        )


def _load(served: Served, rate: float) -> float:
    """The share of time that the worker is busy at this rate."""
    return rate * sum(served.services_ns) / len(served.services_ns) / 1e9


def _lateness_p99_s(served: Served) -> float | None:
    return quantile_type_8(sorted(served.lateness_ns), 0.99) / 1e9 if served.lateness_ns else None
