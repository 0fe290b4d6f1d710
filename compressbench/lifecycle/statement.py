"""An energy and carbon statement of one model: its numbers, each with where in which record it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from compressbench.lifecycle.account import CORRECT, INFERENCE, THOUSAND, TOKENS, Account, works_of
from compressbench.lifecycle.amounts import Amount, product
from compressbench.lifecycle.carbon import PAIRED, Ratio, Score, Terms, ratio
from compressbench.lifecycle.one_off import OneOff
from compressbench.lifecycle.statement_facts import BASELINE, RUN, Fact, Place, Places, facts_of
from compressbench.records.record import Record


class Source(NamedTuple):
    """A record's file, and the SHA-256 of its bytes."""

    name: str
    sha256: str
    record: Record


class Quality(NamedTuple):
    """A task's metric, and the paired difference to the baseline; None where `reason` says why."""

    name: str
    at: int
    value: float | None
    low: float | None
    high: float | None
    difference: tuple[float, float, float] | None
    is_ratio: bool
    verdict: str
    reason: str


class Search(NamedTuple):
    """What the whole run took to find the candidate, and the files of its records with the SHA-256 of their bytes."""

    joules: OneOff
    seconds: OneOff
    files: tuple[tuple[str, str], ...]


class Subject(NamedTuple):
    """What is stated of: the account of a row, its record, its baseline's (None where there is none), and its scores."""

    account: Account
    own: Source
    baseline: Source | None
    conditions: Mapping[str, str]
    qualities: Sequence[Quality] = ()
    search: Search | None = None


class Number(NamedTuple):
    """One number, or why it is not stated. `carbon` is where `carbon --json` has it, "" where it doesn't; `verdict` what
    may be claimed of a comparison; `lacks` the parts that a partial total is without.
    """

    id: str
    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    kind: str = ""
    source: str = ""
    year: str = ""
    reason: str = ""
    verdict: str = ""
    lacks: tuple[str, ...] = ()
    carbon: str = ""
    places: tuple[Place, ...] = ()


class Section(NamedTuple):
    id: str
    title: str
    numbers: tuple[Number, ...]


class Statement(NamedTuple):
    """`records` are those that places count from: the model's own first, then its baseline's."""

    subject: Subject
    terms: Terms
    records: tuple[Source, ...]
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]

    def numbers(self) -> Iterator[Number]:
        for section in self.sections:
            yield from section.numbers

    def number(self, *ids: str) -> Number | None:
        """The first that has one of these."""
        return next((each for each in self.numbers() if each.id in ids), None)


def statement_of(subject: Subject, terms: Terms) -> Statement:
    places = Places(subject.own.record)
    sections = [
        Section("energy", "Energy", tuple(_energy(subject.account, places))),
        Section("carbon", "Carbon of 1,000 inferences (consumer)", tuple(_carbon(subject.account, places))),
        Section("water", _water_title(subject.account), tuple(_water_and_cost(subject.account, places))),
        Section("compressing", "Compressing, once (provider)", tuple(_compressing(subject, places))),
        Section("quality", "Quality", tuple(_quality(subject, places))),
        Section("against_baseline", "Against its baseline, paired", tuple(_against(subject, places))),
    ]
    return Statement(
        subject,
        terms,
        (subject.own,) if subject.baseline is None else (subject.own, subject.baseline),
        tuple(facts_of(subject.own.record, subject.account.hardware, subject.conditions)),
        tuple(each for each in sections if each.numbers),
    )


def _of(name: str, told: str, amount: Amount, places: Sequence[Place], carbon: str = "") -> Number:
    fields = {each: getattr(amount, each) for each in ("value", "low", "high", "unit", "source", "year", "reason")}
    return Number(name, told, kind=amount.kind, carbon=carbon, places=tuple(places), **fields)


def _energy(account: Account, places: Places) -> Iterator[Number]:
    facts, works = account.facts, works_of(account.facts)
    joules = facts.inference.joules
    yield _of("energy_j_per_inference", "per inference", joules, places.joules(), "inputs/energy_j_per_inference")
    per_thousand = product("Wh", [joules], 1000 / 3600)
    yield _of("energy_wh_per_1000_inferences", "per 1,000 inferences", per_thousand, places.joules())
    of_tokens = [*places.joules(), *places.tokens()]
    yield _of("energy_j_per_output_token", "per output token", facts.tokens.joules, of_tokens)
    of_correct = [*places.joules(), *places.correct()]
    yield _of("energy_j_per_correct_answer", "per correct answer", works[CORRECT].joules, of_correct)


def _carbon(account: Account, places: Places) -> Iterator[Number]:
    of_part = {"operational": places.joules(), "embodied": places.seconds(), "end_of_life": places.seconds()}
    found = account.consumer[THOUSAND]
    for part, where in of_part.items():
        told = part.replace("_", " ")
        yield _of(
            f"carbon_{part}_per_1000_inferences", told, getattr(found, part), where, f"consumer/{THOUSAND}/{part}"
        )
    both = [*places.joules(), *places.seconds()]
    units = {
        THOUSAND: ("total", both),
        INFERENCE: ("total per inference", both),
        TOKENS: ("total per 1,000 output tokens", [*both, *places.tokens()]),
        CORRECT: ("total per correct answer", [*both, *places.correct()]),
    }
    for unit, (told, where) in units.items():
        yield _total(f"carbon_total_per_{unit}", told, account.consumer[unit], where, f"consumer/{unit}")


