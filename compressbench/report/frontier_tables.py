"""Diminishing returns for people: on a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from compressbench.core.names import one_line
from compressbench.core.returns import elasticity, knee
from compressbench.report.catalog import Catalog
from compressbench.report.frontier import Frontier
from compressbench.report.frontier_check_words import check_sentences
from compressbench.report.frontier_numbers import Words, elasticity_text
from compressbench.report.frontier_plot import text_plot
from compressbench.report.frontier_words import (
    fit_sentences,
    jump_words,
    notes,
    rival_sentences,
    stop_sentences,
    verdict,
)
from compressbench.report.pareto_words import heading
from compressbench.report.plain import escape, markdown_line
from compressbench.report.recommend_words import print_lines
from compressbench.report.terminal import Grid, Lines, TableColumn, name_lines
from compressbench.report.words import title

_STYLES = {"gain shown": "green", "no gain shown": "red", "below the smallest gain": "red"}


def print_frontier(catalog: Catalog, found: Frontier, console: Console | None = None) -> None:
    """Where returns stop, the steps, rivals, the curve and a picture."""
    console = console or Console(highlight=False)
    words = Words.of(found, catalog)
    if found.front.watermark:
        console.print(Text(one_line(found.front.watermark), style="bold red"))
    console.print(Text(one_line(heading(found.front)), style="bold"))
    console.print()
    for number, sentence in enumerate(stop_sentences(words)):
        print_lines(console, [sentence], "" if number else "bold", 0)
    print_lines(console, rival_sentences(words), "", 0)
    lines = list(_lines(words))
    names = TableColumn.of("row of the front", [_name(cells) for cells in lines])
    columns = [
        TableColumn.of(
            one_line(header), [[(text, "dim" if row else "") for row, text in enumerate(cells[at])] for cells in lines]
        )
        for at, header in enumerate(_headers(words), start=2)
    ]
    console.print(Grid(names, columns), crop=False)
    drawn = text_plot(catalog, found, console.width)
    if drawn:
        console.print(Text("\n".join([*drawn, ""]), no_wrap=True), crop=False)
    print_lines(console, [*fit_sentences(words), *check_sentences(words)], "", 0)
    print_lines(console, notes(words), "dim", 0)


def _headers(words: Words) -> list[str]:
    gained = "gain" if not words.gain_unit else f"gain in {words.gain_unit}"
    return [words.cost_title, title(words.found.metric), gained, f"gain per extra {words.per_unit}", "elasticity"]


def _lines(words: Words) -> Iterator[list[list[str]]]:
    """By row of the front its name and marks, what its step shows, and the cells' lines."""
    found, points = words.found, words.found.points
    farthest = knee(points, found.returns.front)
    steps = [None, *found.returns.steps]
    for at, step in zip(found.returns.front, steps, strict=True):
        member = found.members[at]
        marks = [f"a {member.rival}"] if member.rival else []
        marks += ["returns stop here"] if at == found.returns.stop and found.returns.beyond else []
        marks += ["knee (display only)"] if at == farthest else []
        cost, value = [words.cost_of(member)], [words.value_of(member)]
        if step is None:
            yield [[member.label, *marks], [], cost, value, [], [], []]
            continue
        cost.append(f"+{words.cost(step.extra_cost.value)}")
        gain = words.gain_of(step.gain)
        flex = elasticity_text(elasticity(points, step, is_log=found.is_log))
        said = [verdict(step), *(jump_words(words, each) for each in found.returns.jumps if each.end == at)]
        yield [[member.label, *marks], said, cost, value, gain, words.per_cost(step.per_cost), flex]


def _name(cells: Sequence[Sequence[str]]) -> Lines:
    (label, *marks), said = cells[0], cells[1]
    return [
        *name_lines(label),
        *((f"  {word}", _STYLES.get(word, "dim")) for word in said),
        *((f"  {mark}", "") for mark in marks),
    ]


def to_markdown(catalog: Catalog, found: Frontier) -> str:
    """The sentences, a GitHub table of the steps, and notes."""
    words = Words.of(found, catalog)
    lines = [f"### {escape(heading(found.front))}", ""]
    if found.front.watermark:
        lines += [f"**{escape(found.front.watermark)}**", ""]
    first, *more = stop_sentences(words)
    lines += [f"**{escape(first)}**", "", *(f"{escape(each)}\n" for each in (*more, *rival_sentences(words)))]
    lines.append(markdown_line(["row of the front", "step", *map(escape, _headers(words))]))
    lines.append("|---|---|" + "---:|" * len(_headers(words)))
    for (label, *marks), said, *cells in _lines(words):
        shown = "<br>".join(map(escape, (*said, *marks)))
        lines.append(
            markdown_line([f"**{escape(label)}**", shown, *("<br>".join(map(escape, cell)) for cell in cells)])
        )
    lines += [
        "",
        *(f"- {escape(each)}" for each in (*fit_sentences(words), *check_sentences(words), *notes(words))),
        "",
    ]
    return "\n".join(lines)
