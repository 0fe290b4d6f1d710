"""Rows and records of a catalog as what a balance is made of: plain numbers with their intervals, kinds and sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from compressbench.cli.reading import pick
from compressbench.core.errors import RecordError
from compressbench.core.statistics import Interval
from compressbench.lifecycle.accounts import Case
from compressbench.lifecycle.one_off import Figure, Part, joules_or_estimate
from compressbench.lifecycle.savings import Pair, exact, product, quotient, weakest
from compressbench.records.record import Record
from compressbench.report.catalog import Catalog, newest
from compressbench.report.figures import Contender, faults_of, unsteady_of
from compressbench.report.rows import Cell, Row
from compressbench.report.verdict import Verdict

RATES = ("throughput_per_s", "max_rate_per_s")
ENERGY = "energy_j_per_inference"
_NO_BASELINE = "there is no record of the baseline of its run"


class Given(NamedTuple):
    """What the user says that it took besides."""

    joules: float | None = None
    seconds: float | None = None


class Balances:
    """Cases of a catalog that holds all runs: the search for a candidate is what its whole run did."""

    def __init__(self, catalog: Catalog, given: Given) -> None:
        self._catalog, self._given = catalog, given
        self._runs: dict[tuple[str, str], list[int]] = {}
        for at in range(len(catalog)):
            entry = catalog.entry(at)
            self._runs.setdefault((entry.recipe, entry.run_id), []).append(at)
        self._work: dict[int, _Work] = {}

    def case(self, contender: Contender) -> Case:
        """Of one candidate."""
        row, baseline = self._catalog.row(contender.at), self._baseline(contender.recipe, contender.run_id)
        theirs = [] if baseline is None else [*faults_of(baseline), *unsteady_of(baseline)]
        ours = [*faults_of(row), *unsteady_of(row)]
        faults = [*ours, *(f"the baseline: {reason}" for reason in theirs)]
        accuracy, is_degraded = _accuracy(row, baseline)
        degraded = [name for name in row.metrics if _word(row, name) == "degraded"]
        return Case(
            candidate=row.candidate,
            recipe=row.recipe,
            run_id=row.run_id,
            parts=tuple(self.parts(contender)),
            seconds=_seconds(row, baseline),
            joules=_joules(row, baseline),
            accuracy=accuracy,
            fault="; ".join(dict.fromkeys(faults)),
            is_degraded=is_degraded,
            marks=tuple(f"{name} is degraded" for name in degraded),
        )

    def _baseline(self, recipe: str, run_id: str) -> Row | None:
        """The one that candidates are paired with, as rows have it."""
        places = [at for at in self.run(recipe, run_id) if self._catalog.entry(at).role == "baseline"]
        named = [at for at in places if self._catalog.entry(at).candidate == "baseline"]
        return self._catalog.row((named or places)[-1]) if places else None

    def run(self, recipe: str, run_id: str) -> Sequence[int]:
        """Places of all records of a run."""
        return self._runs[recipe, run_id]

    def parts(self, contender: Contender) -> Iterator[Part]:
        """The work of making one candidate first, then its run's search."""
        yield from self._of(contender.at).making
        given = self._given
        if given.joules is not None or given.seconds is not None:
            yield Part("given", _said(given.seconds, "--extra-seconds"), _said(given.joules, "--extra-joules"))
        yield from self._of(contender.at).judging
        for at in self.run(contender.recipe, contender.run_id):
            if at != contender.at:
                work = self._of(at)
                yield from (part._replace(is_search=True, is_needed=False) for part in (*work.making, *work.judging))

    def _of(self, at: int) -> _Work:
        if at not in self._work:
            record, row = self._catalog.record(at), self._catalog.row(at)
            watts = _watts(row)
            if watts.value is None:
                entry = self._catalog.entry(at)
                baseline = self._baseline(entry.recipe, entry.run_id)
                others = _watts(baseline) if baseline is not None else watts
                watts = others if others.value is not None else watts
            self._work[at] = _Work(tuple(_making(record, row, watts)), tuple(_judging(record, watts)))
        return self._work[at]


class _Work(NamedTuple):
    """What one record says was done: to make it, and to find out how fast it is."""

    making: tuple[Part, ...]
    judging: tuple[Part, ...]


def chosen(
    catalog: Catalog, names: Iterable[str] = (), *, recipe: str, key: str, all_runs: bool = False
) -> list[Contender]:
    """Of a catalog with all runs the newest rows, or all, with these costs. Raises RecordError if nothing is left."""
    shown = set(newest([catalog.entry(at) for at in range(len(catalog))]))
    return [each for each in pick(catalog, names, recipe=recipe, key=key) if all_runs or each.at in shown]


def cases(catalog: Catalog, given: Given, *, recipe: str = "", key: str = "", all_runs: bool = False) -> list[Case]:
    """Of every candidate, in the order of the runs. Raises RecordError if there is none."""
    balances = Balances(catalog, given)
    candidates = [each for each in chosen(catalog, recipe=recipe, key=key, all_runs=all_runs) if not each.is_baseline]
    if not candidates:
        raise RecordError("no row is a candidate", do="Break-even weighs candidates against the baseline of their run.")
    return [balances.case(each) for each in candidates]


