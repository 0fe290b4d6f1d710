"""Models side by side: what of each is better, worse or undecided against a reference, and how every claim was obtained.

Within one run the reference is its baseline, and the claims are those of the run. Any other records are compared as far as
they allow: scores sample by sample, costs through a baseline that both were measured against, sizes as counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from compressbench.core.errors import RecordError
from compressbench.core.names import one_line
from compressbench.report import pairing
from compressbench.report.against import COUNTED_COSTS
from compressbench.report.catalog import Catalog
from compressbench.report.chained import Obtained, better_words, cost_between
from compressbench.report.figures import Contender, faults_of, figure_of, is_timed, unsteady_of
from compressbench.report.groups import one_group
from compressbench.report.quality_words import WORST
from compressbench.report.rows import Row
from compressbench.report.score_claims import verdicts
from compressbench.report.verdict import Verdict
from compressbench.report.words import columns

Outcome = Literal["better", "worse", "same", "undecided", ""]
_PAIRED = (
    "latency_p50_s", "throughput_per_s", "max_rate_per_s", "ttft_p50_s", "tpot_p50_s", "energy_j_per_inference",
    "energy_j_per_output_token",
)  # fmt: skip
_HEADLINE = ("peak_memory_bytes", "disk_bytes", "effective_bits")


class Compared(NamedTuple):
    """One quantity against the reference's: on which side it falls ("" if nothing is claimed), and how that is known."""

    side: Outcome
    how: str = ""
    verdict: Verdict | None = None
    reason: str = ""


class Column(NamedTuple):
    """One model. `faults` are why nothing is claimed of it, `unsteady` why nothing of what a clock or a meter took."""

    label: str
    row: Row
    audit: str
    faults: tuple[str, ...]
    unsteady: tuple[str, ...]
    compared: Mapping[str, Compared]

    def names_on(self, side: Outcome) -> list[str]:
        return [name for name, each in self.compared.items() if each.side == side]


class Comparison(NamedTuple):
    """`names` are the quantities in the order in which they are shown. `watermark` is there where it was forced."""

    title: str
    watermark: str
    names: tuple[str, ...]
    reference: Column
    candidates: tuple[Column, ...]
    notes: tuple[str, ...] = ()


def compare_run(catalog: Catalog, contenders: Sequence[Contender], *, full: bool = False) -> Comparison:
    """The newest run's baseline against its candidates, by the verdicts of that run.

    Raises RecordError if the contenders are of several recipes, or the run lacks its baseline or any candidate.
    """
    recipes = list(dict.fromkeys(each.recipe for each in contenders))
    if len(recipes) > 1:
        listed = ", ".join(f"'{one_line(name)}'" for name in recipes)
        raise RecordError("records of several recipes", got=listed, do="Choose one with --recipe.")
    newest = max(each.run_id for each in contenders)
    run = [catalog.row(each.at) for each in contenders if each.run_id == newest]
    baselines, others = [[row for row in run if (row.role == "baseline") is is_it] for is_it in (True, False)]
    if len(baselines) != 1 or not others:
        lacks = "its baseline" if not baselines else "candidates" if not others else "one single baseline"
        do = "Give the files of two records to compare them all the same."
        raise RecordError(f"the newest run has no record of {lacks}", where=recipes[0], got=f"run {newest}", do=do)
    older = [each.candidate for each in contenders if each.run_id != newest and not each.is_baseline]
    notes = [f"Measured in older runs and left out: {', '.join(older)}."] if older else []
    names = _names([*baselines, *others], full)
    stored = {name: Obtained(pairing.STORED, None) for name in (WORST, *names)}
    found = [{name: each._replace(verdict=_own(row, name)) for name, each in stored.items()} for row in others]
    return _comparison(baselines[0], others, names, found, notes=notes)


def _own(row: Row, name: str) -> Verdict | None:
    if name == WORST:
        return row.strata[0].verdict if row.strata else None
    return row.against_baseline.get(name)


def compare_records(
    catalog: Catalog, reference_at: int, others_at: Sequence[int], *, force: bool = False, full: bool = False
) -> Comparison:
    """Records of any runs against the first. Raises NotComparableError if their conditions differ, unless forced."""
    places = [reference_at, *others_at]
    chosen = [each for each in catalog.contenders() if each.at in places]
    watermark = one_group(catalog, chosen, force=force, do="Compare them all the same with --force.")
    rows = [catalog.row(at) for at in places]
    names = [name for name in _names(rows, full) if name != WORST]
    claimed, metrics = _score_verdicts(catalog, places), {name for row in rows for name in row.metrics}
    found = [
        {
            name: scores.get(name, Obtained("", None)) if name in metrics else cost_between(rows[0], row, name)
            for name in names
        }
        for row, scores in zip(rows[1:], claimed, strict=True)
    ]
    return _comparison(rows[0], rows[1:], names, found, watermark=watermark)


