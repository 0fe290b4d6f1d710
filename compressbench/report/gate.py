"""A gate for CI: every candidate against every goal of a policy; the worst decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from compressbench.report.catalog import Catalog
from compressbench.report.figures import Contender
from compressbench.report.goal_judge import Judgement, worst_of
from compressbench.report.policy import Policy, resolved
from compressbench.report.recommend import Judged, judge_all

Word = Literal["passed", "failed", "missing", "inconclusive"]
EXIT_CODES: dict[Word, int] = {"passed": 0, "failed": 1, "missing": 4, "inconclusive": 2}


class Gate(NamedTuple):
    """`missing` are required numbers that somebody hasn't, each with its candidate."""

    policy: Policy
    outcome: Word
    judged: tuple[Judged, ...]
    missing: tuple[tuple[Contender, Judgement], ...]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]


def gate(catalog: Catalog, contenders: Sequence[Contender], policy: Policy) -> Gate:
    """Candidates only: a baseline loses nothing against itself. Each is judged against the baseline of its own run, so that
    the rows need not be comparable with each other.

    Failed if any goal is missed for certain or any row can't be believed; else missing where a required number isn't there;
    else inconclusive if any goal is undecided or there is nothing to judge. Raises UnknownNameError.
    """
    policy = resolved(policy, contenders, with_objective=False)
    asked = policy.candidates
    chosen = [each for each in contenders if not each.is_baseline and (not asked or each.candidate in asked)]
    judged = tuple(judge_all(catalog, chosen, policy.goals, contenders))
    missing = tuple(
        (each.contender, judgement)
        for each in judged
        for judgement in each.failures
        if judgement.goal.type == "required" and judgement.is_missing
    )
    return Gate(policy, _outcome(judged, is_missing=bool(missing)), judged, missing)


def _outcome(judged: Sequence[Judged], *, is_missing: bool) -> Word:
    found = {outcome_of(each) for each in judged}
    if "failed" in found:
        return "failed"
    if is_missing:
        return "missing"
    return "passed" if found == {"passed"} else "inconclusive"


def outcome_of(judged: Judged) -> Word:
    """Of one candidate."""
    if judged.contender.faults:
        return "failed"
    words: dict[str, Word] = {"met": "passed", "missed": "failed", "undecided": "inconclusive"}
    return words[worst_of(judged.judgements)]
