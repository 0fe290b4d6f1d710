"""The same candidate made from several seeds and calibration draws: one score with an interval over draws and samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from compressbench.core.questions import SampleRow, Task
from compressbench.measure.paired_rows import aligned, as_record, differences, is_mean, pair
from compressbench.records.score import Draw, Resampled, Score


class Drawn(NamedTuple):
    """The rows of one draw, and where they were written."""

    seed: int
    rows: list[SampleRow]
    file: str
    sha256: str


def over_draws(task: Task, score: Score, before: Sequence[SampleRow], drawn: Sequence[Drawn], seed: int) -> Score:
    """The score, which is the first draw's, with every draw in it.

    Metrics that are no means have draws, and no interval over them.
    """
    draws = tuple(
        Draw(
            seed=each.seed,
            value=task.summarize(each.rows),
            samples_file=each.file,
            samples_sha256=each.sha256,
            paired=pair(task, before, each.rows, seed) if at else score.paired,
        )
        for at, each in enumerate(drawn)
    )
    resampled = _two_level(before, drawn, seed) if is_mean(task, before) else None
    return score.model_copy(update={"draws": draws, "over_draws": resampled})


def _two_level(before: Sequence[SampleRow], drawn: Sequence[Drawn], seed: int) -> Resampled:
    from compressbench.measure.repeated_draws import two_level_interval

    found = [differences(aligned(before, each.rows)) for each in drawn]
    interval = two_level_interval([each.values for each in found], found[0].weights, found[0].clusters, seed=seed)
    # what is known of other draws is known from these
    return as_record(interval._replace(num_units=len(drawn)), "t-test with its standard error", None)