def _score_verdicts(catalog: Catalog, places: Sequence[int]) -> list[dict[str, Obtained]]:
    """Of every record after the first; all claims of the comparison are one family."""
    sides = [_side(catalog, at) for at in places]
    is_sound = [not faults_of(catalog.row(at)) for at in places]
    asked = {
        (number, name): each
        for number, side in enumerate(sides[1:])
        if is_sound[0] and is_sound[number + 1]
        for name, each in pairing.score_claims(sides[0], side).items()
    }
    judged = verdicts({key: each.claim for key, each in asked.items() if not isinstance(each.claim, str)})
    found: list[dict[str, Obtained]] = [{} for _ in sides[1:]]
    for (number, name), each in asked.items():
        refused = Verdict(verdict="inconclusive", reason=each.claim if isinstance(each.claim, str) else "")
        verdict = judged.get((number, name), refused)
        if each.how == pairing.THROUGH_BASELINE:
            verdict = verdict.model_copy(update={"num_samples_needed": None, "smallest_detectable": None})
        found[number][name] = Obtained(each.how, verdict)
    return found


def _side(catalog: Catalog, at: int) -> pairing.Side:
    row = catalog.row(at)
    run = (row.run_id, row.recipe)
    entries = ((place, catalog.entry(place)) for place in range(len(catalog)))
    own = next(
        (place for place, each in entries if each.role == "baseline" and (each.run_id, each.recipe) == run), None
    )
    baseline = None if own is None else catalog.record(own)
    return pairing.Side(catalog.path(at), catalog.record(at), row.metrics, baseline, row.baseline_id)


def _names(rows: Sequence[Row], full: bool) -> list[str]:
    """Metrics, speed, energy, memory, size and bits; `full`: everything that was asked for."""
    found = columns(rows, full=full)
    return found if full else [*(name for name in found if name not in ("sparsity", *_HEADLINE)), *_HEADLINE]


def _comparison(
    reference: Row,
    others: Sequence[Row],
    names: Sequence[str],
    found: Sequence[Mapping[str, Obtained]],
    *,
    watermark: str = "",
    notes: Iterable[str] = (),
) -> Comparison:
    labels = _labels([reference, *others])
    shown = [
        _column(row, label, {name: _compared(reference, row, name, each[name]) for name in names if name in each})
        for row, label, each in zip(others, labels[1:], found, strict=True)
    ]
    return Comparison(
        _title(reference), watermark, tuple(names), _column(reference, labels[0], {}), tuple(shown), tuple(notes)
    )


def _column(row: Row, label: str, compared: Mapping[str, Compared]) -> Column:
    return Column(label, row, audit_of(row), faults_of(row), unsteady_of(row), compared)


def _compared(reference: Row, row: Row, name: str, found: Obtained) -> Compared:
    """Nothing is claimed of a row with a fault, and nothing timed of one that a disturbed machine measured."""
    verdict, metrics = found.verdict, (*row.metrics, WORST)
    why = _why_nothing(reference, row, is_timed(name, metrics))
    if why:
        is_asked = verdict is not None or name in (*metrics, *COUNTED_COSTS, *_PAIRED)
        undecided = None if verdict is None else verdict.model_copy(update={"verdict": "undecided", "reason": why})
        return Compared("undecided" if is_asked else "", found.how, undecided, why)
    if verdict is None:
        return _without_verdict(reference, row, name)
    direction = figure_of(row, name).direction if name in row.cells else "lower"
    words: Mapping[str, Any] = better_words(direction)
    return Compared(words.get(verdict.verdict, "undecided"), found.how, verdict, verdict.reason)


def _without_verdict(reference: Row, row: Row, name: str) -> Compared:
    """Undecided where a claim would have been made if both had a number; else nothing is claimed of it anyway."""
    if name not in (*row.metrics, *COUNTED_COSTS, *_PAIRED) or name not in row.cells or name not in reference.cells:
        return Compared("")
    lacking = [(who, each.cells[name]) for who, each in (("", row), ("the reference: ", reference))]
    why = next((f"{who}{cell.reason}" for who, cell in lacking if cell.value is None), "")
    return Compared("undecided", reason=why or "it was not paired with the reference's")


def _why_nothing(reference: Row, row: Row, is_of_a_clock: bool) -> str:
    if faults_of(row):
        return faults_of(row)[0]
    if faults_of(reference):
        return f"the reference: {faults_of(reference)[0]}"
    if not is_of_a_clock:
        return ""
    # a baseline's own record is its comparison with a copy of itself, which is another measurement than the candidate's
    if unsteady_of(row) and row.role != "baseline":
        return unsteady_of(row)[0]
    if unsteady_of(reference) and reference.role != "baseline":
        return f"the reference: {unsteady_of(reference)[0]}"
    return ""


def audit_of(row: Row) -> str:
    if row.false_claims is None:
        return "not audited"
    count = len(row.false_claims)
    return "no false claim" if not count else "FALSE CLAIM" if count == 1 else f"{count} FALSE CLAIMS"


def _labels(rows: Sequence[Row]) -> list[str]:
    """The shortest that tells them apart."""
    ways = (
        [row.candidate for row in rows],
        [f"{row.recipe}/{row.candidate}" for row in rows],
        [f"{row.candidate} of {_date(row)}" for row in rows],
        [f"{row.candidate} of {row.run_id}" for row in rows],
        [f"{row.recipe}/{row.candidate} of {row.run_id}" for row in rows],
    )
    return next((way for way in ways if len(set(way)) == len(way)), [f"{n + 1}: {w}" for n, w in enumerate(ways[-1])])


def _date(row: Row) -> str:
    return row.created_utc[:16].replace("T", " ")


def _title(row: Row) -> str:
    said = row.conditions
    parts = [row.recipe, row.model, said.get("hardware", "").partition(" (")[0], said.get("threads", "")]
    return " · ".join(part for part in [*parts, said.get("workload", ""), row.created_utc[:10]] if part)
