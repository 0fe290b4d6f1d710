"""Which curve of quality against cost the rows speak for: forms compared, one chosen, and how sure its numbers are.

Rows of different methods scatter around any curve by more than their samples say. Then all errors are widened until the
best form fits (reduced chi-square 1), and forms are compared by QAICc with one parameter more (Burnham & Anderson 2002,
section 2.5), which is AICc where the errors explain everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from compressbench.core.curve_forms import NAMES, SATURATING, Data, Form, Solved, fitted, searched, shapes, value_at

if TYPE_CHECKING:
    import numpy as np

FEWEST, MOST = 5, 200
"""Fewer rows show no curve; more would take minutes, and are other families."""
ALIKE = 2.0
"""Forms within so much of the lowest AICc are alike; leave-one-out decides among them."""
COSTS = ("tau", "m")
"""Parameters that are costs."""
_NUM_ON_CURVE = 25
_TAIL = 0.025


class Parameter(NamedTuple):
    """`low` and `high` are percentiles 2.5 and 97.5 of the bootstrap; None where so many draws lie at the limit of the
    search that these rows don't bound it. `is_beyond`: of costs that nobody measured, so it is `modelled`.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    is_beyond: bool


class Fit(NamedTuple):
    """`aicc` is infinite where the rows are too few for the form; `weight` is Akaike's, among the forms. `left_out_error`
    is the root mean square of the error in predicting each row from the others, in units of the (widened) errors.
    """

    form: Form
    chi_square: float
    aicc: float
    weight: float
    left_out_error: float
    parameters: tuple[Parameter, ...]


class CurvePoint(NamedTuple):
    """The chosen curve at one cost between the smallest and the largest of the rows, with its 95 % interval."""

    cost: float
    quality: float
    low: float
    high: float


class Fits(NamedTuple):
    """`alike` are the forms that AICc can't tell from the chosen one; `inflation` is by how much errors were widened."""

    fits: tuple[Fit, ...]
    chosen: Fit
    alike: tuple[Form, ...]
    inflation: float
    curve: tuple[CurvePoint, ...]
    num_draws: int
    seed: int
    num_rows: int

    @property
    def first_cost(self) -> float:
        """The smallest cost of the rows, E1 in the forms."""
        return self.curve[0].cost

    def quality_at(self, cost: float) -> float:
        """Of the chosen curve."""
        first = self.first_cost
        parameters = [each.value / first if each.name in COSTS else each.value for each in self.chosen.parameters]
        return value_at(self.chosen.form, parameters, cost / first)

    @property
    def is_decided(self) -> bool:
        """Whether a curve that saturates could have been chosen: else a straight one is no finding."""
        return any(fit.form in SATURATING and math.isfinite(fit.aicc) for fit in self.fits)

    @property
    def why_undecided(self) -> str:
        return (
            f"the rows scatter around every curve by {self.inflation:.2g} times their errors, and then "
            f"{self.num_rows} rows are too few to choose a form"
        )


def why_no_fit(costs: Sequence[float]) -> str:
    """Why no curve is fitted through rows of these costs; "" if one is."""
    number, different = len(costs), len(set(costs))
    if different < FEWEST:
        what = f"{number} row{'' if number == 1 else 's'}" if different == number else f"{different} different costs"
        return f"{what}, and a curve needs at least {FEWEST}"
    if number > MOST:
        return f"{number:,} rows, and a curve is fitted to {MOST} at most"
    return "" if min(costs) > 0 else "a cost is not above zero"


def errors_above_zero(errors: Sequence[float]) -> list[float]:
    """An error of 0 (a baseline's, which the others are measured against) counts as the smallest other one."""
    smallest = min((error for error in errors if error > 0), default=1.0)
    return [error or smallest for error in errors]


def fit_curves(
    costs: Sequence[float], qualities: Sequence[float], errors: Sequence[float], *, seed: int = 0, num_draws: int = 400
) -> Fits:
    """Weighted least squares of all forms, the choice, and a parametric bootstrap of the chosen one over the rows' errors.

    Errors of 0 are raised by `errors_above_zero`; if all are 0 the scatter alone says how large they are. The order of the
    rows doesn't matter. Raises ValueError where `why_no_fit` has a reason, or for numbers that aren't finite.
    """
    import numpy as np

    why = why_no_fit(costs)
    if why or not all(map(math.isfinite, (*costs, *qualities, *errors))):
        raise ValueError(why or "a fit needs finite numbers")
    rows = np.array(sorted(zip(costs, qualities, errors, strict=True)))
    first = float(rows[0, 0])
    error = np.array(errors_above_zero(rows[:, 2].tolist()))
    data = Data(rows[:, 0] / first, rows[None, :, 1], 1 / error[None, :] ** 2)
    solved: dict[Form, Solved] = {form: fitted(form, data) for form in NAMES}
    inflation = _inflation(solved, len(rows), are_known=bool(rows[:, 2].any()))
    data = data._replace(weight=data.weight / inflation**2)
    fits = [_fit(form, found, data, inflation) for form, found in solved.items()]
    fits = _weighted(fits)
    chosen, alike = _choice(fits)
    best = solved[chosen.form].parameters[0]
    draws = _draws(chosen.form, data, best, np.random.default_rng(seed), num_draws)
    chosen = chosen._replace(parameters=_with_bounds(chosen.form, best, draws, data.x))
    curve = _curve(chosen.form, data.x, best, draws)
    found = [chosen if fit.form == chosen.form else fit for fit in fits]
    return Fits(
        tuple(_in_unit(fit, first) for fit in found), _in_unit(chosen, first), alike, inflation,
        tuple(point._replace(cost=point.cost * first) for point in curve), num_draws, seed, len(rows),
    )  # fmt: skip


