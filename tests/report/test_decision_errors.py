"""Made-up runs whose truth is known: how often a decision is wrong where it is hardest to be right.

Seeded, so that a test passes or fails for ever; benchmarks/decision_coverage.py asks the same of many more runs.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
import simulated_runs as sim
from scipy import stats
from simulated_runs import STEADY, Truth, World

from compressbench.report.gate import gate
from compressbench.report.goals import Goal, goals_of
from compressbench.report.policy import Policy, names_needed
from compressbench.report.ranks import ranks_by
from compressbench.report.recommend import recommend

NUM_RUNS = 200
QUICK = STEADY._replace(num_rounds=3, num_calls=6)


def most_at(rate: float, num_runs: int = NUM_RUNS) -> int:
    """More wrong answers than this come once in a thousand times from a procedure that is wrong at this rate."""
    return int(stats.binom.ppf(0.999, num_runs, rate))


def goal(figure: str, word: str, value: float) -> Goal:
    [found], wrong = goals_of(figure, {word: value})
    assert not wrong
    return found


def outcomes(asked: Goal, truth: Truth, world: World, num_runs: int = NUM_RUNS) -> Counter[str]:
    policy = Policy(goals=(asked,))
    found: Counter[str] = Counter()
    for seed in range(num_runs):
        catalog = sim.catalog({"int8": truth}, seed, world)
        found[gate(catalog, catalog.contenders(names_needed(policy)), policy).outcome] += 1
    return found


@pytest.mark.parametrize(
    ("asked", "truth", "world"),
    [
        (goal("accuracy", "max-degradation", 0.01), Truth(lost=0.03, won=0.02), QUICK),
        (goal("accuracy", "mlperf", 99), Truth(lost=0.0193, won=0.01), QUICK),
        (goal("latency", "percent-min-improvement", 20), Truth(times=0.8), QUICK),
        (goal("throughput", "threshold", sim.mean_rate(sim.DRIFTING)), Truth(), sim.DRIFTING),
    ],
    ids=lambda each: each.asked if isinstance(each, Goal) else "",
)
def test_what_lies_exactly_at_a_limit_passes_and_fails_once_in_forty(asked: Goal, truth: Truth, world: World) -> None:
    found = outcomes(asked, truth, world)
    assert found["passed"] <= most_at(0.025)
    assert found["failed"] <= most_at(0.025)


def test_what_is_clearly_within_or_beyond_is_told_apart() -> None:
    asked = goal("accuracy", "max-degradation", 0.02)
    assert outcomes(asked, Truth(lost=0.01, won=0.01), QUICK, 40)["passed"] == 40
    assert outcomes(asked, Truth(lost=0.06, won=0.01), QUICK, 40)["failed"] == 40


def test_no_more_than_one_deployment_in_twenty_is_truly_beyond_its_limit() -> None:
    policy = Policy(goals=(goal("accuracy", "max-degradation", 0.01),), objective="latency")
    wrong = slower = deployed = 0
    for seed in range(NUM_RUNS):
        rng = random.Random(seed)
        truths = {
            f"c{at}": Truth(times=rng.uniform(0.6, 1.1), lost=0.01 + rng.uniform(0, 0.02), won=0.01) for at in range(3)
        }
        catalog = sim.catalog(truths, seed, QUICK)
        found = recommend(catalog, catalog.contenders(names_needed(policy)), policy).deploy
        if found is not None and not found.contender.is_baseline:
            truth = truths[found.contender.candidate]
            deployed += 1
            wrong += truth.loss > 0.01
            slower += truth.times >= 1
    assert deployed > NUM_RUNS / 20
    assert wrong <= NUM_RUNS / 20
    assert slower <= most_at(0.025)


def test_rank_intervals_hold_the_true_ranks() -> None:
    # the baseline comes first among the rows, and is the slowest
    times = [1.0, *(0.8 + 0.004 * at for at in range(4))]
    missed = ranked = 0
    for seed in range(40):
        catalog = sim.catalog({f"c{at}": Truth(times=each) for at, each in enumerate(times[1:])}, seed)
        found = ranks_by(catalog.contenders(["latency_p50_s"]), "latency_p50_s").ranks
        placed = [(time, *rank.interval) for time, rank in zip(times, found, strict=True) if rank.interval is not None]
        missed += not all(low <= 1 + sum(other < time for other, _, _ in placed) <= high for time, low, high in placed)
        ranked += len(placed)
    assert ranked > 100
    assert missed <= most_at(0.05, 40)
