"""A reading is a number with its interval, or with the reason why it has none."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from compressbench.core.reading import Reading
from compressbench.core.spec import canonical_json, content_hash

GOOD: dict[str, Any] = {"name": "energy_j", "value": 2.0, "kind": "measured", "source": "a meter", "low": 1, "high": 3}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"high": None}, "both low and high"),
        ({"low": None}, "both low and high"),
        ({"value": 3.1}, "outside its interval"),
        ({"value": 0.9}, "outside its interval"),
        ({"low": None, "high": None}, "uncertainty_reason is required"),
        ({"value": float("nan")}, "finite"),
        ({"value": float("inf"), "high": float("inf")}, "finite"),
        ({"source": ""}, "at least 1 character"),
        ({"kind": "guessed"}, "'measured', 'estimated' or 'modelled'"),
        ({"unit": "J"}, "Extra inputs"),
    ],
)
def test_a_reading_that_hides_something_is_refused(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Reading(**{**GOOD, **changed})


def test_a_reading_has_the_unit_of_its_name() -> None:
    assert Reading(**GOOD).unit == "J"
    bare = Reading(**{**GOOD, "low": None, "high": None, "uncertainty_reason": "one block only"})
    assert bare.low is None


def test_a_reading_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Reading(**GOOD).value = 3.0  # type: ignore[misc]


def test_equal_data_has_one_hash_whatever_the_order_of_its_keys() -> None:
    assert content_hash({"a": 1, "b": [1, 2]}) == content_hash({"b": [1, 2], "a": 1})
    assert content_hash({"b": [2, 1], "a": 1}) != content_hash({"a": 1, "b": [1, 2]})
    assert canonical_json({"b": "ä", "a": None}) == '{"a":null,"b":"ä"}'
    # sha256 of the two bytes "{}"
    assert content_hash({}) == "44136fa355b3678a"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_has_no_hash(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_hash({"a": value})
