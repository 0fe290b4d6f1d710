"""The units of paired resampling: clusters of items that share their luck, or items on their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Indices = npt.NDArray[np.int64]


class Units(NamedTuple):
    """Per unit, in the order of first appearance: sum(w d) and sum(w). A unit without weight is left out."""

    totals: Floats
    weights: Floats

    @property
    def mean(self) -> float:
        return float(self.totals.sum() / self.weights.sum())

    @property
    def residuals(self) -> Floats:
        """totals - mean weights: what every unit contributes to the error of the mean, times the sum of weights."""
        return self.totals - self.mean * self.weights

    @property
    def squared_error(self) -> float:
        """Of the mean, linearized as a ratio of two sums (Cochran 1977, 6.4)."""
        import numpy as np

        num_units = len(self.totals)
        return float(np.square(self.residuals).sum() / self.weights.sum() ** 2 * num_units / (num_units - 1))


def units_of(
    differences: Sequence[float] | Floats,
    weights: Sequence[float] | Floats | None = None,
    clusters: Sequence[str] | None = None,
) -> Units:
    """Sums per cluster. Raises ValueError for unequal lengths, what is no finite number, or fewer than two units."""
    import numpy as np

    values = np.asarray(differences, dtype=np.float64)
    shares = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    if values.shape != shares.shape or values.ndim != 1:
        raise ValueError(f"one weight per difference (got {values.shape} and {shares.shape})")
    if not np.isfinite(values).all() or not np.isfinite(shares).all() or (shares < 0).any():
        raise ValueError("differences are finite numbers, and weights are not below zero")
    numbers = unit_numbers(len(values), clusters)
    totals: Floats = np.bincount(numbers, shares * values).astype(np.float64)
    sums: Floats = np.bincount(numbers, shares).astype(np.float64)
    found = Units(totals[sums > 0], sums[sums > 0])
    check_number(len(found.totals))
    return found


def unit_numbers(count: int, clusters: Sequence[str] | None = None) -> Indices:
    """The unit of every item, numbered from 0; items without a label are units of their own."""
    import numpy as np

    if clusters is None:
        return np.arange(count)
    if len(clusters) != count:
        raise ValueError(f"one cluster label per item (got {len(clusters)} for {count} items)")
    numbers: dict[str | int, int] = {}
    return np.array(
        [numbers.setdefault(label or index, len(numbers)) for index, label in enumerate(clusters)], np.int64
    )


def check_number(num_units: int) -> None:
    if num_units < 2:
        raise ValueError(f"an interval needs at least 2 items or clusters with weight (got {num_units})")
