"""How accounts of carbon read: sheets of short texts, notes that name every assumption once, and the data for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from compressbench.core.units import humanize, three_digits
from compressbench.lifecycle.account import CORRECT, INFERENCE, MILLION_TOKENS, THOUSAND, TOKENS, UNITS, Account
from compressbench.lifecycle.amount_words import DASH, scale_in, source_told, value_told
from compressbench.lifecycle.amounts import Amount
from compressbench.lifecycle.carbon import PAIRED, Ratio, Score, Terms

UNCOUNTED = "Idle hours between requests, networks, storage and buildings: not accounted"
_MOST_NAMES = 4
_SHORT = {"estimated": "est.", "modelled": "model", "assumed": "assumed"}


class Cell(NamedTuple):
    """The number and its bounds, one a line, and its label: `est. + assumed`."""

    lines: tuple[str, ...]
    label: str = ""


class Sheet(NamedTuple):
    """A table. `labels` are those of a column's numbers where all have the same; else they stand in the cells."""

    title: str
    header: tuple[str, ...]
    labels: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], ...], ...]


def sheets(accounts: Sequence[Account]) -> Iterator[Sheet]:
    """The consumer's score of 1,000 inferences, other units of work, then the provider's; only what has numbers."""
    yield _sheet(
        f"Consumer: gCO2e per 1,000 inferences{_of_boundary(accounts)}",
        ("candidate", "operational", "embodied", "total", "against the baseline"),
        [_consumer(each) for each in accounts],
    )
    yield from _of_units(accounts)
    compressed = [each for each in accounts if each.provider is not None and _has_any(each.provider)]
    if compressed:
        yield _sheet(
            "Provider: gCO2e of compressing once",
            ("candidate", "operational", "embodied", "total"),
            [_provider(each) for each in compressed],
        )


def _sheet(title: str, header: tuple[str, ...], rows: Sequence[Sequence[Cell]]) -> Sheet:
    columns = [{cell.label for cell in column if cell.lines != (DASH,)} for column in zip(*rows, strict=True)]
    labels = tuple(next(iter(found)) if len(found) == 1 else "" for found in columns)
    told = tuple(
        tuple(
            (*cell.lines, *([cell.label] if cell.label and not shared else []))
            for cell, shared in zip(row, labels, strict=True)
        )
        for row in rows
    )
    return Sheet(title, header, labels, told)


def notes(accounts: Sequence[Account], terms: Terms) -> list[str]:
    """Every input with its range, kind and source, once; then what is not in the numbers."""
    told = [f"{name}: {_told(amount)}" for name, amount in shared_inputs(terms).items() if amount.value is not None]
    for account in accounts:
        told += [f"{name} ({account.hardware}): {_told(each)}" for name, each in account.held.parts.items()]
    doubts = [(account.facts.candidate, doubt) for account in accounts for doubt in account.facts.doubts]
    told += [f"{line}; no saving is based on it" for line in _by_reason(doubts)]
    told += [f"Operational carbon is of what the meter saw, {text}" for text in _boundaries(accounts)]
    told += _not_counted(accounts, terms)
    return list(dict.fromkeys(told))


def shared_inputs(terms: Terms) -> dict[str, Amount]:
    found = {
        "grid": terms.grid,
        "pue": terms.place.pue,
        "wue_site": terms.place.wue_site,
        "wue_grid": terms.place.wue_grid,
        "lifetime": terms.life.years,
        "utilisation": terms.life.utilisation,
        "end_of_life": terms.end_of_life_kg,
    }
    priced = {"price_per_hour": terms.prices.per_hour, "price_per_kwh": terms.prices.per_kwh}
    return found | {name: each for name, each in priced.items() if each is not None}


def to_data(accounts: Sequence[Account], terms: Terms) -> dict[str, Any]:
    """Plain data for JSON: `inputs`, `candidates` with `consumer` and `provider` apart, `notes`."""
    return {
        "method": "SCI = (E * I + M) / R, ISO/IEC 21031:2024; masses in grams of CO2e; bounds by the worst case",
        "currency": terms.prices.currency,
        "inputs": {name: amount_data(each) for name, each in shared_inputs(terms).items()},
        "candidates": [_account_data(each) for each in accounts],
        "notes": notes(accounts, terms),
    }


