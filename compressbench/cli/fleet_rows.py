"""Rows of a catalog as machines of a fleet: one baseline and its candidates, which may stand beside each other."""

from __future__ import annotations

from compressbench.cli.balance_rows import ENERGY, Balances, Given, chosen, figure_of, rate_name
from compressbench.lifecycle.fleet import Machine, baseline_cost
from compressbench.lifecycle.one_off import one_off
from compressbench.lifecycle.savings import Saving, saving_of, weakest
from compressbench.report.catalog import Catalog
from compressbench.report.figures import Contender, faults_of, unsteady_of
from compressbench.report.groups import one_group


def machines(
    catalog: Catalog, given: Given, *, recipe: str, key: str, all_runs: bool, force: bool
) -> tuple[list[Machine], str]:
    """Of every chosen row, and the watermark of `--force`. Raises NotComparableError for rows of several groups."""
    found = chosen(catalog, recipe=recipe, key=key, all_runs=all_runs)
    watermark = one_group(catalog, found, force=force)
    balances = Balances(catalog, given)
    return [_machine(catalog, balances, each) for each in found], watermark


def _machine(catalog: Catalog, balances: Balances, contender: Contender) -> Machine:
    row = catalog.row(contender.at)
    rate, joules = figure_of(row, rate_name(row)), figure_of(row, ENERGY)
    fault = "; ".join([*faults_of(row), *unsteady_of(row)])
    took, seconds, saving, marks = baseline_cost(), baseline_cost(), Saving(None), list[str]()
    if not contender.is_baseline:
        case = balances.case(contender)
        took, seconds = one_off(case.parts, "J", with_search=True), one_off(case.parts, "s", with_search=True)
        saving = Saving(None) if case.fault else saving_of(case.joules)
        marks += case.marks
        marks += [f"no saving: {case.fault}"] if case.fault and not fault else []
    return Machine(
        name=row.candidate,
        throughput_per_s=None if fault else rate.value,
        joules=joules.value,
        one_off=took,
        one_off_seconds=seconds,
        saving=saving,
        kind=weakest([rate.kind, joules.kind]),
        reason=fault or rate.reason,
        no_joules=joules.reason,
        marks=tuple(marks),
    )
