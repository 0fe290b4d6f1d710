"""The answer of a group in a sentence, by the simplest rule that is honest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compressbench.report.figures import Contender
from compressbench.report.leaderboard.cell_text import cell_text, quantity_title
from compressbench.report.positions import standing


def answer_of(
    contenders: Sequence[Contender], metric: str, costs: Sequence[str], units: Mapping[str, str]
) -> tuple[Contender | None, str]:
    """The candidate to deploy, and why, in a sentence that doesn't name it.

    Of those with no degraded metric the one whose speed stands first.

    None, and what is missing, where no candidate has both its metrics undegraded and a speed that may be compared.
    """
    speed = costs[0]
    stands = standing(contenders, speed).positions
    sound = [at for at in stands if not contenders[at].is_baseline and not _is_degraded(contenders[at])]
    if not sound:
        return None, _no_answer(contenders)
    best = contenders[min(sound, key=lambda at: stands[at].value)]
    others = len([at for at in stands if not contenders[at].is_baseline]) - len(sound)
    facts = [_fact(best, name, units) for name in (metric, speed) if name in best.figures]
    dropped = f" {others} that lost in a metric {'was' if others == 1 else 'were'} passed over." if others else ""
    return best, f"{'; '.join(facts)}.{dropped}"


def _is_degraded(contender: Contender) -> bool:
    return any(contender.figures[name].verdict == "degraded" for name in contender.metrics if name in contender.figures)


def _no_answer(contenders: Sequence[Contender]) -> str:
    candidates = [each for each in contenders if not each.is_baseline]
    if not candidates:
        return "No candidate was measured: there is only the baseline."
    lost = sum(_is_degraded(each) for each in candidates)
    return f"No candidate: of {len(candidates)}, {lost} lost in a metric, and the others' speed may not be compared."


def _fact(contender: Contender, name: str, units: Mapping[str, str]) -> str:
    text = cell_text(name, contender.figures[name], units)
    claim = f" ({text.claim} {text.claim_interval})" if text.claim else ""
    return f"{quantity_title(name)} {text.value}{claim}".replace(" )", ")")
