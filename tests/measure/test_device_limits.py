from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from compressbench.core.errors import MeterError
from compressbench.measure import device_limits
from compressbench.measure.device_limits import (
    copy_size,
    copy_trial,
    measure_limits,
    product_trial,
)
from compressbench.measure.trials import Lap, Trial, take_turns

MIB = 1024**2
STOPWATCH_OF = device_limits.stopwatch_of


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A copy of 2 MiB, products of 64 x 64, everything in a millisecond, nothing known yet; threads and precision must be
    left as they were.
    """
    monkeypatch.setattr(device_limits, "_SMALLEST_COPY", 2 * MIB)
    monkeypatch.setattr(device_limits, "_SIZES", (64,))
    monkeypatch.setattr(device_limits, "_ROWS_AT_A_TIME", 64)
    monkeypatch.setattr(device_limits, "_measured", {})
    monkeypatch.setattr(device_limits, "cache_bytes", lambda _: MIB // 4)
    monkeypatch.setattr(device_limits, "stopwatch_of", lambda _: once)
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before


class Operands(TorchDispatchMode):
    """Keeps the operands of products and copies."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[str, torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if "mm" in name or name.startswith("aten.copy_"):
            self.seen += [(name, each) for each in args if isinstance(each, torch.Tensor)]
        return func(*args, **(kwargs or {}))


def once(action: Any) -> Lap:
    action()
    return Lap(1e-3, 1.0)


def test_every_type_gives_a_rate_or_a_reason_and_medians_are_no_better_than_the_best() -> None:
    found = measure_limits("cpu", 1, ("float32", "bfloat16", "int8", "float2"), 0.05)
    assert found.matmul_flops_per_s.keys() == {"float32", "bfloat16", "int8"}
    assert "float2" in found.absent["float2"]
    assert found.copy_bytes == 2 * MIB
    assert found.copy_median_bytes_per_s is not None
    assert found.copy_median_bytes_per_s <= found.copy_bytes_per_s
    assert all(found.matmul_median_flops_per_s[name] <= best for name, best in found.matmul_flops_per_s.items())
    assert found.matmul_sizes == dict.fromkeys(found.matmul_flops_per_s, 64)
    assert found.cache_bytes == MIB // 4
    assert found.num_threads == 1
    assert found.copy_bytes_per_s == pytest.approx(2 * 2 * MIB / 1e-3)
    assert found.matmul_flops_per_s["int8"] == pytest.approx(2 * 64**3 / 1e-3)


def test_a_device_is_measured_once_for_each_number_of_threads() -> None:
    first = measure_limits("cpu", 1, ("float32",), 0.02)
    assert measure_limits("cpu", 1, ("float32",), 0.02) is first
    assert measure_limits("cpu", None, ("float32",), 0.02) is not first


def test_a_further_type_is_added_and_the_rest_stays() -> None:
    first = measure_limits("cpu", 1, ("float32",), 0.02)
    more = measure_limits("cpu", 1, ("float32", "int8", "float2"), 0.02)
    assert more.copy_bytes_per_s == first.copy_bytes_per_s
    assert more.matmul_flops_per_s["float32"] == first.matmul_flops_per_s["float32"]
    assert more.matmul_flops_per_s.keys() == {"float32", "int8"}
    assert more.seconds > first.seconds
    assert measure_limits("cpu", 1, ("float2",), 0.02) is more


def test_rates_count_two_operations_per_multiply_add_and_copies_both_ways() -> None:
    product, copy = product_trial("cpu", "float32"), copy_trial("cpu", 2 * MIB)
    take_turns([product, copy], 0.05, once)
    assert product.rate is not None
    assert copy.rate is not None
    assert product.rate.best == pytest.approx(2 * 64**3 / 1e-3)
    assert copy.rate.best == pytest.approx(2 * 2 * MIB / 1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_operands_are_random_and_of_the_type_that_is_named(dtype: str) -> None:
    operands = Operands()
    with operands:
        product_trial("cpu", dtype).turn(1e-3, once, 1.0)
    left, right = (tensor for _, tensor in operands.seen[:2])
    assert left.dtype == right.dtype == getattr(torch, dtype)
    assert left.shape == right.shape == (64, 64)
    for tensor in (left, right):
        values = tensor.float()
        assert (values != 0).float().mean() > 0.95
        assert len(set(values.flatten().tolist())) > 100
        assert abs(values.mean()) < 0.2 * values.abs().max()


def test_a_copy_moves_random_numbers_between_two_buffers() -> None:
    trial, operands = copy_trial("cpu", 2 * MIB), Operands()
    trial.turn(1e-3, once, 1.0)
    with operands:
        trial.turn(1e-3, once, 1.0)
    (_, target), (_, source) = operands.seen[:2]
    assert target.nbytes == source.nbytes == 2 * MIB
    assert target.data_ptr() != source.data_ptr()
    assert len(set(source[:10_000].tolist())) > 1000
    assert torch.equal(source, target)


def test_float32_is_multiplied_in_float32_by_the_threads_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, str]] = []

    def watched(trials: list[Trial], seconds: float, stopwatch: Any) -> None:
        seen.append((torch.get_num_threads(), torch.get_float32_matmul_precision()))
        take_turns(trials, seconds, stopwatch)

    monkeypatch.setattr(device_limits, "take_turns", watched)
    torch.set_float32_matmul_precision("high")
    try:
        measure_limits("cpu", 2, ("float32",), 0.01)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == [(2, "highest")]


