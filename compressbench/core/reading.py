"""A number that says how it was obtained, or a reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from compressbench.core.spec import Spec
from compressbench.core.units import require_energy_unit, unit_of

Kind = Literal["measured", "estimated", "modelled"]


def _in_si_units(values: Mapping[str, float]) -> Mapping[str, float]:
    for name in values:
        require_energy_unit(name)
    return values


Values = Annotated[Mapping[str, float], AfterValidator(_in_si_units)]
"""By name with a unit suffix; energy by any other name or unit would pass for something that needs no label."""
Uncertainties = Mapping[str, Annotated[float, Field(ge=0)]]
"""Standard uncertainties (k = 1) by the names of their values, in their units."""


def at_least(kind: Kind) -> tuple[Kind, ...]:
    """That kind and the better ones, best first.

    >>> at_least("estimated")
    ('measured', 'estimated')
    """
    kinds: tuple[Kind, ...] = get_args(Kind)
    return kinds[: kinds.index(kind) + 1]


class Reading(Spec):
    """One quantity. `measured`: an instrument read it; `estimated`: scaled from a measured proxy; `modelled`: computed
    from assumptions. `low` and `high` bound it at 95 %; without them `uncertainty_reason` says why they are missing.
    """

    name: str
    value: float
    kind: Kind
    source: str = Field(min_length=1)
    low: float | None = None
    high: float | None = None
    uncertainty_reason: str = ""
    boundary: str = ""
    window_s: float | None = Field(None, gt=0)
    tick_s: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _is_bounded_or_says_why(self) -> Reading:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{self.name}: give both low and high, or neither")
        if self.low is not None and self.high is not None and not self.low <= self.value <= self.high:
            raise ValueError(f"{self.name}: {self.value} is outside its interval [{self.low}, {self.high}]")
        if self.low is None and not self.uncertainty_reason:
            raise ValueError(f"{self.name}: an interval or an uncertainty_reason is required")
        return self

    @property
    def unit(self) -> str:
        return unit_of(self.name)
