"""Balances on a terminal, in Markdown, as CSV and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from compressbench.lifecycle.accounts import Account, Case, Factors, Per, Unit
from compressbench.lifecycle.amount_words import (
    DASH,
    days_text,
    inputs_data,
    interval_text,
    kind_mark,
    percent_text,
    value_text,
)
from compressbench.lifecycle.breakeven import BreakEven
from compressbench.lifecycle.one_off import OneOff
from compressbench.lifecycle.savings import scaled

TITLES: Mapping[Unit, str] = {"J": "ENERGY", "s": "MACHINE TIME", "g": "CARBON", "money": "MONEY"}
AT_GIVEN: Mapping[Unit, str] = {"g": "at the given intensity", "money": "at the given prices"}
PER = {"inference": "per inference", "correct": "per correct answer"}
_MOST_NAMED = 3
_COMPUTED = "computed of `parts`, `base` and `inputs`"


class Sheet(NamedTuple):
    """All balances of one call. `currency` is what money is called."""

    balances: Sequence[tuple[Case, Sequence[Account]]]
    factors: Factors
    currency: str = "money"
    per: Per = "inference"

    def units(self) -> list[Unit]:
        return list(dict.fromkeys(each.unit for _, found in self.balances for each in found))

    def of(self, unit: Unit) -> list[tuple[Case, Account]]:
        return [(case, each) for case, found in self.balances for each in found if each.unit == unit]

    def name(self, case: Case) -> str:
        several = len({each.recipe for each, _ in self.balances}) > 1
        return f"{case.recipe}: {case.candidate}" if several else case.candidate


class TableRow(NamedTuple):
    """Cells of lines; `outcome` is what a colour may say, "" of a row below another one."""

    cells: tuple[list[str], ...]
    outcome: str


HEADERS = ("candidate", "took once", "saves each time", "pays after requests")


def heading(sheet: Sheet, unit: Unit) -> str:
    """With the kind, if it is that of all rows."""
    kind = _kind(sheet, unit)
    said = ", ".join(filter(None, (kind if kind != "measured" else "", AT_GIVEN.get(unit, ""))))
    return TITLES[unit] + (f" ({said})" if said else "")


def _kind(sheet: Sheet, unit: Unit) -> str:
    """The one that all numbers of the unit have; "" if they differ."""
    found = {each.kind for _, account in sheet.of(unit) for each in (account.cost, account.saving) if each.kind}
    return found.pop() if len(found) == 1 else ""


def rows(sheet: Sheet, unit: Unit) -> list[TableRow]:
    """Of every account one, and one without the search below it."""
    return [row for case, account in sheet.of(unit) for row in _rows(sheet, case, account)]


def _rows(sheet: Sheet, case: Case, account: Account) -> Iterator[TableRow]:
    unit = sheet.currency if account.unit == "money" else account.unit
    has_marks = not _kind(sheet, account.unit)
    pays = [_pays(account.break_even, account.cost, is_unsound=bool(case.fault))]
    pays += [days_text(account.payback_days)] if account.payback_days is not None else []
    name = [sheet.name(case)] if account.per == sheet.per else [f"  {PER[account.per]}"]
    name += ["  degraded"] if case.is_degraded and account.per == sheet.per else []
    took, saves = _took(account.cost, unit, has_marks=has_marks), _saves(sheet, account, unit, has_marks=has_marks)
    yield TableRow((name, [took], saves, pays), account.break_even.outcome)
    is_other = account.cost_alone.value is not None and account.cost_alone != account.cost
    if is_other and not case.fault and account.per == sheet.per:
        took = _took(account.cost_alone, unit, has_marks=has_marks)
        yield TableRow((["  without search"], [took], [""], [_pays(account.alone, account.cost_alone)]), "")


def _took(cost: OneOff, unit: str, *, has_marks: bool) -> str:
    if cost.value is None:
        return DASH
    mark = kind_mark(cost.kind) if has_marks else ""
    return " ".join(filter(None, (percent_text(cost.value, unit), mark, "partial" if cost.missing else "")))


def _saves(sheet: Sheet, account: Account, unit: str, *, has_marks: bool) -> list[str]:
    if account.saving.value is None:
        return [DASH]
    mark = kind_mark(account.saving.kind) if has_marks else ""
    found = [f"{_each_text(account, unit)} {mark}".rstrip()]
    if account.net is not None and sheet.factors.lifetime_years is not None:
        found.append(f"net {interval_text(account.net, unit)}")
    return found


def _each_text(account: Account, unit: str) -> str:
    """Money of one answer is too little to read."""
    assert account.saving.value is not None  # noqa: S101 -- the caller asked
    if account.unit == "money":
        return f"{interval_text(scaled(account.saving.value, 1e6), unit)} per million"
    return interval_text(account.saving.value, unit)


def _pays(found: BreakEven, cost: OneOff, *, is_unsound: bool = False) -> str:
    """A partial cost is the least that it was."""
    if is_unsound:
        return f"{found.outcome} (unsound)"
    more = " or more" if found.requests is not None and cost.missing else ""
    return f"{even_text(found)}{more}"


def even_text(found: BreakEven) -> str:
    if found.requests is not None:
        return interval_text(found.requests, "")
    if found.outcome == "undetermined" and found.at_least is not None:
        return f"undetermined, {value_text(found.at_least, '')} or more"
    return found.outcome


def notes(sheet: Sheet) -> list[tuple[str, list[str]]]:
    """By candidate why something isn't there, or isn't all."""
    found: list[tuple[str, list[str]]] = []
    for case, accounts in sheet.balances:
        lines = list(dict.fromkeys(line for account in accounts for line in _notes(case, account)))
        if case.marks:
            lines.append(f"{', '.join(case.marks)}: its answers are worth less, so both balances are shown")
        if lines:
            found.append((sheet.name(case), lines))
    return found


def _notes(case: Case, account: Account) -> Iterator[str]:
    cost, even, what = account.cost, account.break_even, TITLES[account.unit].lower()
    if case.fault:
        yield f"no saving: {case.fault}"
    elif even.outcome == "undetermined" and even.reason:
        yield f"{what}: undetermined: {even.reason}"
    if cost.value is not None and cost.missing:
        more = len(cost.missing) - _MOST_NAMED
        named = "; ".join(cost.missing[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
        yield f"{what}: what it took once is partial, and its break-even a lower bound: {named}"


def how(sheet: Sheet) -> list[str]:
    found = [
        "Took once: compressing and evaluating the candidate"
        + (
            "; and the search that found it: all other work of its run, timed calls too."
            if sheet.factors.counts_search
            else "."
        ),
        "Saves each time: the baseline's value x (1 - the paired ratio). Machine time is one over the throughput. "
        "Intervals are at 95 % (Fieller's, MOVER); never: the whole interval saves nothing; undetermined: it holds zero.",
    ]
    bases = {
        "joules": [case.joules for case, _ in sheet.balances],
        "seconds": [case.seconds for case, _ in sheet.balances],
    }
    for name, pairs in bases.items():
        unbounded = next((each for each in pairs if each.base is not None and each.base.low == each.base.high), None)
        if unbounded is not None:
            lacks = f"The baseline's {name} have no interval of their own ({unbounded.source})"
            found.append(f"{lacks}: only that of the paired ratio is counted.")
    if sheet.factors.counts_search and any(
        account.kind == "estimated" for _, each in sheet.balances for account in each
    ):
        found.append("(est.): joules that no meter read are seconds x the mean power of the row's timed calls.")
    return [*found, *_given(sheet)]


def _given(sheet: Sheet) -> list[str]:
    numbers = {name: value for name, value in sheet.factors._asdict().items() if name != "counts_search"}
    said = [f"{name.replace('_', ' ')} {value:g}" for name, value in numbers.items() if value is not None]
    return [f"Given, so assumed: {', '.join(said)}."] if said else []


def to_markdown(sheet: Sheet, escape: Callable[[str], str]) -> str:
    lines: list[str] = []
    for unit in sheet.units():
        lines += [f"### {heading(sheet, unit).capitalize()}", "", f"| {' | '.join(HEADERS)} |", "|---|---:|---:|---:|"]
        for row in rows(sheet, unit):
            lines.append(f"| {' | '.join('<br>'.join(map(escape, cell)) for cell in row.cells)} |")
        lines.append("")
    lines += [f"- {escape(name)}: {escape(line)}" for name, each in notes(sheet) for line in each]
    return "\n".join([*lines, *(f"- {escape(line)}" for line in how(sheet))]) + "\n"


def to_data(sheet: Sheet) -> dict[str, Any]:
    """Plain data: per candidate its parts and its accounts, whose missing numbers are null beside their reasons."""
    return {
        "inputs": inputs_data(sheet.factors._asdict(), sheet.currency),
        "counts_search": sheet.factors.counts_search,
        "currency": sheet.currency,
        "candidates": [_case(case, found) for case, found in sheet.balances],
    }


def _case(case: Case, found: Sequence[Account]) -> dict[str, Any]:
    return {
        "candidate": case.candidate,
        "recipe": case.recipe,
        "run_id": case.run_id,
        "fault": case.fault,
        "is_degraded": case.is_degraded,
        "marks": case.marks,
        "parts": [_plain(part) for part in case.parts],
        "base": {"J": _plain(case.joules), "s": _plain(case.seconds)},
        "accounts": [{**_plain(each), "source": _COMPUTED} for each in found],
    }


def _plain(value: Any) -> Any:
    """NamedTuples as objects, all the way down."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(each) for name, each in value._asdict().items()}
    return [_plain(each) for each in value] if isinstance(value, (tuple, list)) else value


CSV_HEADER = [
    "recipe", "candidate", "run_id", "unit", "per", "kind", "cost", "cost_low", "cost_high", "cost_without_search",
    "saving", "saving_low", "saving_high", "outcome", "requests", "requests_low", "requests_high", "at_least",
    "requests_without_search", "payback_days", "net", "reason", "missing",
]  # fmt: skip


def to_csv_rows(sheet: Sheet) -> Iterator[list[Any]]:
    """Raw numbers; text as it is, for the caller to make inert."""
    for case, found in sheet.balances:
        for each in found:
            even, cost = each.break_even, each.cost
            unit = sheet.currency if each.unit == "money" else each.unit
            yield [
                case.recipe, case.candidate, case.run_id, unit, each.per, each.kind,
                *(cost.value or [None] * 3), each.cost_alone.value and each.cost_alone.value.value,
                *(each.saving.value or [None] * 3),
                even.outcome, *(even.requests or [None] * 3), even.at_least,
                each.alone.requests and each.alone.requests.value,
                each.payback_days and each.payback_days.value, each.net and each.net.value,
                even.reason, "; ".join(cost.missing),
            ]  # fmt: skip
