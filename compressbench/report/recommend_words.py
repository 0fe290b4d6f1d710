"""A recommendation on a terminal, in Markdown and as JSON."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from compressbench.core.names import json_text, one_line
from compressbench.report.answer import MOST_LISTED, Answer, Line, answer_of, reasons_of
from compressbench.report.catalog import Catalog
from compressbench.report.goal_judge import Judgement
from compressbench.report.goal_words import judgement_text, units_of
from compressbench.report.plain import escape
from compressbench.report.recommend import Judged, Recommendation

LONGEST_NAME = 26
_STYLES = {"DEPLOY": "bold green", "KEEP": "bold yellow", "NONE QUALIFIES": "bold red"}


def print_answer(answer: Answer, console: Console) -> None:
    """Read in five seconds: the verdict and its reasons, the runner-up, then why not the others and how it was judged."""
    if answer.watermark:
        console.print(Text(one_line(answer.watermark), style="bold red"))
    head = Text.assemble((answer.verdict, _STYLES[answer.verdict]), "  ", (one_line(answer.name), "bold"))
    head.rstrip()
    console.print(head)
    print_lines(console, answer.because)
    for line in answer.notes:
        console.print()
        console.print(Text(one_line(line.name), style="bold"))
        print_lines(console, line.reasons)
    if answer.listed:
        console.print()
        console.print(Text("NOT CHOSEN", style="bold"))
        print_grid(console, answer.listed)
        print_lines(console, answer.unlisted)
    console.print()
    print_lines(console, answer.how, "dim", 0)


def print_lines(console: Console, lines: Iterable[str], style: str = "", indent: int = 2) -> None:
    """Each wrapped, and below each other; nothing behind them."""
    for line in lines:
        for part in _wrapped(console, one_line(line), console.width - indent):
            console.print(Text(f"{' ' * indent}{part}", style=style))


def print_grid(console: Console, lines: Sequence[Line]) -> None:
    """Names in front of their reasons."""
    width = min(LONGEST_NAME, max(cell_len(one_line(line.name)) for line in lines))
    for line in lines:
        names = _wrapped(console, one_line(line.name), width)
        room = max(20, console.width - width - 4)
        reasons = [part for reason in line.reasons for part in _wrapped(console, one_line(reason), room)]
        for name, reason in itertools.zip_longest(names, reasons, fillvalue=""):
            blank = " " * (width - cell_len(name))
            console.print(Text(f"  {name}{blank}  {reason}".rstrip()))


def _wrapped(console: Console, text: str, width: int) -> list[str]:
    return [line.plain.rstrip() for line in Text(text).wrap(console, max(1, width), overflow="fold")]


def to_markdown(answer: Answer) -> str:
    lines = [f"**{escape(answer.watermark)}**", ""] if answer.watermark else []
    lines += [f"## {answer.verdict.capitalize()} {escape(answer.name)}".rstrip(), ""]
    lines += [f"{escape(each)}\n" for each in answer.because]
    for note in answer.notes:
        lines += [f"**{escape(note.name)}**: {'; '.join(map(escape, note.reasons))}", ""]
    if answer.listed:
        lines += ["| not chosen | why |", "|---|---|"]
        lines += [f"| {escape(each.name)} | {'<br>'.join(map(escape, each.reasons))} |" for each in answer.listed]
        lines += ["", *(f"{escape(each)}\n" for each in answer.unlisted)]
    return "\n".join([*lines, *(f"- {escape(each)}" for each in answer.how)]).rstrip() + "\n"


def to_json_text(found: Recommendation, catalog: Catalog) -> str:
    """`deploy`, `runner_up`, `tied`, `rejected` (at most 20, `num_rejected` says of how many), `nearest_miss`, `goals`."""
    answer = answer_of(found, catalog)
    others = [*found.outdone, *found.rejected]
    units = units_of(catalog, [each.contender for each in others])
    fields: dict[str, Any] = {
        "verdict": answer.verdict,
        "deploy": _whole(found.deploy, catalog),
        "runner_up": _whole(found.runner_up, catalog),
        "tied": [_named(each) for each in found.tied[:MOST_LISTED]],
        "num_tied": len(found.tied),
        "unproven": [_named(each) for each in found.unproven[:MOST_LISTED]],
        "num_unproven": len(found.unproven),
        "rejected": list(_rejected(found, answer, units)),
        "num_rejected": len(others),
        "unlisted": answer.unlisted,
        "nearest_miss": None if found.nearest is None else _judged(found.nearest, units),
        "baseline_qualifies": None if found.baseline is None else found.baseline.qualifies,
        "objective": found.objective,
        "scale": found.field.scale,
        "goals": [goal._asdict() for goal in found.policy.goals],
        "because": answer.because,
        "notes": [each._asdict() for each in answer.notes],
        "watermark": found.watermark,
        "exit_code": found.exit_code,
    }
    return json_text(fields)


def _rejected(found: Recommendation, answer: Answer, units: dict[str, str]) -> Iterator[dict[str, Any]]:
    others = [*found.outdone, *found.rejected][:MOST_LISTED]
    for judged, line in zip(others, answer.listed, strict=False):
        yield {**_judged(judged, units), "reasons": line.reasons}


def _named(judged: Judged) -> dict[str, Any]:
    contender = judged.contender
    return {
        "candidate": contender.candidate,
        "recipe": contender.recipe,
        "role": contender.role,
        "run_id": contender.run_id,
    }


def _judged(judged: Judged, units: dict[str, str]) -> dict[str, Any]:
    return {
        **_named(judged),
        "qualifies": judged.qualifies,
        "reasons": reasons_of(judged, units),
        "judgements": [judgement_fields(each, units) for each in judged.failures],
    }


def judgement_fields(found: Judgement, units: dict[str, str]) -> dict[str, Any]:
    """A judgement as plain data."""
    return {
        "figure": found.figure,
        "type": found.goal.type,
        "limit": found.goal.value,
        "is_ceiling": found.is_ceiling,
        "outcome": found.outcome,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "shortfall": found.shortfall,
        "fraction": found.fraction,
        "reason": found.reason,
        "text": judgement_text(found, units),
    }


def _whole(judged: Judged | None, catalog: Catalog) -> dict[str, Any] | None:
    """With its numbers; what isn't there is left out."""
    if judged is None:
        return None
    row = catalog.row(judged.contender.at)
    figures = {
        name: {**cell.model_dump(exclude={"reason"}), "against_baseline": row.against_baseline.get(name)}
        for name, cell in row.cells.items()
        if cell.value is not None
    }
    return {
        **_named(judged),
        "key": row.key,
        "comparability_key": row.comparability_key,
        "model": row.model,
        "steps": row.steps,
        "figures": figures,
    }
