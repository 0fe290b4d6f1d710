"""The account of one row: its carbon, water and cost by unit of work, and its ratios to the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from compressbench.core.statistics import Interval
from compressbench.lifecycle.amounts import Amount, inverse, product
from compressbench.lifecycle.carbon import Ratio, Score, Terms, Work, cost, ratio, scaled, score, total_ratio, water
from compressbench.lifecycle.embodied import Held

INFERENCE = "inference"
THOUSAND = "1000_inferences"
TOKENS = "1000_output_tokens"
MILLION_TOKENS = "1000000_output_tokens"
CORRECT = "correct_answer"
UNITS = {INFERENCE: "inference", THOUSAND: "1,000 inferences", TOKENS: "1,000 output tokens", CORRECT: "correct answer"}


class Paired(NamedTuple):
    """Candidate over baseline of the same run, or why it can't be said; the verdict is on the energy."""

    energy: Interval | str
    seconds: Interval | str
    verdict: str = ""


class Facts(NamedTuple):
    """What a row gives. `tokens` is one output token's work; `correct_share` the share of inferences with a right answer.

    `compressing` is None where nothing was compressed. `doubts` say why its numbers are no base of a saving.
    """

    recipe: str
    candidate: str
    role: str
    run_id: str
    boundary: str
    inference: Work
    tokens: Work
    correct_share: Amount
    compressing: Work | None
    paired: Paired
    doubts: tuple[str, ...] = ()


class Account(NamedTuple):
    """By unit of work the consumer's score, water and cost. `provider` is None where nothing was compressed."""

    facts: Facts
    held: Held
    hardware: str
    consumer: Mapping[str, Score]
    water: Mapping[str, Amount]
    cost: Mapping[str, Amount]
    provider: Score | None
    operational_ratio: Ratio
    total_ratio: Ratio


def works_of(facts: Facts) -> dict[str, Work]:
    """The work of each unit; absent parts carry their reasons."""
    per_right = inverse(facts.correct_share, "inferences/correct answer")
    return {
        INFERENCE: facts.inference,
        THOUSAND: scaled(facts.inference, 1000),
        TOKENS: scaled(facts.tokens, 1000),
        CORRECT: Work(
            product("J", [facts.inference.joules, per_right]), product("s", [facts.inference.seconds, per_right])
        ),
    }


def account_of(facts: Facts, held: Held, hardware: str, terms: Terms, baseline: Score | None) -> Account:
    """`baseline` is the score per inference of the row's own baseline, None where there is none (or it is one itself)."""
    works = works_of(facts)
    paired = facts.paired
    alone = Ratio(value=None, reason="it is a baseline" if facts.role == "baseline" else "it has no baseline")
    return Account(
        facts=facts,
        held=held,
        hardware=hardware,
        consumer={name: score(work, held, terms) for name, work in works.items()},
        water={name: water(work, terms) for name, work in works.items()},
        cost={name: cost(work, terms) for name, work in _sold(works).items()},
        provider=None if facts.compressing is None else score(facts.compressing, held, terms),
        operational_ratio=alone if baseline is None else ratio(paired.energy),
        total_ratio=alone if baseline is None else total_ratio(baseline, paired.energy, paired.seconds),
    )


def _sold(works: Mapping[str, Work]) -> dict[str, Work]:
    """Money is told by the million tokens."""
    return {
        THOUSAND: works[THOUSAND],
        MILLION_TOKENS: scaled(works[TOKENS], 1000),
        CORRECT: works[CORRECT],
    }
