"""Balances on a terminal, in Markdown, as CSV and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from compressbench.lifecycle.accounts import Account, Case, Factors, Per, Unit
from compressbench.lifecycle.amount_words import days_text, interval_text, kind_mark, value_text
from compressbench.lifecycle.breakeven import BreakEven
from compressbench.lifecycle.one_off import OneOff

TITLES: Mapping[Unit, str] = {"J": "ENERGY", "s": "MACHINE TIME", "g": "CARBON", "money": "MONEY"}
PER = {"inference": "per inference", "correct": "per correct answer"}
DASH = "—"
_MOST_NAMED = 3


class Sheet(NamedTuple):
    """All balances of one call. `currency` is what money is called."""

    balances: Sequence[tuple[Case, Sequence[Account]]]
    factors: Factors
    counts_search: bool = True
    currency: str = "money"
    per: Per = "inference"

    def units(self) -> list[Unit]:
        return list(dict.fromkeys(each.unit for _, found in self.balances for each in found))

    def of(self, unit: Unit) -> list[tuple[Case, Account]]:
        return [(case, each) for case, found in self.balances for each in found if each.unit == unit]

    def name(self, case: Case) -> str:
        several = len({each.recipe for each, _ in self.balances}) > 1
        return f"{case.recipe}: {case.candidate}" if several else case.candidate

    def cost(self, account: Account) -> OneOff:
        return account.cost if self.counts_search else account.cost_alone

    def even(self, account: Account) -> BreakEven:
        return account.break_even if self.counts_search else account.alone


class TableRow(NamedTuple):
    """Cells of lines; `outcome` is what a colour may say."""

    cells: tuple[list[str], ...]
    outcome: str


def headers(sheet: Sheet) -> list[str]:
    found = ["candidate", "took once", "saves each time", "pays after requests"]
    if sheet.factors.requests_per_day is not None:
        found.append("that is after")
        if sheet.factors.lifetime_years is not None:
            found.append(f"net after {value_text(sheet.factors.lifetime_years, '')} years")
    return found


def rows(sheet: Sheet, unit: Unit) -> list[TableRow]:
    return [_row(sheet, case, account) for case, account in sheet.of(unit)]


def _row(sheet: Sheet, case: Case, account: Account) -> TableRow:
    unit = sheet.currency if account.unit == "money" else account.unit
    even = sheet.even(account)
    cells = [_name(sheet, case, account), _took(sheet, account, unit), _saves(account, unit), _pays(sheet, account)]
    if sheet.factors.requests_per_day is not None:
        cells.append([DASH if account.payback_days is None else days_text(account.payback_days)])
        if sheet.factors.lifetime_years is not None:
            cells.append([DASH if account.net is None else interval_text(account.net, unit)])
    return TableRow(tuple(cells), even.outcome)


def _name(sheet: Sheet, case: Case, account: Account) -> list[str]:
    marks = ["unsound" if case.fault else "", "degraded" if case.is_degraded else ""]
    return [
        sheet.name(case),
        *([PER["correct"]] if account.per == "correct" else []),
        *(each for each in marks if each),
    ]


def _took(sheet: Sheet, account: Account, unit: str) -> list[str]:
    cost = sheet.cost(account)
    if cost.value is None:
        return [DASH]
    mark = "partial" if cost.missing else ""
    lines = [" ".join(filter(None, (interval_text(cost.value, unit), kind_mark(cost.kind), mark)))]
    if sheet.counts_search and account.cost_alone.value is not None and account.cost_alone.value != cost.value:
        lines.append(f"{interval_text(account.cost_alone.value, unit)} without search")
    return lines


def _saves(account: Account, unit: str) -> list[str]:
    if account.saving.value is None:
        return [DASH]
    return [" ".join(filter(None, (interval_text(account.saving.value, unit), kind_mark(account.saving.kind))))]


def _pays(sheet: Sheet, account: Account) -> list[str]:
    lines = [even_text(sheet.even(account))]
    if sheet.counts_search and account.alone.requests is not None and account.cost_alone.value != account.cost.value:
        lines.append(f"{even_text(account.alone)} without search")
    return lines


def even_text(found: BreakEven) -> str:
    if found.requests is not None:
        return interval_text(found.requests, "")
    if found.outcome == "undetermined" and found.at_least is not None:
        return f"undetermined: at least {value_text(found.at_least, '')}"
    return found.outcome


def notes(sheet: Sheet) -> list[tuple[str, list[str]]]:
    """By candidate why something isn't there, or isn't all."""
    found: list[tuple[str, list[str]]] = []
    for case, accounts in sheet.balances:
        lines = list(dict.fromkeys(line for account in accounts for line in _notes(sheet, case, account)))
        if case.marks:
            lines.append(f"{', '.join(case.marks)}: its answers are worth less, so both balances are shown")
        if lines:
            found.append((sheet.name(case), lines))
    return found


def _notes(sheet: Sheet, case: Case, account: Account) -> Iterator[str]:
    cost, even, what = sheet.cost(account), sheet.even(account), TITLES[account.unit].lower()
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
            if sheet.counts_search
            else "."
        ),
        "Saves each time: the baseline's value x (1 - the paired ratio). Machine time is one over the throughput. Intervals "
        "are at 95 % (Fieller's, MOVER); never: the whole interval saves nothing; undetermined: it holds zero.",
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
    if sheet.counts_search and any(account.kind == "estimated" for _, each in sheet.balances for account in each):
        found.append("(est.): joules that no meter read are seconds x the mean power of the row's timed calls.")
    return [*found, *_given(sheet)]


def _given(sheet: Sheet) -> list[str]:
    said = [f"{name} {value:g}" for name, value in sheet.factors._asdict().items() if value is not None]
    return [f"(assumed), because they were given: {', '.join(said)}."] if said else []


def to_markdown(sheet: Sheet, escape: Callable[[str], str]) -> str:
    lines: list[str] = []
    for unit in sheet.units():
        head = headers(sheet)
        lines += [
            f"### {TITLES[unit].capitalize()}",
            "",
            f"| {' | '.join(head)} |",
            f"|---|{'---:|' * (len(head) - 1)}",
        ]
        for row in rows(sheet, unit):
            lines.append(f"| {' | '.join('<br>'.join(map(escape, cell)) for cell in row.cells)} |")
        lines.append("")
    lines += [f"- {escape(name)}: {escape(line)}" for name, each in notes(sheet) for line in each]
    return "\n".join([*lines, *(f"- {escape(line)}" for line in how(sheet))]) + "\n"


def to_data(sheet: Sheet) -> dict[str, Any]:
    """Plain data: per candidate its parts and its accounts, whose missing numbers are null beside their reasons."""
    return {
        "factors": sheet.factors._asdict(),
        "counts_search": sheet.counts_search,
        "currency": sheet.currency,
        "candidates": [_case(sheet, case, found) for case, found in sheet.balances],
    }


def _case(sheet: Sheet, case: Case, found: Sequence[Account]) -> dict[str, Any]:
    return {
        "candidate": case.candidate,
        "recipe": case.recipe,
        "run_id": case.run_id,
        "fault": case.fault,
        "is_degraded": case.is_degraded,
        "marks": case.marks,
        "parts": [_plain(part) for part in case.parts],
        "base": {"J": _plain(case.joules), "s": _plain(case.seconds)},
        "accounts": [{**_plain(each), "headline": _plain(sheet.even(each))} for each in found],
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
            even, cost = sheet.even(each), sheet.cost(each)
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
