"""How test-time compute reads: which to deploy at equal energy, whether a ranking reversed, where the numbers are from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from compressbench.core.equal_energy import Budget, sign_of
from compressbench.core.names import listed
from compressbench.core.statistics import Interval
from compressbench.core.units import humanize, three_digits
from compressbench.report.think import Pair, Point, Thinking

_LISTED = 6


def heading(found: Thinking) -> str:
    variants = [line.variant for line in found.lines]
    counts = sorted({each.num_samples for each in variants})
    samples = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    selects = " and ".join(dict.fromkeys(each.select for each in variants))
    return f"Test-time compute: {len(variants[0].num_right)} questions, {samples} samples of each, select: {selects}"


def accuracy_word(found: Thinking) -> str:
    return "selected accuracy" if found.is_selected else "coverage"


def answer(found: Thinking) -> Iterator[str]:
    """Which should be deployed at equal energy, and did any ranking reverse?"""
    yield f"At equal energy {_deploy(found)}; {_reversals(found)}."
    last = found.leaders[-1]
    if last.not_worse:
        others = listed([found.label(at) for at in last.not_worse], _LISTED)
        yield (
            f"At {humanize(last.joules, 'J')} a question {found.label(last.best)} has {accuracy_word(found)} "
            f"{percent(last.accuracy)}; not shown to be worse there: {others}."
        )
    yield from _unshown(found)


def _deploy(found: Thinking) -> str:
    runs = [list(run) for _, run in groupby(found.leaders, key=lambda each: each.best)]
    parts = []
    for run in runs:
        name, low, high = found.label(run[0].best), humanize(run[0].joules, "J"), humanize(run[-1].joules, "J")
        where = f"at {low}" if len(run) == 1 else f"from {low} to {high}"
        is_alone = all(not each.not_worse for each in run)
        parts.append(f"{name} {where} a question{'' if is_alone else ' (by value; others are not shown to be worse)'}")
    return f"deploy {', '.join(parts)}"


def _reversals(found: Thinking) -> str:
    turned = [pair for pair in found.pairs if pair.is_reversed]
    if not turned:
        return f"no ranking of {len(found.pairs)} pairs is shown to have reversed from one sample each to equal energy"
    names = listed([_turn(found, pair) for pair in turned], _LISTED)
    return f"{len(turned)} of {len(found.pairs)} rankings reversed from one sample each to equal energy: {names}"


def _turn(found: Thinking, pair: Pair) -> str:
    two = found.label(pair.reference), found.label(pair.other)
    first, second = two if pair.at_one.value < 0 else two[::-1]
    back = next(each for each in pair.budgets if sign_of(each.difference) == -sign_of(pair.at_one))
    return f"{first} is better at one sample each, {second} at {humanize(back.joules, 'J')}"


def _unshown(found: Thinking) -> Iterator[str]:
    """Rankings that turned by value alone."""
    turned = [
        f"{found.label(pair.reference)} and {found.label(pair.other)}"
        for pair in found.pairs
        if not pair.is_reversed
        and any(each.difference is not None and each.difference.value * pair.at_one.value < 0 for each in pair.budgets)
    ]
    if turned:
        yield f"By value alone, not shown, {len(turned)} more turned: {listed(turned, _LISTED)}."


def percent(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    bounds = [max(0.0, interval.low), min(1.0, interval.high)]
    return f"{100 * interval.value:.1f} % [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"


def points(interval: Interval) -> str:
    low, high = 100 * interval.low, 100 * interval.high
    return f"{100 * interval.value:+.1f} [{low:+.1f}, {high:+.1f}]"


def cost(interval: Interval | None, unit: str) -> list[str]:
    if interval is None:
        return ["–"]
    return [humanize(interval.value, unit), f"[{humanize(interval.low, unit)}, {humanize(interval.high, unit)}]"]


def point_cells(point: Point, found: Thinking) -> list[list[str]]:
    """The lines of a row's cells: samples, coverage, selected accuracy, joules and seconds."""
    cells = [[str(point.k)], percent(point.coverage).split(" [")]
    cells += [percent(point.selected).split(" [")] if found.is_selected else []
    cells = [[first, *(f"[{rest}" for rest in more)] for first, *more in cells]
    return [*cells, cost(point.joules, "J"), cost(point.seconds, "s")]


def point_headers(found: Thinking) -> list[str]:
    chosen = ["selected accuracy"] if found.is_selected else []
    return ["samples k", "coverage pass@k", *chosen, "J a question", "machine time a question"]


def budget_cells(each: Budget) -> list[str]:
    nearest, fewest, most = each.num_other
    bought = f"k = {nearest}" if fewest == most else f"k = {nearest} ({fewest} to {most})"
    if each.difference is None:
        return [bought, each.reason]
    sign = sign_of(each.difference)
    return [bought, points(each.difference), "better" if sign > 0 else "worse" if sign < 0 else "not shown"]


def fit_sentences(found: Thinking) -> Iterator[str]:
    yield "Coverage is fitted as c(k) = exp(a k^b), modelled; the nearer b is to 0, the slower more samples help."
    for line in found.lines:
        if isinstance(line.fit, str):
            yield f"  {line.variant.label}: no curve, {line.fit}"
            continue
        b, low, high = line.fit.exponent
        off = 100 * line.fit.largest_residual
        text = f"b = {b:.2f} [{low:.2f}, {high:.2f}], a = {line.fit.factor:.2f}"
        yield f"  {line.variant.label}: {text}, off by {off:.1f} points at most"


def notes(found: Thinking) -> Iterator[str]:
    variants = [line.variant for line in found.lines]
    for unit, each in (("Joules", [v.joules for v in variants]), ("Seconds", [v.seconds for v in variants])):
        kinds = {(c.kind, c.source) for c in each if c.price is not None}
        for kind, source in sorted(kinds):
            yield f"{unit}: modelled, counted tokens times the rate of a token, which is {kind} ({source})."
        for reason in dict.fromkeys(c.reason for c in each if c.price is None):
            names = listed([v.label for v, c in zip(variants, each, strict=True) if c.reason == reason], _LISTED)
            yield f"No {unit.lower()} of {names}: {reason}."
    yield (
        "Rates are those of the workload's batch, whatever k is: a queue of questions fills it. A prompt is read once for "
        "all samples where the meter tells prefill from decode, else a token's rate holds the workload's share of it."
    )
    yield _of_selection(found)
    tokens = ", ".join(f"{v.label} {three_digits(v.tokens.written)}" for v in variants)
    yield f"Tokens written a sample: {tokens}."
    cut = [f"{v.label} {100 * v.unfinished:.1f} %" for v in variants if v.unfinished and v.unfinished >= 0.005]
    if cut:
        yield f"Texts that did not end by themselves: {', '.join(cut)}."
    yield (
        "Intervals are 95 %; those of differences hold together (Bonferroni) and span what the ratio of two prices leaves "
        "open. Differences are points of accuracy, paired by question. Accuracy at fewer samples is the mean over all "
        "choices of k."
    )
    for reason in dict.fromkeys(each.reason for each in found.skipped):
        yield f"NOT COMPARED {listed([each.label for each in found.skipped if each.reason == reason], _LISTED)}: {reason}"


def _of_selection(found: Thinking) -> str:
    selects = {line.variant.select for line in found.lines}
    if "best-of-n" in selects:
        return "Selecting reads every text once more: in the joules, at the rate of prefill (or of a written token)."
    if "majority" in selects:
        return "A vote runs no model, it compares k short strings: 0 tokens, and less than the meter resolves."
    return "Nothing selects: coverage needs a check that knows the right answer, and its joules are not in these."
