"""A number that says how it was obtained, or a reason why there is none."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from compressbench.core.spec import Spec
from compressbench.core.units import unit_of

Kind = Literal["measured", "estimated", "modelled"]


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
    tick_s: float | None = None

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
