"""How a statement reads: numbers as short texts, what is not stated and why, and the data for JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from compressbench.core.units import humanize, three_digits
from compressbench.lifecycle.account import INFERENCE
from compressbench.lifecycle.amount_words import scale_in, scale_of, source_told, value_told
from compressbench.lifecycle.carbon_words import UNCOUNTED, amount_data, shared_inputs
from compressbench.lifecycle.model_card import model_card, to_front_matter
from compressbench.lifecycle.statement import Number, Section, Statement
from compressbench.lifecycle.statement_facts import RUN, Fact, Place

NOT_STATED = "not stated"
_LONGEST_PART = 24
METHOD = (
    "SCI = (E x I + M) / R, ISO/IEC 21031:2024, location-based; bounds of grams by the worst case of all inputs together, "
    "of joules and ratios at 95 %. Ratios are paired: grid, PUE and hardware cancel."
)
_BASE = {"J": "J", "Wh": "Wh", "gCO2e": "g", "s": "s", "L": "L"}
_INPUTS = {
    "grid": "grid",
    "pue": "PUE",
    "wue_site": "water at the site",
    "wue_grid": "water of the grid",
    "lifetime": "lifetime",
    "utilisation": "utilisation",
    "end_of_life": "end of life",
    "price_per_hour": "price per hour",
    "price_per_kwh": "price per kWh",
}


class Line(NamedTuple):
    """A number as it is printed; `notes` are the numbers of its footnotes."""

    name: str
    value: str
    interval: str
    kind: str
    notes: tuple[int, ...]
    is_stated: bool = True
    is_partial: bool = False


class Notes:
    """Footnotes, numbered in the order in which they are first needed."""

    def __init__(self) -> None:
        self._numbers: dict[Place, int] = {}

    def of(self, places: Sequence[Place]) -> tuple[int, ...]:
        return tuple(self._numbers.setdefault(each, len(self._numbers) + 1) for each in dict.fromkeys(places))

    def lines(self) -> list[tuple[int, str, str]]:
        """Number, letter of the record, path."""
        return [(at, letter_of(each.record), each.path) for each, at in self._numbers.items()]


def letter_of(record: int) -> str:
    return "ABC"[record]


def lines_of(section: Section, notes: Notes) -> list[Line]:
    return [_line(each, notes) for each in section.numbers]


def _line(number: Number, notes: Notes) -> Line:
    if number.value is None:
        return Line(number.name, NOT_STATED, "", "", (), is_stated=False)
    told, interval = _texts(number)
    many = f"{len(number.lacks)} of its parts" if len("".join(number.lacks)) > _LONGEST_PART else ""
    lacks = f"PARTIAL: without {many or ', '.join(number.lacks)}" if number.lacks else ""
    kind = "; ".join(filter(None, (lacks, number.kind, number.verdict)))
    return Line(number.name, told, interval, kind, notes.of(number.places), is_partial=bool(number.lacks))


def _texts(number: Number) -> tuple[str, str]:
    """`24.0 mJ`, `[22.1, 25.9]`."""
    value = number.value if number.value is not None else 0.0
    if number.unit == "points":
        return f"{_signed(100 * value)} points", _bounds(number, 1 / 100, _signed)
    if number.unit == "x":
        return f"{value:.3f} x", _bounds(number, 1.0, lambda each: f"{each:.3f}")
    base = _BASE.get(number.unit.partition("/")[0])
    if base is None:
        told = three_digits(value) if value >= 0.001 or value == 0 else f"{value:.3g}"
        return f"{told} {number.unit}".strip(), _bounds(number, 1.0, lambda each: f"{each:.3g}")
    if base == "s":
        scale, unit = scale_of(value, base)
        return f"{three_digits(value / scale)} {unit}", _bounds(number, scale, three_digits)
    told = humanize(value, base)
    return told, _bounds(number, scale_in(told, base), three_digits)


def _bounds(number: Number, scale: float, told: Callable[[float], str]) -> str:
    if number.low is None or number.high is None:
        return "no interval"
    if number.low == number.high:
        return "exact inputs"
    return f"[{told(number.low / scale)}, {told(number.high / scale)}]"


def _signed(value: float) -> str:
    return f"{value:+.2f}"


def headline(statement: Statement) -> list[Line]:
    """The four numbers that are asked for first."""
    notes = Notes()
    ids = ("energy_wh_per_1000_inferences", "carbon_total_per_1000_inferences", "energy_ratio", "compress_energy_j")
    told = (
        "energy per 1,000 inferences",
        "carbon per 1,000 inferences",
        "energy against the baseline",
        "energy of compressing, once",
    )
    found: list[Line] = []
    for name, title in zip(ids, told, strict=True):
        number = statement.number(name, name.replace("total", "partial_total"))
        if number is not None:
            found.append(_line(number, notes)._replace(name=title))
    return found


class Input(NamedTuple):
    name: str
    value: str
    kind: str
    source: str


def inputs(statement: Statement) -> list[Input]:
    """Everything that was not measured, with its kind and source."""
    shared = {_INPUTS[name]: each for name, each in shared_inputs(statement.terms).items()}
    held = {f"hardware: {name}": each for name, each in statement.subject.account.held.parts.items()}
    return [
        Input(name, value_told(each), each.kind, source_told(each))
        for name, each in {**shared, **held}.items()
        if each.value is not None
    ]


def doubts(statement: Statement) -> list[str]:
    return [f"{each}; no saving is based on it" for each in statement.subject.account.facts.doubts]


def not_stated(statement: Statement, left_out: Sequence[str] = ()) -> list[str]:
    """Every number and fact that isn't there with its reason, those of one reason together; then what no number counts."""
    names_of: dict[str, list[str]] = {}
    for fact in statement.facts:
        if not fact.text:
            names_of.setdefault(fact.reason, []).append(fact.name)
    for section in statement.sections:
        for number in section.numbers:
            if number.value is None:
                # a total is missing for the reason of its part
                reason = next((each for each in names_of if f"({each})" in number.reason), number.reason)
                names_of.setdefault(reason, []).append(_named(section, number))
    found = [f"{'; '.join(names)}: {reason}" for reason, names in names_of.items()]
    found += [line for number in statement.numbers() for line in _without(statement, number)]
    if all(each.id != "compressing" for each in statement.sections):
        found.append("compressing: nothing was compressed here")
    found.append("training of the model that was compressed: not in the records")
    return list(dict.fromkeys([*found, UNCOUNTED, *left_out]))


