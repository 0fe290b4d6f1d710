"""How diminishing returns read: the numbers of a step, where returns stop, and what rivals and curves say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from compressbench.core.curve_fits import Fit, Parameter
from compressbench.core.returns import Ratio, Step
from compressbench.core.statistics import Interval
from compressbench.core.units import humanize, three_digits, unit_of
from compressbench.report.catalog import Catalog
from compressbench.report.frontier import Frontier, Member
from compressbench.report.frontier_levels import RATES
from compressbench.report.rows import Cell
from compressbench.report.words import title, value_text

FORMULAS = {
    "constant": "q",
    "linear in log": "q1 + s ln(E/E1)",
    "power": "q_inf - a (E/E1)^-b",
    "exponential": "q_inf - a exp(-(E - E1)/tau)",
    "logistic in log": "q_inf - a (1 + (E1/m)^h)/(1 + (E/m)^h)",
}
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_LISTED = 6


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
        return 2 if size == 0 else max(0, min(4, 1 - math.floor(math.log10(size)) + (size < 1)))


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


def verdict(step: Step) -> str:
    """What a step shows."""
    if step.is_shown:
        return "gain shown"
    return "below the smallest gain" if step.gain.low > 0 else "no gain shown"


def stop_sentences(words: Words) -> Iterator[str]:
    """Where returns stop and why, and how sure it is."""
    found, returns = words.found, words.found.returns
    if len(returns.front) == 1:
        yield f"{words.place(returns.stop)} is the best in both: no dearer row is better, so there is no step to weigh."
        return
    last = words.place(returns.stop)
    if not returns.beyond:
        yield f"Returns don't stop within what was measured: up to {last} more {words.cost_title} is shown to gain."
    else:
        cost = words.cost(found.members[returns.stop].point.cost)
        step = next(each for each in returns.steps if each.start == returns.stop)
        shown = "nothing more of interest" if step.gain.low > 0 else "nothing more"
        yield f"Above {cost} ({words.name(returns.stop)}) {shown} is shown to be gained: {_why(words, step)}."
        yield _all_later(words)
    yield from _jumps(words)


def _why(words: Words, step: Step) -> str:
    said = (
        f"the step to {words.place(step.end)} costs {words.cost(step.extra_cost.value)} more and gains "
        f"{' '.join(words.gain_of(step.gain))}"
    )
    if step.gain.low <= 0:
        return f"{said}, which holds 0"
    return f"{said}, less than the smallest gain of interest ({_smallest(words)})"


def _smallest(words: Words) -> str:
    smallest = words.found.smallest_gain
    # asked for as a fraction of the value, which is not quite the difference of logarithms
    size = math.expm1(smallest or 0.0) if words.found.is_log else smallest or 0.0
    number = f"{three_digits(words.times(size))} {words.gain_unit}".strip()
    return f"{number}, {words.found.margin_source}"


def _all_later(words: Words) -> str:
    beyond = words.found.returns.beyond
    most = max(beyond, key=lambda step: step.gain.high)
    number = (
        "The dearer row of the front is" if len(beyond) == 1 else f"Of {len(beyond)} dearer rows of the front none is"
    )
    negated = "not " if len(beyond) == 1 else ""
    by = "" if not words.found.smallest_gain else " by the smallest gain of interest"
    return (
        f"{number} {negated}shown to be better{by} (95 % together); more than {words.gain(most.gain.high)}, "
        f"the upper bound for {words.name(most.end)}, is ruled out."
    )


def _jumps(words: Words) -> Iterator[str]:
    for step in words.found.returns.jumps:
        yield (
            f"Single steps show no gain after {words.place(step.start)}, but {words.place(step.end)} is shown to be better "
            f"than it: {' '.join(words.gain_of(step.gain))}, with all dearer rows together at 95 %."
        )


def rival_sentences(words: Words) -> Iterator[str]:
    found = words.found
    unplaced = [each for each in found.unplaced if each.rival]
    if not found.rivals and not unplaced:
        yield (
            "No rival was measured: the comparison with a smaller dense model, or one made for the task, is missing "
            "(--rival RECIPE)."
        )
    for at, member in enumerate(found.members):
        if not member.rival:
            continue
        behind = found.rivals_behind.get(at)
        if behind is None:
            yield f"Rival {words.place(at)}, a {member.rival}: on the front."
            continue
        sure = "shown" if behind.gain.low > 0 else "not shown"
        yield (
            f"Rival {words.place(at)}, a {member.rival}: {words.place(behind.at)} costs no more and has "
            f"{' '.join(words.gain_of(behind.gain))} over it, {sure}."
        )
    for each in unplaced[:_LISTED]:
        which = f"{title(each.name)}: " if each.name else ""
        yield f"Rival {each.label}, a {each.rival}, is not compared: {which}{each.reason}."


def fit_sentences(words: Words) -> Iterator[str]:
    found = words.found
    rows = "all rows" if found.all_rows else "the rows on the front"
    if found.fits is None:
        yield f"No curve through {rows}: {found.why_no_fit}."
        return
    fits, chosen = found.fits, found.fits.chosen
    parameters = "; ".join(parameter_text(words, each) for each in chosen.parameters)
    yield (
        f"Curve through {rows}, modelled: {chosen.form}, q = {FORMULAS[chosen.form]}, E1 = "
        f"{words.cost(min(point.cost for point in fits.curve))}: {parameters}."
    )
    others = ", ".join(_against(fit, chosen) for fit in fits.fits if fit is not chosen)
    alike = f" AICc can't tell it from {' and '.join(fits.alike)}; leave-one-out decided." if fits.alike else ""
    widened = (
        f" Errors were widened {fits.inflation:.2g} times, for the rows scatter so much." if fits.inflation > 1 else ""
    )
    yield (
        f"Chosen by AICc, then leave-one-out ({chosen.left_out_error:.2g} errors); AICc of others: {others}.{alike}{widened}"
        f" Intervals: {fits.num_draws} parametric bootstrap draws, seed {fits.seed}."
    )


def _against(fit: Fit, chosen: Fit) -> str:
    if math.isinf(fit.aicc):
        return f"{fit.form} needs more rows"
    return f"{fit.form} {fit.aicc - chosen.aicc:+.1f}"


def parameter_text(words: Words, each: Parameter) -> str:
    """A quality as the metric's value, a difference of qualities as a gain; an open bound is said to be none."""
    if each.name in ("q", "q1", "q_inf"):
        text = words.level
    elif each.name in ("tau", "m"):
        text = words.cost
    else:
        text = words.gain if each.name in ("a", "s") else three_digits
    bounds = ["no bound" if bound is None else text(bound) for bound in (each.low, each.high)]
    # of a metric of which less is better, the best quality is the lowest value
    if text == words.level and words.is_lower_better:
        bounds.reverse()
    beyond = " (modelled: beyond what was measured)" if each.is_beyond else ""
    return f"{each.name} = {text(each.value)} [{bounds[0]}, {bounds[1]}]{beyond}"


