from __future__ import annotations

import pytest
import torch

from compressbench.models.allocations import Allocations, trace_allocations


def floats(count: int) -> torch.Tensor:
    return torch.empty(count, dtype=torch.float32)


def test_the_peak_is_the_most_that_was_held_at_once() -> None:
    def work() -> torch.Tensor:
        first = floats(1000)
        second = floats(2000)
        del first
        third = floats(500)
        del third
        return second

    assert trace_allocations(work, "cpu") == Allocations(net_bytes=8000, peak_bytes=12_000)


def test_a_late_peak_counts_as_much_as_an_early_one() -> None:
    def work() -> list[torch.Tensor]:
        first = floats(100)
        del first
        return [floats(700), floats(300)]

    assert trace_allocations(work, "cpu") == Allocations(net_bytes=4000, peak_bytes=4000)


def test_what_is_let_go_of_is_not_held() -> None:
    def work() -> None:
        for _ in range(5):
            floats(1000)

    assert trace_allocations(work, "cpu") == Allocations(net_bytes=0, peak_bytes=4000)


def test_work_without_tensors_allocates_nothing() -> None:
    assert trace_allocations(lambda: sum(range(100)), "cpu") == Allocations(0, 0)


def test_what_was_there_before_is_not_counted_and_views_cost_nothing() -> None:
    before = floats(5000)
    assert trace_allocations(lambda: before.view(50, 100)[3:7].t(), "cpu") == Allocations(0, 0)
    assert trace_allocations(before.clone, "cpu") == Allocations(20_000, 20_000)


def test_intermediate_results_of_arithmetic_are_seen() -> None:
    x = torch.ones(64, 64)
    with torch.inference_mode():
        found = trace_allocations(lambda: ((x @ x) + x).sum(), "cpu")
    matrix = 64 * 64 * 4
    assert found == Allocations(net_bytes=4, peak_bytes=2 * matrix)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64])
def test_bytes_follow_the_type(dtype: torch.dtype) -> None:
    found = trace_allocations(lambda: torch.empty(1000, dtype=dtype), "cpu")
    assert found.net_bytes == 1000 * dtype.itemsize


def test_an_error_in_the_work_comes_out() -> None:
    def work() -> None:
        raise ZeroDivisionError("of the work")

    with pytest.raises(ZeroDivisionError, match="of the work"):
        trace_allocations(work, "cpu")
    assert trace_allocations(lambda: floats(10), "cpu") == Allocations(40, 40)
