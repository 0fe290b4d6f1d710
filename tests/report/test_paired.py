"""Ratios of mirrored rounds: what cancels, what is noise, what is left out."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import record_builder as build

from compressbench.core.statistics import median
from compressbench.records.evidence import DisturbanceRule, Evidence
from compressbench.records.measurement import Block, Measurement
from compressbench.report.against import costs_against_baseline, reference
from compressbench.report.paired import clean_ratio, control_noise, paired_ratio, quantities


def latency(block: Block) -> float:
    return median(block.latencies_ns) / 1e9


def changed(run: Measurement, change: Any) -> Measurement:
    return run.model_copy(update={"blocks": tuple(change(block) for block in run.blocks)})


def test_a_drift_that_is_linear_in_time_cancels_in_every_round() -> None:
    clock = 0.0

    def drifting(_: int) -> float:
        nonlocal clock
        clock += 1.0
        return 0.010 * math.exp(1e-4 * clock)

    run = build.interleaved(drifting, drifting, drifting)
    ratio, control = paired_ratio(run, latency), paired_ratio(run, latency, "control")
    assert ratio is not None
    assert control is not None
    assert ratio.value == pytest.approx(1.0, abs=1e-5)
    assert control.value == pytest.approx(1.0, abs=1e-5)
    first, last = run.blocks[0], run.blocks[-1]
    assert latency(last) / latency(first) > 1.05


def test_noise_is_the_bound_of_the_control_in_the_same_schedule() -> None:
    draw = random.Random(3)
    run = build.interleaved(lambda _: 0.010 * draw.lognormvariate(0, 0.02), 0.005)
    control = paired_ratio(run, latency, "control")
    assert control is not None
    noise = control_noise(run, latency)
    assert noise == max(abs(control.low - 1), abs(control.high - 1))
    assert 0 < noise < 0.05


def test_protocol_1_has_no_control() -> None:
    assert control_noise(build.measurement(), latency) is None


def test_rounds_without_a_value_are_left_out_if_they_are_few() -> None:
    run = build.interleaved(0.010, 0.005, rounds=10)
    energy = quantities(run)["energy_j_per_inference"].value_of

    def void(numbers: set[int]) -> Measurement:
        return changed(
            run,
            lambda block: (
                block
                if block.round not in numbers
                else block.model_copy(update={"raw": {}, "void": {"energy": "counter reset"}})
            ),
        )

    some, many = paired_ratio(void({0, 7}), energy), paired_ratio(void({0, 5, 7}), energy)
    assert some is not None
    assert some.value == pytest.approx(0.5)
    assert many is None


@pytest.mark.parametrize(("arm_batches", "expected"), [({}, 0.5), ({"candidate": 4}, 0.5 / 4)])
def test_energy_and_throughput_are_per_sample(arm_batches: dict[Any, int], expected: float) -> None:
    run = build.interleaved(0.010, 0.005, batch_sizes=arm_batches)
    record = build.record("int8", measurement=run)
    found = costs_against_baseline(record, reference(build.record(measurement=build.interleaved())))
    assert found["energy_j_per_inference"].ratio == pytest.approx(expected)
    assert found["throughput_per_s"].ratio == pytest.approx(1 / expected)
    assert found["latency_p50_s"].ratio == pytest.approx(0.5)


def test_the_verdict_is_on_all_rounds_and_the_clean_ratio_stands_beside_it() -> None:
    run = build.interleaved(0.010, 0.005, rounds=5)

    def burdened(block: Block) -> Block:
        if block.round != 2 or block.arm != "candidate":
            return block
        return block.model_copy(update={"latencies_ns": tuple(2 * each for each in block.latencies_ns)})

    shares = tuple(0.5 if block.round == 2 else 0.0 for block in run.blocks)
    evidence = Evidence(foreign_share=shares, steal_share=(0.0,) * len(shares))
    run = changed(run, burdened).model_copy(update={"evidence": evidence, "rule": DisturbanceRule()})
    clean = clean_ratio(run, latency)
    everything = paired_ratio(run, latency)
    assert clean is not None
    assert everything is not None
    assert clean.value == pytest.approx(0.5)
    assert everything.value == pytest.approx(0.5 * 2 ** (1 / 5))
    baseline = reference(build.record(measurement=build.interleaved()))
    found = costs_against_baseline(build.record("int8", measurement=run), baseline)["latency_p50_s"]
    assert found.ratio == pytest.approx(everything.value)
    assert found.clean_ratio == pytest.approx(clean.value)


def test_an_effect_below_what_the_control_shows_is_undecided() -> None:
    draw = random.Random(5)
    noisy = build.interleaved(
        lambda _: 0.010,
        lambda _: 0.0098,
        lambda index: 0.010 * (1.05 if index // 40 % 2 else 1 / 1.05) * draw.uniform(1, 1),
    )
    baseline = reference(build.record(measurement=build.interleaved()))
    found = costs_against_baseline(build.record("int8", measurement=noisy), baseline)["latency_p50_s"]
    assert found.verdict == "undecided"
    assert "differs from itself" in found.reason
    quiet = costs_against_baseline(build.record("int8", measurement=build.interleaved(0.010, 0.0098)), baseline)
    assert quiet["latency_p50_s"].verdict == "faster"


def test_what_a_copy_elsewhere_in_memory_differs_counts_as_noise_too() -> None:
    placed = reference(build.record(measurement=build.interleaved(0.010, 0.0103)))
    found = costs_against_baseline(build.record("int8", measurement=build.interleaved(0.010, 0.0098)), placed)
    assert found["latency_p50_s"].verdict == "undecided"
    assert found["latency_p50_s"].noise == pytest.approx(0.03)
