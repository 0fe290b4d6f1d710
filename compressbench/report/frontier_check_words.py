"""How the checks beside a frontier's curve read: monotony without a form, and the law of bits with its break."""

from __future__ import annotations

from collections.abc import Iterator

from compressbench.core.bits_law import BitsLaw, Bounded
from compressbench.core.units import three_digits
from compressbench.report.frontier_numbers import Words


def check_sentences(words: Words) -> Iterator[str]:
    """Isotonic regression first, and the law of bits where it is meant."""
    yield from _monotony(words)
    yield from _gap(words)
    checks = words.found.checks
    for method, law in checks.laws.items():
        yield from _law(method, law)
    if checks.why_no_law:
        yield f"No law of bits: {checks.why_no_law}."


def _monotony(words: Words) -> Iterator[str]:
    checks = words.found.checks
    found = checks.monotony
    if found is None:
        return
    who = f"Isotonic regression of all {len(checks.places)} rows of the family, which assumes no form"
    if found.worst is None:
        yield f"{who}: no dearer row is below a cheaper one."
        return
    cheap, dear = (words.place(checks.places[at]) for at in (found.worst.start, found.worst.end))
    most = f"{dear} has {' '.join(words.gain_of(found.worst.gain))} over {cheap}, all {found.num_pairs} pairs together"
    if found.num_shown:
        number = "1 pair contradicts" if found.num_shown == 1 else f"{found.num_shown} pairs contradict"
        yield f"{who}: dearer is not always better, {number} it beyond chance. The most: {most} at 95 %."
    else:
        yield f"{who}: nothing contradicts that dearer is better. The largest fall is within chance: {most} at 95 %."


def _gap(words: Words) -> Iterator[str]:
    gap = words.found.checks.gap
    if gap is not None:
        yield (
            f"The curve departs from the isotonic fit of its rows by {words.gain(gap.above)} at most, "
            f"{gap.in_errors:.1f} errors, at {words.name(gap.at)}."
        )


def _law(method: str, law: BitsLaw) -> Iterator[str]:
    rows = f"Law of bits through {law.num_rows} rows of {method}, modelled"
    b = f"b = {_bounded(law.b)} for each bit, a factor of {4**law.b.value:.2f}"
    if law.break_at is not None and law.b_below is not None:
        yield (
            f"{rows}: loss = a 4^(-b bits) with {b}, down to {_bounded(law.break_at)} bits; below that it is steeper, "
            f"b = {_bounded(law.b_below)}, a factor of {4**law.b_below.value:.2f} for each bit."
        )
    else:
        yield f"{rows}: loss = a 4^(-b bits) with {b}."
    yield f"{_why(law)} Errors were widened {three_digits(law.inflation)} times." if law.inflation > 1 else _why(law)


def _why(law: BitsLaw) -> str:
    if law.aicc_gain is None or law.p is None:
        return f"Whether it breaks {law.num_rows} rows are too few to say."
    said = "A break is shown" if law.is_broken else "No break is shown"
    lower = f"{abs(law.aicc_gain):.1f} {'lower' if law.aicc_gain > 0 else 'higher'}"
    return f"{said}: the AICc of two slopes is {lower}, and chance alone would do as well in {law.p:.1%} of draws."


def _bounded(found: Bounded) -> str:
    low, high = ("no bound" if each is None else f"{each:.2f}" for each in (found.low, found.high))
    return f"{found.value:.2f} [{low}, {high}]"
