"""Expected calibration error: how far confidences are from the share of right answers."""

from __future__ import annotations

from collections.abc import Sequence

from compressbench.core.questions import SampleRow

NUM_BINS = 15


def expected_calibration_error(rows: Sequence[SampleRow]) -> float | None:
    """Guo et al. 2017, arXiv:1706.04599: 15 bins of equal width, |right - confidence| of each weighted by its samples.

    Scores are 0 or 1. None if a row has no confidence.
    """
    right, confidence, count = [0.0] * NUM_BINS, [0.0] * NUM_BINS, [0] * NUM_BINS
    for row in rows:
        if row.confidence is None:
            return None
        at = min(NUM_BINS - 1, int(row.confidence * NUM_BINS))
        right[at] += row.score
        confidence[at] += row.confidence
        count[at] += 1
    total = sum(count)
    return sum(abs(r - c) for r, c in zip(right, confidence, strict=True)) / total if total else None
