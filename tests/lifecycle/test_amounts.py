"""Amounts: their laws under multiplication and addition, and what they refuse."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from compressbench.core.errors import InputError
from compressbench.lifecycle import amounts
from compressbench.lifecycle.amounts import Amount, absent, exact, inverse, measured, product, total_of

number = st.floats(0.001, 1e6)


@st.composite
def bounded(draw: st.DrawFn) -> Amount:
    low, value, high = sorted(draw(st.tuples(number, number, number)))
    kind = draw(st.sampled_from(amounts.KINDS))
    return Amount(value=value, low=low, high=high, kinds=(kind,), source="a made-up source")


@settings(max_examples=200, deadline=None)
@given(st.lists(bounded(), min_size=1, max_size=5), st.floats(0.1, 10))
def test_values_stay_within_their_bounds_and_kinds_are_kept(parts: list[Amount], scale: float) -> None:
    for found in (product("", parts, scale), total_of("", parts), inverse(parts[0], "")):
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high
    assert set(product("", parts).kinds) == {kind for part in parts for kind in part.kinds}


@settings(max_examples=100, deadline=None)
@given(st.lists(bounded(), min_size=1, max_size=4), st.data())
def test_whatever_the_inputs_are_within_their_bounds_the_result_is_too(
    parts: list[Amount], data: st.DataObject
) -> None:
    picked = [data.draw(st.floats(part.low, part.high)) for part in parts]
    multiplied, added = 1.0, 0.0
    for each in picked:
        multiplied, added = multiplied * each, added + each
    for found, value in ((product("", parts), multiplied), (total_of("", parts), added)):
        assert found.low is not None
        assert found.high is not None
        assert found.low * (1 - 1e-9) <= value <= found.high * (1 + 1e-9)


def test_a_missing_factor_makes_the_result_missing_and_not_zero() -> None:
    one = exact(2.0, "", "measured", "x")
    for found in (product("g", [one, absent("", "why")]), total_of("g", [one, absent("", "why")])):
        assert (found.value, found.low, found.high, found.reason) == (None, None, None, "why")
    assert inverse(absent("", "why"), "s").reason == "why"


def test_a_part_without_bounds_leaves_the_result_without_them() -> None:
    bare = Amount(value=3.0, reason="one block only", kinds=("estimated",))
    found = product("g", [exact(2.0, "", "given", "--x"), bare])
    assert (found.value, found.low, found.reason, found.kind) == (6.0, None, "one block only", "estimated + given")


def test_bounds_that_do_not_hold_the_value_are_no_amount() -> None:
    for value, low, high in ((1.0, 2.0, 3.0), (5.0, 2.0, 3.0), (-1.0, -2.0, 0.0), (1.0, 0.5, float("nan"))):
        with pytest.raises(ValidationError):
            Amount(value=value, low=low, high=high)
    with pytest.raises(ValidationError):
        Amount(value=1.0)
    with pytest.raises(ValidationError):
        Amount(value=None)


def test_a_record_that_contradicts_itself_gives_no_amount() -> None:
    said = {"name": "energy", "kind": "measured", "source": "a meter"}
    assert measured(5.0, (6.0, 7.0), "J", **said).value is None
    assert measured(-5.0, (None, None), "J", **said).value is None
    assert measured(5.0, (4.0, 7.0), "J", **said).high == 7.0
    assert measured(5.0, (None, None), "J", **said).reason == "energy has no interval"


def test_what_is_too_large_is_absent() -> None:
    huge = exact(1e300, "", "measured", "x")
    assert product("", [huge, huge]).value is None
    wide = Amount(value=1.0, low=0.0, high=1e300, kinds=("measured",))
    assert product("", [wide, wide]).reason == "its upper bound is no number"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_flag_that_is_no_amount_is_an_input_error(value: float) -> None:
    with pytest.raises(InputError, match="--x"):
        amounts.given(value, "", "--x")
    with pytest.raises(InputError, match="from 0 to 1"):
        amounts.given(2.0, "", "--x", most=1)
