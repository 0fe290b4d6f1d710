"""The interval of a mean difference over repeated calibration draws or seeds, and over items, at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from compressbench.core.statistics import t_quantile
from compressbench.measure.paired_units import Units, units_of
from compressbench.measure.resampling import Resampled, weighted_mean_interval

if TYPE_CHECKING:
    from compressbench.measure.paired_units import Floats


def two_level_interval(
    draws: Sequence[Sequence[float] | Floats],
    weights: Sequence[float] | Floats | None = None,
    clusters: Sequence[str] | None = None,
    *,
    seed: int = 0,
    num_resamples: int = 9999,
    confidence: float = 0.95,
) -> Resampled:
    """Of the mean difference over calibration draws (or training seeds) and items; every draw has all items.

    Resampling 2 to 5 draws gives far too narrow an interval: of two, half of the resamples have no spread at all. Instead
    two distances are added as squares, on either side (Banerjee 1961; for limits of unequal distance Zou & Donner 2008):
    Student's of the means of the draws, on one degree of freedom fewer than draws, which holds what draws do and what
    draws do to single items, and that of `weighted_mean_interval` of the items' means over draws, less the share of
    its variance that draws do to single items (the interaction of a crossed analysis of variance), lest it count twice.
    The result covers at least as often as it says, for normal means of draws: exactly where one of the two is all there
    is, more often between. Two draws give t = 12.7, so wide an interval because two draws say so little of their
    spread. One draw can say nothing of it: then `method` says that only items were resampled. Raises ValueError as
    `units_of`, for no draws, or for draws of unequal length.
    """
    import numpy as np

    values = _equally_long(draws)
    items = weighted_mean_interval(
        values.mean(axis=0), weights, clusters, seed=seed, num_resamples=num_resamples, confidence=confidence
    )
    num_draws = len(values)
    if num_draws == 1:
        return items._replace(method=f"{items.method} of items; one draw says nothing of other draws")
    units = [units_of(draw, weights, clusters) for draw in values]
    between = float(np.var([each.mean for each in units], ddof=1)) / num_draws
    own = 1 - _interaction_share(units)
    reach = t_quantile((1 + confidence) / 2, num_draws - 1) ** 2 * between
    low = items.value - math.sqrt(reach + own * (items.value - items.low) ** 2)
    high = items.value + math.sqrt(reach + own * (items.high - items.value) ** 2)
    error = math.sqrt(between + own * items.standard_error**2)
    method = f"Student's t of {num_draws} draws and {items.method} of items"
    return items._replace(low=low, high=high, standard_error=error, method=method)


def _equally_long(draws: Sequence[Sequence[float] | Floats]) -> Floats:
    import numpy as np

    lengths = sorted({len(draw) for draw in draws})
    if len(lengths) != 1:
        raise ValueError(f"draws are at least one, and of the same items (got lengths {lengths})")
    return np.asarray(draws, dtype=np.float64)


def _interaction_share(units: Sequence[Units]) -> float:
    """How much of the squared error of the items' means over draws comes from what single draws do to single items."""
    import numpy as np

    residuals = np.stack([each.residuals for each in units])
    means = residuals.mean(axis=0)
    squares = np.square(means).sum()
    interaction = np.square(residuals - means).sum() / (len(units) * (len(units) - 1))
    return min(1.0, float(interaction / squares)) if squares > 0 else 1.0
