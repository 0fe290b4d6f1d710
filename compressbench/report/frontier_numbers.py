"""Numbers of diminishing returns as texts: costs, qualities as the metric's value, gains and their intervals."""

from __future__ import annotations

import math
from typing import NamedTuple

from compressbench.core.returns import Ratio
from compressbench.core.statistics import Interval
from compressbench.core.units import humanize, three_digits, unit_of
from compressbench.report.catalog import Catalog
from compressbench.report.frontier import Frontier
from compressbench.report.frontier_levels import RATES
from compressbench.report.frontier_rivals import Member
from compressbench.report.rows import Cell
from compressbench.report.words import title, value_text

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


class Words(NamedTuple):
    """Texts of one frontier's numbers. `per`, `per_unit`: the unit of cost that marginal gains are said for."""

    found: Frontier
    catalog: Catalog
    is_fraction: bool
    per: float
    per_unit: str

    @classmethod
    def of(cls, found: Frontier, catalog: Catalog) -> Words:
        cells = [catalog.row(member.contender.at).cells[found.metric] for member in found.members[:1]]
        steps = [step.extra_cost.value for step in found.returns.steps]
        per, unit = _unit_of_cost(found.cost, max(steps, default=1.0))
        return cls(found, catalog, any(cell.unit == "fraction" for cell in cells), per, unit)

    @property
    def cost_title(self) -> str:
        name = title(self.found.cost)
        return f"time for each (1 / {name})" if self.found.cost in RATES else name

    def name(self, at: int) -> str:
        return self.found.members[at].label

    def place(self, at: int) -> str:
        return f"{self.name(at)} ({self.cost(self.found.members[at].point.cost)})"

    def cost(self, value: float) -> str:
        name = self.found.cost
        if name in RATES:
            return humanize(value, "s")
        text = value_text(name, Cell(value=value, unit=unit_of(name)))
        return f"{text} bits" if name == "effective_bits" else text

    def cost_of(self, member: Member) -> str:
        """With a mark where it isn't measured."""
        kind = self.catalog.row(member.contender.at).cells[self.found.cost].kind
        marks = {"estimated": " (est.)", "modelled": " (model)"}
        return f"{self.cost(member.point.cost)}{marks.get(kind, '')}"

    def value_of(self, member: Member) -> str:
        return value_text(self.found.metric, self.catalog.row(member.contender.at).cells[self.found.metric])

    def level(self, quality: float) -> str:
        """A quality as the metric's value."""
        sign = -1.0 if self.is_lower_better else 1.0
        value = math.exp(sign * quality) if self.found.is_log else sign * quality
        return value_text(self.found.metric, Cell(value=value, unit="fraction" if self.is_fraction else ""))

    @property
    def is_lower_better(self) -> bool:
        figures = [member.contender.figures[self.found.metric] for member in self.found.members]
        return figures[0].direction == "lower"

    @property
    def gain_unit(self) -> str:
        return "pp" if self.is_fraction and not self.found.is_log else "%" if self.found.is_log else ""

    def gain(self, value: float, width: float | None = None) -> str:
        """As fine as its interval, if it has one of that width."""
        return f"{self.times(value):+.{self._digits(width or value)}f} {self.gain_unit}".strip()

    def gain_of(self, gain: Interval) -> list[str]:
        return [self.gain(gain.value, gain.high - gain.low), self.interval(gain)]

    def interval(self, gain: Interval) -> str:
        digits = self._digits(gain.high - gain.low)
        return f"[{self.times(gain.low):+.{digits}f}, {self.times(gain.high):+.{digits}f}]"

    def per_cost(self, ratio: Ratio) -> list[str]:
        """For each unit of cost, and its interval."""
        value, unit = self.times(ratio.value) * self.per, f"{self.gain_unit}/{self.per_unit}"
        if ratio.low is None or ratio.high is None:
            return [f"{three_digits(value)} {unit}", "[unbounded]"]
        bounds = [self.times(bound) * self.per for bound in (ratio.low, ratio.high)]
        return [f"{three_digits(value)} {unit}", f"[{three_digits(bounds[0])}, {three_digits(bounds[1])}]"]

    def times(self, value: float) -> float:
        return 100 * value if self.gain_unit else value

    def _digits(self, size: float) -> int:
        size = abs(self.times(size))
        return 2 if size == 0 else max(0, min(4, 2 - math.floor(math.log10(size))))


def elasticity_text(ratio: Ratio | None) -> list[str]:
    if ratio is None:
        return []
    if ratio.low is None or ratio.high is None:
        return [f"{ratio.value:.3f}", "[unbounded]"]
    return [f"{ratio.value:.3f}", f"[{ratio.low:.3f}, {ratio.high:.3f}]"]


def _unit_of_cost(name: str, largest: float) -> tuple[float, str]:
    """A unit in which the largest step is at least 1."""
    if name == "effective_bits":
        return 1.0, "bit"
    base = "s" if name in RATES else "parameters" if name == "num_parameters" else unit_of(name).partition("/")[0]
    scale, prefix = next(((s, p) for s, p in _PREFIXES if largest >= s), _PREFIXES[-1])
    return scale, f"{prefix}{' ' if base == 'parameters' and prefix else ''}{base}"
