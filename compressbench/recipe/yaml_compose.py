"""YAML text to nodes, and what a scalar means.

Scalars are read as in YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema): `1e-4` is a number, and
`12:30:00`, `010` and `2026-01-31` are text. `yes`, `no`, `on` and `off` stay booleans, as most readers of YAML have it,
so that a text field can ask for quotes instead of guessing.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from compressbench.recipe.limits import MAX_DEPTH, Budget, TooLargeError

TAG = "tag:yaml.org,2002:"
MERGE = TAG + "merge"
_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_MAX_DIGITS = 100
_PATTERNS = {
    "bool": (r"true|True|TRUE|yes|Yes|YES|on|On|ON|false|False|FALSE|no|No|NO|off|Off|OFF", [*"tTyYoOfFnN"]),
    "int": (r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+|0o[0-7]+", [*"-+0123456789"]),
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "merge": (r"<<", ["<"]),
}


class _Composer(yaml.SafeLoader):
    """Makes nodes, and stops at the limits while it does."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML reads it from the class

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._budget, self._depth = Budget(), 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._budget.spend()
        if self._depth > MAX_DEPTH:
            raise TooLargeError(f"lists and mappings nested deeper than {MAX_DEPTH} levels")
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


for _kind, (_pattern, _first_characters) in _PATTERNS.items():
    _Composer.add_implicit_resolver(TAG + _kind, re.compile(rf"(?:{_pattern})\Z"), _first_characters)


def compose(text: str) -> yaml.Node | None:
    """The nodes of the one document in `text`; None if it is empty.

    Raises yaml.YAMLError, TooLargeError, and what PyYAML lets through from chr() and int() for impossible escapes and
    versions: ValueError and OverflowError.
    """
    composer = _Composer(text)
    try:
        node: yaml.Node | None = composer.get_single_node()
    except TooLargeError as error:
        raise TooLargeError(str(error), composer.line + 1) from None
    return node


def scalar_value(tag: str, text: str) -> str | int | float | bool | None:
    """What a scalar with a resolved tag means. Raises KeyError for a tag that isn't plain data, else ValueError."""
    kind = tag.removeprefix(TAG)
    if kind in ("str", "merge"):
        return text
    if kind not in _PATTERNS:
        raise KeyError(tag)
    if len(text) > _MAX_DIGITS or not re.fullmatch(_PATTERNS[kind][0], text):
        raise ValueError(text)
    if kind == "null":
        return None
    if kind == "bool":
        return _BOOLS[text.lower()]
    digits = text.replace("_", "")
    if kind == "int":
        return int(digits, 0)
    return float(digits.replace(".", "") if digits[-1] in "fFnN" else digits)