def _named(section: Section, number: Number) -> str:
    before = {"energy": "energy ", "water": "water ", "carbon": "carbon, ", "compressing": "compressing, "}
    return before.get(section.id, "") + number.name


def _without(statement: Statement, number: Number) -> Iterator[str]:
    """What a partial number is without; of several units of use only once."""
    account = statement.subject.account
    if number.lacks and "with_search" in number.id:
        more = f"; and {len(number.lacks) - 2} more" if len(number.lacks) > 2 else ""
        yield f"{number.name} is without {'; '.join(number.lacks[:2])}{more}"
    elif number.lacks and number.id.startswith("compress") and account.provider is not None:
        yield f"total carbon of compressing is {account.provider.total.reason}"
    elif number.lacks:
        yield f"total carbon of use is {account.consumer[INFERENCE].total.reason}"


def to_data(statement: Statement, region: str = "") -> dict[str, Any]:
    """Plain data: `numbers` with their places, `inputs`, `not_stated`, `records` with their hashes, and `model_card`."""
    facts = statement.subject.account.facts
    card, left_out = model_card(statement, region)
    return {
        "method": METHOD,
        **{name: getattr(facts, name) for name in ("recipe", "candidate", "role", "run_id", "boundary")},
        "doubts": doubts(statement),
        "facts": [_fact_data(each) for each in statement.facts],
        "numbers": [_number_data(section, each) for section in statement.sections for each in section.numbers],
        "inputs": {name: amount_data(each) for name, each in shared_inputs(statement.terms).items()}
        | {name: amount_data(each) for name, each in statement.subject.account.held.parts.items()},
        "not_stated": not_stated(statement, left_out),
        "records": {letter: _files_data(files) for letter, _, files in origins(statement)},
        "model_card": card,
    }