def test_the_wall_clock_tells_working_from_waiting() -> None:
    stopwatch, numbers = STOPWATCH_OF("cpu"), torch.rand(256, 256)
    waiting = stopwatch(lambda: __import__("time").sleep(0.02))
    assert waiting.seconds >= 0.02
    assert waiting.cpu_share is not None
    assert waiting.cpu_share < 0.5
    working = stopwatch(lambda: numbers @ numbers)
    assert working.cpu_share is not None
    assert working.cpu_share > 0


@pytest.mark.parametrize(
    ("device", "cache", "free", "size", "says"),
    [
        ("cpu", 32 * MIB, None, 256 * MIB, ""),
        ("cpu", 100 * MIB, 100_000 * MIB, 400 * MIB, ""),
        ("cpu", None, None, 256 * MIB, "isn't known"),
        ("cpu", 100 * MIB, 1600 * MIB, 200 * MIB, "only 2.0 times"),
        ("cpu", 4000 * MIB, None, 4096 * MIB, "only 1.0 times"),
        ("cuda", 50 * MIB, 80_000 * MIB, 2048 * MIB, ""),
        ("cuda:1", 50 * MIB, 8_001 * MIB, 1000 * MIB, ""),
    ],
)
def test_copies_are_far_beyond_the_caches_and_within_the_memory(
    monkeypatch: pytest.MonkeyPatch, device: str, cache: int | None, free: int | None, size: int, says: str
) -> None:
    monkeypatch.setattr(device_limits, "_SMALLEST_COPY", 256 * MIB)
    found, notes = copy_size(device, cache, free)
    assert found == size
    assert bool(notes) == bool(says)
    assert says in "".join(notes)


def test_without_memory_there_is_an_error_and_no_number() -> None:
    with pytest.raises(MeterError, match="no memory is free"):
        copy_size("cpu", None, 7 * MIB)


def test_a_device_that_is_not_there_is_an_error() -> None:
    missing = ["tpu", "meta"] if torch.cuda.is_available() else ["tpu", "meta", "cuda"]
    for device in missing:
        with pytest.raises(MeterError, match="can't be measured"):
            measure_limits(device)


class Shared:
    """A machine with one free core for two threads: a lap is slow with both, and never has both cores."""

    def __init__(self, cores: int) -> None:
        self.cores, self.threads = cores, list[int]()

    def __call__(self, action: Any) -> Lap:
        action()
        threads = torch.get_num_threads()
        self.threads.append(threads)
        waits = threads > self.cores
        return Lap(0.1 if waits else 2e-3 / threads, min(threads, self.cores) / 2)


def test_threads_that_wait_for_each_other_leave_the_rate_of_one_and_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Shared(cores=1)
    monkeypatch.setattr(device_limits, "stopwatch_of", lambda _: machine)
    found = measure_limits("cpu", 2, ("float32", "float2"), 0.25)
    assert found.disturbed == ("copy", "float32")
    assert found.matmul_flops_per_s["float32"] == pytest.approx(2 * 64**3 / 2e-3)
    assert set(machine.threads) == {1, 2}
    more = measure_limits("cpu", 2, ("int8",), 0.25)
    assert more.disturbed == ("copy", "float32", "int8")


def test_threads_that_have_their_cores_are_not_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Shared(cores=2)
    monkeypatch.setattr(device_limits, "stopwatch_of", lambda _: machine)
    found = measure_limits("cpu", 2, ("float32",), 0.25)
    assert found.disturbed == ()
    assert found.matmul_flops_per_s["float32"] == pytest.approx(2 * 64**3 / 1e-3)
    assert set(machine.threads) == {2}


@pytest.mark.gpu
def test_a_gpu_is_measured_by_its_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = measure_limits("cuda", None, seconds=3.0)
    assert found.matmul_flops_per_s["bfloat16"] > found.matmul_flops_per_s["float32"]
    assert found.copy_bytes_per_s > 50e9
    assert found.cache_bytes is not None
