"""A candidate against the baseline of its own run: paired ratios with their intervals, and what may be said of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from compressbench.core.spec import Spec
from compressbench.core.statistics import (
    Interval,
    log_ratio_interval,
    mcnemar_p,
    mean_interval_from,
    paired_proportion_interval,
)
from compressbench.records.record import Block, Measurement, Record, Score

PRACTICAL_THRESHOLD = 0.01
_COUNTED = ("peak_memory_bytes", "weights_memory_bytes", "disk_bytes", "num_parameters", "effective_bits")
_TIMED_WORDS = ("faster", "slower")
_PLAIN_WORDS = ("lower", "higher")


class Verdict(Spec):
    """`ratio` is candidate / baseline with its 95 % interval. For a task metric `difference` is in the metric's unit.

    verdict: faster | slower | lower | higher | same | undecided for costs, and degraded | improved | inconclusive for
    task metrics. `reason` says why nothing more can be said.
    """

    verdict: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    noise: float | None = None
    reason: str = ""


def against_baseline(record: Record, baseline: Record | None, metrics: Sequence[str]) -> dict[str, Verdict]:
    """A verdict for every number that both sides have. Without the baseline's record only the scores can be compared."""
    verdicts = {
        name: score_verdict(score)
        for name, score in zip(metrics, record.scores, strict=False)
        if score.paired is not None
    }
    if baseline is None:
        return verdicts
    for name in _COUNTED:
        ours, theirs = record.reading(name), baseline.reading(name)
        if ours is not None and theirs is not None and theirs.value > 0:
            verdicts[name] = _counted(ours.value / theirs.value)
    if record.measurement is not None and baseline.measurement is not None:
        verdicts |= _timed(record.measurement, baseline.measurement)
    return verdicts


def _counted(ratio: float) -> Verdict:
    word = "same" if abs(ratio - 1) <= 0.001 else "lower" if ratio < 1 else "higher"
    return Verdict(verdict=word, ratio=ratio, low=ratio, high=ratio)


def _timed(measurement: Measurement, control: Measurement) -> dict[str, Verdict]:
    quantities: dict[str, tuple[Callable[[Block], float | None], tuple[str, str]]] = {
        "latency_p50_s": (_median_latency, _TIMED_WORDS),
        "energy_j_per_inference": (_energy_per_call, _PLAIN_WORDS),
    }
    found: dict[str, Verdict] = {}
    for name, (value_of, words) in quantities.items():
        ratio = paired_ratio(measurement, value_of)
        if ratio is not None:
            noise = _noise(paired_ratio(control, value_of))
            found[name] = ratio_verdict(ratio, noise, words, _is_steady(measurement))
    if "latency_p50_s" in found:
        found["throughput_per_s"] = _inverse(found["latency_p50_s"])
    return found


def paired_ratio(measurement: Measurement, value_of: Callable[[Block], float | None]) -> Interval | None:
    """Candidate / baseline, geometric mean over rounds, each the mean of its two neighbouring pairs of blocks.

    The round is the unit because its order (A B B A) cancels a drift; None below two rounds or if a block lacks the value.
    """
    rounds: dict[int, dict[str, list[float]]] = {}
    for block in measurement.blocks:
        value = value_of(block)
        if value is None or value <= 0:
            return None
        rounds.setdefault(block.round, {"baseline": [], "candidate": []})[block.arm].append(math.log(value))
    if len(rounds) < 2:
        return None
    means = [{arm: math.exp(statistics.fmean(logs)) for arm, logs in arms.items()} for arms in rounds.values()]
    return log_ratio_interval([mean["baseline"] for mean in means], [mean["candidate"] for mean in means])


def ratio_verdict(ratio: Interval, noise: float, words: tuple[str, str], is_steady: bool) -> Verdict:
    """Different only if the interval excludes 1 and the effect exceeds both 1 % and the baseline's own noise.

    `noise` is the largest |ratio - 1| that the baseline shows against a copy of itself, bound of its interval included.
    """
    effect, needed = abs(ratio.value - 1), max(PRACTICAL_THRESHOLD, noise)
    excludes_one = ratio.low > 1 or ratio.high < 1
    reason = ""
    if not is_steady:
        word, reason = "undecided", "a steady state was not reached"
    elif excludes_one and effect > needed:
        word = words[0] if ratio.value < 1 else words[1]
    elif max(abs(ratio.low - 1), abs(ratio.high - 1)) <= PRACTICAL_THRESHOLD:
        word = "same"
    else:
        word = "undecided"
        reason = (
            f"the baseline differs from a copy of itself by up to {noise:.1%}" if excludes_one else "interval holds 1"
        )
    return Verdict(verdict=word, ratio=ratio.value, low=ratio.low, high=ratio.high, noise=noise, reason=reason)


def _inverse(latency: Verdict) -> Verdict:
    low, ratio, high = latency.low, latency.ratio, latency.high
    if low is None or ratio is None or high is None:
        return latency
    words = {"faster": "higher", "slower": "lower"}
    word = words.get(latency.verdict, latency.verdict)
    return latency.model_copy(update={"verdict": word, "ratio": 1 / ratio, "low": 1 / high, "high": 1 / low})


def score_verdict(score: Score) -> Verdict:
    """Proportions: exact McNemar and an interval of the paired difference. Others: Student on the paired differences.

    Nothing is called equivalent here: that takes a declared margin and a test of its own.
    """
    paired = score.paired
    assert paired is not None  # noqa: S101 -- the caller asks for paired scores only
    if score.is_binary:
        interval = paired_proportion_interval(paired.num_harmful, paired.num_beneficial, paired.num_samples)
        p_value = mcnemar_p(paired.num_harmful, paired.num_beneficial)
        before = score.value - interval.value
        bounds = (before + interval.low, before + interval.high)
        differs = p_value < 0.05
    else:
        if paired.num_samples < 2:
            return Verdict(verdict="inconclusive", reason="one sample only")
        mean = mean_interval_from(paired.mean_difference, paired.sd_difference, paired.num_samples)
        # differences are in nats, so their exponent is the ratio of perplexities
        before = score.value / math.exp(mean.value)
        bounds = (before * math.exp(mean.low), before * math.exp(mean.high))
        interval = Interval(score.value - before, bounds[0] - before, bounds[1] - before)
        differs, p_value = mean.low > 0 or mean.high < 0, None
    is_better = interval.value > 0 if score.direction == "higher" else interval.value < 0
    word = "inconclusive" if not differs else "improved" if is_better else "degraded"
    return Verdict(
        verdict=word,
        ratio=score.value / before if before else None,
        low=bounds[0] / before if before else None,
        high=bounds[1] / before if before else None,
        difference=interval.value,
        difference_low=interval.low,
        difference_high=interval.high,
        p_value=p_value,
    )


def _noise(control: Interval | None) -> float:
    return 0.0 if control is None else max(abs(control.low - 1), abs(control.high - 1))


def _is_steady(measurement: Measurement) -> bool:
    return all(warm_up.steady_state == "yes" for warm_up in measurement.warm_up.values())


def _median_latency(block: Block) -> float:
    return statistics.median(block.latencies_ns) / 1e9


def _energy_per_call(block: Block) -> float | None:
    energy = block.raw.get("energy_j")
    return None if energy is None else energy / len(block.latencies_ns)
