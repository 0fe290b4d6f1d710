"""Rows of a candidate beside the rows of its baseline: sufficient statistics, and what only resampling can say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from compressbench.core.questions import SampleRow, Task
from compressbench.records.score import Paired, Resampled
from compressbench.tasks.declared import weighted_mean

if TYPE_CHECKING:
    from compressbench.measure import resampling

FEWEST_FOR_STATISTIC = 10
"""A resample of fewer items can lack what a metric such as a correlation is made of: different values."""


class Differences(NamedTuple):
    """By sample, in one order for both: candidate less baseline, weights, and clusters."""

    values: list[float]
    weights: list[float]
    clusters: list[str] | None


def aligned(before: Sequence[SampleRow], after: Sequence[SampleRow]) -> list[tuple[SampleRow, SampleRow]]:
    """Pairs of rows with the same id, in the order of the baseline; both must have the same ids, each once."""
    ours = {row.id: row for row in after}
    return [(row, ours[row.id]) for row in before]


def differences(pairs: Sequence[tuple[SampleRow, SampleRow]]) -> Differences:
    clusters = [before.cluster for before, _ in pairs]
    return Differences(
        [after.score - before.score for before, after in pairs],
        [after.weight for _, after in pairs],
        clusters if any(clusters) else None,
    )


def pair(task: Task, before: Sequence[SampleRow], after: Sequence[SampleRow], seed: int) -> Paired:
    """What the two models' rows say of their difference. Proportions of independent samples need no resampling."""
    pairs = aligned(before, after)
    found = differences(pairs)
    needs_resampling = not task.is_binary or found.clusters is not None
    resampled = _resample(task, pairs, found, seed) if needs_resampling else None
    return sums(found, task.direction).model_copy(update={"resampled": resampled})


def sums(found: Differences, direction: str) -> Paired:
    """The sufficient statistics of the differences; harmful ones are those that go against `direction`."""
    count, total = len(found.values), sum(found.weights)
    mean = sum(d * w for d, w in zip(found.values, found.weights, strict=True)) / total
    square = sum(w * (d - mean) ** 2 for d, w in zip(found.values, found.weights, strict=True)) / total
    fell, rose = sum(d < 0 for d in found.values), sum(d > 0 for d in found.values)
    harmful, beneficial = (fell, rose) if direction == "higher" else (rose, fell)
    return Paired(
        num_samples=count,
        num_harmful=harmful,
        num_beneficial=beneficial,
        mean_difference=mean,
        sd_difference=math.sqrt(square * count / max(1, count - 1)),
    )


def _resample(
    task: Task, pairs: Sequence[tuple[SampleRow, SampleRow]], found: Differences, seed: int
) -> Resampled | None:
    """None for too few samples or clusters to draw from."""
    from compressbench.measure import resampling

    num_units = len(pairs if found.clusters is None else set(found.clusters))
    if is_mean(task, [before for before, _ in pairs]):
        if num_units < 2:
            return None
        interval = resampling.weighted_mean_interval(*found, seed=seed)
        return as_record(interval, "sign-flip permutation test", resampling.sign_flip_p(*found, seed=seed))
    if num_units < FEWEST_FOR_STATISTIC:
        return None

    def change(indices: Iterable[int]) -> float:
        chosen = [pairs[at] for at in indices]
        return task.summarize([after for _, after in chosen]) - task.summarize([before for before, _ in chosen])

    interval = resampling.statistic_difference_interval(change, len(pairs), found.clusters, seed=seed)
    return as_record(interval, "t-test with the bootstrap's standard error", None)


def is_mean(task: Task, rows: Sequence[SampleRow]) -> bool:
    """Whether the metric is the weighted mean of the scores, or exp of it, as the task says."""
    mean = weighted_mean(rows)
    return math.isclose(task.summarize(rows), math.exp(min(mean, 700.0)) if task.is_log else mean, rel_tol=1e-9)


def as_record(found: resampling.Resampled, test: str, p_value: float | None) -> Resampled:
    return Resampled(
        difference=found.value,
        low=min(found.low, found.value),
        high=max(found.high, found.value),
        standard_error=found.standard_error,
        p_value=p_value,
        method=f"{found.method}; {test}",
        seed=found.seed,
        num_resamples=found.num_resamples,
        num_units=found.num_units,
    )