def _inflation(solved: Mapping[Form, Solved], number: int, *, are_known: bool) -> float:
    """How many times the errors the scatter around the best form is; never below 1 where the errors are known."""
    reduced = [float(each.chi_square[0]) / (number - len(NAMES[form])) for form, each in solved.items()
               if number > len(NAMES[form])]  # fmt: skip
    least = math.sqrt(min(reduced))
    # rows that lie exactly on a curve: without known errors there is nothing to say how sure that is
    return max(1.0, least) if are_known else max(least, 1e-12)


def _fit(form: Form, found: Solved, data: Data, inflation: float) -> Fit:
    number = data.q.shape[1]
    chi_square = float(found.chi_square[0]) / inflation**2
    count = len(NAMES[form]) + (inflation != 1)
    values = zip(NAMES[form], map(float, found.parameters[0]), strict=True)
    parameters = tuple(Parameter(name, value, None, None, name == "q_inf") for name, value in values)
    return Fit(form, chi_square, aicc(chi_square, count, number), 0.0, _left_out_error(form, data), parameters)


def aicc(chi_square: float, num_parameters: int, num_rows: int) -> float:
    """Infinite where the rows are too few for so many parameters."""
    room = num_rows - num_parameters - 1
    if room <= 0:
        return math.inf
    return chi_square + 2 * num_parameters + 2 * num_parameters * (num_parameters + 1) / room


def _left_out_error(form: Form, data: Data) -> float:
    import numpy as np

    number = data.q.shape[1]
    without = Data(data.x, np.tile(data.q, (number, 1)), np.tile(data.weight, (number, 1)) * (1 - np.eye(number)))
    found = searched(form, without).parameters
    predicted = [value_at(form, list(map(float, each)), float(x)) for each, x in zip(found, data.x, strict=True)]
    return float(np.sqrt(np.mean((data.q[0] - predicted) ** 2 * data.weight[0])))


def _weighted(fits: Sequence[Fit]) -> list[Fit]:
    least = min(fit.aicc for fit in fits)
    shares = [math.exp(-(fit.aicc - least) / 2) for fit in fits]
    return [fit._replace(weight=share / sum(shares)) for fit, share in zip(fits, shares, strict=True)]


def _choice(fits: Sequence[Fit]) -> tuple[Fit, tuple[Form, ...]]:
    least = min(fit.aicc for fit in fits)
    near = [fit for fit in fits if fit.aicc - least <= ALIKE]
    chosen = min(near, key=lambda fit: fit.left_out_error)
    return chosen, tuple(fit.form for fit in near if fit is not chosen)


def _draws(form: Form, data: Data, best: np.ndarray, random: np.random.Generator, num_draws: int) -> np.ndarray:
    """Parameters of curves through rows that the chosen curve and the errors might have given as well."""
    import numpy as np

    centre = np.array([value_at(form, list(map(float, best)), float(x)) for x in data.x])
    drawn = centre + random.standard_normal((num_draws, len(centre))) / np.sqrt(data.weight)
    return searched(form, Data(data.x, drawn, np.tile(data.weight, (num_draws, 1)))).parameters


def _with_bounds(form: Form, best: np.ndarray, draws: np.ndarray, x: np.ndarray) -> tuple[Parameter, ...]:
    import numpy as np

    grid = shapes(form, x)
    # with the flattest shape the limit may be anything above, and so may what the cheapest row lacks of it
    flattest = {"power": grid.min(), "exponential": grid.max()}.get(form) if grid.size else None
    has_no_limit = flattest is not None and np.mean(draws[:, 2] == flattest) > _TAIL
    found = []
    for place, name in enumerate(NAMES[form]):
        low, high = (float(each) for each in np.quantile(draws[:, place], (_TAIL, 1 - _TAIL)))
        is_open = [False, False]
        if place >= 2:
            is_open = [bool(np.mean(draws[:, place] == end(grid[:, place - 2])) > _TAIL) for end in (np.min, np.max)]
        elif has_no_limit:
            is_open = [False, True]
        value = float(best[place])
        low, high = min(low, value), max(high, value)
        found.append(Parameter(name, value, None if is_open[0] else low, None if is_open[1] else high, name == "q_inf"))
    return tuple(found)


def _curve(form: Form, x: np.ndarray, best: np.ndarray, draws: np.ndarray) -> list[CurvePoint]:
    import numpy as np

    found = []
    for at in np.geomspace(1.0, x.max(), _NUM_ON_CURVE):
        values = [value_at(form, list(map(float, draw)), float(at)) for draw in draws]
        value = value_at(form, list(map(float, best)), float(at))
        low, high = np.quantile(values, (_TAIL, 1 - _TAIL))
        found.append(CurvePoint(float(at), value, min(float(low), value), max(float(high), value)))
    return found


def _in_unit(fit: Fit, first: float) -> Fit:
    """The costs among the parameters in the costs' own unit."""

    def scaled(each: Parameter) -> Parameter:
        if each.name not in COSTS:
            return each
        low, high = (None if bound is None else bound * first for bound in (each.low, each.high))
        return each._replace(value=each.value * first, low=low, high=high)

    return fit._replace(parameters=tuple(map(scaled, fit.parameters)))
