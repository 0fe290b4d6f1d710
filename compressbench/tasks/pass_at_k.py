"""pass@k: the probability that one of k sampled answers is right (Chen et al. 2021, arXiv:2107.03374)."""

from __future__ import annotations

import math


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """The unbiased estimator 1 - C(n - c, k) / C(n, k): the share of all choices of k samples that hold a right one.

    Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= num_right <= num_samples and 1 <= k <= num_samples):
        raise ValueError(f"no pass@{k} of {num_right} right among {num_samples}")
    return 1.0 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)