def amount_data(amount: Amount) -> dict[str, Any]:
    fields = amount.model_dump(exclude={"kinds"})
    return {**fields, "kind": amount.kind, "year": int(amount.year) if amount.year.isdigit() else None}


def amount_cell(amount: Amount, base: str = "g") -> Cell:
    """`1.52 mg`, `[0.91, 2.10]`, `est. + assumed`; a dash where there is no number."""
    if amount.value is None:
        return Cell((DASH,))
    text = humanize(amount.value, base) if base else f"{amount.value:.3g}"
    label = " + ".join(_SHORT[kind] for kind in amount.kinds if kind in _SHORT)
    return Cell((text, _bounds(amount, text, base)), label or amount.kind)


def _bounds(amount: Amount, text: str, base: str) -> str:
    if amount.low is None or amount.high is None:
        return "no interval"
    if amount.low == amount.high:
        return "as given"
    scale = scale_in(text, base)
    bounds = (amount.low / scale, amount.high / scale)
    low, high = (three_digits(each) if base else f"{each:.3g}" for each in bounds)
    return f"[{low}, {high}]"


def _name(account: Account) -> Cell:
    """A baseline that has another name is told as one."""
    facts = account.facts
    return Cell((facts.candidate, *(["baseline"] if facts.role == "baseline" != facts.candidate else [])))


def _consumer(account: Account) -> list[Cell]:
    found = account.consumer[THOUSAND]
    parts = [amount_cell(found.operational), amount_cell(found.embodied), total_cell(found)]
    return [_name(account), *parts, _ratio_cell(account)]


def _provider(account: Account) -> list[Cell]:
    found = account.provider
    if found is None:
        return [_name(account), *[Cell((DASH,))] * 3]
    return [_name(account), amount_cell(found.operational), amount_cell(found.embodied), total_cell(found)]


def total_cell(found: Score) -> Cell:
    """A partial total never looks like one: it says so first."""
    if found.total.value is not None:
        return amount_cell(found.total)
    if found.partial_total is None or found.partial_total.value is None:
        return Cell((DASH,))
    told = amount_cell(found.partial_total)
    return Cell(("partial", *told.lines, f"without {', '.join(found.missing)}"), told.label)


def _ratio_cell(account: Account) -> Cell:
    """`0.61x energy`, its interval and verdict, then the same of the total."""
    energy = _ratio_lines(account.operational_ratio, "energy", account.facts.paired.verdict)
    total = _ratio_lines(account.total_ratio, "total")
    return Cell((*energy, *total) or (DASH,))


def _ratio_lines(found: Ratio, what: str, verdict: str = "") -> tuple[str, ...]:
    if found.value is None or found.low is None or found.high is None:
        return ()
    digits = 3 if found.low > 0.9 and found.high < 1.1 else 2
    bounds = f"[{found.low:.{digits}f}, {found.high:.{digits}f}]"
    return (f"{found.value:.{digits}f}x {what}", bounds, *([verdict] if verdict else []))


def _of_units(accounts: Sequence[Account]) -> Iterator[Sheet]:
    """Totals of the other units of work, water and money, as columns; a column without any number is left out."""
    found = {
        f"per {UNITS[name]}": [total_cell(each.consumer[name]) for each in accounts]
        for name in (TOKENS, CORRECT)
        if any(_has_any(each.consumer[name]) for each in accounts)
    }
    if any(each.water[THOUSAND].value is not None for each in accounts):
        found["water per 1,000"] = [amount_cell(each.water[THOUSAND], "L") for each in accounts]
    titles = {THOUSAND: "cost per 1,000", MILLION_TOKENS: "cost per 1M tokens", CORRECT: "cost per correct"}
    for name, title in titles.items():
        if any(each.cost[name].value is not None for each in accounts):
            found[title] = [_money(each.cost[name]) for each in accounts]
    if found:
        rows = zip((_name(each) for each in accounts), *found.values(), strict=True)
        yield _sheet("Other units of work: total carbon, water, cost", ("candidate", *found), list(rows))


def _has_any(found: Score) -> bool:
    return found.total.value is not None or found.partial_total is not None


