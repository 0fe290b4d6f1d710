"""Amounts with bounds, kind, source and year, and how the uncertainty of inputs goes into what is computed from them.

Factors bound a product by the worst case: all low together, and all high together. That holds whatever the factors have in
common, and is wider than an interval at 95 % would be. If one part has no bounds, what is computed from it has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import model_validator

from compressbench.core.errors import InputError
from compressbench.core.spec import Spec

KINDS = ("measured", "estimated", "modelled", "assumed", "given")


class Amount(Spec):
    """One quantity, never below 0. Without a value, `reason` says why; without bounds, why there are none.

    `kinds` are those of everything that it was computed from, in the order of KINDS: what was estimated stays estimated.
    `year` is of the source's data, "" where it has none.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    kinds: tuple[str, ...] = ()
    source: str = ""
    year: str = ""
    reason: str = ""

    @model_validator(mode="after")
    def _is_bounded_or_says_why(self) -> Amount:
        if self.value is None or self.low is None or self.high is None:
            if not self.reason or (self.low is None) != (self.high is None):
                raise ValueError(f"an amount of {self.unit} without a value or bounds needs a reason")
        elif not 0 <= self.low <= self.value <= self.high:
            raise ValueError(f"{self.value} {self.unit} is outside [{self.low}, {self.high}], or that is below 0")
        return self

    @property
    def kind(self) -> str:
        """`estimated + assumed`."""
        return " + ".join(self.kinds)


def exact(value: float, unit: str, kind: str, source: str, year: str = "") -> Amount:
    """A number that is taken as it is, without doubt in it."""
    return Amount(value=value, low=value, high=value, unit=unit, kinds=(kind,), source=source, year=year)


def given(value: float, unit: str, flag: str, *, above: float = 0.0, most: float = math.inf) -> Amount:
    """What the user says with a flag. Raises InputError for what is no number, below `above`, or beyond `most`."""
    if not (math.isfinite(value) and above <= value <= most):
        bounds = f"at least {above:g}" if most == math.inf else f"from {above:g} to {most:g}"
        raise InputError(f"it must be {bounds}", where=flag, got=f"{value:g}")
    return exact(value, unit, "given", flag)


def absent(unit: str, reason: str) -> Amount:
    """Nothing, and why; never 0."""
    return Amount(value=None, unit=unit, reason=reason)


def product(unit: str, factors: Sequence[Amount], scale: float = 1.0) -> Amount:
    """All factors multiplied, times a plain number (units). Absent if one of them is, with its reason."""
    return _combined(unit, factors, lambda values: scale * math.prod(values))


def total_of(unit: str, parts: Sequence[Amount]) -> Amount:
    """All parts added. Absent if one of them is, with its reason: a sum over what is left would be too small."""
    return _combined(unit, parts, math.fsum)


def inverse(amount: Amount, unit: str) -> Amount:
    """1 / amount: seconds per inference of inferences per second."""
    if amount.value is None or amount.value <= 0:
        return absent(unit, amount.reason or "it is not above 0")
    value, fields = 1 / amount.value, amount.model_dump(exclude={"value", "low", "high", "unit"})
    if amount.low is None or amount.high is None or amount.low <= 0:
        return Amount(value=value, unit=unit, **{**fields, "reason": amount.reason or "its lower bound is 0"})
    return Amount(value=value, low=min(value, 1 / amount.high), high=max(value, 1 / amount.low), unit=unit, **fields)


def measured(value: float | None, bounds: tuple[float | None, float | None], unit: str, **said: str) -> Amount:
    """A number out of a record: `said` are its name, kind, source and the reason why it isn't there. What can't be true
    (below 0, or outside its own bounds) is absent.
    """
    name, (low, high) = said["name"], bounds
    if value is None:
        return absent(unit, said.get("reason") or f"{name} was not recorded")
    fields: dict[str, Any] = {"unit": unit, "kinds": (said["kind"],), "source": said["source"]}
    is_bounded = low is not None and high is not None
    if value < 0 or (low is not None and high is not None and not 0 <= low <= value <= high):
        return absent(unit, f"{name} or its interval is no sound number")
    if not is_bounded:
        return Amount(value=value, reason=f"{name} has no interval", **fields)
    return Amount(value=value, low=low, high=high, **fields)


def kinds_of(parts: Iterable[Amount]) -> tuple[str, ...]:
    found = {kind for part in parts for kind in part.kinds}
    return tuple(kind for kind in KINDS if kind in found)


def _combined(unit: str, parts: Sequence[Amount], of: Any) -> Amount:
    missing = next((part for part in parts if part.value is None), None)
    if missing is not None:
        return absent(unit, missing.reason)
    value, kinds = of([part.value for part in parts]), kinds_of(parts)
    if not math.isfinite(value):
        return absent(unit, "it is too large to be a number")
    source = "; ".join(dict.fromkeys(part.source for part in parts if part.source))
    unbounded = next((part for part in parts if part.low is None or part.high is None), None)
    if unbounded is not None:
        return Amount(value=value, unit=unit, kinds=kinds, source=source, reason=unbounded.reason)
    low, high = of([part.low for part in parts]), of([part.high for part in parts])
    if not math.isfinite(high):
        return Amount(value=value, unit=unit, kinds=kinds, source=source, reason="its upper bound is no number")
    # the last bits of a sum or product may fall on the other side
    return Amount(value=value, low=min(low, value), high=max(high, value), unit=unit, kinds=kinds, source=source)
