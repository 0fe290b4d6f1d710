"""Numbers of a row that no machine can have given: a row with one of them is never ranked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from compressbench.core.reading import Reading
from compressbench.records.measurement import Measurement
from compressbench.records.record import Record

# a node of eight accelerators takes 10 to 15 kW
MOST_WATTS = 20_000.0
# light goes 300 m in it, and the call of an empty Python function takes a twentieth of it
SHORTEST_CALL_S = 1e-6
# a last-level cache has up to 40 times the bandwidth of memory
MOST_OF_THE_LIMIT = 100.0
MOST_BITS = 64.0
LARGEST_BATCH = 65_536
LARGEST_BYTES = 1e18
# between clocks that are read one after the other
_TOLERANCE = 1.01

_COMPUTED = {
    "latency_p50_s", "latency_p95_s", "latency_p99_s", "ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "itl_p50_s", "itl_p99_s",
    "throughput_per_s", "output_tokens_per_s", "max_rate_per_s", "energy_j_per_inference", "energy_net_j_per_inference",
    "energy_j_per_output_token", "energy_j_per_total_token", "energy_j_per_correct", "energy_prefill_j_per_inference",
    "energy_decode_j_per_output_token", "energy_wh_per_1000_queries", "mbu", "mfu", "first_call_seconds",
}  # fmt: skip
"""What is computed from raw blocks when a table is drawn, and never stands in a record."""

_MAY_BE_ZERO = {
    "mbu", "mfu", "sparsity", "kv_cache_memory_bytes", "load_seconds", "compress_seconds", "compress_energy_j",
    "compress_peak_memory_bytes", "weights_memory_bytes", "resident_memory_bytes", "export_seconds", "compile_seconds",
    "open_seconds",
}  # fmt: skip
_ABOVE_ZERO = _COMPUTED - _MAY_BE_ZERO | {
    "peak_memory_bytes", "peak_reserved_memory_bytes", "disk_bytes", "num_parameters", "effective_bits"
}  # fmt: skip
_ASCENDING = (
    ("latency_p50_s", "latency_p95_s", "latency_p99_s"),
    ("ttft_p50_s", "ttft_p99_s"),
    ("itl_p50_s", "itl_p99_s"),
    ("ttft_p50_s", "latency_p50_s"),
    ("energy_net_j_per_inference", "energy_j_per_inference"),
    ("peak_memory_bytes", "peak_reserved_memory_bytes"),
)


def implausible_numbers(record: Record, found: Mapping[str, Reading]) -> tuple[str, ...]:
    """Why numbers of a record can't be true; none for a sound one. `found` are all of them by their names in tables."""
    values = {name: each.value for name, each in found.items()}
    of_blocks = () if record.measurement is None else _of_measurement(record, record.measurement)
    return (*_forged(record.readings), *_out_of_bounds(found), *_disordered(values), *_of_power(values), *of_blocks)


def _forged(readings: Sequence[Reading]) -> Iterator[str]:
    names = [each.name for each in readings]
    for name in dict.fromkeys(names):
        if name in _COMPUTED:
            yield f"{name} stands in the record as a reading, but is computed from blocks"
        elif names.count(name) > 1:
            yield f"{name} was read twice"


def _out_of_bounds(found: Mapping[str, Reading]) -> Iterator[str]:
    for name, each in found.items():
        value = each.value
        if name in _ABOVE_ZERO:
            if not value > 0:
                yield f"{name} of {value:g}"
        elif name in _MAY_BE_ZERO and not value >= 0:
            yield f"{name} of {value:g}"
        if (name in _ABOVE_ZERO or name in _MAY_BE_ZERO) and each.low is not None and each.low < 0:
            yield f"{name} has an interval that begins at {each.low:g}"
        if name in _MOST and value > _MOST[name]:
            yield f"{name} of {value:g} is more than can be"
        if name in _LEAST and 0 < value < _LEAST[name]:
            yield f"{name} of {value:g} s is less than a call takes"
        if name.endswith("_bytes") and value > LARGEST_BYTES:
            yield f"{name} of {value:g}"
    parameters = found.get("num_parameters")
    if parameters is not None and parameters.value != round(parameters.value):
        yield f"num_parameters of {parameters.value:g}: it is no whole number"


_MOST = {"sparsity": 1.0, "effective_bits": MOST_BITS, "mbu": MOST_OF_THE_LIMIT, "mfu": MOST_OF_THE_LIMIT}
_LEAST = {"latency_p50_s": SHORTEST_CALL_S}


def _disordered(values: Mapping[str, float]) -> Iterator[str]:
    for names in _ASCENDING:
        there = [name for name in names if name in values]
        for lower, higher in itertools.pairwise(there):
            if values[lower] > values[higher] * _TOLERANCE:
                yield f"{lower} of {values[lower]:g} is above {higher} of {values[higher]:g}"
    peak, weights = values.get("peak_memory_bytes"), values.get("weights_memory_bytes")
    # pages of a mapped file may be left out of a peak, but not nearly all
    if peak is not None and weights is not None and 10 * peak < weights:
        yield f"peak_memory_bytes of {peak:g} can't hold weights_memory_bytes of {weights:g}"


def _of_power(values: Mapping[str, float]) -> Iterator[str]:
    joules, rate = values.get("energy_j_per_inference"), values.get("throughput_per_s")
    if joules is not None and rate is not None and joules * rate > MOST_WATTS:
        yield f"{joules:g} J per inference at {rate:g} inferences per second are {joules * rate / 1000:.3g} kW"


def _of_measurement(record: Record, measurement: Measurement) -> Iterator[str]:
    sizes = [measurement.batch_size, *measurement.batch_sizes.values()]
    if not all(1 <= size <= LARGEST_BATCH for size in sizes):
        yield f"a batch of {max(sizes, key=abs):g} inputs"
    elif not _is_swept(record, measurement) and measurement.batch_size > record.workload["batch_size"]:
        yield f"batches of {measurement.batch_size} were measured, and {record.workload['batch_size']} asked for"
    if any(value < 0 for block in measurement.blocks for value in block.raw.values()):
        yield "a meter read less than nothing over a block"
    if any(_is_too_short(block.seconds, block.latencies_ns) for block in measurement.blocks):
        yield "the calls of a block take longer than the block"
    if measurement.harness_overhead_ns < 0:
        yield f"the loop costs {measurement.harness_overhead_ns:g} ns"


def _is_swept(record: Record, measurement: Measurement) -> bool:
    """Whether each arm was measured at the batch size that suits it best."""
    return bool(measurement.batch_sizes or record.workload.get("batch_sizes"))


def _is_too_short(seconds: float | None, latencies_ns: Sequence[int]) -> bool:
    return seconds is not None and seconds * _TOLERANCE * 1e9 < sum(latencies_ns)
