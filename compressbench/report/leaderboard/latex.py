"""A leaderboard as LaTeX: a booktabs table per group, with every sign of a name that LaTeX would run made text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from compressbench.core.names import one_line
from compressbench.report.leaderboard.board import Board, Group, Place
from compressbench.report.leaderboard.cell_text import quantity_title
from compressbench.report.leaderboard.text_forms import lines_of, rank_text

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "–": "--",
    "—": "---",
    "×": r"$\times$",
    "±": r"$\pm$",
    "µ": r"$\mu$",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
    "→": r"$\rightarrow$",
}
_NEXT = r" \\ "
_DASHES = re.compile("-(?=-)")
_INTERVAL = re.compile(r"\[([+-]?[\d.,]+), ([+-]?[\d.,]+)\]")


def to_latex(board: Board) -> str:
    """Tables to \\input into a document that loads booktabs and makecell. Names beyond ASCII need XeLaTeX."""
    head = "% needs \\usepackage{booktabs,makecell,textcomp}\n"
    return head + "\n".join(_table(group) for group in board.groups)


def escape(text: str) -> str:
    """Text that stays text: on one line, no command, no math, no comment, no ligature that would change it."""
    kept = " ".join(one_line(text).split())
    return "".join(_SPECIAL.get(sign, sign) for sign in _DASHES.sub("-\0", kept)).replace("\0", "{}")


def _table(group: Group) -> str:
    names = (*group.metrics, *group.costs)
    ranked = [place for place in group.places if group.metric in place.ranks]
    unranked = [place for place in group.places if group.metric not in place.ranks]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(group.title)}: {escape(group.subtitle)}. {escape(group.answer_text)}}}",
        rf"\begin{{tabular}}{{ll{'r' * len(names)}}}",
        r"\toprule",
        _line(["rank", "candidate", *(escape(quantity_title(name)) for name in names)]),
        r"\midrule",
        *(_line(_cells(place, group)) for place in ranked),
        *([r"\midrule"] if unranked else []),
        *(_line(_unranked(place, group)) for place in unranked),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cells(place: Place, group: Group) -> list[str]:
    return [escape(rank_text(place, group.metric)), escape(place.contender.candidate), *_numbers(place, group)]


def _numbers(place: Place, group: Group) -> Iterator[str]:
    for name in (*group.metrics, *group.costs):
        lines = [_math(line) for line in lines_of(place, name)]
        yield lines[0] if len(lines) == 1 else rf"\makecell[r]{{{_NEXT.join(lines)}}}"


def _unranked(place: Place, group: Group) -> list[str]:
    width = len(group.metrics) + len(group.costs)
    reason = escape(place.not_ranked.get(group.metric, ""))
    return ["---", escape(place.contender.candidate), rf"\multicolumn{{{width}}}{{l}}{{not ranked: {reason}}}"]


def _math(line: str) -> str:
    """Intervals in math, so that a minus is one; a line that begins with a bracket would else be an option of the last."""
    interval = _INTERVAL.search(line)
    if interval is None:
        return escape(line)
    low, high = (bound.replace(",", "{,}") for bound in interval.groups())
    before, after = line[: interval.start()], line[interval.end() :]
    return f"{escape(before)} ${{[{low}, {high}]}}${escape(after)}".strip()
