"""Prefill and decode of blocks that no meter may be read in: told apart by generations beside them."""

from __future__ import annotations

import random

import pytest
from gpu_parts import DECODE_W, PREFILL_W, compared

from compressbench.measure.phases import PhaseLog, Spans, Tick, phase_energy_beside, spans_of
from compressbench.records.measurement import Block
from compressbench.testing.gpu_session import Times

TIMES = {"baseline": Times(0.030, 0.020), "candidate": Times(0.050, 0.012)}


def test_phases_of_quiet_blocks_are_told_apart_by_generations_beside_them() -> None:
    run = compared(TIMES, 9)
    found = run.found.measurement
    assert run.bench.meter.wants_lead
    for arm in ("baseline", "candidate"):
        energy = found.phases[arm]
        assert energy.is_beside
        assert energy.num_ticks >= 35
        assert energy.prefill_w == pytest.approx(PREFILL_W, rel=0.05)
        assert energy.decode_w == pytest.approx(DECODE_W, rel=0.02)
        assert abs(energy.prefill_w - PREFILL_W) < 3 * energy.prefill_uncertainty_w  # type: ignore[operator]
        own = [block for block in found.blocks if block.arm == arm]
        parts = energy.prefill_w * energy.prefill_s + energy.decode_w * energy.decode_s  # type: ignore[operator]
        assert parts == pytest.approx(sum(block.raw["energy_j"] for block in own))
        assert energy.prefill_s == pytest.approx(sum(sum(block.first_token_ns) for block in own) / 1e9)


def test_a_counter_that_is_quick_to_read_needs_no_more_calls() -> None:
    run = compared(TIMES, 9, read_s=1e-4)
    assert not run.bench.meter.wants_lead
    energy = run.found.measurement.phases["baseline"]
    assert not energy.is_beside
    assert energy.num_ticks >= 30
    assert energy.prefill_w == pytest.approx(PREFILL_W, rel=0.02)


def mixed_ticks(scale: float, noise_j: float = 0.0, seed: int = 0, count: int = 50) -> list[Tick]:
    draw, found = random.Random(seed), []
    for _ in range(count):
        prefill_s = draw.uniform(0.01, 0.05)
        joules = scale * (PREFILL_W * prefill_s + DECODE_W * (0.1 - prefill_s)) + draw.gauss(0, noise_j)
        found.append(Tick(joules, prefill_s, 0.1 - prefill_s))
    return found


SPANS = spans_of(Block(round=0, position=0, arm="baseline", first_token_ns=(300,), latencies_ns=(1000,)), 0)
TRUE_J = PREFILL_W * 300e-9 + DECODE_W * 700e-9


def test_how_high_the_powers_are_is_what_the_blocks_say() -> None:
    energy = phase_energy_beside(mixed_ticks(0.93), [SPANS, SPANS], [SPANS], TRUE_J)
    assert energy.prefill_w == pytest.approx(PREFILL_W)
    assert energy.decode_w == pytest.approx(DECODE_W)
    assert energy.prefill_s == pytest.approx(600e-9)


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_a_power_far_from_that_of_the_blocks_says_nothing_of_them(scale: float) -> None:
    energy = phase_energy_beside(mixed_ticks(scale), [SPANS], [SPANS], TRUE_J)
    assert (energy.prefill_w, energy.decode_w, energy.prefill_uncertainty_w) == (None, None, None)
    assert "the power was another one than in the blocks" in energy.reason


def test_the_stated_uncertainty_covers_the_truth() -> None:
    held = {"prefill_w": 0, "decode_w": 0}
    for seed in range(300):
        energy = phase_energy_beside(mixed_ticks(0.95, noise_j=0.5, seed=seed), [SPANS], [SPANS], TRUE_J)
        for name, truth in (("prefill_w", PREFILL_W), ("decode_w", DECODE_W)):
            half = 2.01 * getattr(energy, name.replace("_w", "_uncertainty_w"))
            held[name] += abs(getattr(energy, name) - truth) < half
    assert min(held.values()) >= 0.92 * 300


def test_ticks_of_a_block_without_energy_do_not_count() -> None:
    log = PhaseLog()
    block = Block(
        round=0, position=0, arm="baseline", first_token_ns=(30,) * 40, latencies_ns=(170,) * 40, raw={"energy_j": 1.0}
    )
    spans = spans_of(block, 0)

    def joules(until: int) -> float:
        prefill, decode = (
            sum(max(0, min(until, end) - begin) for begin, end in each) for each in (spans.prefill, spans.decode)
        )
        return PREFILL_W * prefill + DECODE_W * decode

    series = [(at, joules(at)) for at in range(0, 6800, 100)]
    reset = [(at, joules(at) - (1e6 if at > 3000 else 0.0)) for at in range(0, 6800, 100)]
    log.add(0, block, 0, Spans([], []), series)
    log.add(1, block, 0, Spans([], []), reset)
    void = block.model_copy(update={"raw": {}, "void": {"energy": "went backwards"}})
    energy = log.energies([block, void], {})["baseline"]
    assert energy.prefill_w == pytest.approx(PREFILL_W * 1e9)
    assert energy.num_ticks == len(series) - 1
