"""Costs of two candidates through the baseline that both were measured against."""

from __future__ import annotations

import math

import numpy as np
import pytest
import record_builder as build

from compressbench.report.chained import chained, cost_between, mirrored, words_of
from compressbench.report.rows import Row, rows_of
from compressbench.report.verdict import Verdict


def ratio(value: float, half: float, noise: float | None = 0.0) -> Verdict:
    """With a half width in the logarithm."""
    return Verdict(verdict="x", ratio=value, low=value * math.exp(-half), high=value * math.exp(half), noise=noise)


def test_errors_of_logarithms_add_in_squares() -> None:
    found = chained(ratio(0.5, 0.03), ratio(0.8, 0.04))
    assert found.value == pytest.approx(1.6)
    assert (math.log(found.low / 1.6), math.log(found.high / 1.6)) == pytest.approx((-0.05, 0.05))


def test_the_chained_interval_covers_as_often_as_it_says() -> None:
    draw = np.random.default_rng(3)
    hits, trials = 0, 2000
    for first, second in draw.normal([math.log(0.5), math.log(0.6)], [0.02, 0.05], (trials, 2)):
        found = chained(ratio(math.exp(first), 1.96 * 0.02), ratio(math.exp(second), 1.96 * 0.05))
        hits += found.low <= 1.2 <= found.high
    assert hits / trials == pytest.approx(0.95, abs=0.015)


def test_mirroring_swaps_what_is_better() -> None:
    found = mirrored(Verdict(verdict="faster", ratio=0.5, low=0.4, high=0.8, noise=0.01))
    assert found == Verdict(verdict="slower", ratio=2.0, low=1.25, high=2.5, noise=0.01)
    assert mirrored(found).ratio == pytest.approx(0.5)
    assert mirrored(Verdict(verdict="undecided", reason="why")) == Verdict(verdict="undecided", reason="why")


def rows(*, seconds: dict[str, float], spread: float = 0.005, **changed: object) -> dict[str, Row]:
    """A baseline of 10 ms and candidates of so many seconds."""
    candidates = {
        name: build.record(
            name,
            measurement=build.interleaved(
                build.noisy(0.010, spread, seed=10 * at), build.noisy(each, spread, seed=10 * at + 1)
            ),
            readings=build.readings(disk_bytes=1e9 * each),
            **changed,
        )
        for at, (name, each) in enumerate(seconds.items())
    }
    return {row.candidate: row for row in rows_of(build.run_of(candidates, measurement=build.interleaved(), **changed))}


def test_two_candidates_are_compared_through_their_baseline() -> None:
    found = rows(seconds={"slow": 0.008, "fast": 0.004})
    how, verdict = cost_between(found["slow"], found["fast"], "latency_p50_s")
    assert verdict is not None
    assert (how, verdict.verdict) == ("through the baseline", "faster")
    assert verdict.ratio == pytest.approx(0.5, rel=0.01)
    noises = [found[name].against_baseline["latency_p50_s"].noise for name in ("slow", "fast")]
    assert verdict.noise == pytest.approx((1 + (noises[0] or 0)) * (1 + (noises[1] or 0)) - 1)


@pytest.mark.parametrize("name", ["latency_p50_s", "energy_j_per_inference", "throughput_per_s", "disk_bytes"])
@pytest.mark.parametrize("second", [0.004, 0.0079, 0.008, 0.00825])
def test_both_directions_say_the_same(name: str, second: float) -> None:
    found = rows(seconds={"one": 0.008, "two": second})
    forth = cost_between(found["one"], found["two"], name).verdict
    back = cost_between(found["two"], found["one"], name).verdict
    assert forth is not None
    assert back is not None
    turned = mirrored(back)
    assert forth.verdict == turned.verdict
    assert (forth.ratio, forth.low, forth.high) == pytest.approx((turned.ratio, turned.low, turned.high))


def test_a_candidate_against_its_baseline_is_what_its_run_says() -> None:
    found = rows(seconds={"fast": 0.004})
    for name, verdict in found["fast"].against_baseline.items():
        if name not in found["fast"].metrics:
            assert cost_between(found["baseline"], found["fast"], name).verdict == verdict, name
    assert cost_between(found["fast"], found["baseline"], "latency_p50_s").verdict == mirrored(
        found["fast"].against_baseline["latency_p50_s"]
    )


def test_noise_that_is_not_known_leaves_it_undecided() -> None:
    found = rows(seconds={"slow": 0.008, "fast": 0.004})
    verdicts = {
        "latency_p50_s": found["fast"].against_baseline["latency_p50_s"].model_copy(update={"noise": None}),
    }
    unknown = found["fast"].model_copy(update={"against_baseline": verdicts})
    verdict = cost_between(found["slow"], unknown, "latency_p50_s").verdict
    assert verdict is not None
    assert (verdict.verdict, verdict.reason) == (
        "undecided",
        "how much the baseline differs from itself was not measured",
    )


def test_another_run_of_the_same_baseline_will_do() -> None:
    ours = rows(seconds={"slow": 0.008})["slow"]
    theirs = rows(seconds={"fast": 0.004}, run_id="20261124T000000.000000Z")
    assert cost_between(ours, theirs["fast"], "latency_p50_s").how == "through the baseline"
    against = cost_between(ours, theirs["baseline"], "latency_p50_s")
    assert against.verdict is not None
    assert against.verdict.ratio == pytest.approx(1.25, rel=0.01)
    first = rows(seconds={"slow": 0.008})["baseline"]
    both = cost_between(first, theirs["baseline"], "latency_p50_s").verdict
    assert both is not None
    assert both.verdict == "undecided"


def test_nothing_is_claimed_without_a_common_baseline() -> None:
    ours = rows(seconds={"slow": 0.008})["slow"]
    theirs = rows(seconds={"fast": 0.004}, device="cpu", environment=build.environment(cpu_model="Another"))["fast"]
    how, verdict = cost_between(ours, theirs, "latency_p50_s")
    assert verdict is not None
    assert (how, verdict.verdict, verdict.ratio) == ("", "undecided", None)
    assert "never measured together" in verdict.reason
    counted = cost_between(ours, theirs, "disk_bytes")
    assert counted.how == "counted"
    assert counted.verdict is not None
    assert (counted.verdict.verdict, counted.verdict.ratio) == ("lower", 0.5)


def test_what_nobody_paired_has_no_claim() -> None:
    found = rows(seconds={"slow": 0.008, "fast": 0.004})
    assert cost_between(found["slow"], found["fast"], "load_seconds") == ("", None)


def test_words_follow_the_unit() -> None:
    assert words_of("latency_p50_s") == ("faster", "slower")
    assert words_of("max_rate_per_s") == ("lower", "higher")
    assert words_of("energy_j_per_inference") == ("lower", "higher")
