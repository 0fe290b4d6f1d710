"""Which model to deploy: the best of those that meet every goal, the baseline among them; and why not the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from compressbench.core.errors import MissingMeasurementError
from compressbench.report.catalog import Catalog
from compressbench.report.choice import Choice, Field, choose, field_of
from compressbench.report.figures import Contender
from compressbench.report.goal_judge import Judgement, judge, worst_of
from compressbench.report.goals import Goal
from compressbench.report.policy import Policy, has_quality_goal, resolved
from compressbench.report.strata_judge import judge_strata

NOT_DEGRADED = Goal(
    "quality", "not-degraded", 0.0,
    "every task metric within the margin that its recipe declared, without one not degraded (nothing else was asked)",
)  # fmt: skip


class Judged(NamedTuple):
    """A contender with all that was asked of it."""

    contender: Contender
    judgements: tuple[Judgement, ...]

    @property
    def failures(self) -> tuple[Judgement, ...]:
        return tuple(each for each in self.judgements if each.outcome != "met")

    @property
    def qualifies(self) -> bool:
        return not self.contender.faults and all(each.outcome == "met" for each in self.judgements)


class Recommendation(NamedTuple):
    """`deploy` is None where no candidate qualifies, and then `nearest` is the one that misses by least.

    `tied` can't be told apart from the best value on the objective. `rejected` miss a goal, the nearest first; `outdone`
    meet every goal, and something better does too. `baseline` is the one that the answer was compared with.
    """

    policy: Policy
    objective: str
    deploy: Judged | None
    runner_up: Judged | None
    tied: tuple[Judged, ...]
    unproven: tuple[Judged, ...]
    outdone: tuple[Judged, ...]
    rejected: tuple[Judged, ...]
    nearest: Judged | None
    baseline: Judged | None
    field: Field
    watermark: str = ""

    @property
    def exit_code(self) -> int:
        return 6 if self.deploy is None else 0


def recommend(catalog: Catalog, contenders: Sequence[Contender], policy: Policy, watermark: str = "") -> Recommendation:
    """The decision among these contenders, all of one comparability group unless a watermark says otherwise.

    Raises UnknownNameError for numbers and candidates that aren't there, MissingMeasurementError where nobody has the
    objective or a number that is required.
    """
    if not policy.objective:
        is_offline = catalog.row(contenders[0].at).scenario == "offline"
        policy = policy._replace(objective="throughput" if is_offline else "latency")
    policy = resolved(policy, contenders)
    if not has_quality_goal(policy, contenders):
        policy = policy._replace(goals=(NOT_DEGRADED, *policy.goals))
    chosen = _newest_baselines(contenders, policy.candidates)
    _check_there(chosen, policy)
    judged = judge_all(catalog, chosen, policy.goals, contenders)
    qualified = [each for each in judged if each.qualifies]
    field = field_of([each.contender for each in qualified], policy.objective)
    absent = {qualified[at].contender.at: why for at, why in field.absent.items()}
    if absent:
        judged = [_without_objective(each, policy.objective, absent.get(each.contender.at, "")) for each in judged]
    found = choose(field)
    has_candidate = any(not qualified[at].contender.is_baseline for at in field.positions)
    rejected = _nearest_first([each for each in judged if not each.qualifies])
    baselines = [each for each in judged if each.contender.is_baseline]
    if found is None or not has_candidate:
        candidates = [each for each in rejected if not each.contender.is_baseline]
        nearest = next((each for each in candidates if not each.contender.faults), None)
        return Recommendation(
            policy, policy.objective, None, None, (), (), (), tuple(candidates), nearest, next(iter(baselines), None),
            field, watermark,
        )  # fmt: skip
    return _answer(policy, field, qualified, found, rejected, baselines)._replace(watermark=watermark)


def _answer(
    policy: Policy, field: Field, qualified: Sequence[Judged], found: Choice, rejected: Sequence[Judged],
    baselines: Sequence[Judged],
) -> Recommendation:  # fmt: skip
    second = choose(field, [found.deploy])
    deploy = qualified[found.deploy]
    named = {found.deploy, *([] if second is None else [second.deploy])}
    best_first = sorted(field.positions, key=lambda at: (field.positions[at].value, at))
    own = [each for each in baselines if each.contender.baseline_id == deploy.contender.baseline_id]
    return Recommendation(
        policy=policy,
        objective=policy.objective,
        deploy=deploy,
        runner_up=None if second is None else qualified[second.deploy],
        tied=tuple(qualified[at] for at in found.tied),
        unproven=tuple(qualified[at] for at in found.unproven),
        outdone=tuple(qualified[at] for at in best_first if at not in named),
        rejected=tuple(rejected),
        nearest=None,
        baseline=next(iter(own or baselines), None),
        field=field,
    )


def _newest_baselines(contenders: Sequence[Contender], candidates: Sequence[str]) -> list[Contender]:
    """Of equal baselines of several runs the newest; of the candidates those that were asked for."""
    newest = {each.baseline_id: each.at for each in contenders if each.is_baseline}
    return [
        each
        for each in contenders
        if (
            each.at == newest[each.baseline_id]
            if each.is_baseline
            else each.candidate in (candidates or (each.candidate,))
        )
    ]


def _check_there(contenders: Sequence[Contender], policy: Policy) -> None:
    sound = [each for each in contenders if not each.is_baseline and not each.faults]
    for name in dict.fromkeys([policy.objective, *policy.require]) if sound else ():
        figures = [each.figures.get(name) for each in sound]
        if any(figure is not None and figure.value is not None for figure in figures):
            continue
        why = next((figure.reason for figure in figures if figure is not None and figure.reason), "it was not recorded")
        raise MissingMeasurementError(
            f"no candidate has {name}, which the decision needs", got=why, do="Measure it, or choose by another number."
        )


def judge_all(
    catalog: Catalog, contenders: Sequence[Contender], goals: Sequence[Goal], everyone: Sequence[Contender]
) -> list[Judged]:
    """Every goal asked of every contender. `everyone` has the baselines that candidates were measured against."""
    baselines = [each for each in everyone if each.is_baseline]
    # somebody else's second baseline in a run takes nothing from the sound one
    sound = {(each.recipe, each.run_id) for each in baselines if not each.faults}
    faults = {
        (each.recipe, each.run_id): each.faults[0]
        for each in baselines
        if each.faults and (each.recipe, each.run_id) not in sound
    }
    found: list[Judged] = []
    for each in contenders:
        fault = faults.get((each.recipe, each.run_id), "")
        judgements: list[Judgement] = []
        for goal in goals:
            is_of_rows = goal.type == "max-stratum-drop"
            judgements += judge_strata(goal, each, catalog) if is_of_rows else judge(goal, each, fault)
        found.append(Judged(each, tuple(judgements)))
    return found


def _without_objective(judged: Judged, objective: str, why: str) -> Judged:
    """What can't be placed on the objective doesn't qualify."""
    if not why:
        return judged
    goal = Goal(objective, "required", 0.0, f"objective: {objective}")
    return judged._replace(judgements=(*judged.judgements, Judgement(goal, objective, "undecided", reason=why)))


def _nearest_first(judged: Sequence[Judged]) -> list[Judged]:
    return sorted(judged, key=distance)


def distance(judged: Judged) -> tuple[int, int, float]:
    """Undecided before missed, by the largest shortfall in parts of its limit; then what nobody can say, then faults."""
    failures = judged.failures
    if judged.contender.faults or not failures:
        return 3, 0, math.inf
    fractions = [math.inf if each.fraction is None else each.fraction for each in failures]
    is_missed = worst_of(failures) == "missed"
    return (2 if math.isinf(max(fractions)) else 0), int(is_missed), max(fractions)
