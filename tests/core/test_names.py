"""Text that is safe on a terminal stays the same text for everybody else."""

from __future__ import annotations

import json

import pytest

from compressbench.core.errors import RecordError
from compressbench.core.names import printable_json

SIGNS = ["\x1b[2J", "\x9b31m", "\u202e", "\u2066x\u2069", "\ufeff", "\u2028", "\U000e0041", "\x7f", "é模", "\U0001f469"]


@pytest.mark.parametrize("text", SIGNS)
def test_json_of_any_text_can_be_printed_and_means_the_same(text: str) -> None:
    plain = json.dumps({text: [text, 1.5, None]}, ensure_ascii=False, indent=1)
    printable = printable_json(plain)
    assert printable.replace("\n", "").isprintable()
    assert json.loads(printable) == json.loads(plain)


def test_json_that_can_be_printed_stays_as_it_is() -> None:
    plain = json.dumps({"modèle": "模型"}, ensure_ascii=False, indent=1)
    assert printable_json(plain) is plain


def test_an_error_holds_nothing_that_a_terminal_obeys_and_keeps_its_lines() -> None:
    error = RecordError("two\nlines", where="a\x1b[2J\r", got="\u202eb")
    assert str(error) == "a [2J : two\nlines (got  b)"
