"""What is counted of torch.compile, on functions small enough to compile in no time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from compressbench.runtimes.compilations import Compiled, Settings

FIXED = Settings({"backend": "eager", "dynamic": False}, {})


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def times(factor: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Of one code object, as the forward functions of all sessions are."""
    return lambda x: x * factor


def test_more_graphs_than_dynamos_limit_live_side_by_side_in_functions_of_the_same_code() -> None:
    functions = [Compiled(times(float(factor)), FIXED) for factor in range(1, 13)]
    for _ in range(2):
        for factor, function in enumerate(functions, start=1):
            assert function(torch.ones(2)).tolist() == [factor, factor]
    assert [(each.num_graphs, each.reasons, list(each.fallbacks())) for each in functions] == [(1, [], [])] * 12


def test_too_many_shapes_are_run_eagerly_and_told(caplog: pytest.LogCaptureFixture) -> None:
    function = Compiled(times(3.0), FIXED)
    for rows in range(2, 13):
        assert torch.equal(function(torch.ones(rows)), torch.full((rows,), 3.0))
    assert function.num_graphs == 8
    assert len(function.reasons) == 7
    assert "size mismatch" in function.reasons[0]
    (told,) = function.fallbacks()
    assert "limit of recompilations" in told
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_seconds_are_those_of_compiling_and_grow_with_nothing_else() -> None:
    function = Compiled(times(2.0), FIXED)
    assert function.seconds == 0
    function(torch.ones(2))
    first = function.seconds
    assert first > 0
    for _ in range(100):
        function(torch.ones(2))
    assert function.seconds == first
    Compiled(times(2.0), FIXED)(torch.ones(5))
    function(torch.ones(2))
    assert function.seconds == first, "what another function compiled isn't counted here"


def test_a_shape_that_is_compiled_again_is_told_with_the_guard_that_failed() -> None:
    state: dict[str, Any] = {"factor": 2}
    function = Compiled(lambda x: x * state["factor"], FIXED)
    function(torch.ones(2))
    state["factor"] = 3
    assert function(torch.ones(2)).tolist() == [3, 3]
    (told,) = function.fallbacks()
    assert told.startswith("shapes that had been compiled were compiled again 1 times: ")
    assert "factor" in told


def test_a_break_in_the_graph_is_counted() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        torch._dynamo.graph_break()
        return y * 2

    function = Compiled(broken, FIXED)
    assert function(torch.ones(2)).tolist() == [4, 4]
    assert function.num_graph_breaks == 1
    assert [each for each in function.fallbacks() if "1 graph breaks left parts" in each]
