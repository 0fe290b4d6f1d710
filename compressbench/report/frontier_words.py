"""How diminishing returns read: the numbers of a step, where returns stop, and what rivals and curves say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from compressbench.core.curve_fits import COSTS, Fit, Parameter
from compressbench.core.names import listed
from compressbench.core.returns import Step
from compressbench.core.units import three_digits
from compressbench.report.frontier_numbers import Words
from compressbench.report.frontier_rivals import SMALLER_DENSE, TASK_SPECIFIC
from compressbench.report.words import title

FORMULAS = {
    "constant": "q the same everywhere",
    "linear in log": "q = q1 + s ln(E/E1)",
    "power": "q = q_inf - a (E/E1)^-b",
    "exponential": "q = q_inf - a exp(-(E - E1)/tau)",
    "logistic in log": "q = q_inf - a (1 + (E1/m)^h)/(1 + (E/m)^h)",
}
_LISTED = 6


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
    if not returns.beyond and not returns.jumps:
        yield f"Returns don't stop within what was measured: each gain is shown up to {last}, the dearest row."
    elif not returns.beyond:
        yield f"Returns don't stop within what was measured: a gain is shown up to {last}, the dearest row."
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
            f"Single steps after {words.place(step.start)} show too little, but {words.place(step.end)} is shown to be "
            f"better: {' '.join(words.gain_of(step.gain))}, with all dearer rows together at 95 %."
        )


def jump_words(words: Words, jump: Step) -> str:
    """The total gain at the row where it is shown, for the step to it shows too little."""
    return f"{words.gain_of(jump.gain)[0]} over {words.name(jump.start)} shown"


def rival_sentences(words: Words) -> Iterator[str]:
    """How each rival stands, and for each kind of rival that it is missing if it is."""
    found = words.found
    unplaced = [each for each in found.unplaced if each.rival]
    for at, member in enumerate(found.members):
        if member.rival:
            yield from _standing(words, at, f"Rival {words.place(at)}, a {member.rival}")
        elif at in found.smaller:
            yield from _standing(words, at, f"Rival {words.place(at)}, a {SMALLER_DENSE} of this family")
    for each in unplaced[:_LISTED]:
        which = f"{title(each.name)}: " if each.name else ""
        yield f"Rival {each.label}, a {each.rival}, is not compared: {which}{each.reason}."
    kinds = {member.rival for member in found.rivals} | {each.rival for each in unplaced}
    if not found.smaller and SMALLER_DENSE not in kinds:
        yield f"No {SMALLER_DENSE} was measured: that comparison is missing (--rival RECIPE, or a distilled student)."
    if TASK_SPECIFIC not in kinds:
        yield f"No {TASK_SPECIFIC} was measured: that comparison is missing (--task-rival RECIPE)."


def _standing(words: Words, at: int, who: str) -> Iterator[str]:
    found = words.found
    behind = found.rivals_behind.get(at)
    if at in found.returns.front:
        yield f"{who}: on the front."
    elif behind is not None:
        sure = "shown" if behind.gain.low > 0 else "not shown"
        yield (
            f"{who}: {words.place(behind.at)} costs no more and has {' '.join(words.gain_of(behind.gain))} over it, {sure}."
        )


def fit_sentences(words: Words) -> Iterator[str]:
    found = words.found
    rows = "all rows" if found.all_rows else "the rows on the front"
    if found.fits is None:
        yield f"No curve through {rows}: {found.why_no_fit}."
        return
    fits, chosen = found.fits, found.fits.chosen
    parameters = "; ".join(parameter_text(words, each) for each in chosen.parameters)
    yield (
        f"Curve through {rows}, modelled: {chosen.form}, {FORMULAS[chosen.form]}, E1 = "
        f"{words.cost(fits.first_cost)}: {parameters}."
    )
    others = ", ".join(_against(fit, chosen) for fit in fits.fits if fit.form != chosen.form)
    alike = f" AICc can't tell it from {' and '.join(fits.alike)}; leave-one-out decided." if fits.alike else ""
    widened = (
        f" Errors were widened {fits.inflation:.2g} times, for the rows scatter so much." if fits.inflation > 1 else ""
    )
    yield (
        f"Chosen by AICc, then leave-one-out ({chosen.left_out_error:.2g} errors); AICc of others: {others}.{alike}"
        f"{widened} Intervals: {fits.num_draws} parametric bootstrap draws, seed {fits.seed}."
    )


def _against(fit: Fit, chosen: Fit) -> str:
    if math.isinf(fit.aicc):
        return f"{fit.form} needs more rows"
    return f"{fit.form} {fit.aicc - chosen.aicc:+.1f}"


def parameter_text(words: Words, each: Parameter) -> str:
    """A quality as the metric's value, a difference of qualities as a gain; an open bound is said to be none."""
    text: Callable[[float], str]
    is_level = each.name in ("q", "q1", "q_inf")
    if is_level:
        text = words.level
    elif each.name in COSTS:
        text = words.cost
    else:
        text = words.gain if each.name in ("a", "s") else three_digits
    bounds = ["no bound" if bound is None else text(bound) for bound in (each.low, each.high)]
    # of a metric of which less is better, the best quality is the lowest value
    if is_level and words.is_lower_better:
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
        yield f"Not on the front, something else is as good for less: {listed(off, _LISTED)}."
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in found.unplaced:
        if not each.rival:
            reasons.setdefault((each.name, each.reason), []).append(each.label)
    for (name, reason), labels in reasons.items():
        yield f"NOT RANKED {listed(labels, _LISTED)}: {f'{title(name)}: ' if name else ''}{reason}"
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
        "Gain for each unit of extra cost: Fieller's interval, unbounded where the extra cost may be 0. Elasticity: "
        "relative gain over relative extra cost. Costs taken by a clock or a meter are the baseline's times the paired "
        "ratio, not the row's own."
    )