def notes(words: Words) -> Iterator[str]:
    """Who isn't on the front and who wasn't ranked, and what the numbers mean."""
    found = words.found
    off = [
        member.label for at, member in enumerate(found.members) if at not in found.returns.front and not member.rival
    ]
    if off:
        yield f"Not on the front, something else is as good for less: {_several(off)}."
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in found.unplaced:
        if not each.rival:
            reasons.setdefault((each.name, each.reason), []).append(each.label)
    for (name, reason), labels in reasons.items():
        yield f"NOT RANKED {_several(labels)}: {f'{title(name)}: ' if name else ''}{reason}"
    yield from [found.cost_note] if found.cost_note else []
    yield from _sources(words)
    yield from _meaning(words)


def _sources(words: Words) -> Iterator[str]:
    cells = [words.catalog.row(member.contender.at).cells[words.found.cost] for member in words.found.members]
    for source in sorted({cell.source for cell in cells if cell.kind in ("estimated", "modelled")}):
        yield f"{title(words.found.cost)}: not measured; {source}"


def _meaning(words: Words) -> Iterator[str]:
    found = words.found
    if found.is_log:
        yield "Gains in % are 100 times the difference of logarithms (1 % is 1 % less perplexity); quality is -ln of it."
    smallest = (
        f"; smallest gain of interest {_smallest(words)}" if found.smallest_gain else "; no smallest gain was given"
    )
    yield (
        f"Rows are on the front by their values, the cheapest first; gains are over the row above, 95 %, both rows' errors "
        f"added{smallest}. Who is on a front by luck gains a little less than it seems."
    )
    yield (
        "Gain for each unit of extra cost: Fieller's interval, unbounded where the extra cost may be 0. Costs taken by a "
        "clock or a meter are the baseline's times the paired ratio. Elasticity: relative gain over relative extra cost."
    )


def _several(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:_LISTED])
    return shown if len(labels) <= _LISTED else f"{shown} and {len(labels) - _LISTED} more"
