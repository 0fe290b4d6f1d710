"""The tree of errors is the one that its docstring draws."""

from __future__ import annotations

import pickle
import re

import pytest

from compressbench.core import errors
from compressbench.core.errors import CompressbenchError

DRAWN = re.findall(r"^([│├└─ ]*)(\w+Error) +(\d+) ", errors.__doc__ or "", re.MULTILINE)
CLASSES = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, CompressbenchError)]


def test_the_drawing_has_every_class_with_its_exit_code_and_its_parent() -> None:
    above: dict[int, str] = {}
    drawn = {}
    for branch, name, code in DRAWN:
        depth = len(branch) // 4
        above[depth] = name
        drawn[name] = (int(code), above.get(depth - 1, "Exception"))
    made = {each.__name__: (each.exit_code, each.__bases__[0].__name__) for each in CLASSES}
    assert drawn == made
    assert len(made) > 10


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind: type[CompressbenchError]) -> None:
    before = kind("broken", where="a.yaml:3", got="7", do="Fix it.")
    after = pickle.loads(pickle.dumps(before))  # noqa: S301 -- our own bytes
    assert type(after) is kind
    assert vars(after) == vars(before)
    assert str(after) == str(before) == "a.yaml:3: broken (got 7). Fix it."


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "broken"),
        ({"where": "here"}, "here: broken"),
        ({"got": "7"}, "broken (got 7)"),
        ({"do": "Fix it."}, "broken. Fix it."),
    ],
)
def test_what_is_not_said_leaves_no_gap(given: dict[str, str], text: str) -> None:
    assert str(CompressbenchError("broken", **given)) == text
