"""The answer in a written text, and whether it is the right one, as lm-evaluation-harness decides both."""

from __future__ import annotations

import re
from collections.abc import Sequence

INVALID = "[invalid]"
"""The answer of a text in which none is found."""

_PATTERNS = {
    "gsm8k-strict": (r"#### (\-?[0-9\.\,]+)", 0),
    "gsm8k-flexible": (r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1),
}
"""Regular expressions, and which of their matches is the answer: those of the harness's task gsm8k, version 3."""


def filtered(name: str, text: str) -> str:
    """The answer by a filter's name: none, first-line (the first that isn't blank), gsm8k-strict or gsm8k-flexible."""
    if name == "none":
        return text.strip()
    if name == "first-line":
        return next((line.strip() for line in text.splitlines() if line.strip()), "")
    return extracted(*_PATTERNS[name], text)


def extracted(pattern: str, which: int, text: str) -> str:
    """The `which`-th match of the pattern, of its groups the first that matched something; "[invalid]" if there is none."""
    found = re.findall(pattern, text)
    if not -len(found) <= which < len(found):
        return INVALID
    match = found[which]
    if isinstance(match, tuple):
        match = next((group for group in match if group), INVALID)
    return str(match).strip()


def is_match(prediction: str, target: str, ignored: Sequence[str], ignore_case: bool) -> bool:
    """Whether both are the same after everything that one of the `ignored` expressions matches was taken out of both."""
    return relevant(prediction, ignored, ignore_case) == relevant(target, ignored, ignore_case)


def relevant(answer: str, ignored: Sequence[str], ignore_case: bool) -> str:
    """What of an answer is compared."""
    for pattern in ignored:
        answer = re.sub(pattern, "", answer)
    return answer.lower() if ignore_case else answer
