"""A heading breaks between its parts."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from compressbench.report.heading import wrapped

HEADING = (
    "quickstart · embedded:minilm-banking77 · AMD EPYC, x86_64 · scenario single-stream, tier smoke · key 03efd9f3"
)


def test_a_heading_that_fits_is_one_line() -> None:
    assert wrapped(HEADING, 200) == [HEADING]


def test_a_line_ends_where_a_part_ends() -> None:
    assert wrapped(HEADING, 80) == [
        "quickstart · embedded:minilm-banking77 · AMD EPYC, x86_64 ·",
        "scenario single-stream, tier smoke · key 03efd9f3",
    ]


def test_a_part_that_is_too_long_is_broken_between_its_words() -> None:
    assert wrapped("one · scenario single-stream, tier smoke", 22) == [
        "one ·",
        "scenario single-",
        "stream, tier smoke",
    ]


@given(st.lists(st.text("ab ", min_size=1, max_size=12).map(str.strip).filter(bool), min_size=1), st.integers(4, 40))
def test_nothing_is_lost_and_nothing_is_too_wide(parts: list[str], width: int) -> None:
    lines = wrapped(" · ".join(parts), width)
    assert all(len(line) <= width for line in lines)
    assert re.sub(r"\s", "", "".join(lines)) == re.sub(r"\s", "", "·".join(parts))
