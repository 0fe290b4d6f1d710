"""What may be said of a candidate, and what may not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import record_builder as build

from compressbench.core.statistics import Interval
from compressbench.report.against import costs_against_baseline, ratio_verdict, reference
from compressbench.report.paired import paired_ratio

WORDS = ("faster", "slower")


@pytest.mark.parametrize(
    ("ratio", "noise", "is_steady", "word", "reason"),
    [
        ((0.50, 0.49, 0.51), 0.004, True, "faster", ""),
        ((1.30, 1.28, 1.32), 0.004, True, "slower", ""),
        ((0.50, 0.49, 0.51), 0.004, False, "undecided", "a steady state was not reached"),
        ((0.50, 0.40, 1.01), 0.004, True, "undecided", "the interval holds 1"),
        ((0.97, 0.96, 0.98), 0.040, True, "undecided", "differs from itself by up to 4.0 %"),
        ((0.97, 0.96, 0.98), 0.029, True, "faster", ""),
        ((0.97, 0.96, 0.98), None, True, "undecided", "was not measured"),
        ((0.992, 0.991, 0.993), 0.001, True, "same", ""),
        ((0.991, 0.985, 0.997), 0.001, True, "undecided", "less than 1 % doesn't matter"),
        ((1.000, 0.991, 1.009), 0.001, True, "same", ""),
        ((1.000, 0.980, 1.020), 0.001, True, "undecided", "the interval holds 1"),
        ((1.000, 0.991, 1.009), 0.001, False, "undecided", "a steady state was not reached"),
        ((1.000, 1.000, 1.000), 0.0, True, "same", ""),
    ],
)
def test_the_truth_table_of_ratios(
    ratio: tuple[float, float, float], noise: float | None, is_steady: bool, word: str, reason: str
) -> None:
    found = ratio_verdict(Interval(*ratio), noise, WORDS, is_steady)
    assert found.verdict == word
    assert reason in found.reason
    assert bool(found.reason) == (word == "undecided")
    assert (found.ratio, found.low, found.high, found.noise) == (*ratio, noise)


def candidate(**changed: Any) -> Any:
    return build.record("int8", **changed)


def against(record: Any, baseline: Any = None) -> dict[str, Any]:
    return costs_against_baseline(record, reference(baseline or build.record()))


def test_throughput_is_the_inverse_of_latency() -> None:
    found = against(candidate(measurement=build.measurement(build.noisy(0.010), build.noisy(0.004, seed=3))))
    latency, throughput = found["latency_p50_s"], found["throughput_per_s"]
    assert (latency.verdict, throughput.verdict) == ("faster", "higher")
    assert throughput.ratio == pytest.approx(1 / latency.ratio)
    assert (throughput.low, throughput.high) == (pytest.approx(1 / latency.high), pytest.approx(1 / latency.low))
    slow = against(candidate(measurement=build.measurement(0.010, 0.020)))
    assert (slow["latency_p50_s"].verdict, slow["throughput_per_s"].verdict) == ("slower", "lower")


def test_a_ratio_is_the_mean_over_rounds_of_the_logarithms() -> None:
    durations = [0.004, 0.005, 0.006, 0.007]
    run = build.measurement(0.010, lambda index: durations[index // 40], rounds=4)
    found = paired_ratio(run, lambda block: block.latencies_ns[0] / 1e9)
    assert found is not None
    expected = math.exp(sum(math.log(each / 0.010) for each in durations) / 4)
    assert found.value == pytest.approx(expected)
    assert found.low < expected < found.high


def test_one_round_has_no_interval_and_so_no_verdict() -> None:
    found = against(candidate(measurement=build.measurement(0.010, 0.004, rounds=1)))
    assert "latency_p50_s" not in found
    assert "throughput_per_s" not in found


def test_energy_is_compared_per_call() -> None:
    found = against(candidate(measurement=build.measurement(0.010, 0.005, energy_w=8.0)))
    assert found["energy_j_per_inference"].verdict == "lower"
    assert found["energy_j_per_inference"].ratio == pytest.approx(0.5)


@pytest.mark.parametrize("missing", [8, 24])
def test_energy_that_is_missing_in_many_rounds_is_not_compared(missing: int) -> None:
    run = build.measurement(0.010, 0.005, num_blocks_without_energy=missing)
    assert "energy_j_per_inference" not in against(candidate(measurement=run))


def test_a_baseline_without_energy_leaves_that_of_the_candidate_undecided() -> None:
    """Its own run could be paired, but nobody knows how much of that is noise."""
    baseline = build.record(measurement=build.measurement(build.noisy(0.010, seed=1), 0.010, energy_w=None))
    found = against(candidate(measurement=build.measurement(0.010, 0.005)), baseline)
    assert found["energy_j_per_inference"].verdict == "undecided"
    assert "was not measured" in found["energy_j_per_inference"].reason
    assert found["latency_p50_s"].verdict == "faster"


def test_the_noise_is_what_the_baseline_shows_against_its_copy() -> None:
    baseline = build.record(measurement=build.measurement(0.010, 0.0105))
    found = against(candidate(measurement=build.measurement(0.010, 0.0104)), baseline)
    assert found["latency_p50_s"].noise == pytest.approx(0.05)
    assert found["latency_p50_s"].verdict == "undecided"
    quiet = against(candidate(measurement=build.measurement(0.010, 0.0104)))
    assert quiet["latency_p50_s"].verdict == "slower"


def test_a_candidate_that_was_not_steady_is_undecided() -> None:
    found = against(candidate(measurement=build.measurement(0.010, 0.004, steady="not-reached")))
    assert {found[name].verdict for name in ("latency_p50_s", "throughput_per_s", "energy_j_per_inference")} == {
        "undecided"
    }


@pytest.mark.parametrize(("size", "word"), [(45e6, "lower"), (90e6, "same"), (90.05e6, "same"), (91e6, "higher")])
def test_what_is_counted_is_compared_without_an_interval(size: float, word: str) -> None:
    found = against(candidate(readings=build.readings(disk_bytes=size)))["disk_bytes"]
    assert found.verdict == word
    assert found.ratio == found.low == found.high == pytest.approx(size / 90e6)
