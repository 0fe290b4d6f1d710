"""How loss grows as bits go: d = a 4^(-b bits) (the linearity theorem, arXiv:2411.17525), and whether it breaks.

Below a few bits a weight the loss grows faster than the law says. The segmented form has another exponent below a break
point, b + extra, extra >= 0, and is continuous there. It is believed where both AICc and a parametric bootstrap of the
unsegmented law prefer it; a break point is no regular parameter, so neither alone would do. Losses near nothing may be
negative by chance: everything is fitted to losses themselves, not to their logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from compressbench.core.curve_fits import aicc

if TYPE_CHECKING:
    import numpy as np

FEWEST = 5
"""Fewer different widths show no law."""
_CLEAR = 2.0
"""AICc has to fall by as much."""
_ALPHA = 0.05
_STEPS, _ROUNDS, _AGAIN, _TAIL = 28, 9, 2, 0.025
_LARGEST = 3.0
_STARTS = 17
_LN4 = math.log(4)


class Bounded(NamedTuple):
    """With percentiles 2.5 and 97.5 of the bootstrap; None where draws lie at the limit of the search."""

    value: float
    low: float | None
    high: float | None


class BitsLaw(NamedTuple):
    """`at` is the loss at the largest number of bits; `b` is the exponent, above the break if one is shown.

    `break_at` and `b_below` are None unless the rows support a break. `aicc_gain` is by how much the segmented form's
    AICc is lower, None where the rows are too few for it; `p` is the share of the unsegmented law's draws in which its
    chi-square is lower by as much. `inflation` is by how much errors were widened.
    """

    at: float
    largest_bits: float
    b: Bounded
    break_at: Bounded | None
    b_below: Bounded | None
    aicc_gain: float | None
    p: float | None
    inflation: float
    num_rows: int
    num_draws: int
    seed: int

    @property
    def is_broken(self) -> bool:
        return self.break_at is not None

    @property
    def a(self) -> float:
        """Of d = a 4^(-b bits), above the break if there is one."""
        return self.at * float(4 ** (self.b.value * self.largest_bits))

    def loss_at(self, bits: float) -> float:
        loss = self.at * float(4 ** (self.b.value * (self.largest_bits - bits)))
        if self.break_at is not None and self.b_below is not None:
            more = (self.b_below.value - self.b.value) * max(0.0, self.break_at.value - bits)
            loss *= float(4**more)
        return loss


class _Found(NamedTuple):
    """By draw (b, extra, break), the loss at the largest width, and chi-square."""

    shape: np.ndarray
    at: np.ndarray
    chi_square: np.ndarray


class _Grid(NamedTuple):
    """Its ends, and by draw the best shape of it."""

    low: np.ndarray
    high: np.ndarray
    shape: np.ndarray


def why_no_law(bits: Sequence[float]) -> str:
    """Why no law is fitted to rows of these widths; "" if one is."""
    different = len(set(bits))
    return "" if different >= FEWEST else f"{different} different widths, and a law needs at least {FEWEST}"


def fit_bits_law(
    bits: Sequence[float], losses: Sequence[float], errors: Sequence[float], *, seed: int = 0, num_draws: int = 400
) -> BitsLaw:
    """Weighted least squares of both forms. `errors` are standard errors of the losses, above 0.

    Raises ValueError where `why_no_law` has a reason, or for numbers that aren't finite or errors that aren't positive.
    """
    import numpy as np

    why = why_no_law(bits)
    if why or not all(map(math.isfinite, (*bits, *losses, *errors))) or min(errors) <= 0:
        raise ValueError(why or "a law needs finite numbers, and errors above zero")
    rows = np.array(sorted(zip(bits, losses, errors, strict=True)))
    x, q, weight = rows[:, 0], rows[None, :, 1], 1 / rows[:, 2] ** 2
    plain, broken = _polished(x, q, weight, None), _polished(x, q, weight, _breaks(x))
    inflation = _inflation(plain, broken, len(x))
    weight = weight / inflation**2
    gain = _aicc_gain(plain, broken, len(x), inflation)
    noise = np.random.default_rng(seed).standard_normal((num_draws, len(x))) / np.sqrt(weight)
    p = None if gain is None else _share_as_good(x, plain, broken, noise, weight, inflation)
    is_broken = gain is not None and p is not None and gain > _CLEAR and p < _ALPHA
    found = broken if is_broken else plain
    draws = _searched(x, _curve(x, found) + noise, weight, breaks=_breaks(x) if is_broken else None).shape
    both = found.shape[0, 0] + found.shape[0, 1]
    return BitsLaw(
        at=float(found.at[0]),
        largest_bits=float(x.max()),
        b=_bounded(found.shape[0, 0], draws[:, 0], 0.0, _LARGEST),
        break_at=_bounded(found.shape[0, 2], draws[:, 2], *_breaks(x)) if is_broken else None,
        b_below=_bounded(both, draws[:, 0] + draws[:, 1], 0.0, 2 * _LARGEST) if is_broken else None,
        aicc_gain=gain,
        p=p,
        inflation=inflation,
        num_rows=len(x),
        num_draws=num_draws,
        seed=seed,
    )


def _breaks(x: np.ndarray) -> tuple[float, float]:
    """Between the second smallest and the second largest width, so that each part has two."""
    different = sorted(set(x.tolist()))
    return different[1], different[-2]


def _coarse(x: np.ndarray, q: np.ndarray, weight: np.ndarray, breaks: tuple[float, float] | None) -> _Grid:
    """Of each draw the best shape of a grid; without breaks that of one slope."""
    import numpy as np

    ends = (float(x.max()),) * 2 if breaks is None else breaks
    low = np.array([0.0, 0.0, ends[0]])
    high = np.array([_LARGEST, 0.0 if breaks is None else _LARGEST, ends[1]])
    count = [_STEPS if b > a else 1 for a, b in zip(low, high, strict=True)]
    axes = [np.linspace(*each) for each in zip(low, high, count, strict=True)]
    grid = np.stack([each.ravel() for each in np.meshgrid(*axes, indexing="ij")], axis=1)
    g = _g(x, grid)
    fall = np.maximum((g * weight) @ q.T, 0.0) ** 2 / (g**2 * weight).sum(axis=1)[:, None]
    return _Grid(low, high, grid[fall.argmax(axis=0)])


def _searched(x: np.ndarray, q: np.ndarray, weight: np.ndarray, *, breaks: tuple[float, float] | None) -> _Found:
    """Of each draw the best shape of a grid, and then of ever finer steps around it."""
    import numpy as np

    low, high, shape = _coarse(x, q, weight, breaks)
    best = _solved(x, q, weight, shape)
    step = (high - low) / (_STEPS - 1)
    moves = [move for move in product((-1, 0, 1), repeat=3) if (np.array(move) * (high - low)).any()]
    for _ in range(_ROUNDS):
        for move in moves * _AGAIN:
            best = _better(best, _solved(x, q, weight, np.clip(best.shape + np.array(move) * step, low, high)))
        step = step / 2
    return best


def _better(old: _Found, new: _Found) -> _Found:
    """By draw the better of two."""
    import numpy as np

    is_better = new.chi_square < old.chi_square
    return _Found(
        np.where(is_better[:, None], new.shape, old.shape),
        np.where(is_better, new.at, old.at),
        np.where(is_better, new.chi_square, old.chi_square),
    )


def _polished(x: np.ndarray, q: np.ndarray, weight: np.ndarray, breaks: tuple[float, float] | None) -> Any:
    """The best shape of one draw. Its three numbers are so correlated that a search along axes may stop short of it, so
    it begins at the best shape for each of many breaks.
    """
    import numpy as np
    from scipy.optimize import minimize

    if breaks is None:
        return _searched(x, q, weight, breaks=None)
    starts = [_solved(x, q, weight, _coarse(x, q, weight, (at, at)).shape) for at in np.linspace(*breaks, _STARTS)]
    bounds = [(0.0, _LARGEST), (0.0, _LARGEST), breaks]
    best = min(starts, key=lambda found: float(found.chi_square[0]))
    for start in sorted(starts, key=lambda found: float(found.chi_square[0]))[:3]:
        found = minimize(
            lambda shape: float(_solved(x, q, weight, shape[None]).chi_square[0]), start.shape[0],
            method="Nelder-Mead", bounds=bounds, options={"xatol": 1e-9, "fatol": 1e-10, "maxiter": 2000},
        )  # fmt: skip
        best = _better(best, _solved(x, q, weight, np.clip(found.x, *np.array(bounds).T)[None]))
    return best


def _g(x: np.ndarray, shape: np.ndarray) -> Any:
    """The form for a loss of 1 at the largest width, by shape and row."""
    import numpy as np

    b, extra, at = (shape[:, place, None] for place in range(3))
    return np.exp(_LN4 * (b * (x.max() - x) + extra * np.maximum(0.0, at - x)))


def _solved(x: np.ndarray, q: np.ndarray, weight: np.ndarray, shape: np.ndarray) -> _Found:
    """A loss never falls below 0 by either form."""
    import numpy as np

    g = _g(x, shape)
    at = np.maximum((g * q * weight).sum(axis=1) / (g**2 * weight).sum(axis=1), 0.0)
    return _Found(shape, at, ((q - at[:, None] * g) ** 2 * weight).sum(axis=1))


def _curve(x: np.ndarray, found: _Found) -> Any:
    return found.at[:1, None] * _g(x, found.shape[:1])


def _inflation(plain: _Found, broken: _Found, number: int) -> float:
    """By how much errors are widened so that the better form fits (as in core/curve_fits.py)."""
    reduced = [float(plain.chi_square[0]) / (number - 2)]
    if number > 4:
        reduced.append(float(broken.chi_square[0]) / (number - 4))
    return max(1.0, math.sqrt(min(reduced)))


def _aicc_gain(plain: _Found, broken: _Found, number: int, inflation: float) -> float | None:
    one, two = (
        aicc(float(found.chi_square[0]) / inflation**2, count + (inflation > 1), number)
        for found, count in ((plain, 2), (broken, 4))
    )
    return None if math.isinf(two) else one - two


def _share_as_good(
    x: np.ndarray, plain: _Found, broken: _Found, noise: np.ndarray, weight: np.ndarray, inflation: float
) -> float:
    """How often rows that follow the unsegmented law seem to break as much as these do."""
    drawn = _curve(x, plain) + noise
    falls = (
        _searched(x, drawn, weight, breaks=None).chi_square - _searched(x, drawn, weight, breaks=_breaks(x)).chi_square
    )
    fall = float(plain.chi_square[0] - broken.chi_square[0]) / inflation**2
    return (1 + int((falls >= fall).sum())) / (1 + len(falls))


def _bounded(value: float, draws: np.ndarray, least: float, most: float) -> Bounded:
    import numpy as np

    low, high = (float(each) for each in np.quantile(draws, (_TAIL, 1 - _TAIL)))
    is_open = [float(np.mean(draws == end)) > _TAIL for end in (least, most)]
    low, high = min(low, float(value)), max(high, float(value))
    return Bounded(float(value), None if is_open[0] else low, None if is_open[1] else high)
