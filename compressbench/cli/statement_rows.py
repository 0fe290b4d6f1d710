"""One row of a catalog as the subject of a statement: its account, its record's file and hash, and its scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from compressbench.cli.balance_rows import Balances, Given
from compressbench.cli.carbon_rows import accounts
from compressbench.core.errors import InputError
from compressbench.core.files import file_sha256
from compressbench.core.names import did_you_mean, one_line
from compressbench.lifecycle.carbon import Terms
from compressbench.lifecycle.one_off import one_off
from compressbench.lifecycle.statement import Quality, Search, Source, Subject

if TYPE_CHECKING:
    from compressbench.report.catalog import Catalog
    from compressbench.report.figures import Contender
    from compressbench.report.rows import Row
    from compressbench.report.verdict import Verdict


def named(contenders: Sequence[Contender], candidate: str) -> Contender:
    """The row of this name, or the only candidate. Raises InputError if there are none or several."""
    found = [each for each in contenders if (each.candidate == candidate if candidate else not each.is_baseline)]
    if len(found) == 1:
        return found[0]
    known = list(dict.fromkeys(each.candidate for each in contenders))
    if candidate and not found:
        raise InputError(
            "no row has this name", where="--candidate", got=f"'{one_line(candidate)}'",
            do=did_you_mean(candidate, known),
        )  # fmt: skip
    if not found and len(contenders) == 1:
        return contenders[0]
    if not candidate:
        names = ", ".join(map(one_line, known[:12]))
        raise InputError(
            "a statement is of one model", where="--candidate", got=f"{len(found)} candidates", do=f"Name one: {names}."
        )
    raise InputError(
        "several rows have this name", where="--candidate", got=f"{len(found)} of '{one_line(candidate)}'",
        do="Pick one with --recipe or --key, or give one run's records.",
    )  # fmt: skip


def subject_of(
    catalog: Catalog, contenders: Sequence[Contender], which: Contender, terms: Terms, *,
    kg: float | None, share: float | None,
) -> Subject:  # fmt: skip
    """With the account that `carbon` has of it, computed beside its own baseline."""
    run = [each for each in contenders if (each.recipe, each.run_id) == (which.recipe, which.run_id)]
    baselines = [each for each in run if each.is_baseline]
    wanted = baselines if which.is_baseline else [*baselines, which]
    found = accounts(catalog, wanted, terms, kg=kg, share=share)
    names = (which.role, which.candidate)
    account = next(each for each in found if (each.facts.role, each.facts.candidate) == names)
    row = catalog.row(which.at)
    baseline = None if which.is_baseline or not baselines else _source(catalog, baselines[0].at)
    qualities = tuple(_qualities(row, which.faults))
    return Subject(account, _source(catalog, which.at), baseline, row.conditions, qualities, _search(catalog, which))


def _source(catalog: Catalog, at: int) -> Source:
    path = catalog.path(at)
    return Source(path.name, file_sha256(path), catalog.record(at))


def _qualities(row: Row, faults: Sequence[str]) -> Iterator[Quality]:
    """A row with a fault has no numbers."""
    for at, name in enumerate(row.metrics):
        cell, verdict = row.cells[name], row.against_baseline.get(name)
        is_ratio = cell.unit != "fraction"
        if faults or cell.value is None:
            yield Quality(name, at, None, None, None, None, is_ratio, "", faults[0] if faults else cell.reason)
            continue
        said = ("", "") if verdict is None else (verdict.verdict, verdict.reason)
        yield Quality(name, at, cell.value, cell.low, cell.high, _against(verdict, is_ratio=is_ratio), is_ratio, *said)


def _against(verdict: Verdict | None, *, is_ratio: bool) -> tuple[float, float, float] | None:
    """The difference of a proportion, of all other metrics the ratio."""
    if verdict is None:
        return None
    found = (verdict.difference, verdict.difference_low, verdict.difference_high)
    value, low, high = (verdict.ratio, verdict.low, verdict.high) if is_ratio else found
    return None if value is None or low is None or high is None else (value, low, high)


def _search(catalog: Catalog, which: Contender) -> Search | None:
    """Of a catalog with all runs: what its run did. None for a baseline, which nobody searched for."""
    if which.is_baseline:
        return None
    balances = Balances(catalog, Given())
    parts = tuple(balances.parts(which))
    paths = [catalog.path(at) for at in balances.run(which.recipe, which.run_id)]
    files = tuple((path.name, file_sha256(path)) for path in paths)
    return Search(one_off(parts, "J", with_search=True), one_off(parts, "s", with_search=True), files)