def _money(amount: Amount) -> Cell:
    told = amount_cell(amount, "")
    first, *others = told.lines
    return told._replace(lines=(first if amount.value is None else f"{first} {amount.unit}".strip(), *others))


def _told(amount: Amount) -> str:
    """`475 g/kWh [30, 715], assumed (world average; 2019)`."""
    return f"{value_told(amount)}, {amount.kind} ({source_told(amount)})"


def _of_boundary(accounts: Sequence[Account]) -> str:
    """The meter's boundary beside the operational part, where all rows have the same."""
    found = {account.facts.boundary for account in accounts}
    only = next(iter(found)) if len(found) == 1 else ""
    return f" (operational: {only} only)" if only else ""


def _boundaries(accounts: Sequence[Account]) -> Iterator[str]:
    for account in accounts:
        if account.facts.boundary:
            yield f"'{account.facts.boundary}'; what stands outside that is not accounted"


def _not_counted(accounts: Sequence[Account], terms: Terms) -> Iterator[str]:
    if terms.end_of_life_kg.value is None:
        yield f"End of life: {terms.end_of_life_kg.reason}"
    if all(each.water[THOUSAND].value is None for each in accounts):
        wanted = next((each.water[THOUSAND].reason for each in accounts), "")
        yield f"Water: {wanted}"
    yield UNCOUNTED
    yield "Compressing is the provider's and running the consumer's: the two scores are never added"
    yield "Bounds are the worst case of all inputs together; ratios are paired, so that grid, PUE and hardware cancel"
    yield "A ratio is of neighbouring blocks; the quotient of two rows, measured at other times, may differ from it"
    totals = [(each.facts.candidate, each.consumer[THOUSAND].total) for each in accounts if not each.facts.doubts]
    yield from _by_reason([(name, total.reason) for name, total in totals if total.value is None])
    if terms.prices.per_hour is not None or terms.prices.per_kwh is not None:
        yield "Cost holds no assumption: PUE and utilisation are in it only where given, or published for the site"


def _by_reason(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """`a, b: the reason`, of many names the first."""
    names_of: dict[str, list[str]] = {}
    for name, reason in pairs:
        names_of.setdefault(reason, []).append(name)
    for reason, names in names_of.items():
        shown = list(dict.fromkeys(names))
        more = f" and {len(shown) - _MOST_NAMES} more" if len(shown) > _MOST_NAMES else ""
        yield f"{', '.join(shown[:_MOST_NAMES])}{more}: {reason}"


def _account_data(account: Account) -> dict[str, Any]:
    facts = account.facts
    inputs = {
        "energy_j_per_inference": facts.inference.joules,
        "seconds_per_inference": facts.inference.seconds,
        "correct_share": facts.correct_share,
        "held_kg": account.held.kg,
        **account.held.parts,
    }
    return {
        **{name: getattr(facts, name) for name in ("recipe", "candidate", "role", "run_id", "boundary", "doubts")},
        "hardware": account.hardware,
        "inputs": {name: amount_data(each) for name, each in inputs.items()},
        "consumer": {name: _score_data(each) for name, each in account.consumer.items()},
        "provider": None if account.provider is None else _score_data(account.provider),
        "water": _amounts_data(account.water),
        "cost": _amounts_data(account.cost),
        "against_baseline": {
            "operational": {
                **_ratio_data(account.operational_ratio, facts.inference.joules),
                "verdict": facts.paired.verdict,
            },
            "total": _ratio_data(account.total_ratio, account.consumer[INFERENCE].total),
        },
    }


def _ratio_data(found: Ratio, of: Amount) -> dict[str, Any]:
    """With the kinds of what it is a ratio of."""
    said = {"kind": of.kind, "source": PAIRED} if found.value is not None else {"kind": "", "source": ""}
    return {**found.model_dump(), **said}


def _amounts_data(found: Mapping[str, Amount]) -> dict[str, Any]:
    return {name: amount_data(each) for name, each in found.items()}


def _score_data(found: Score) -> dict[str, Any]:
    parts = ("operational", "embodied", "end_of_life", "total")
    return {
        **{name: amount_data(getattr(found, name)) for name in parts},
        "is_partial": found.total.value is None,
        "partial_total": None if found.partial_total is None else amount_data(found.partial_total),
        "missing": list(found.missing),
    }