def _total(name: str, told: str, of: Score, places: Sequence[Place], carbon: str) -> Number:
    """A partial total has a name of its own and says what it is without; it never stands for the total."""
    if of.total.value is not None or of.partial_total is None or of.partial_total.value is None:
        return _of(name, told, of.total, places, f"{carbon}/total")
    partial = _of(name.replace("total", "partial_total"), told, of.partial_total, places, f"{carbon}/partial_total")
    return partial._replace(name=told, lacks=of.missing)


def _water_title(account: Account) -> str:
    is_priced = account.cost[THOUSAND].value is not None
    return "Water and cost" if is_priced else "Water"


def _water_and_cost(account: Account, places: Places) -> Iterator[Number]:
    found = account.water[THOUSAND]
    yield _of("water_l_per_1000_inferences", "per 1,000 inferences", found, places.joules(), f"water/{THOUSAND}")
    cost = account.cost[THOUSAND]
    if cost.value is not None:
        both = [*places.joules(), *places.seconds()]
        yield _of("cost_per_1000_inferences", "cost per 1,000 inferences", cost, both, f"cost/{THOUSAND}")


def _compressing(subject: Subject, places: Places) -> Iterator[Number]:
    """Nothing where nothing was compressed: a baseline, or a model that came compressed."""
    work, found = subject.account.facts.compressing, subject.account.provider
    if work is None or found is None:
        return
    joules, seconds = places.reading("compress_energy_j"), places.reading("compress_seconds")
    yield _of("compress_seconds", "time", work.seconds, seconds)
    yield _of("compress_energy_j", "energy", work.joules, joules)
    yield _of("compress_carbon_operational", "operational carbon", found.operational, joules, "provider/operational")
    yield _of("compress_carbon_embodied", "embodied carbon", found.embodied, seconds, "provider/embodied")
    yield _total("compress_carbon_total", "total carbon", found, [*joules, *seconds], "provider")
    if subject.search is not None:
        yield _with_search("compress_energy_with_search_j", "energy with the search", "J", subject.search.joules)
        yield _with_search("compress_seconds_with_search", "time with the search", "s", subject.search.seconds)


def _with_search(name: str, told: str, unit: str, took: OneOff) -> Number:
    """Compressing, evaluating, and all else that the run did to find the candidate, as `breakeven` counts it."""
    if took.value is None:
        return Number(name, told, None, unit=unit, reason=took.reason)
    value, low, high = took.value
    source = "all work of its run: other candidates, evaluations, warm-ups and timed calls"
    is_exact = low == high
    reason = "its parts have no intervals" if is_exact else ""
    return Number(
        name, told, value, None if is_exact else low, None if is_exact else high, unit, took.kind, source, reason=reason,
        lacks=took.missing,
        places=(Place(RUN, "$.readings"), Place(RUN, "$.scores[*].seconds"), Place(RUN, "$.measurement")),
    )  # fmt: skip


def _quality(subject: Subject, places: Places) -> Iterator[Number]:
    for each in subject.qualities:
        yield Number(
            f"quality_{each.name}", each.name, each.value, each.low, each.high,
            kind="measured" if each.value is not None else "", source="the task's samples", reason=each.reason,
            places=tuple(places.score(each.at)),
        )  # fmt: skip


def _against(subject: Subject, places: Places) -> Iterator[Number]:
    """Ratios of the candidate to its baseline, measured in turns in the same run."""
    account = subject.account
    if account.facts.role == "baseline":
        return
    paired, kind = account.facts.paired, account.facts.inference.joules.kind
    joules, seconds = places.both_arms("joules"), places.both_arms("seconds")
    energy = _ratio("energy_ratio", "energy, and operational carbon", account.operational_ratio, joules, kind)
    yield energy._replace(carbon="against_baseline/operational", verdict=paired.verdict)
    yield _ratio("time_ratio", "time of the hardware", ratio(paired.seconds), seconds)
    where, kind = [*joules, *seconds, *_of_baseline(subject)], account.consumer[INFERENCE].total.kind
    total = _ratio("total_carbon_ratio", "total carbon", account.total_ratio, where, kind)
    yield total._replace(carbon="against_baseline/total")
    for each in subject.qualities:
        value, low, high = each.difference or (None, None, None)
        reason = "" if each.difference is not None else each.reason or "it was not paired with its baseline's"
        what, unit = ("ratio", "x") if each.is_ratio else ("difference", "points")
        yield Number(
            f"{what}_{each.name}", f"{each.name}, {what}", value, low, high, unit,
            "measured" if value is not None else "", "paired by sample", reason=reason, verdict=each.verdict,
            places=tuple(places.score(each.at, "paired")),
        )  # fmt: skip


def _of_baseline(subject: Subject) -> list[Place]:
    """Where the baseline's own record has what running and hardware weigh in its total."""
    if subject.baseline is None:
        return []
    places = Places(subject.baseline.record)
    return [each._replace(record=BASELINE) for each in (*places.joules(), *places.seconds())]


def _ratio(name: str, told: str, of: Ratio, places: Sequence[Place], kind: str = "") -> Number:
    """`kind` is that of what both arms were read with; where hardware weighs in, of that as well."""
    kind, source = (kind or "measured", PAIRED) if of.value is not None else ("", "")
    return Number(name, told, of.value, of.low, of.high, "x", kind, source, reason=of.reason, places=tuple(places))