def _making(record: Record, row: Row, watts: Figure) -> Iterator[Part]:
    if record.role == "candidate":
        seconds, joules = figure_of(row, "compress_seconds"), figure_of(row, "compress_energy_j")
        if record.status == "ok" and not record.steps:
            reason = "nothing was compressed here; what making it elsewhere took is not recorded"
            seconds = joules = Figure(None, reason=reason)
        else:
            joules = joules_or_estimate(joules, seconds, watts)
        yield Part(f"compressing {row.candidate}", seconds, joules, is_needed=bool(record.steps))
    if record.scores:
        yield _timed(f"evaluating {row.candidate}", sum(score.seconds for score in record.scores), watts)
    if any(len(score.draws) > 1 for score in record.scores):
        unknown = Figure(None, reason="not recorded")
        yield Part(f"further draws of {row.candidate}", unknown, unknown, is_needed=False)


def _judging(record: Record, watts: Figure) -> Iterator[Part]:
    """Warm-up and timed calls of all arms, and rates and batch sizes that were tried."""
    measured, name = record.measurement, record.candidate
    if measured is None:
        return
    seconds = sum(block.seconds or sum(block.latencies_ns) / 1e9 for block in measured.blocks)
    part = _timed(f"timed calls of {name}", seconds, watts)
    how = measured.provenance.get("energy_j")
    if how is not None and all("energy_j" in block.raw for block in measured.blocks):
        read = exact(sum(block.raw["energy_j"] for block in measured.blocks))
        part = part._replace(joules=Figure(read, how.kind, how.source))
    yield part._replace(is_search=True, is_needed=False)
    further = sum(each.seconds for each in measured.warm_up.values())
    further += sum(sum(each.latencies_ns) / 1e9 for each in measured.sweep)
    trials = measured.server.trials if measured.server is not None else ()
    further += sum(each.num_queries / each.rate_per_s for each in trials)
    yield _timed(f"warm-up and trials of {name}", further, watts)._replace(is_search=True, is_needed=False)


def _timed(name: str, seconds: float, watts: Figure) -> Part:
    took = Figure(exact(seconds), "measured", "the record's clock")
    return Part(name, took, joules_or_estimate(Figure(None, reason="joules not recorded"), took, watts))


def _watts(row: Row) -> Figure:
    """Mean power while the model worked: joules per inference times inferences per second."""
    joules, rate = figure_of(row, ENERGY), figure_of(row, "throughput_per_s")
    if joules.value is None or rate.value is None:
        return Figure(None, reason=joules.reason or rate.reason)
    try:
        found = product(joules.value, rate.value)
    except ValueError:
        return Figure(None, reason="its power is no sound number")
    return Figure(found, weakest([joules.kind, rate.kind]), f"the mean power of the timed calls of {row.candidate}")


def _said(value: float | None, option: str) -> Figure:
    if value is None:
        return Figure(exact(0.0), "assumed", f"{option} was not given")
    return Figure(exact(value), "assumed", f"given: {option}")


def figure_of(row: Row, name: str) -> Figure:
    cell = row.cells.get(name)
    if cell is None or cell.value is None:
        return Figure(None, reason=(cell.reason if cell is not None else "") or "it was not recorded")
    return Figure(_bounds(cell), cell.kind, cell.source)


def _bounds(cell: Cell) -> Interval:
    value = cell.value or 0.0
    if cell.low is None or cell.high is None:
        return exact(value)
    return Interval(value, cell.low, cell.high)


def rate_name(row: Row) -> str:
    """Inferences per second, of the server scenario the highest rate within the limit."""
    return next((name for name in RATES if row.cells.get(name) and row.cells[name].value is not None), RATES[0])


def _seconds(row: Row, baseline: Row | None) -> Pair:
    """Seconds of the machine per inference: one over the throughput."""
    pair = _pair(row, baseline, rate_name(row))
    if pair.base is None or pair.ratio is None:
        return pair
    try:
        return pair._replace(base=quotient(exact(1.0), pair.base), ratio=quotient(exact(1.0), pair.ratio))
    except ValueError:
        return pair._replace(base=None, ratio=None, reason="its value or its interval is no sound number")


def _joules(row: Row, baseline: Row | None) -> Pair:
    return _pair(row, baseline, ENERGY)


def _pair(row: Row, baseline: Row | None, name: str) -> Pair:
    if baseline is None:
        return Pair(None, None, reason=_NO_BASELINE)
    ours, base = figure_of(row, name), figure_of(baseline, name)
    if ours.value is None or base.value is None:
        return Pair(None, None, reason=ours.reason or f"the baseline: {base.reason}")
    verdict = row.against_baseline.get(name)
    ratio = None if verdict is None else _ratio(verdict)
    if verdict is None or ratio is None:
        return Pair(None, None, reason=(verdict and verdict.reason) or "it could not be paired with the baseline's")
    return Pair(base.value, ratio, verdict.noise, weakest([ours.kind, base.kind]), base.source)


def _ratio(verdict: Verdict) -> Interval | None:
    if verdict.ratio is None or verdict.low is None or verdict.high is None:
        return None
    return Interval(verdict.ratio, verdict.low, verdict.high)


def _accuracy(row: Row, baseline: Row | None) -> tuple[Pair, bool]:
    """The share of correct answers of the first task that has one, and whether it was shown to fall."""
    shares = [name for name in row.metrics if row.cells[name].unit == "fraction" and _is_up(row, name)]
    if not shares:
        return Pair(None, None, reason="no task counts correct answers"), False
    pair = _pair(row, baseline, shares[0])
    return pair._replace(noise=0.0), any(_word(row, name) == "degraded" for name in row.metrics)


def _is_up(row: Row, name: str) -> bool:
    return row.directions.get(name) == "higher"


def _word(row: Row, name: str) -> str:
    verdict = row.against_baseline.get(name)
    return "" if verdict is None else verdict.verdict