def origins(statement: Statement) -> Iterator[tuple[str, str, Sequence[tuple[str, str]]]]:
    """Letter, how it is told in a line, and the files with their SHA-256."""
    for at, source in enumerate(statement.records):
        yield letter_of(at), source.name, [(source.name, source.sha256)]
    search = statement.subject.search
    if search is not None:
        run_id = statement.subject.account.facts.run_id
        yield (
            letter_of(RUN),
            f"all {len(search.files)} records of run {run_id} (each with its hash in --json)",
            search.files,
        )


def _files_data(files: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"file": name, "sha256": sha256} for name, sha256 in files]


def _fact_data(fact: Fact) -> dict[str, Any]:
    return {"name": fact.name, "text": fact.text or None, "reason": fact.reason, "from": _places(fact.places)}


def _number_data(section: Section, number: Number) -> dict[str, Any]:
    fields = number._asdict()
    fields["from"] = _places(fields.pop("places"))
    fields["lacks"] = list(fields["lacks"])
    return {"id": fields.pop("id"), "section": section.id, **fields, "is_partial": bool(number.lacks)}


def _places(places: Sequence[Place]) -> list[dict[str, str]]:
    return [{"record": letter_of(each.record), "path": each.path} for each in places]


def to_markdown(statement: Statement, escape: Callable[[str], str], region: str = "") -> str:
    """A model card: the Hub's metadata, then the statement, with a footnote for every number."""
    card, left_out = model_card(statement, region)
    return to_front_matter(card) + "\n" + "\n".join(_markdown(statement, escape, left_out)).rstrip() + "\n"


def title(statement: Statement) -> str:
    facts = statement.subject.account.facts
    return f"{facts.candidate} ({facts.recipe})"


def _markdown(statement: Statement, escape: Callable[[str], str], left_out: Sequence[str]) -> Iterator[str]:
    notes = Notes()
    yield f"# Energy and carbon statement: {escape(title(statement))}"
    yield ""
    for doubt in doubts(statement):
        yield f"> **Not to be relied on:** {escape(doubt)}\n"
    yield "## What was measured\n"
    for fact in statement.facts:
        told = escape(fact.text) if fact.text else f"*{NOT_STATED}*"
        yield f"- **{escape(fact.name)}**: {told}{_marks(notes.of(fact.places))}"
    for section in statement.sections:
        yield f"\n## {escape(section.title)}\n\n| | value | interval | kind |\n|---|---:|---:|---|"
        for line in lines_of(section, notes):
            name = f"**{escape(line.name)}**" if line.is_partial else escape(line.name)
            yield f"| {name} | {escape(line.value)}{_marks(line.notes)} | {escape(line.interval)} | {escape(line.kind)} |"
    yield "\n## What was put in\n\n| | value | kind | source |\n|---|---:|---|---|"
    for each in inputs(statement):
        yield f"| {' | '.join(map(escape, each))} |"
    yield "\n## Not stated, and why\n"
    yield from (f"- {escape(line)}" for line in not_stated(statement, left_out))
    yield f"\n## Where the numbers come from\n\n{escape(METHOD)}\n"
    for letter, told, hashed in origins(statement):
        digest = f", SHA-256 `{hashed[0][1]}`" if len(hashed) == 1 else ""
        yield f"- **{letter}** {escape(told)}{digest}"
    yield ""
    yield from (f"[^{at}]: {letter} `{path}`" for at, letter, path in notes.lines())


def _marks(notes: Sequence[int]) -> str:
    return "".join(f"[^{at}]" for at in notes)
