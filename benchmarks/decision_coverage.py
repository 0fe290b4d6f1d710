"""How often do `gate` and `recommend` decide wrongly on runs whose truth is known?

    OMP_NUM_THREADS=1 python benchmarks/decision_coverage.py            # about 3 minutes
    OMP_NUM_THREADS=1 python benchmarks/decision_coverage.py 200        # fewer runs

A candidate that truly lies exactly at a limit should pass in at most 2.5 % of runs and fail in at most 2.5 %. A
recommendation is wrong if what it deploys truly lies beyond a limit, or is truly no faster than the baseline.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import simulated_runs as sim  # noqa: E402
from simulated_runs import Truth, World  # noqa: E402

from compressbench.core.errors import MissingMeasurementError  # noqa: E402
from compressbench.report.gate import gate  # noqa: E402
from compressbench.report.goals import Goal, goals_of  # noqa: E402
from compressbench.report.policy import Policy, names_needed  # noqa: E402
from compressbench.report.recommend import recommend  # noqa: E402

Truths = Callable[[int], Mapping[str, Truth]]
SHORT = World(num_rounds=2, num_calls=4)
STEADY = World(of_round=0.0)
DRIFTING = World()
RESTLESS = World(of_block=0.03)


def goal(figure: str, word: str, value: float) -> Goal:
    [found], _ = goals_of(figure, {word: value})
    return found


def gated(asked: Goal, truth: Truth, world: World, num_runs: int) -> str:
    policy = Policy(goals=(asked,))
    found: Counter[str] = Counter()
    for seed in range(num_runs):
        catalog = sim.catalog({"int8": truth}, seed, world)
        found[gate(catalog, catalog.contenders(names_needed(policy)), policy).outcome] += 1
    return f"passed {100 * found['passed'] / num_runs:.1f} %, failed {100 * found['failed'] / num_runs:.1f} %"


def deployed(truths: Truths, goals: tuple[Goal, ...], num_runs: int) -> str:
    policy = Policy(goals=goals, objective="latency")
    found: Counter[str] = Counter()
    for seed in range(num_runs):
        known = truths(seed)
        catalog = sim.catalog(known, seed, STEADY)
        try:
            deploy = recommend(catalog, catalog.contenders(names_needed(policy)), policy).deploy
        except MissingMeasurementError:  # too few calls for a median of anybody
            continue
        if deploy is not None and not deploy.contender.is_baseline:
            truth = known[deploy.contender.candidate]
            found["deployed"] += 1
            found["beyond"] += bool(goals) and truth.loss >= goals[0].value - 1e-12
            found["slower"] += truth.times >= 1
    words = {"deployed": "deployed", "beyond": "beyond the limit", "slower": "no faster"}
    return ", ".join(f"{word} {100 * found[name] / num_runs:.1f} %" for name, word in words.items())


def at_the_limit(num_candidates: int) -> Truths:
    return lambda _: {f"c{at}": Truth(times=0.7, lost=0.02, won=0.01) for at in range(num_candidates)}


def mixed(seed: int) -> Mapping[str, Truth]:
    rng = random.Random(seed)  # noqa: S311 -- a simulation
    return {f"c{at}": Truth(times=rng.uniform(0.6, 1.1), lost=rng.uniform(0.01, 0.03), won=0.01) for at in range(5)}


def no_faster(num_candidates: int) -> Truths:
    return lambda _: {f"c{at}": Truth() for at in range(num_candidates)}


def scores(num_runs: int) -> Iterator[str]:
    one_point = goal("accuracy", "max-degradation", 0.01)
    for num_samples in (500, 3080, 14_042):
        for lost, won in ((0.03, 0.02), (0.015, 0.005), (0.0105, 0.0005)):
            said = gated(one_point, Truth(1, lost, won), SHORT._replace(num_samples=num_samples), num_runs)
            yield f"accuracy, 1 point, n = {num_samples}, lost {100 * lost:g} %, won {100 * won:g} %: {said}"
    yield f"accuracy, mlperf 99: {gated(goal('accuracy', 'mlperf', 99), Truth(1, 0.0193, 0.01), SHORT, num_runs)}"


def costs(num_runs: int) -> Iterator[str]:
    for name, world in (("steady", STEADY), ("drifting", DRIFTING), ("restless", RESTLESS)):
        rate = sim.mean_rate(world)
        asked = {
            "latency, 5 % slower": (goal("latency", "percent-max-degradation", 5), Truth(times=1.05)),
            "latency, 20 % faster": (goal("latency", "percent-min-improvement", 20), Truth(times=0.8)),
            "throughput, at least": (goal("throughput", "threshold", rate), Truth()),
            "latency p50, at most": (goal("p50", "threshold", world.quantile(0.0)), Truth()),
            "latency p95, at most": (goal("p95", "threshold", world.quantile(1.6448536)), Truth()),
        }
        for what, (each, truth) in asked.items():
            yield f"{what}, {name}: {gated(each, truth, world, num_runs)}"


def decisions(num_runs: int) -> Iterator[str]:
    one_point = (goal("accuracy", "max-degradation", 0.01),)
    for count in (1, 3, 8):
        yield f"recommend, {count} candidates, all at the limit: {deployed(at_the_limit(count), one_point, num_runs)}"
    yield f"recommend, 5 candidates, losses 0 to 2 points: {deployed(mixed, one_point, num_runs)}"
    for count in (1, 5):
        yield f"recommend, {count} candidates, none faster: {deployed(no_faster(count), (), num_runs)}"


def main() -> None:
    num_runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for part, count in ((scores, num_runs), (costs, num_runs // 2), (decisions, num_runs // 2)):
        for line in part(count):
            print(line, flush=True)


if __name__ == "__main__":
    main()
