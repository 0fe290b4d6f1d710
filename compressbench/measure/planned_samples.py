"""How many samples a margin needs, and what those that are there can show, before anything is run.

Of proportions only: how far other scores of one sample lie apart is known after a run. How many answers a compression flips
isn't known either, so three churns are given, as observed for 8-bit, 4-bit and harsher settings.
"""

from __future__ import annotations

from collections.abc import Iterator

from compressbench.core.questions import Task
from compressbench.core.sample_size import samples_for_equivalence, smallest_detectable_difference
from compressbench.core.spec import Spec

CHURNS = (0.02, 0.05, 0.10)


class PlannedSamples(Spec):
    """`num_samples` is None where only a network knows; the tuples belong to CHURNS, and are None without a proportion."""

    task: str
    num_samples: int | None
    margin: float | None
    needed: tuple[int, ...] | None = None
    smallest_detectable: tuple[float, ...] | None = None


def planned_samples(label: str, task: Task) -> PlannedSamples:
    work, margin = task.estimated_work(), task.margin
    count = None if work is None else work[0]
    needed = tuple(samples_for_equivalence(margin, churn) for churn in CHURNS) if margin and task.is_binary else None
    seen = tuple(smallest_detectable_difference(c, count) for c in CHURNS) if count and task.is_binary else None
    return PlannedSamples(task=label, num_samples=count, margin=margin, needed=needed, smallest_detectable=seen)


def sentences(planned: PlannedSamples) -> Iterator[str]:
    """What a reader of a plan should know of one task."""
    churns = " / ".join(f"{100 * churn:.0f}" for churn in CHURNS)
    count = "as many samples as the Hub has" if planned.num_samples is None else f"{planned.num_samples:,} samples"
    yield f"{planned.task}: {count}"
    if planned.needed is not None and planned.margin is not None:
        needed = " / ".join(f"{each:,}" for each in planned.needed)
        yield f"a margin of {100 * planned.margin:g} points needs {needed} samples if {churns} % of the answers flip"
        if planned.num_samples is not None and planned.num_samples < planned.needed[0]:
            yield "too few to call anything equivalent unless fewer answers flip: widen the margin or take more samples"
    elif planned.smallest_detectable is not None:
        shown = " / ".join(f"{100 * each:.2g}" for each in planned.smallest_detectable)
        yield f"they show differences of {shown} points (80 % power) if {churns} % of the answers flip"
    if planned.margin is None:
        yield "no margin is declared, so nothing will be called equivalent"
    elif planned.needed is None:
        yield "what its margin needs depends on how far samples differ, which the table says after a run"
