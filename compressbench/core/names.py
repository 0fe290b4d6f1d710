"""Nearest right words, names that are safe as file names, lists of many, and text that is safe on a terminal."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence

SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence for an error: the nearest known word if one is near, else all of them."""
    words = sorted(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.55)
    if near:
        return f"Did you mean '{near[0]}'?"
    return f"Known: {', '.join(words)}." if words else "None is known."


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first of them, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def number_of(count: object, what: str) -> str:
    """
    >>> number_of(1, "thread"), number_of(2, "thread"), number_of("?", "thread")
    ('1 thread', '2 threads', '? threads')
    """
    return f"{count} {what}" if str(count) == "1" else f"{count} {what}s"


def one_line(text: str) -> str:
    """Text without line ends, escape sequences and signs that turn the direction of writing."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else " " for sign in text)


def printable_json(text: str) -> str:
    """The same JSON, with what a terminal would obey or turn around spelled as `\\u202e`; it stands only in strings."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text)


def json_text(data: object) -> str:
    """Plain data as printable JSON, indented; what is no finite number is null."""
    from pydantic_core import to_json

    return printable_json(to_json(data, indent=1, inf_nan_mode="null").decode()) + "\n"
