"""Records with several samples of every question, made ready to be compared: right answers by question, tokens, prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from compressbench.core.errors import MissingMeasurementError, NotComparableError, RecordError
from compressbench.core.names import one_line
from compressbench.records.record import Record
from compressbench.records.sample_rows import read_columns
from compressbench.records.score import Score
from compressbench.report.catalog import Catalog
from compressbench.report.figures import Contender
from compressbench.report.pareto import labels
from compressbench.report.think_prices import Costs, Tokens, joules, seconds
from compressbench.tasks.pass_at_k import pass_at_k


class Variant(NamedTuple):
    """One model's samples. `num_right` and `selected` go by question, all variants' in one order; `selected` is by number
    of samples, and empty where nothing selects: then coverage is all there is.
    """

    at: int
    label: str
    is_baseline: bool
    baseline_id: str
    select: str
    num_samples: int
    num_right: Sequence[int]
    selected: Mapping[int, Sequence[float]]
    tokens: Tokens
    unfinished: float | None
    joules: Costs
    seconds: Costs

    def coverage(self, k: int) -> list[float] | None:
        """Each question's pass@k; None beyond what was sampled."""
        if not 1 <= k <= self.num_samples:
            return None
        of_count = [pass_at_k(self.num_samples, right, k) for right in range(self.num_samples + 1)]
        return [of_count[right] for right in self.num_right]

    def accuracy(self, k: int) -> Sequence[float] | None:
        """Each question's probability of a right selected answer, of fewer samples where it isn't known of k; else its
        pass@k.
        """
        if not self.selected:
            return self.coverage(k)
        known = [each for each in self.selected if each <= k]
        return self.selected[max(known)] if known and k <= self.num_samples else None

    @property
    def ks(self) -> list[int]:
        """Powers of two up to all samples."""
        powers = [2**power for power in range(self.num_samples.bit_length())]
        return powers if self.num_samples in powers else [*powers, self.num_samples]


class Skipped(NamedTuple):
    label: str
    reason: str


class _Rows(NamedTuple):
    """The stored samples of one score, as columns."""

    score: Score
    columns: Mapping[str, Sequence[object]]


def variants_of(catalog: Catalog, contenders: Sequence[Contender]) -> tuple[list[Variant], list[Skipped]]:
    """In the order given. Raises MissingMeasurementError if no row has several samples of a question, and
    NotComparableError if they are of other questions.
    """
    name = labels(contenders)
    rows = {each.at: catalog.row(each.at) for each in contenders}
    baselines = {row.baseline_id: at for at, row in rows.items() if row.role == "baseline"}
    found: list[Variant] = []
    skipped: list[Skipped] = []
    asked: list[tuple[object, object]] | None = None
    for each in contenders:
        record, row = catalog.record(each.at), rows[each.at]
        stored = _stored(catalog, each, record)
        if isinstance(stored, str):
            skipped.append(Skipped(name(each), stored))
            continue
        order, questions = _in_order(stored.columns)
        if asked is not None and questions != asked:
            raise NotComparableError("the records are of different questions", where=one_line(name(each)))
        asked = questions
        tokens = _tokens(stored, order)
        at = baselines.get(row.baseline_id)
        baseline = None if at is None else rows[at]
        length = max(1, int(record.workload["sequence_length"]))
        prices = joules(row, baseline, tokens, length), seconds(row, baseline, tokens)
        found.append(_variant(each, name(each), stored, order, (tokens, *prices)))
    if not found:
        raise MissingMeasurementError(
            "no record has several samples of a question", got=one_line(skipped[0].reason if skipped else "no rows"),
            do="Run a task of kind generation with num_samples above 1 and a temperature.",
        )  # fmt: skip
    return found, skipped


def _stored(catalog: Catalog, each: Contender, record: Record) -> _Rows | str:
    if each.faults:
        return each.faults[0]
    sampled = [s for s in record.scores if s.task == "generation" and _count(s, "num_samples") > 1]
    if not sampled:
        return "it has one sample of a question"
    try:
        columns = read_columns(catalog.path(each.at), sampled[0].samples_file, sampled[0].samples_sha256)
    except RecordError as error:
        return str(error)
    lacking = {"id", "target", "score", "num_tokens"} - columns.keys()
    if lacking or (sampled[0].metric != "pass@1" and "also:pass@1" not in columns):
        return f"its samples have no {', '.join(sorted(lacking)) or 'pass@1'}"
    return _Rows(sampled[0], columns) if columns["id"] else "it has no samples"


def _count(score: Score, name: str) -> int:
    value = score.options.get(name)
    return value if isinstance(value, int) else 1


def _in_order(columns: Mapping[str, Sequence[object]]) -> tuple[list[int], list[tuple[object, object]]]:
    order = sorted(range(len(columns["id"])), key=lambda at: str(columns["id"][at]))
    return order, [(columns["id"][at], columns["target"][at]) for at in order]


def _numbers(values: Sequence[object], order: Sequence[int]) -> list[float]:
    """Raises RecordError where one is missing: a question without it can't be paired."""
    found = [values[at] for at in order]
    if not all(isinstance(each, int | float) for each in found):
        raise RecordError("a sample has no number where others have one")
    return [float(each) for each in found if isinstance(each, int | float)]


def _mean(stored: _Rows, name: str, order: Sequence[int]) -> float | None:
    values = stored.columns.get(name)
    return None if values is None else sum(_numbers(values, order)) / len(order)


def _tokens(stored: _Rows, order: Sequence[int]) -> Tokens:
    num_samples = _count(stored.score, "num_samples")
    return Tokens(
        _mean(stored, "also:prompt_tokens", order) or 0.0,
        (_mean(stored, "num_tokens", order) or 0.0) / num_samples,
        (_mean(stored, "also:scorer_tokens", order) or 0.0) / num_samples,
    )


def _variant(
    each: Contender, label: str, stored: _Rows, order: Sequence[int], costs: tuple[Tokens, Costs, Costs]
) -> Variant:
    score, columns = stored
    num_samples, select = _count(score, "num_samples"), str(score.options.get("select", "none"))
    shares = _numbers(columns["score" if score.metric == "pass@1" else "also:pass@1"], order)
    prefix = f"also:{select}@"
    selected = {
        int(name.removeprefix(prefix)): _numbers(values, order)
        for name, values in columns.items()
        if name.startswith(prefix) and name.removeprefix(prefix).isdigit()
    }
    tokens, energy, time = costs
    return Variant(
        at=each.at,
        label=label,
        is_baseline=each.is_baseline,
        baseline_id=each.baseline_id,
        select=select,
        num_samples=num_samples,
        num_right=[round(share * num_samples) for share in shares],
        selected=selected,
        tokens=tokens,
        unfinished=_mean(stored, "also:unfinished", order),
        joules=energy,
        seconds=time,
    )
