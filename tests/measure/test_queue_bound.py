"""Bounds of a queue's quantile, against queues whose latencies have a known distribution."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from queue_parts import exponential, highest_load_md1, highest_rate_mm1, served_one_by_one, share_late_md1
from scipy import stats

from compressbench.core.quantiles import summarize_quantile
from compressbench.measure.arrivals import arrivals_ns, unit_arrivals
from compressbench.measure.queue_bound import IdealServer, Judge, waited
from compressbench.measure.rate_search import replayed

MS = 1_000_000


def trial(unit: list[float], rate: float, services: list[int]) -> tuple[list[int], list[int], float]:
    return replayed(arrivals_ns(unit, rate), services), services, rate


def test_latencies_without_a_loop_are_those_of_one_event_after_the_other() -> None:
    for seed, rate in enumerate((20.0, 95.0, 300.0)):
        arrivals, draw = arrivals_ns(unit_arrivals(300, seed), rate), exponential(10 * MS, seed)
        services = [draw(0) for _ in range(300)]
        found = waited(np.array(arrivals, dtype=float), np.array(services, dtype=float))
        assert found.tolist() == served_one_by_one(arrivals, services)


@pytest.mark.parametrize(("load", "level"), [(0.3, 1.0), (0.3, 3.0), (0.7, 1.5), (0.7, 4.0), (0.8, 8.25)])
def test_the_ideal_server_is_late_as_often_as_queueing_theory_says(load: float, level: float) -> None:
    found, variance = IdealServer(10_000, 2_000_000).late(load, level)
    # a trial begins with an empty queue and has a fixed number of arrivals, which is felt by less than 2 %
    assert found == pytest.approx(share_late_md1(load, level), abs=5 * math.sqrt(variance) + 0.02 * found)
    assert 0 < math.sqrt(variance) < 0.05 * found


def test_the_ideal_servers_share_is_the_mean_over_patterns_of_arrivals() -> None:
    """And its variance is that of the mean: many short simulations scatter as much as they say."""
    seeds = range(60)
    shares, variances = zip(*(IdealServer(500, 25_000, seed).late(0.6, 4.0) for seed in seeds), strict=True)
    ratio = np.var(shares, ddof=1) / np.mean(variances)
    low, high = stats.chi2.ppf([0.001, 0.999], len(seeds) - 1) / (len(seeds) - 1)
    assert low < ratio < high


def test_a_server_without_noise_is_judged_alike_on_every_pattern_of_arrivals() -> None:
    """Where counting depends on luck: the share above the limit differs several times over between patterns."""
    ideal, services, counted = IdealServer(1000, 500_000), [MS] * 1000, list[float]()
    for seed in range(20):
        judge = Judge(unit_arrivals(1000, seed), 0.99, 10 * MS, ideal)
        assert judge.is_within(*trial(list(judge.unit), 680.0, services))
        assert not judge.is_within(*trial(list(judge.unit), 740.0, services))
        latencies, _, _ = trial(list(judge.unit), 740.0, services)
        counted.append(sum(latency > 10 * MS for latency in latencies) / 1000)
    assert min(counted) == 0
    assert max(counted) > 0.02
    assert 0.74 < highest_load_md1(10.0, 0.01) < 0.78


Draw = Callable[[random.Random], float]


def accepted(draw: Draw, rate: float, quantile: float, num_trials: int) -> tuple[int, int]:
    """Of trials of 1,000 queries at a rate: how many are within 10 ms, and how many a count of independent ones takes."""
    ideal, num_accepted, num_naive = IdealServer(1000, 100_000), 0, 0
    allowed = int(stats.binom.ppf(0.01, 1000, 1 - quantile)) - 1
    for seed in range(num_trials):
        generator = random.Random(10_000 + seed)
        services = [round(draw(generator) * MS) for _ in range(1000)]
        judge = Judge(unit_arrivals(1000, seed), quantile, 10 * MS, ideal)
        latencies, _, _ = tried = trial(list(judge.unit), rate, services)
        num_accepted += judge.is_within(*tried)
        num_naive += sum(latency > 10 * MS for latency in latencies) <= allowed
    return num_accepted, num_naive


def test_exponential_services_at_just_the_rate_where_the_quantile_is_the_limit_are_hardly_ever_accepted() -> None:
    rate = highest_rate_mm1(1000.0, 0.010, 0.1)
    num_accepted, num_naive = accepted(lambda draw: draw.expovariate(1), rate, 0.9, 150)
    # 1 % is what is said; 7 of 150 would be seen in 1 of 1,000 cases
    assert num_accepted <= stats.binom.isf(0.001, 150, 0.01)
    assert num_naive > 30


def test_services_with_little_noise_are_not_accepted_above_their_rate_but_soon_below_it() -> None:
    sigma = 0.1
    noisy: Draw = lambda draw: draw.lognormvariate(-sigma * sigma / 2, sigma)  # noqa: E731
    rate = 1000 * highest_load_md1(10.0, 0.01)
    assert accepted(noisy, 1.01 * rate, 0.99, 40)[0] <= 1
    assert accepted(noisy, 0.85 * rate, 0.99, 40)[0] >= 30


def plain_bounds(rate: float) -> list[float | None]:
    patterns = (unit_arrivals(1000, seed) for seed in range(20))
    return [summarize_quantile(trial(unit, rate, [MS] * 1000)[0], 0.99).upper_bound for unit in patterns]


def test_what_is_won_over_bounds_that_know_nothing_of_the_arrivals() -> None:
    """They need some 18,000 queries where 1,000 do: of 20 trials at 88 % of the highest rate they accept none."""
    bounds = plain_bounds(680.0)
    assert sum(bound is not None and bound <= 10 * MS for bound in bounds) <= 1


def test_with_nothing_in_common_with_the_ideal_server_late_queries_are_counted() -> None:
    """Queries that come one by one and services that differ: late are those of long service, whatever the arrivals."""
    ideal, unit = IdealServer(2000, 100_000), unit_arrivals(2000, 0)
    for num_late in (5, 10, 30):
        services = [MS] * 2000
        for index in random.Random(num_late).sample(range(2000), num_late):
            services[index] = 20 * MS
        judge = Judge(unit, 0.99, 10 * MS, ideal)
        # at most 9 of 2,000 independent ones: P(Binomial(2000, 0.01) <= 9) = 0.5 %
        assert judge.is_within(*trial(unit, 0.5, services)) == (num_late < 10)


def test_the_bound_is_within_the_limit_just_where_the_trial_is_accepted() -> None:
    ideal, seen = IdealServer(1000, 100_000), set[tuple[bool, bool]]()
    for seed in range(25):
        unit, draw = unit_arrivals(1000, seed), random.Random(seed)
        services = [round(MS * draw.lognormvariate(0, 0.2)) for _ in range(1000)]
        judge = Judge(unit, 0.95, 8 * MS, ideal)
        for rate in (300.0, 600.0, 680.0, 740.0, 900.0):
            tried = trial(unit, rate, services)
            bound, is_within = judge.bound(*tried), judge.is_within(*tried)
            assert (bound.bound_ns is not None and bound.bound_ns <= 8 * MS) == is_within
            assert (bound.bound_ns is None) == bool(bound.reason)
            assert bound.bound_ns is None or bound.bound_ns in {*tried[0], 8 * MS}
            assert bound.bound_ns is None or bound.bound_ns >= np.quantile(tried[0], 0.9)
            assert 0 < bound.num_effective <= 1000
            seen.add((is_within, bound.bound_ns is None))
    assert seen == {(True, False), (False, False), (False, True)}


def test_the_bound_is_the_smallest_of_the_latencies_that_is_shown() -> None:
    ideal, unit = IdealServer(1000, 100_000), unit_arrivals(1000, 0)
    for seed in range(5):
        draw = random.Random(seed)
        services = [round(MS * draw.lognormvariate(0, 0.3)) for _ in range(1000)]
        tried = trial(unit, 500.0, services)
        for limit in (2 * MS, 20 * MS):
            found = Judge(unit, 0.9, limit, ideal).bound(*tried).bound_ns
            assert found is not None
            assert (found <= limit) == (limit == 20 * MS)
            before = max(latency for latency in tried[0] if latency < found)
            assert Judge(unit, 0.9, int(found), ideal).is_within(*tried)
            assert not Judge(unit, 0.9, before, ideal).is_within(*tried)


def test_a_trial_that_is_short_against_the_memory_of_the_queue_shows_nothing() -> None:
    """At a load of 95 % it remembers 1 / 2 / 0.05^2 = 200 queries of constant services: 60 times these are 12,000."""
    unit = unit_arrivals(2000, 0)
    judge = Judge(unit, 0.5, 1000 * MS, IdealServer(2000, 100_000))
    assert not judge.is_within(*trial(unit, 950.0, [MS] * 2000))
    found = judge.bound(*trial(unit, 950.0, [MS] * 2000))
    assert found.bound_ns is None
    assert (
        "too few at a load of 95 %, where the queue remembers the last 200: a trial needs 60 times those"
        in found.reason
    )
    # 60 x 1 / 2 / 0.13^2 = 1,775
    assert judge.is_within(*trial(unit, 870.0, [MS] * 2000))


def test_too_few_queries_give_no_bound_but_the_number_that_is_needed() -> None:
    unit = unit_arrivals(300, 0)
    found = Judge(unit, 0.99, 10 * MS, IdealServer(300, 50_000)).bound(*trial(unit, 300.0, [MS] * 300))
    assert found.bound_ns is None
    assert found.num_effective == 300
    assert (
        "300 queries say as much as 300 independent ones, too few for a bound of p99: it needs about 459"
        in found.reason
    )


def test_clusters_of_late_queries_make_more_queries_needed() -> None:
    unit, services = unit_arrivals(2000, 0), [MS] * 2000
    for start in (300, 900, 1500):
        services[start : start + 60] = [6 * MS] * 60
    found = Judge(unit, 0.99, 1000 * MS, IdealServer(2000, 50_000)).bound(*trial(unit, 100.0, services))
    assert found.bound_ns is None
    assert found.num_effective < 459
    assert "too few for a bound of p99" in found.reason


@pytest.mark.parametrize("seed", range(6))
def test_a_trial_that_would_be_accepted_is_never_given_up(seed: int) -> None:
    """Also where the service times turn out 10 % longer or shorter than was thought."""
    ideal, num_accepted = IdealServer(1000, 100_000), 0
    unit, draw = unit_arrivals(1000, seed), random.Random(seed)
    judge = Judge(unit, 0.95, 8 * MS, ideal)
    for mean in (0.9, 1.0, 1.1):
        services = [round(MS * mean * draw.lognormvariate(0, 0.2)) for _ in range(1000)]
        for rate in (500.0, 600.0, 650.0, 700.0, 750.0):
            latencies, _, _ = tried = trial(unit, rate, services)
            num_over = sum(latency > 8 * MS for latency in latencies)
            if judge.is_within(*tried):
                num_accepted += 1
                assert num_over <= judge.max_over(rate, MS)
    assert num_accepted > 3


def test_a_trial_that_can_not_keep_up_is_given_up_early() -> None:
    unit = unit_arrivals(2000, 1)
    judge = Judge(unit, 0.99, 10 * MS, IdealServer(2000, 100_000))
    latencies, _, _ = trial(unit, 1300.0, [MS] * 2000)
    over = [index for index, latency in enumerate(latencies) if latency > 10 * MS]
    assert over[judge.max_over(1300.0, MS)] < 500
