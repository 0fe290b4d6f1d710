"""A gate's outcome on a terminal, as a summary for a pull request, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from compressbench.core.names import json_text, one_line
from compressbench.report.answer import Line
from compressbench.report.gate import Gate, Word, outcome_of
from compressbench.report.goal_words import Units, judgement_text, limit_text, observed_text, subject_text
from compressbench.report.plain import escape
from compressbench.report.recommend import Judged
from compressbench.report.recommend_words import judgement_fields, print_grid, print_lines

MOST_SHOWN = 50
_STYLES: dict[Word, str] = {"passed": "bold green", "failed": "bold red"}
_HOW = (
    "A goal is met if the whole 95 % interval is within its limit, missed if it lies wholly beyond, else undecided. "
    "Losses and improvements are paired with the baseline of the same run; a limit of the number itself is judged by that "
    "run's calls, not for another day."
)


def verdict_text(found: Gate) -> str:
    """`failed: 1 of 3 candidates fails, 1 is inconclusive`."""
    if not found.judged:
        return "inconclusive: there is no candidate to judge"
    if not found.policy.goals and found.outcome != "failed":
        return "inconclusive: the policy has no goal"
    words = [outcome_of(each) for each in found.judged]
    total = len(words)
    parts = [f"{words.count(word)} {word}" for word in ("failed", "inconclusive", "passed") if words.count(word)]
    what = "a required measurement is missing" if found.outcome == "missing" else found.outcome
    return f"{what}: of {total} candidate{'s' if total > 1 else ''} {', '.join(parts)}"


def print_gate(found: Gate, units: Units, console: Console) -> None:
    """Those that don't pass first, each with every goal."""
    head, _, rest = verdict_text(found).partition(": ")
    style = _STYLES.get(found.outcome, "bold yellow")
    console.print(Text.assemble((one_line(head.upper()), style), f"  {one_line(rest)}"))
    ordered = _worst_first(found)
    if ordered:
        console.print()
        print_grid(console, [Line(_name(found, each), _reasons(each, units)) for each in ordered[:MOST_SHOWN]])
    print_lines(console, _more(found))
    console.print()
    print_lines(console, [_HOW], "dim", 0)


def _worst_first(found: Gate) -> list[Judged]:
    order = {"failed": 0, "inconclusive": 1, "passed": 2}
    return sorted(found.judged, key=lambda each: order[outcome_of(each)])


def _more(found: Gate) -> list[str]:
    left = len(found.judged) - MOST_SHOWN
    return [f"and {left:,} more candidates"] if left > 0 else []


def _reasons(judged: Judged, units: Units) -> list[str]:
    if judged.contender.faults:
        return [f"failed: {fault}" for fault in judged.contender.faults]
    return [_reason(each.outcome, judgement_text(each, units)) for each in judged.judgements] or [
        "nothing was asked of it"
    ]


def _reason(outcome: str, text: str) -> str:
    """The outcome in front, and not again behind."""
    return f"{outcome}: {text.replace(': missed by', ', missed by').replace(': undecided, ', ', ')}"


def _name(found: Gate, judged: Judged) -> str:
    recipes = {each.contender.recipe for each in found.judged}
    contender = judged.contender
    return f"{contender.recipe}: {contender.candidate}" if len(recipes) > 1 else contender.candidate


def to_markdown(found: Gate, units: Units) -> str:
    """The verdict, a table of what isn't met, and all the rest folded away."""
    head, _, rest = verdict_text(found).partition(": ")
    lines = [f"## compressbench gate: {escape(head)}", "", escape(rest[:1].upper() + rest[1:]) + ".", ""]
    bad = [row for each in _worst_first(found) for row in _rows(found, each, units, is_met=False)]
    good = [row for each in _worst_first(found) for row in _rows(found, each, units, is_met=True)]
    if bad:
        lines += [*_HEAD, *bad[:MOST_SHOWN], *_cut(bad), ""]
    if good:
        noun = "goal" if len(good) == 1 else "goals"
        lines += ["<details>", f"<summary>{len(good):,} {noun} met</summary>", ""]
        lines += [*_HEAD, *good[:MOST_SHOWN], *_cut(good), "", "</details>", ""]
    return "\n".join([*lines, escape(_HOW)]) + "\n"


_HEAD = ("| candidate | number | found | limit | outcome |", "|---|---|---:|---:|---|")


def _cut(rows: list[str]) -> list[str]:
    left = len(rows) - MOST_SHOWN
    return [f"| and {left:,} more | | | | |"] if left > 0 else []


def _rows(found: Gate, judged: Judged, units: Units, *, is_met: bool) -> Iterator[str]:
    name = f"**{escape(_name(found, judged))}**"
    if judged.contender.faults:
        if not is_met:
            yield f"| {name} | the record | {escape('; '.join(judged.contender.faults))} | | failed |"
        return
    for each in judged.judgements:
        if (each.outcome == "met") == is_met:
            cells = (subject_text(each), observed_text(each, units), limit_text(each, units), each.outcome)
            yield f"| {name} | {' | '.join(map(escape, cells))} |"


def to_json_text(found: Gate, units: dict[str, str]) -> str:
    """`outcome`, `exit_code`, and of each candidate its outcome and judgements."""
    fields: dict[str, Any] = {
        "outcome": found.outcome,
        "exit_code": found.exit_code,
        "verdict": verdict_text(found),
        "goals": [goal._asdict() for goal in found.policy.goals],
        "candidates": [
            {
                "candidate": each.contender.candidate,
                "recipe": each.contender.recipe,
                "run_id": each.contender.run_id,
                "outcome": outcome_of(each),
                "faults": each.contender.faults,
                "judgements": [judgement_fields(one, units) for one in each.judgements],
            }
            for each in found.judged
        ],
        "missing": [
            {"candidate": contender.candidate, "figure": judgement.figure, "reason": judgement.reason}
            for contender, judgement in found.missing
        ],
    }
    return json_text(fields)
