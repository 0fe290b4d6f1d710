"""Answers that look like a result and can't be one: each is said with its reason, and none is ranked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from compressbench.core.questions import SampleRow

MAX_TRUNCATED_SHARE = 0.05
# below this, equal predictions can be chance
_FEWEST_FOR_CONSTANT = 20
_FEWEST_PER_LABEL = 10
_MOST_LABELS = 1000
_PERMUTED_GAIN = 0.3


def oddities(rows: Sequence[SampleRow], *, is_binary: bool) -> tuple[str, ...]:
    """What can't be right about one model's answers; nothing for sound ones."""
    if not rows:
        return ("no sample was evaluated",)
    found = [*_doubled(rows), *_truncated(rows)]
    if is_binary:
        found += [*_constant(rows), *_permuted(rows)]
    return tuple(found)


def mismatch(before: Sequence[SampleRow], after: Sequence[SampleRow]) -> str:
    """Why two models can't be paired: other samples, or the same ones with other targets; "" if they can."""
    theirs, ours = {row.id: row.target for row in before}, {row.id: row.target for row in after}
    missing, new = sorted(theirs.keys() - ours.keys()), sorted(ours.keys() - theirs.keys())
    if missing or new:
        example = (missing or new)[0]
        return f"{len(missing)} samples of the baseline are missing and {len(new)} are new, such as {example!r}"
    changed = [id_ for id_, target in ours.items() if theirs[id_] != target]
    return f"{len(changed)} samples have other targets than for the baseline, such as {changed[0]!r}" if changed else ""


def _doubled(rows: Sequence[SampleRow]) -> Iterator[str]:
    doubled = [id_ for id_, count in Counter(row.id for row in rows).items() if count > 1]
    if doubled:
        yield f"{len(doubled)} sample ids stand more than once, such as {doubled[0]!r}"


def _truncated(rows: Sequence[SampleRow]) -> Iterator[str]:
    count = sum(row.is_truncated for row in rows)
    if count > MAX_TRUNCATED_SHARE * len(rows):
        yield f"the model did not see all of {count} of {len(rows)} inputs: they are longer than it, or the task, allows"


def _constant(rows: Sequence[SampleRow]) -> Iterator[str]:
    is_constant = len({row.prediction for row in rows}) == 1 and len({row.target for row in rows}) > 1
    if is_constant and len(rows) >= _FEWEST_FOR_CONSTANT:
        yield f"all of {len(rows)} predictions are {rows[0].prediction[:40]!r}"


def _permuted(rows: Sequence[SampleRow]) -> Iterator[str]:
    """Whether another order of the labels would make a bad model a good one (Kuhn's assignment on the confusions)."""
    labels = sorted({row.target for row in rows} | {row.prediction for row in rows})
    num_targets = len({row.target for row in rows})
    if num_targets < 2 or len(labels) > min(_MOST_LABELS, len(rows) // _FEWEST_PER_LABEL):
        return
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    index = {label: at for at, label in enumerate(labels)}
    confusions = np.zeros((len(labels), len(labels)))
    for row in rows:
        confusions[index[row.prediction], index[row.target]] += 1
    best = confusions[linear_sum_assignment(confusions, maximize=True)].sum() / len(rows)
    as_it_is = sum(row.prediction == row.target for row in rows) / len(rows)
    if best - as_it_is > _PERMUTED_GAIN:
        yield (
            f"{100 * as_it_is:.1f} % of the predictions are right, and {100 * best:.1f} % would be with the labels in "
            "another order: is it the model's order?"
        )
