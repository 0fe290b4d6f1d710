"""Forms of curves of quality against cost, and the least squares of each for many draws at once.

With x = E / E1, E1 the cheapest row's cost, and g(1) = 1, every form but the nulls is q = q_inf - a g, a >= 0, so that a is
what the cheapest row lacks of the limit: power g = x^-b, exponential g = exp(-(E - E1) / tau), logistic in log E
g = (1 + (E1 / m)^h) / (1 + (E / m)^h). The nulls are a constant and q = q1 + s ln x. For a given g the two others are
solved exactly, so that only g is searched, on a grid and then by scipy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np

Form = Literal["constant", "linear in log", "power", "exponential", "logistic in log"]
NAMES: dict[Form, tuple[str, ...]] = {
    "constant": ("q",),
    "linear in log": ("q1", "s"),
    "power": ("q_inf", "a", "b"),
    "exponential": ("q_inf", "a", "tau"),
    "logistic in log": ("q_inf", "a", "m", "h"),
}
SATURATING: tuple[Form, ...] = ("power", "exponential", "logistic in log")
_STEPS, _STEPS_OF_TWO, _ROUNDS = 120, 24, 9


class Data(NamedTuple):
    """By row x, and by draw and row the quality and one over the square of its error (0: left out)."""

    x: np.ndarray
    q: np.ndarray
    weight: np.ndarray


class Solved(NamedTuple):
    """By draw the parameters as in NAMES, the costs among them in x, and the chi-square."""

    parameters: np.ndarray
    chi_square: np.ndarray


def value_at(form: Form, parameters: Sequence[float], x: float) -> float:
    """The curve at one x, which is at least 1 if nothing is extrapolated."""
    if form == "constant":
        return parameters[0]
    limit, amplitude, *shape = parameters
    if form == "linear in log":
        return limit + amplitude * math.log(x)
    if form == "power":
        return float(limit - amplitude * x ** -shape[0])
    if form == "exponential":
        return limit - amplitude * math.exp(-(x - 1) / shape[0])
    return float(limit - amplitude * (1 + shape[0] ** -shape[1]) / (1 + (x / shape[0]) ** shape[1]))


def shapes(form: Form, x: np.ndarray) -> np.ndarray:
    """The grid of what is searched, of shape (number, parameters); one row of none for the nulls."""
    import numpy as np

    largest = float(x.max())
    if form == "power":
        # the flattest can't be told from a straight line in log x
        return np.geomspace(0.02, 20.0, _STEPS)[:, None]
    if form == "exponential":
        return np.geomspace(1 / 30, 30 * largest, _STEPS)[:, None]
    if form == "logistic in log":
        middles = np.geomspace(1 / 3, largest * 3, _STEPS_OF_TWO)
        return np.array(list(product(middles, np.geomspace(0.3, 30.0, _STEPS_OF_TWO))))
    return np.empty((1, 0))


def searched(form: Form, data: Data) -> Solved:
    """For each draw the best of the grid, and then of ever finer steps around it."""
    import numpy as np

    grid = shapes(form, data.x)
    centred = _Centred.of(data)
    shape, found = np.tile(grid[0], (len(data.q), 1)), centred.solved(form, grid[:1])
    for other in grid[1:]:
        shape, found = _better(centred, form, (shape, found), np.tile(other, (len(data.q), 1)))
    if form in SATURATING:
        shape, found = _refined(centred, form, (shape, found), grid)
    limit, amplitude, chi_square = found
    return Solved(np.column_stack([limit, amplitude, shape])[:, : len(NAMES[form])], chi_square)


def _better(centred: _Centred, form: Form, best: tuple[Any, Any], shape: Any) -> tuple[Any, Any]:
    """By draw the better of two shapes."""
    import numpy as np

    shared = shape[:1] if (shape == shape[0]).all() else shape
    old, new = best[1], centred.solved(form, shared)
    is_better = new[2] < old[2]
    if not is_better.any():
        return best
    found = tuple(np.where(is_better, after, before) for before, after in zip(old, new, strict=True))
    return np.where(is_better[:, None], shape, best[0]), found


def _refined(centred: _Centred, form: Form, best: tuple[Any, Any], grid: np.ndarray) -> tuple[Any, Any]:
    import numpy as np

    low, high = grid.min(axis=0), grid.max(axis=0)
    step = np.log(high / low) / (_STEPS if grid.shape[1] == 1 else _STEPS_OF_TWO)
    for _ in range(_ROUNDS):
        step = step / 2
        for signs in product((-1.0, 0.0, 1.0), repeat=grid.shape[1]):
            if any(signs):
                # exactly the bound where it is reached, so that it can be told
                moved = np.clip(best[0] * np.exp(np.array(signs) * step), low, high)
                best = _better(centred, form, best, moved)
    return best


def fitted(form: Form, data: Data) -> Solved:
    """Of one draw: from the best of the grid to the minimum near it."""
    import numpy as np

    rough = searched(form, data)
    shape = rough.parameters[0, 2:]
    if form not in SATURATING:
        return rough
    from scipy.optimize import minimize

    grid, centred = np.log(shapes(form, data.x)), _Centred.of(data)
    bounds = list(zip(grid.min(axis=0), grid.max(axis=0), strict=True))
    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 2000}
    found = minimize(
        lambda logs: float(centred.solved(form, np.exp(logs)[None])[2][0]),
        np.log(shape), method="Nelder-Mead", bounds=bounds, options=options,
    )  # fmt: skip
    if not found.fun < rough.chi_square[0]:
        return rough
    limit, amplitude, chi_square = centred.solved(form, np.exp(found.x)[None])
    return Solved(np.array([[limit[0], amplitude[0], *np.exp(found.x)]]), chi_square)


class _Centred(NamedTuple):
    """What all shapes share."""

    data: Data
    total: np.ndarray
    mean: np.ndarray
    rest: np.ndarray  # q less its mean
    square: np.ndarray

    @classmethod
    def of(cls, data: Data) -> _Centred:
        total = data.weight.sum(axis=1)
        mean = (data.q * data.weight).sum(axis=1) / total
        rest = data.q - mean[:, None]
        return cls(data, total, mean, rest, (rest**2 * data.weight).sum(axis=1))

    def solved(self, form: Form, shape: np.ndarray) -> tuple[Any, Any, Any]:
        """By draw limit, amplitude and chi-square; `shape` has a row for each draw, or one for all.

        A saturating curve never falls: it is flat at the least.
        """
        import numpy as np

        if form == "constant":
            return self.mean, np.zeros(len(self.mean)), self.square
        weight = self.data.weight
        g = _g(form, shape, self.data.x)
        g_mean = (weight * g).sum(axis=1) / self.total
        centred = g - g_mean[:, None]
        spread = (weight * centred**2).sum(axis=1)
        # below it g is flat but for rounding, and a slope would be made of that
        is_flat = spread <= 1e-20 * self.total
        slope = np.where(is_flat, 0.0, (weight * centred * self.rest).sum(axis=1) / np.where(is_flat, 1.0, spread))
        if form != "linear in log":
            slope = np.minimum(slope, 0.0)
        chi_square = ((self.rest - slope[:, None] * centred) ** 2 * weight).sum(axis=1)
        return self.mean - slope * g_mean, -slope, chi_square


def _g(form: Form, shape: np.ndarray, x: np.ndarray) -> Any:
    """Of shape (draws or 1, rows)."""
    import numpy as np

    if form == "linear in log":
        return -np.log(x)[None]
    if form == "power":
        return x ** -shape[:, :1]
    if form == "exponential":
        return np.exp(-(x - 1) / shape[:, :1])
    middle, steepness = shape[:, :1], shape[:, 1:]
    return (1 + middle**-steepness) / (1 + (x / middle) ** steepness)
