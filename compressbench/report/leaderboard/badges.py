"""What a row is, and what a reader should know of its numbers before all else: its kind and its badges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast, get_args

from compressbench.core.registry import methods
from compressbench.report.figures import Contender
from compressbench.report.leaderboard.board import Badge, Kind

BADGE_MEANINGS: dict[Badge, str] = {
    "baseline": "the uncompressed model that every ratio is taken against",
    "measured": "every number of the row was read from a clock, a counter or an instrument",
    "estimated": "a number of the row is an estimate, not a measurement, and marked (est.)",
    "modelled": "a number of the row comes from a model of the hardware, and is marked (model)",
    "contended": "other work ran on the machine: its times and energies are shown, but not compared",
    "unsteady": "it did not reach a steady state: its times and energies are shown, but not compared",
    "implausible": "its numbers can't be true: nothing of it is ranked",
    "false claim": "the audit found that it isn't what it claims to be: nothing of it is ranked",
    "failed": "it could not be measured",
}


def badges_of(contender: Contender, costs: Sequence[str]) -> tuple[Badge, ...]:
    return tuple(dict.fromkeys(_badges(contender, costs)))


def _badges(contender: Contender, costs: Sequence[str]) -> Iterator[Badge]:
    if contender.is_baseline:
        yield "baseline"
    if contender.status != "ok":
        yield "failed"
    if any(fault.startswith("implausible") for fault in contender.faults):
        yield "implausible"
    if any(fault.startswith("false claim") for fault in contender.faults):
        yield "false claim"
    for reason in contender.unsteady:
        yield "contended" if reason.startswith("contended") else "unsteady"
    if contender.status == "ok":
        yield from _origin(contender, costs)


def _origin(contender: Contender, names: Sequence[str]) -> Iterator[Badge]:
    figures = (contender.figures.get(name) for name in (*contender.metrics, *names))
    kinds = {figure.kind for figure in figures if figure is not None and figure.value is not None}
    if "estimated" in kinds:
        yield "estimated"
    if "modelled" in kinds:
        yield "modelled"
    if kinds == {"measured"}:
        yield "measured"


def kind_of(contender: Contender) -> Kind:
    """The family of its steps, by the room where each method lives; of several families `combined`."""
    if contender.is_baseline:
        return "baseline"
    families = {_family(use) for use in contender.steps.split(" + ") if use}
    if len(families) > 1:
        return "combined"
    return families.pop() if families else "other"


def _family(use: str) -> Kind:
    rooms = methods.table.get(use, "").split(".")
    family = rooms[2] if rooms[0] == "compressbench" and len(rooms) > 2 else ""
    return cast(Kind, family) if family in get_args(Kind) else "other"
