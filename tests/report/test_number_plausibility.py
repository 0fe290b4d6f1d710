"""What no machine can have given is told, at the first value beyond what can be and not before."""

from __future__ import annotations

from typing import Any

import pytest
import record_builder as build

from compressbench.core.reading import Reading
from compressbench.records.measurement import Measurement
from compressbench.report.number_plausibility import MOST_WATTS, implausible_numbers
from compressbench.report.numbers import numbers_of
from compressbench.report.rows import rows_of


def told(values: dict[str, float], **record: Any) -> tuple[str, ...]:
    """Of a record without blocks whose numbers are these."""
    found = {name: reading(name, value) for name, value in values.items()}
    return implausible_numbers(build.record(measurement=None, readings=(), **record), found)


def reading(name: str, value: float) -> Reading:
    return Reading(name=name, value=value, kind="measured", source="s", uncertainty_reason="none", window_s=1.0)


@pytest.mark.parametrize(
    ("values", "is_told"),
    [
        ({"latency_p50_s": 0.002, "latency_p95_s": 0.001}, True),
        ({"latency_p95_s": 0.002, "latency_p99_s": 0.001}, True),
        ({"latency_p50_s": 0.002, "latency_p99_s": 0.001}, True),  # whether or not there is a p95
        ({"latency_p50_s": 0.001, "latency_p95_s": 0.001, "latency_p99_s": 0.001}, False),
        ({"ttft_p50_s": 0.2, "ttft_p99_s": 0.1}, True),
        ({"ttft_p50_s": 0.2, "latency_p50_s": 0.1}, True),
        ({"itl_p50_s": 0.2, "itl_p99_s": 0.1}, True),
        ({"latency_p50_s": 0.9e-6}, True),
        ({"latency_p50_s": 1.1e-6}, False),
        ({"latency_p50_s": 0.0}, True),
        ({"energy_j_per_inference": 0.0}, True),
        ({"energy_j_per_inference": -0.1}, True),
        ({"energy_net_j_per_inference": 2.0, "energy_j_per_inference": 1.0}, True),
        ({"energy_net_j_per_inference": 1.0, "energy_j_per_inference": 1.0}, False),
        ({"energy_j_per_inference": 1.01 * MOST_WATTS / 50, "throughput_per_s": 50.0}, True),
        ({"energy_j_per_inference": 0.99 * MOST_WATTS / 50, "throughput_per_s": 50.0}, False),
        ({"disk_bytes": 0.0}, True),
        ({"peak_memory_bytes": 0.0}, True),
        ({"kv_cache_memory_bytes": 0.0}, False),
        ({"kv_cache_memory_bytes": -1.0}, True),
        ({"peak_memory_bytes": 1e6, "weights_memory_bytes": 1.1e7}, True),
        ({"peak_memory_bytes": 1e6, "weights_memory_bytes": 0.9e7}, False),
        ({"peak_memory_bytes": 2e6, "peak_reserved_memory_bytes": 1e6}, True),
        ({"sparsity": 1.0}, False),
        ({"sparsity": 1.001}, True),
        ({"sparsity": -0.001}, True),
        ({"effective_bits": 64.0}, False),
        ({"effective_bits": 64.1}, True),
        ({"effective_bits": 0.0}, True),
        ({"num_parameters": 22_713_216.0}, False),
        ({"num_parameters": 0.5}, True),
        ({"mbu": 3.0, "mfu": 1.2}, False),  # what fits a cache is read faster than memory allows
        ({"mbu": 101.0}, True),
        ({"compress_seconds": -1.0}, True),
        ({"compress_seconds": 0.0, "compress_energy_j": 0.0, "load_seconds": 0.0}, False),
        ({"disk_bytes": 2e18}, True),
        ({"somebodys_own_number": -5.0}, False),
    ],
    ids=str,
)
def test_a_number_beyond_what_can_be(values: dict[str, float], is_told: bool) -> None:
    assert bool(told(values)) == is_told


def told_of(measurement: Measurement, **record: Any) -> tuple[str, ...]:
    found = build.record("int8", measurement=measurement, **record)
    return implausible_numbers(found, numbers_of(found))


def test_sound_blocks_are_not_told() -> None:
    assert told_of(build.interleaved()) == ()
    assert told_of(build.measurement()) == ()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"raw": {"energy_j": -1e-9}}, "a meter read less than nothing over a block"),
        ({"seconds": 0.1}, "the calls of a block take longer than the block"),
    ],
)
def test_one_block_that_can_not_be_is_enough(changed: dict[str, Any], said: str) -> None:
    sound = build.interleaved()
    blocks = (*sound.blocks[:5], sound.blocks[5].model_copy(update=changed), *sound.blocks[6:])
    assert told_of(sound.model_copy(update={"blocks": blocks})) == (said,)


def test_a_batch_is_the_one_that_was_asked_for_unless_arms_have_their_own() -> None:
    measured = build.interleaved().model_copy(update={"batch_size": 64})
    assert told_of(measured) == ("batches of 64 were measured, and 1 asked for",)
    assert told_of(measured, workload={"scenario": "offline", "batch_size": 64, "sequence_length": 32}) == ()
    swept = {"scenario": "offline", "batch_size": 32, "sequence_length": 32, "batch_sizes": [32, 64]}
    assert told_of(measured, workload=swept) == ()
    assert told_of(measured.model_copy(update={"batch_sizes": {"candidate": 10**6}})) == ("a batch of 1e+06 inputs",)


@pytest.mark.parametrize("name", ["latency_p50_s", "throughput_per_s", "mbu", "first_call_seconds", "max_rate_per_s"])
def test_what_is_computed_from_blocks_must_not_stand_in_a_record(name: str) -> None:
    found = build.record("int8", readings=(*build.readings(), reading(name, 0.5)))
    reason = f"{name} stands in the record as a reading, but is computed from blocks"
    assert reason in rows_of([found])[0].implausible


def test_a_reading_that_stands_twice_is_told() -> None:
    found = build.record("int8", readings=(*build.readings(), reading("disk_bytes", 1.0)))
    assert rows_of([found])[0].implausible == ("disk_bytes was read twice",)


def test_one_impossible_record_leaves_its_run_as_it_was() -> None:
    """Its own row has no numbers; the others have those that they have without it."""
    sound = build.run_of({"int8": build.record("int8", scores=(build.accuracy_after(10, 4),))})
    endless = build.interleaved(energy_w=1e308)
    rows = rows_of([*sound, build.record("odd", measurement=endless, recipe=sound[0].recipe)])
    assert rows[:2] == rows_of(sound)
    assert rows[2].implausible == ("its numbers are beyond arithmetic (OverflowError)",)
    assert {cell.value for cell in rows[2].cells.values()} == {None}


def test_an_impossible_baseline_leaves_its_candidates_without_one() -> None:
    run = build.run_of({"int8": build.record("int8")}, measurement=build.interleaved(energy_w=1e308))
    baseline, candidate = rows_of(run)
    assert baseline.implausible
    assert candidate.implausible == ()
    assert "disk_bytes" not in candidate.against_baseline


def test_a_second_baseline_does_not_take_the_place_of_the_first() -> None:
    run = build.run_of({"int8": build.record("int8")})
    other = build.record("baseline-2", role="baseline", recipe=run[0].recipe, readings=build.readings(disk_bytes=9e9))
    rows = rows_of([*run, other])
    assert rows[1] == rows_of(run)[1]
    assert rows[2].implausible == ("a baseline can't be called 'baseline-2'",)
