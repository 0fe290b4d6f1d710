"""Prefill and decode told apart by when a counter moved."""

from __future__ import annotations

import random

import numpy as np
import pytest

from compressbench.measure.phases import Spans, Tick, phase_energy, spans_of, ticks
from compressbench.records.measurement import Block

PREFILL_W, DECODE_W = 600.0, 250.0


def block(num_calls: int = 40, prefill_s: float = 0.030, decode_s: float = 0.170, seed: int = 0) -> Block:
    draw = random.Random(seed)
    first = [round(1e9 * prefill_s * draw.uniform(0.9, 1.1)) for _ in range(num_calls)]
    rest = [round(1e9 * decode_s * draw.uniform(0.9, 1.1)) for _ in range(num_calls)]
    return Block(
        round=0, position=0, arm="candidate", first_token_ns=tuple(first),
        latencies_ns=tuple(a + b for a, b in zip(first, rest, strict=True)),
    )  # fmt: skip


def counter(spans: Spans, tick_s: float, end_ns: int, noise: float = 0.0) -> list[tuple[int, float]]:
    """What a counter of this tick shows while the phases run at their powers."""
    draw = random.Random(1)
    bounds = sorted([*((b, e, PREFILL_W) for b, e in spans.prefill), *((b, e, DECODE_W) for b, e in spans.decode)])
    series, step = list[tuple[int, float]](), round(tick_s * 1e9)
    for at in range(0, end_ns, step):
        joules = sum(watts * max(0, min(at, end) - begin) / 1e9 for begin, end, watts in bounds)
        series.append((at, joules * (1 + noise * draw.gauss(0, 1) / max(1, at / step))))
    return series


@pytest.mark.parametrize("tick_s", [0.010, 0.020, 0.100])
def test_the_powers_of_the_phases_are_recovered_from_a_counter(tick_s: float) -> None:
    run = block()
    spans, end = spans_of(run, 0), sum(run.latencies_ns)
    found = list(ticks(counter(spans, tick_s, end), spans, 0, end))
    energy = phase_energy(found, [spans])
    assert energy.prefill_w == pytest.approx(PREFILL_W, rel=1e-6)
    assert energy.decode_w == pytest.approx(DECODE_W, rel=1e-6)
    assert energy.prefill_s == pytest.approx(sum(run.first_token_ns) / 1e9)
    assert energy.prefill_s + energy.decode_s == pytest.approx(end / 1e9)


def test_the_regression_is_numpys_least_squares() -> None:
    draw = random.Random(2)
    found = [Tick(draw.uniform(1, 9), draw.uniform(0, 0.02), draw.uniform(0, 0.08)) for _ in range(50)]
    energy = phase_energy(found, [])
    design = np.array([[tick.prefill_s, tick.decode_s] for tick in found])
    joules = np.array([tick.joules for tick in found])
    expected, residuals, _, _ = np.linalg.lstsq(design, joules, rcond=None)
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * residuals[0] / 48)
    assert (energy.prefill_w, energy.decode_w) == pytest.approx(tuple(expected))
    assert (energy.prefill_uncertainty_w, energy.decode_uncertainty_w) == pytest.approx(tuple(errors))


def test_the_stated_uncertainty_covers_the_truth() -> None:
    hits, draw = 0, random.Random(4)
    for _ in range(300):
        parts = [(draw.uniform(0, 0.02), draw.uniform(0, 0.02)) for _ in range(40)]
        found = [Tick(PREFILL_W * p + DECODE_W * d + draw.gauss(0, 0.3), p, d) for p, d in parts]
        energy = phase_energy(found, [])
        assert energy.prefill_w is not None
        assert energy.prefill_uncertainty_w is not None
        hits += abs(energy.prefill_w - PREFILL_W) < 2.02 * energy.prefill_uncertainty_w
    assert 0.92 <= hits / 300 <= 0.98


def test_too_few_ticks_or_the_same_mixture_in_all_of_them_say_nothing() -> None:
    few = phase_energy([Tick(1.0, 0.01, 0.01 * n) for n in range(9)], [])
    assert (few.prefill_w, few.reason) == (
        None,
        "9 ticks of the meter lie within the calls that it was read in, and 10 are needed",
    )
    same = phase_energy([Tick(5.0, 0.02, 0.08)] * 30, [])
    assert same.prefill_w is None
    assert "same mixture" in same.reason


def test_a_phase_that_is_lost_in_noise_has_no_power() -> None:
    draw = random.Random(6)
    found = [Tick(20 + draw.gauss(0, 9), draw.uniform(0, 0.001), draw.uniform(0.07, 0.1)) for _ in range(30)]
    energy = phase_energy(found, [])
    assert energy.prefill_w is None
    assert "isn't told apart from nothing" in energy.reason


def test_ticks_that_reach_out_of_the_block_are_not_counted() -> None:
    spans = Spans([(1000, 2000)], [(2000, 9000)])
    series = [(at, at / 1e3) for at in range(0, 20_000, 1500)]
    found = list(ticks(series, spans, 1000, 9000))
    assert [round(tick.joules, 6) for tick in found] == [1.5] * 5  # 1500 to 9000
    assert found[0].prefill_s == pytest.approx(500e-9)
    assert found[0].decode_s == pytest.approx(1000e-9)
