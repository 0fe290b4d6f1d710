"""What this device can do at most, measured: the bandwidth of a large copy, and the rate of matrix products by data type.

Best of repeats, because a disturbance only ever makes slower; medians beside them. Operands are random: on GPUs zeros
draw less power and multiply up to 13 % faster, which no model could reach.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from compressbench.core.errors import MeterError
from compressbench.measure.caches import available_memory_bytes, last_level_cache_bytes
from compressbench.measure.trials import Action, Lap, Rate, Stopwatch, Trial, take_turns
from compressbench.records.limits import Limits

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16", "int8")
DTYPES_ON_CUDA = (*DTYPES, "float8_e4m3fn")
_MIB = 1024**2
_SMALLEST_COPY, _COPY_ON_CUDA, _LARGEST_COPY = 256 * _MIB, 2048 * _MIB, 4096 * _MIB
_TIMES_THE_CACHE = 4
_SHARE_OF_MEMORY = 8
_SIZES, _SIZES_ON_CUDA = (256, 512, 1024, 2048, 4096), (2048, 4096, 8192, 16384)
_ROWS_AT_A_TIME = 256
_LAUNCHES = 5
_SHARE_OF_ONE_THREAD = 0.4
_COPY = "copy"
_COPY_COUNTS = "a copy counts its bytes twice, read and written; where stores fetch their line first, memory moves more"

_measured: dict[tuple[str, int | None], Limits] = {}


def measure_limits(
    device: str, num_threads: int | None = None, dtypes: Sequence[str] | None = None, seconds: float = 1.5
) -> Limits:
    """Measure a device (cpu or cuda) in about `seconds`, once per process for each device and number of threads.

    What other processes disturb gets as long once more, and is named in `disturbed` if that doesn't help. A data type
    that can't be multiplied there, or not in that time, is absent with its reason. TF32 is off meanwhile.
    Raises MeterError if there is no such device, or no memory for a copy.
    """
    wanted = dtypes if dtypes is not None else DTYPES_ON_CUDA if device.startswith("cuda") else DTYPES
    known = _measured.get((device, num_threads))
    missing = [name for name in wanted if known is None or name not in {*known.matmul_flops_per_s, *known.absent}]
    if known is None or missing:
        _require(device)
        with _settings(num_threads):
            known = _measure(device, num_threads, missing, seconds, known)
        _measured[device, num_threads] = known
    return known


def _measure(
    device: str, num_threads: int | None, dtypes: Sequence[str], seconds: float, known: Limits | None
) -> Limits:
    """Everything that isn't known yet."""
    import torch

    begun = time.perf_counter()
    products = {name: product_trial(device, name) for name in dtypes}
    trials = dict(products)
    if known is None:
        cache = cache_bytes(device)
        num_bytes, size_notes = copy_size(device, cache, _free_memory(device))
        trials = {_COPY: copy_trial(device, num_bytes), **products}
    _run(list(trials.values()), seconds, stopwatch_of(device))
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    if known is None:
        rate = trials[_COPY].rate
        if rate is None:
            raise MeterError("nothing could be copied", where=device, got=trials[_COPY].why_not)
        known = Limits(
            device=device, copy_bytes_per_s=rate.best, copy_bytes=num_bytes, copy_median_bytes_per_s=rate.median,
            matmul_flops_per_s={}, num_threads=num_threads, seconds=0.0, cache_bytes=cache,
            notes=(_COPY_COUNTS, *size_notes),
        )  # fmt: skip
    known = known.model_copy(update={"disturbed": (*known.disturbed, *disturbed(trials))})
    return _with_rates(known, products, time.perf_counter() - begun)


def _run(trials: Sequence[Trial], seconds: float, stopwatch: Stopwatch) -> None:
    """All trials, then those again that were disturbed; what is so still, with one thread.

    Threads that have to wait for each other on a busy machine can take a hundred times longer than one alone. More
    threads are at least as fast as one when they aren't disturbed, so that its rate is one that the device has.
    """
    import torch

    take_turns(trials, seconds, stopwatch)
    for num_threads, share in ((torch.get_num_threads(), 1.0), (1, _SHARE_OF_ONE_THREAD)):
        rest = [trial for trial in trials if not trial.is_settled(seconds)]
        if rest:
            torch.set_num_threads(num_threads)
            take_turns(rest, share * seconds, stopwatch)


def disturbed(trials: Mapping[str, Trial]) -> list[str]:
    """What was never measured without other processes taking a noticeable part of the CPU."""
    return [name for name, trial in trials.items() if trial.rate is not None and not trial.rate.is_clean]


