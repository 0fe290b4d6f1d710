"""What a candidate saves each time it answers: the baseline's cost times what the paired ratio leaves of it.

s = c_base (1 - ratio). The sign of a saving is decided by the paired ratio alone, in which the samples' difficulty and the
machine's mood cancel; the baseline's own value only says how large it is. Intervals of independent factors are combined by
square-and-add on the logarithmic scale (MOVER; Zou & Donner 2008, doi:10.1002/sim.3095), sums by their bounds, because
their parts may share a meter's gain. With exact factors an interval is the exact image of the one that is left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from compressbench.core.statistics import Interval

KINDS = ("measured", "estimated", "modelled", "assumed")
"""From what an instrument read to what somebody said; a result is as weak as the weakest of what it is made of."""


class Pair(NamedTuple):
    """What one answer takes with the baseline, and the candidate's paired ratio to it; None where `reason` says why.

    `noise` is the largest |ratio - 1| that the baseline shows against itself, None if that was not measured.
    """

    base: Interval | None
    ratio: Interval | None
    noise: float | None = 0.0
    kind: str = "measured"
    source: str = ""
    reason: str = ""


class Saving(NamedTuple):
    """Per inference or per correct answer; below zero where the candidate takes more."""

    value: Interval | None
    kind: str = ""
    reason: str = ""
    is_within_noise: bool = False


def exact(value: float) -> Interval:
    return Interval(value, value, value)


def scaled(found: Interval, factor: float) -> Interval:
    """`factor` is at least zero."""
    return Interval(*(each * factor for each in found))


def total(parts: Iterable[Interval]) -> Interval:
    """Bounds are added as they are: the parts may be wrong together."""
    values, lows, highs = zip(*parts, strict=True)
    return Interval(math.fsum(values), math.fsum(lows), math.fsum(highs))


def weakest(kinds: Iterable[str]) -> str:
    return max((kind for kind in kinds if kind), key=KINDS.index, default="")


def quotient(over: Interval, under: Interval) -> Interval:
    """Of two independent positive amounts. Raises ValueError if one isn't."""
    return _combined(over, Interval(1 / _positive(under.value), 1 / under.high, 1 / _positive(under.low)))


def product(one: Interval, other: Interval) -> Interval:
    """Of two independent positive amounts. Raises ValueError if one isn't."""
    return _combined(one, other)


def _combined(one: Interval, other: Interval) -> Interval:
    value = _positive(one.value) * _positive(other.value)
    down = math.hypot(*(math.log(each.value / _positive(each.low)) for each in (one, other)))
    up = math.hypot(*(math.log(each.high / each.value) for each in (one, other)))
    return Interval(value, value * math.exp(-down), value * math.exp(up))


def _positive(value: float) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"an amount is a number above zero (got {value})")
    return value


def saving_of(pair: Pair) -> Saving:
    """A ratio that is no farther from 1 than the baseline is from itself says nothing: its interval is widened by that."""
    if pair.base is None or pair.ratio is None:
        return Saving(None, reason=pair.reason or "it was not recorded")
    if pair.noise is None:
        return Saving(None, reason="how much the baseline differs from itself was not measured")
    if not all(math.isfinite(each) and each > 0 for each in (*pair.base, *pair.ratio)):
        return Saving(None, reason="its value or its interval is no sound number")
    is_noise = 0 < abs(pair.ratio.value - 1) <= pair.noise
    ratio = _widened(pair.ratio, pair.noise) if is_noise else pair.ratio
    return Saving(difference(pair.base, ratio), pair.kind, is_within_noise=is_noise)


def difference(base: Interval, ratio: Interval) -> Interval:
    """c_base (1 - ratio), whose bounds keep the signs of those of 1 - ratio.

    A bound on the far side of zero takes the larger of the baseline's values, which errs on the side of not knowing.
    """
    share = Interval(1 - ratio.value, 1 - ratio.high, 1 - ratio.low)
    low = _bound(base, share.value, share.low, is_far=share.value < 0)
    return Interval(base.value * share.value, low, _bound(base, share.value, share.high, is_far=share.value > 0))


def _bound(base: Interval, share: float, bound: float, *, is_far: bool) -> float:
    """`is_far` from zero, or nearer to it than the value."""
    if not share * bound > 0:
        return base.high * bound
    of_base = math.log((base.high if is_far else base.low) / base.value)
    distance = math.hypot(math.log(bound / share), of_base)
    return base.value * share * math.exp(distance if is_far else -distance)


def _widened(ratio: Interval, noise: float) -> Interval:
    return Interval(ratio.value, max(1e-9, ratio.low - noise), ratio.high + noise)


def per_correct(pair: Pair, accuracy: Pair) -> Pair:
    """Per correct answer: what a candidate loses in accuracy it has to make good."""
    missing = next((each for each in (pair, accuracy) if each.base is None or each.ratio is None), None)
    if (
        missing is not None
        or pair.base is None
        or pair.ratio is None
        or accuracy.base is None
        or accuracy.ratio is None
    ):
        return pair._replace(base=None, ratio=None, reason=(missing or pair).reason or "it was not recorded")
    try:
        base, ratio = quotient(pair.base, accuracy.base), quotient(pair.ratio, accuracy.ratio)
    except ValueError as error:
        return pair._replace(base=None, ratio=None, reason=f"accuracy: {error}")
    return pair._replace(base=base, ratio=ratio)
