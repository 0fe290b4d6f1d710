"""A policy: what a deployment asks for, as a file or flags say it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from compressbench.core.errors import MissingMeasurementError, UnknownNameError
from compressbench.core.names import did_you_mean, one_line
from compressbench.core.reading import Kind, at_least
from compressbench.records.record import Record
from compressbench.report.cost_words import ACCURACY, COST_WORDS, full_name, more_is_better, names_for
from compressbench.report.figures import Contender, names_in
from compressbench.report.goals import Goal
from compressbench.report.rows import rows_of

STRATUM = "worst_stratum"
# one of them is the objective where none is said
_DEFAULTS = ("latency", "throughput")
_BREAKS_TIES = "size"


class Policy(NamedTuple):
    """Goals in the order in which they were said; `objective` is what is to be as good as it can be ("" is the default).

    `needs_measured_energy` is `energy-kind: measured`. `require` are numbers that must be there, `candidates` the only ones
    that are looked at, () for all. `wheres` says of keys where they stand in the file.
    """

    goals: tuple[Goal, ...] = ()
    objective: str = ""
    max_stratum_drop: float | None = None
    needs_measured_energy: bool = False
    require: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    wheres: Mapping[str, str] = {}


def overridden(policy: Policy, flags: Policy) -> Policy:
    """The policy of the file with what flags say instead: a goal of the same figure and type, and every other key."""
    said = {_of(goal) for goal in flags.goals}
    keys = {
        name: getattr(flags, name)
        for name in ("objective", "max_stratum_drop", "needs_measured_energy", "require", "candidates")
        if getattr(flags, name) not in ("", None, False, ())
    }
    goals = (*(goal for goal in policy.goals if _of(goal) not in said), *flags.goals)
    wheres = {key: where for key, where in policy.wheres.items() if key not in keys}
    return policy._replace(goals=goals, wheres=wheres, **keys)


def _of(goal: Goal) -> tuple[str, str]:
    return COST_WORDS.get(goal.figure, (goal.figure,))[0], goal.type


def resolved(policy: Policy, contenders: Sequence[Contender], *, with_objective: bool = True) -> Policy:
    """With the full names that these contenders have, and a goal for each rule that is one.

    Raises UnknownNameError for a number or a candidate that isn't there.
    """
    _check_candidates(policy, contenders)
    goals = [goal._replace(figure=_name(goal.figure, contenders, goal.where)) for goal in policy.goals]
    objective = policy.objective and full_name(policy.objective, contenders, policy.wheres.get("objective", ""))
    required = [full_name(name, contenders, policy.wheres.get("require", "")) for name in policy.require]
    goals += [Goal(name, "required", 0.0, "required") for name in required]
    if policy.needs_measured_energy:
        names = [*(goal.figure for goal in goals), *([objective] if with_objective else [])]
        energies = dict.fromkeys(name for name in names if is_energy(name))
        goals += [Goal(name, "measured", 0.0, "energy-kind: measured") for name in energies]
    if policy.max_stratum_drop is not None:
        said = f"max-stratum-drop: {policy.max_stratum_drop:g}"
        goals.append(Goal(STRATUM, "max-stratum-drop", policy.max_stratum_drop, said))
    return policy._replace(goals=tuple(goals), objective=objective, require=tuple(required))


def is_energy(name: str) -> bool:
    return "energy" in name


def _name(figure: str, contenders: Sequence[Contender], where: str) -> str:
    """`accuracy` stays a word: it may be several metrics."""
    if figure == ACCURACY and more_is_better(contenders):
        return figure
    if figure == ACCURACY:
        metrics = names_in(contenders)
        if not metrics:
            return figure
        raise UnknownNameError(
            "no task metric of which more is better", where=where, got=", ".join(map(one_line, metrics)),
            do=f"As --goal {one_line(metrics[0])}:percent-max-degradation=1.",
        )  # fmt: skip
    return full_name(figure, contenders, where)


def _check_candidates(policy: Policy, contenders: Sequence[Contender]) -> None:
    known = {each.candidate for each in contenders if not each.is_baseline}
    for name in policy.candidates:
        if name not in known:
            where = policy.wheres.get("candidates", "")
            raise UnknownNameError(
                "no record of this candidate", where=where, got=f"'{name}'", do=did_you_mean(name, known)
            )


def has_quality_goal(policy: Policy, contenders: Sequence[Contender]) -> bool:
    """Whether anything is asked of a task metric."""
    metrics = {ACCURACY, STRATUM, *names_in(contenders)}
    return any(goal.figure in metrics and goal.type != "required" for goal in policy.goals)


def asks_quality_itself(policy: Policy, contenders: Sequence[Contender]) -> bool:
    """Whether a task metric itself has a limit, or is the objective, whatever the baseline's is. Of a resolved policy."""
    metrics = {ACCURACY, *names_in(contenders)}
    has_limit = any(goal.figure in metrics and goal.type == "threshold" for goal in policy.goals)
    return has_limit or policy.objective in metrics


def names_needed(policy: Policy) -> list[str]:
    """The cells whose values decide: those of the goals, with every name that their words may stand for."""
    objectives = (policy.objective,) if policy.objective else _DEFAULTS
    return names_for([*objectives, *(goal.figure for goal in policy.goals), *policy.require, _BREAKS_TIES])


def require_energy_of(records: Generator[Record], least: Kind | None) -> Iterator[Record]:
    """Pass the records of a run on. Raises MissingMeasurementError if one that is ok lacks joules of that kind: at once if
    it is the baseline, else after the last, for no candidate costs another its turn.
    """
    reasons: list[str] = []
    with closing(records):
        for record in records:
            yield record
            if why := why_no_energy(record, least):
                reasons.append(f"{record.candidate}: {why}")
                if record.role == "baseline":
                    break
    if reasons:
        raise MissingMeasurementError(
            f"energy has to be {least}, and a record of this run has none",
            got="; ".join(reasons),
            do="The records are kept; with --resume what lacks it is measured again.",
        )


def why_no_energy(record: Record, least: Kind | None) -> str:
    """Why a record that is ok has no joules per inference of that kind or a better one; "" if it has, or needs none."""
    if least is None or record.status != "ok":
        return ""
    cell = rows_of([record])[0].cells["energy_j_per_inference"]
    if cell.kind in at_least(least):
        return ""
    return cell.reason or f"{cell.kind}, {cell.source}"