def _with_rates(known: Limits, trials: Mapping[str, Trial], seconds: float) -> Limits:
    rates: dict[str, Rate] = {name: trial.rate for name, trial in trials.items() if trial.rate is not None}
    added: dict[str, dict[str, Any]] = {
        "matmul_flops_per_s": {name: rate.best for name, rate in rates.items()},
        "matmul_median_flops_per_s": {name: rate.median for name, rate in rates.items()},
        "matmul_sizes": {name: rate.size for name, rate in rates.items()},
        "absent": {name: trial.why_not for name, trial in trials.items() if trial.rate is None},
    }
    data = known.model_dump()
    merged = {name: {**data[name], **values} for name, values in added.items()}
    return Limits(**{**data, **merged, "seconds": known.seconds + seconds})


def copy_size(device: str, cache: int | None, free: int | None) -> tuple[int, list[str]]:
    """Bytes of a copy far beyond every cache and within the memory that is free, and what has to be said about it.

    Raises MeterError if less than 1 MiB could be copied.
    """
    smallest = _COPY_ON_CUDA if device.startswith("cuda") else _SMALLEST_COPY
    wanted = min(max(smallest, _TIMES_THE_CACHE * (cache or 0)), _LARGEST_COPY)
    size = wanted if free is None else min(wanted, free // _SHARE_OF_MEMORY)
    size -= size % _MIB
    if size < _MIB:
        raise MeterError("no memory is free to measure a copy in", where=device, got=f"{free} bytes")
    notes = [] if cache else ["the size of the last-level cache isn't known"]
    if cache and size < _TIMES_THE_CACHE * cache:
        notes.append(f"the copy is only {size / cache:.1f} times the last-level cache: part of it may stay there")
    return size, notes


def copy_trial(device: str, num_bytes: int) -> Trial:
    """Bytes read and written by a copy from one buffer of `num_bytes` to another."""

    def make(size: int) -> Action:
        import torch

        block = torch.rand(_MIB // 4, device=device)
        source = torch.empty(size // 4, device=device)
        # random numbers for all of it would take longer than the copies
        source.view(-1, len(block)).copy_(block)
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    return Trial([num_bytes], lambda size: 2.0 * size, make, is_required=True)


def product_trial(device: str, dtype: str) -> Trial:
    """Operations of products of square matrices, the second transposed as in a linear layer."""
    sizes = _SIZES_ON_CUDA if device.startswith("cuda") else _SIZES
    return Trial(sizes, lambda size: 2.0 * size**3, partial(_product, device, dtype))


def _product(device: str, dtype: str, size: int) -> Action:
    """A product of two random matrices, made beforehand, in the form that layers of that type call."""
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    # on a CPU random numbers for all rows would take longer than the product
    rows = 2 * size if device.startswith("cuda") else _ROWS_AT_A_TIME
    if kind == torch.int8:
        codes = torch.randint(-128, 128, (rows, size), dtype=kind, device=device).repeat(2 * size // rows, 1)
        return lambda: torch._int_mm(codes[:size], codes[size:].t())
    numbers = torch.rand(rows, size, device=device).sub_(0.5).repeat(2 * size // rows, 1).to(kind)
    if numbers.element_size() == 1:
        scales = torch.ones(size, 1, device=device)
        return lambda: torch._scaled_mm(
            numbers[:size], numbers[size:].t(), scale_a=scales, scale_b=scales.t(), out_dtype=torch.bfloat16
        )
    return lambda: numbers[:size] @ numbers[size:].t()


def stopwatch_of(device: str) -> Stopwatch:
    """Wall time on CPU; on CUDA time between events around a few launches, so that the device never waits for Python."""
    import torch

    num_threads = torch.get_num_threads()

    def wall(action: Action) -> Lap:
        begun, cpu = time.perf_counter_ns(), time.process_time_ns()
        action()
        cpu, spent = time.process_time_ns() - cpu, time.perf_counter_ns() - begun
        return Lap(spent / 1e9, cpu / spent / num_threads)

    def events(action: Action) -> Lap:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        begin.record()
        for _ in range(_LAUNCHES):
            action()
        end.record()
        end.synchronize()
        return Lap(float(begin.elapsed_time(end)) / 1e3 / _LAUNCHES)

    return events if device.startswith("cuda") else wall


def cache_bytes(device: str) -> int | None:
    """Of the last level: all of them that the usable cores have, or the GPU's L2."""
    if not device.startswith("cuda"):
        return last_level_cache_bytes()
    import torch

    size = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
    return int(size) or None


def _free_memory(device: str) -> int | None:
    if not device.startswith("cuda"):
        return available_memory_bytes()
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def _require(device: str) -> None:
    import torch

    kind = device.partition(":")[0]
    if kind == "cpu" or (kind == "cuda" and torch.cuda.is_available()):
        return
    raise MeterError(
        "the limits of this device can't be measured", got=device, do="Use cpu, or cuda where there is one."
    )


@contextmanager
def _settings(num_threads: int | None) -> Iterator[None]:
    """The threads of the run, float32 products in float32; afterwards everything is as it was."""
    import torch

    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        torch.set_num_threads(num_threads or threads)
        torch.set_float32_matmul_precision("highest")
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
