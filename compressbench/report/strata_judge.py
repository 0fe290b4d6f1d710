"""The worst loss of any capability as a goal, by the rule of `table --max-stratum-drop`."""

from __future__ import annotations

from compressbench.report.catalog import Catalog
from compressbench.report.figures import Contender
from compressbench.report.goal_judge import Judgement, Outcome
from compressbench.report.goals import Goal
from compressbench.report.stratum_gate import Outcome as StratumOutcome
from compressbench.report.stratum_gate import stratum_gate

_OUTCOMES: dict[StratumOutcome, Outcome] = {"passed": "met", "inconclusive": "undecided", "failed": "missed"}


def judge_strata(goal: Goal, contender: Contender, catalog: Catalog) -> list[Judgement]:
    """Of the capability whose loss may be the largest. A baseline loses nothing against itself."""
    if contender.faults:
        return [Judgement(goal, goal.figure, "missed", reason=contender.faults[0])]
    if contender.is_baseline:
        return [Judgement(goal, goal.figure, "met", 0.0, 0.0, 0.0, 0.0, 0.0)]
    row = catalog.row(contender.at)
    gate = stratum_gate([row], goal.value)
    if not row.strata:
        return [Judgement(goal, goal.figure, "undecided", reason="no task of it has a stratum", is_missing=True)]
    worst = max(row.strata, key=lambda each: (each.loss_low > goal.value, each.loss_high))
    beyond = max(0.0, worst.loss_high - goal.value)
    return [
        Judgement(
            goal,
            f"{worst.name}: {worst.metric}" if worst.metric else worst.name,
            _OUTCOMES[gate.outcome],
            worst.loss,
            worst.loss_low,
            worst.loss_high,
            beyond,
            beyond / goal.value if goal.value else beyond,
        )
    ]
