"""Test-time compute: what several samples of each model bring for their joules, and who is best on one budget.

Every difference is paired over questions. All intervals of differences hold together at 95 % (Bonferroni), and are widened
by what the ratio of two prices leaves open.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from compressbench.core.coverage import CoverageFit, fit_coverage
from compressbench.core.equal_energy import (
    Budget,
    Price,
    at_equal_joules,
    crossovers,
    is_reversed,
    paired_difference,
    samples_within,
)
from compressbench.core.errors import MissingMeasurementError
from compressbench.core.names import one_line
from compressbench.core.statistics import Interval, mean_interval
from compressbench.report.catalog import Catalog
from compressbench.report.figures import Contender
from compressbench.report.think_prices import Costs
from compressbench.report.think_variants import Skipped, Variant, variants_of

_Z95 = 1.959963984540054


class Point(NamedTuple):
    """A variant with k samples. Accuracies are those of the questions drawn at random from many like them."""

    k: int
    coverage: Interval
    selected: Interval | None
    joules: Interval | None
    seconds: Interval | None


class Line(NamedTuple):
    variant: Variant
    points: Sequence[Point]
    fit: CoverageFit | str


class Pair(NamedTuple):
    """Two variants by place: `reference` is the baseline, or the dearer one. Differences are other less reference."""

    reference: int
    other: int
    at_one: Interval
    budgets: Sequence[Budget]
    is_reversed: bool
    crossovers: Sequence[float]


class Leader(NamedTuple):
    """Of one budget the best by value, how many samples each can pay (0: none), and who is not shown to be worse.

    What nobody sampled so often is taken at all its samples: it spends less.
    """

    joules: float
    best: int
    accuracy: Interval
    bought: Sequence[int]
    not_worse: Sequence[int]


class Thinking(NamedTuple):
    lines: Sequence[Line]
    pairs: Sequence[Pair]
    leaders: Sequence[Leader]
    skipped: Sequence[Skipped]
    watermark: str

    @property
    def is_selected(self) -> bool:
        return all(line.variant.selected for line in self.lines)

    def label(self, place: int) -> str:
        return self.lines[place].variant.label


def thinking(catalog: Catalog, contenders: Sequence[Contender], watermark: str = "") -> Thinking:
    """Raises MissingMeasurementError if no record has several samples, or fewer than one of them has its joules."""
    variants, skipped = variants_of(catalog, contenders)
    if not any(each.joules.price for each in variants):
        raise MissingMeasurementError(
            "no record with several samples has joules per token",
            got=one_line(variants[0].joules.reason),
            do="Give the workload output_tokens and a meter of energy.",
        )
    lines = [Line(each, [_point(each, k) for k in each.ks], _fit(each)) for each in variants]
    priced = [at for at, each in enumerate(variants) if each.joules.price is not None]
    chosen = [_ordered(variants, *two) for two in itertools.combinations(priced, 2)]
    num_intervals = sum(1 + len(variants[one].ks) for one, _ in chosen)
    confidence = 1 - 0.05 / max(1, num_intervals)
    pairs = [_pair(variants, one, other, confidence) for one, other in chosen]
    return Thinking(lines, pairs, _leaders(variants, priced, confidence), skipped, watermark)


def _fit(variant: Variant) -> CoverageFit | str:
    curves = [variant.coverage(k) or [] for k in variant.ks]
    return fit_coverage(list(zip(*curves, strict=True)), variant.ks)


def _point(variant: Variant, k: int) -> Point:
    selected = variant.accuracy(k) if variant.selected else None
    return Point(
        k,
        mean_interval(variant.coverage(k) or []),
        None if selected is None else mean_interval(selected),
        _cost(variant.joules, k),
        _cost(variant.seconds, k),
    )


def _cost(costs: Costs, k: int) -> Interval | None:
    if costs.price is None:
        return None
    value, factor = costs.price.of(k), math.exp(_Z95 * costs.error)
    return Interval(value, value / factor, value * factor)


def _price(variant: Variant) -> Price:
    """Of one without a price nothing can be bought."""
    return variant.joules.price or Price(0.0, math.inf)


def _ordered(variants: Sequence[Variant], one: int, other: int) -> tuple[int, int]:
    if variants[one].is_baseline != variants[other].is_baseline:
        return (one, other) if variants[one].is_baseline else (other, one)
    return (one, other) if _price(variants[one]).per_sample >= _price(variants[other]).per_sample else (other, one)


def _pair(variants: Sequence[Variant], one: int, other: int, confidence: float) -> Pair:
    first, second = variants[one], variants[other]
    factor = math.exp(_Z95 * _ratio_error(first, second))
    budgets = at_equal_joules(
        (_price(first), first.accuracy), (_price(second), second.accuracy), (1 / factor, factor), first.ks, confidence
    )
    at_one = paired_difference(first.accuracy(1) or [], second.accuracy(1) or [], confidence)
    return Pair(one, other, at_one, budgets, is_reversed(at_one, budgets), crossovers(budgets))


def _ratio_error(first: Variant, second: Variant) -> float:
    """Of the logarithm of two prices' ratio: what both have of one baseline's is no error of it."""
    own = math.hypot(first.joules.own_error, second.joules.own_error)
    if first.baseline_id == second.baseline_id:
        return own
    return math.hypot(own, first.joules.shared_error, second.joules.shared_error)


def _leaders(variants: Sequence[Variant], priced: Sequence[int], confidence: float) -> list[Leader]:
    """At what every number of samples of the dearest baseline costs, or of the dearest where none has a price."""
    rulers = [at for at in priced if variants[at].is_baseline] or list(priced)
    ruler = max(rulers, key=lambda at: _price(variants[at]).per_sample)
    return [_leader(variants, priced, _price(variants[ruler]).of(k), confidence) for k in variants[ruler].ks]


def _leader(variants: Sequence[Variant], priced: Sequence[int], joules: float, confidence: float) -> Leader:
    bought = [0] * len(variants)
    for at in priced:
        bought[at] = min(variants[at].num_samples, samples_within(joules, _price(variants[at])))
    values = {at: variants[at].accuracy(bought[at]) or [] for at in priced if bought[at]}
    best = max(values, key=lambda at: sum(values[at]))
    not_worse = [
        at for at in values if at != best and paired_difference(values[best], values[at], confidence).high >= 0
    ]
    return Leader(joules, best, mean_interval(values[best]), bought, not_worse)
