"""What decisions are made of: of every row a few numbers with their bounds, light enough for a hundred thousand rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from compressbench.core.equivalence import Direction
from compressbench.report.rows import Row

HIGHER_IS_BETTER = {"throughput_per_s", "output_tokens_per_s", "max_rate_per_s", "mbu", "mfu", "sparsity"}
"""The costs (and shares) that are not the less the better; metrics of tasks say their own direction."""

# these are counted of the model; all other costs are taken by a clock or a meter and can be contended
COUNTED = {
    "peak_memory_bytes", "peak_reserved_memory_bytes", "weights_memory_bytes", "kv_cache_memory_bytes", "disk_bytes",
    "num_parameters", "sparsity", "effective_bits", "compress_peak_memory_bytes",
}  # fmt: skip


class Figure(NamedTuple):
    """One number of a row, and what may be said of it against the row's baseline: fields of its Cell and its Verdict.

    `value` is None where there is none, and then `reason` says why. `direction` says which values are better; `margin` is
    the one that the recipe declared for a metric, `baseline_value` what the baseline took beside the row.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    kind: str = ""
    reason: str = ""
    direction: Direction = "lower"
    is_log: bool = False
    verdict: str = ""
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    noise: float | None = None
    margin: float | None = None
    baseline_value: float | None = None


class Contender(NamedTuple):
    """A baseline or candidate that may be chosen. `faults` are why it can't be ranked at all, `unsteady` why what a clock
    or a meter took of it can't. `metrics` are those of the tasks, in the recipe's order. `at` is its row's place in the
    catalog.
    """

    at: int
    recipe: str
    candidate: str
    role: str
    status: str
    run_id: str
    model: str
    steps: str
    comparability_key: str
    baseline_id: str
    metrics: tuple[str, ...]
    faults: tuple[str, ...]
    unsteady: tuple[str, ...]
    figures: Mapping[str, Figure]

    @property
    def is_baseline(self) -> bool:
        return self.role == "baseline"


def is_timed(name: str, metrics: Iterable[str] = ()) -> bool:
    """Whether a clock or a meter took it, so that a disturbed machine makes it worthless."""
    return name not in COUNTED and name not in metrics


def contender_of(row: Row, names: Iterable[str], at: int = 0) -> Contender:
    """`names` are cells' names; those that the row hasn't are left out of its figures."""
    return Contender(
        at=at,
        recipe=row.recipe,
        candidate=row.candidate,
        role=row.role,
        status=row.status,
        run_id=row.run_id,
        model=row.model,
        steps=row.steps,
        comparability_key=row.comparability_key,
        baseline_id=row.baseline_id,
        metrics=row.metrics,
        faults=faults_of(row),
        unsteady=unsteady_of(row),
        figures={name: figure_of(row, name) for name in names if name in row.cells},
    )


def figure_of(row: Row, name: str) -> Figure:
    cell, verdict = row.cells[name], row.against_baseline.get(name)
    direction = row.directions.get(name) or ("higher" if name in HIGHER_IS_BETTER else "lower")
    if verdict is None:
        return Figure(cell.value, cell.low, cell.high, cell.kind, cell.reason, direction)
    return Figure(
        value=cell.value,
        low=cell.low,
        high=cell.high,
        kind=cell.kind,
        reason=cell.reason,
        direction=direction,
        is_log=verdict.is_log,
        verdict=verdict.verdict,
        ratio=verdict.ratio,
        ratio_low=verdict.low,
        ratio_high=verdict.high,
        difference=verdict.difference,
        difference_low=verdict.difference_low,
        difference_high=verdict.difference_high,
        noise=verdict.noise,
        margin=verdict.margin,
        baseline_value=verdict.baseline_value,
    )


def faults_of(row: Row) -> tuple[str, ...]:
    """Why nothing of a row may be ranked: it failed, it can't be true, or it isn't what it claims to be."""
    failed = () if row.status == "ok" else (next((c.reason for c in row.cells.values() if c.reason), row.status),)
    odd = tuple(f"implausible: {reason}" for reason in row.implausible)
    return (*failed, *odd, *(f"false claim: {claim}" for claim in row.false_claims or ()))


def unsteady_of(row: Row) -> tuple[str, ...]:
    return tuple(reason for reason in row.not_rankable if not reason.startswith("implausible:"))


def names_in(contenders: Sequence[Contender]) -> list[str]:
    """The metrics of all, in the order in which they come."""
    return list(dict.fromkeys(name for contender in contenders for name in contender.metrics))
