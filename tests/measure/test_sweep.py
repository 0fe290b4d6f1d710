"""The batch sweep on a clock that is set by hand, with throughput curves that are known."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence

import pytest

from compressbench.core.errors import InputError
from compressbench.measure.sweep import SweepRule, Swept, is_out_of_memory, seconds_of, sweep
from compressbench.records.measurement import Arm
from compressbench.testing import FakeClock

SIZES = (1, 2, 4, 8, 16, 32)
QUICK = SweepRule(min_calls=3, min_s=0.0, warm_up_calls=1, warm_up_s=0.0)
Rates = Mapping[int, float]


class Bench:
    """Arms whose samples per second at a batch size are given, or a text: the error of which they die there."""

    def __init__(self, **rates: Mapping[int, float | str]) -> None:
        self.clock, self.rates = FakeClock(), rates
        self.calls: list[tuple[str, int, int]] = []
        self.factor: Callable[[int], float] = lambda number: 1.0

    def call_of(self, arm: Arm, size: int) -> Callable[[int], None]:
        def call(index: int) -> None:
            rate = self.rates[arm][size]
            if isinstance(rate, str):
                raise RuntimeError(rate)
            self.clock.advance(size / rate * self.factor(len(self.calls)))
            self.calls.append((arm, size, index))

        return call

    def sweep(self, sizes: Sequence[int] = SIZES, rule: SweepRule = QUICK) -> Swept:
        arms: list[Arm] = ["baseline"] if len(self.rates) == 1 else ["baseline", "candidate"]
        return sweep(arms, self.call_of, sizes, rule, self.clock)


def rates_of(found: Swept, arm: Arm = "baseline") -> dict[int, float | None]:
    return {point.batch_size: point.samples_per_s for point in found.points if point.arm == arm}


def test_throughputs_are_exact_and_the_fastest_size_is_chosen() -> None:
    curve = {1: 100.0, 2: 180.0, 4: 300.0, 8: 400.0, 16: 480.0, 32: 500.0}
    found = Bench(baseline=curve).sweep()
    assert rates_of(found) == pytest.approx(curve, rel=1e-6)
    assert found.best == {"baseline": 32}
    assert {point.num_calls for point in found.points} == {6}
    assert {len(point.latencies_ns) for point in found.points} == {6}


def test_arms_run_in_mirrored_order_and_take_turns_in_being_first() -> None:
    flat = dict.fromkeys(SIZES, 100.0)
    bench = Bench(baseline=flat, candidate=flat)
    bench.sweep((1, 2, 4), SweepRule(min_calls=1, min_s=0.0, warm_up_calls=0, warm_up_s=0.0))
    letters = "".join("A" if arm == "baseline" else "B" for arm, _, _ in bench.calls)
    assert letters == "ABBA" + "BAAB" + "ABBA"
    assert [size for _, size, _ in bench.calls] == [1] * 4 + [2] * 4 + [4] * 4


def test_sizes_go_up_whatever_order_they_are_given_in_and_each_only_once() -> None:
    bench = Bench(baseline=dict.fromkeys(SIZES, 100.0))
    found = bench.sweep((8, 1, 8, 2))
    assert [point.batch_size for point in found.points] == [1, 2, 8]
    tried = [size for _, size, _ in bench.calls]
    assert tried == sorted(tried)
    assert len(tried) == 3 * 2 * 4


def test_the_smallest_of_equally_fast_sizes_is_chosen() -> None:
    curve = {1: 100.0, 2: 250.0, 4: 497.0, 8: 500.0, 16: 500.0, 32: 501.0}
    assert Bench(baseline=curve).sweep().best == {"baseline": 4}
    assert Bench(baseline=curve | {4: 495.0}).sweep().best == {"baseline": 8}


def test_noise_between_the_passes_widens_the_tie_but_never_beyond_its_bound() -> None:
    curve = {1: 100.0, 2: 250.0, 4: 485.0, 8: 500.0}
    assert Bench(baseline=curve).sweep((1, 2, 4, 8)).best == {"baseline": 8}
    noisy = Bench(baseline=curve)
    noisy.factor = lambda number: 1.0 + (0.013 if number % 8 < 4 else -0.013)
    assert noisy.sweep((1, 2, 4, 8)).best == {"baseline": 4}
    wild = Bench(baseline=curve | {4: 470.0})
    wild.factor = lambda number: 1.5 if number % 8 < 4 else 0.5
    assert wild.sweep((1, 2, 4, 8)).best == {"baseline": 8}


def test_a_drift_does_not_make_the_arm_that_is_first_look_better() -> None:
    curve = dict.fromkeys((1, 2, 4, 8), 100.0)
    bench = Bench(baseline=curve, candidate=curve)
    bench.factor = lambda number: 1 + 0.001 * number
    found = bench.sweep((1, 2, 4, 8))
    for ours, theirs in zip(rates_of(found).values(), rates_of(found, "candidate").values(), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_the_ascent_ends_after_two_clear_falls_in_a_row() -> None:
    curve = {1: 100.0, 2: 200.0, 4: 180.0, 8: 150.0, 16: 900.0, 32: 900.0}
    found = Bench(baseline=curve).sweep()
    assert list(rates_of(found)) == [1, 2, 4, 8]
    assert found.best == {"baseline": 2}


def test_one_dip_or_a_slight_fall_does_not_end_the_ascent() -> None:
    dip = {1: 100.0, 2: 200.0, 4: 150.0, 8: 260.0, 16: 200.0, 32: 300.0}
    assert Bench(baseline=dip).sweep().best == {"baseline": 32}
    slight = {1: 100.0, 2: 200.0, 4: 194.0, 8: 193.0, 16: 192.0, 32: 400.0}
    assert Bench(baseline=slight).sweep().best == {"baseline": 32}


def test_each_arm_ends_its_own_ascent() -> None:
    rising = {size: 100.0 * size for size in SIZES}
    falling = {size: 100.0 / size for size in SIZES}
    found = Bench(baseline=rising, candidate=falling).sweep()
    assert list(rates_of(found)) == list(SIZES)
    assert list(rates_of(found, "candidate")) == [1, 2, 4]
    assert found.best == {"baseline": 32, "candidate": 1}


def test_running_out_of_memory_is_recorded_and_ends_only_that_arms_ascent() -> None:
    said = "CUDA out of memory. Tried to allocate 20.00 GiB"
    curve = {1: 100.0, 2: 200.0, 4: 300.0, 8: 400.0, 16: 500.0, 32: 600.0}
    found = Bench(baseline=curve, candidate=curve | {8: said}).sweep()
    failed = [point for point in found.points if point.failure]
    assert [(point.arm, point.batch_size, point.num_calls) for point in failed] == [("candidate", 8, 0)]
    assert failed[0].failure == f"RuntimeError: {said}"
    assert failed[0].samples_per_s is None
    assert found.best == {"baseline": 32, "candidate": 4}


def test_a_size_that_fails_in_its_second_pass_is_no_choice_but_its_calls_are_kept() -> None:
    bench = Bench(baseline=dict.fromkeys(SIZES, 100.0) | {2: 400.0})

    def fail_later(number: int) -> float:
        if number == 12:  # the second pass at size 2
            raise MemoryError
        return 1.0

    bench.factor = fail_later
    found = bench.sweep()
    assert [(point.batch_size, point.num_calls, point.failure) for point in found.points] == [
        (1, 6, ""),
        (2, 3, "MemoryError: "),
    ]
    assert found.best == {"baseline": 1}


def test_an_arm_that_fails_at_every_size_has_no_best() -> None:
    found = Bench(baseline=dict.fromkeys(SIZES, 100.0), candidate={1: "out of memory"}).sweep()
    assert found.best == {"baseline": 1}
    assert [(point.batch_size, bool(point.failure)) for point in found.points if point.arm == "candidate"] == [
        (1, True)
    ]


def test_memory_may_already_run_out_where_inputs_are_made() -> None:
    clock = FakeClock()

    def call_of(_: Arm, size: int) -> Callable[[int], None]:
        if size > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
        return lambda index: clock.advance(0.01)

    found = sweep(["baseline"], call_of, SIZES, QUICK, clock)
    assert found.best == {"baseline": 2}
    assert [point.batch_size for point in found.points] == [1, 2, 4]


def test_what_a_failed_call_held_is_freed_before_the_next_arm_runs() -> None:
    clock, alive = FakeClock(), list[bool]()

    class Tensor:
        is_there = False

        def __init__(self) -> None:
            Tensor.is_there = True
            self.itself = self

        def __del__(self) -> None:
            Tensor.is_there = False

    def call_of(arm: Arm, _: int) -> Callable[[int], None]:
        def call(_: int) -> None:
            if arm == "baseline":
                held = Tensor()
                raise RuntimeError(f"out of memory with {type(held)}")
            alive.append(Tensor.is_there)
            clock.advance(0.01)

        return call

    sweep(["baseline", "candidate"], call_of, [1], QUICK, clock)
    assert alive
    assert not any(alive)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="sizes of tensors must match"):
        Bench(baseline={1: 100.0, 2: "The sizes of tensors must match"}).sweep((1, 2))


@pytest.mark.parametrize(
    ("error", "is_lack"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("HIP out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("BFCArena: Failed to allocate memory for requested buffer of size 8"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("index out of range"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error: Exception, is_lack: bool) -> None:
    assert is_out_of_memory(error) == is_lack


def test_a_pass_lasts_until_it_has_enough_calls_and_enough_seconds() -> None:
    rule = SweepRule(min_calls=5, min_s=0.1, warm_up_calls=2, warm_up_s=0.05)
    slow = Bench(baseline={1: 10.0})
    assert slow.sweep((1,), rule).points[0].num_calls == 2 * 5
    assert len(slow.calls) == 2 * (2 + 5)
    fast = Bench(baseline={1: 1000.0})
    assert fast.sweep((1,), rule).points[0].num_calls == 2 * 100
    assert len(fast.calls) == 2 * (50 + 100)
    assert (fast.clock() - FakeClock()()) / 1e9 == pytest.approx(seconds_of(rule, 1, 1), rel=1e-6)


def test_the_first_calls_at_a_size_are_not_counted() -> None:
    bench = Bench(baseline={1: 100.0, 2: 200.0})
    bench.factor = lambda number: 50.0 if number % 4 == 0 else 1.0
    assert rates_of(bench.sweep((1, 2))) == pytest.approx({1: 100.0, 2: 200.0}, rel=1e-6)


def test_garbage_collection_rests_in_timed_calls_and_is_restored_after_a_failure() -> None:
    seen: list[bool] = []
    bench = Bench(baseline={1: 100.0, 2: "out of memory"})

    def look(_: int) -> float:
        seen.append(gc.isenabled())
        return 1.0

    bench.factor = look
    bench.sweep((1, 2))
    # one warm-up call before three timed ones, twice
    assert seen == [True, False, False, False] * 2
    assert gc.isenabled()


@pytest.mark.parametrize("sizes", [(), (0, 1), (-4,)])
def test_sizes_that_are_none_are_an_error(sizes: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="positive whole numbers"):
        Bench(baseline={1: 1.0}).sweep(sizes)


def test_torch_says_so_in_these_words() -> None:
    import torch

    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value)
