"""How differences read: on a terminal, - here and + there; and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import to_json as to_json_bytes

from compressbench.core.names import one_line
from compressbench.report.diff import Change, Diff
from compressbench.report.groups import shown_apart

NO_DIFFERENCES = "no differences"
_LONGEST = 600
Line = tuple[str, str]
"""A text and its style."""


def lines(found: Diff, width: int = 80) -> Iterator[Line]:
    """Every line fits `width`; what long values share is left out."""
    for mark, label, style in (("-", found.ours, "red"), ("+", found.theirs, "green")):
        yield from _wrapped(label, width, style, f"{mark} ")
    for fact in found.facts:
        yield from _wrapped(fact, width, "bold")
    if found.is_equal:
        yield NO_DIFFERENCES, "bold green"
    for section in found.sections:
        if section.changes:
            yield "", ""
            yield section.name, "bold"
        for change in section.changes:
            yield from _of(change, width)


def _of(change: Change, width: int) -> Iterator[Line]:
    texts = [_flow(change.before), _flow(change.after)]
    if change.kind == "changed":
        texts = shown_apart(texts, _LONGEST)
    before, after = (text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…" for text in texts)
    yield from _wrapped(f"{change.where}{'' if change.kind == 'changed' else f' ({change.kind})'}", width, "", "  ")
    if change.kind != "added":
        yield from _wrapped(before, width, "red", "    - ")
    if change.kind != "removed":
        yield from _wrapped(after, width, "green", "    + ")


def _flow(value: Any) -> str:
    """As a recipe would have it in one line: `{use: wanda, sparsity: 0.5}`."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_flow(each)}' for key, each in value.items() if each is not None)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _wrapped(text: str, width: int, style: str, indent: str = "") -> Iterator[Line]:
    more = " " * (len(indent) + 2)
    clean = " ".join(one_line(text).split())
    for line in textwrap.wrap(
        clean, max(20, width), initial_indent=indent, subsequent_indent=more, break_on_hyphens=False
    ):
        yield line, style


def to_json(found: Diff) -> str:
    """`is_equal`, `is_rankable` (null unless both are records), `facts`, and `sections` with their changes."""
    data = {
        "ours": found.ours,
        "theirs": found.theirs,
        "is_equal": found.is_equal,
        "is_rankable": found.is_rankable,
        "facts": found.facts,
        "sections": [
            {"name": section.name, "changes": [each._asdict() for each in section.changes]}
            for section in found.sections
        ],
    }
    return to_json_bytes(data, indent=1).decode()
