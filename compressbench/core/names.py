"""Nearest right words, names that are safe as file names, and text that is safe on a terminal."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence for an error: the nearest known word if one is near, else all of them."""
    words = sorted(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.55)
    if near:
        return f"Did you mean '{near[0]}'?"
    return f"Known: {', '.join(words)}." if words else "None is known."


def one_line(text: str) -> str:
    """Text without line ends, escape sequences and signs that turn the direction of writing."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else " " for sign in text)
