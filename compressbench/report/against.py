"""A candidate against the baseline of its own run: paired ratios with their intervals, and what may be said of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from compressbench.core.spec import Spec
from compressbench.core.statistics import (
    Interval,
    log_ratio_interval,
    mcnemar_p,
    mean_interval_from,
    median,
    paired_proportion_interval,
)
from compressbench.records.record import Block, Measurement, Paired, Record, Score

PRACTICAL_THRESHOLD = 0.01
_COUNTED = ("peak_memory_bytes", "weights_memory_bytes", "disk_bytes", "num_parameters", "effective_bits")


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


class Reference(NamedTuple):
    """A baseline's record, and by quantity how much it differs from a copy of itself; None where nobody can say."""

    record: Record
    noise: Mapping[str, float | None]


def reference(baseline: Record) -> Reference:
    return Reference(baseline, {name: _noise(baseline.measurement, each) for name, (each, _) in _QUANTITIES.items()})


def against_baseline(record: Record, baseline: Reference | None, metrics: Sequence[str]) -> dict[str, Verdict]:
    """A verdict for every number that both sides have. Without the baseline's record only the scores can be compared."""
    verdicts = {
        name: score_verdict(score)
        for name, score in zip(metrics, record.scores, strict=False)
        if score.paired is not None
    }
    if baseline is None:
        return verdicts
    for name in _COUNTED:
        ours, theirs = record.reading(name), baseline.record.reading(name)
        if ours is not None and theirs is not None and theirs.value > 0:
            verdicts[name] = _counted(ours.value / theirs.value)
    if record.measurement is not None:
        verdicts |= _timed(record.measurement, baseline.noise)
    return verdicts


def _counted(ratio: float) -> Verdict:
    word = "same" if abs(ratio - 1) <= 0.001 else "lower" if ratio < 1 else "higher"
    return Verdict(verdict=word, ratio=ratio, low=ratio, high=ratio)


def _timed(measurement: Measurement, noise: Mapping[str, float | None]) -> dict[str, Verdict]:
    found: dict[str, Verdict] = {}
    for name, (value_of, words) in _QUANTITIES.items():
        ratio = paired_ratio(measurement, value_of)
        if ratio is not None:
            found[name] = ratio_verdict(ratio, noise[name], words, _is_steady(measurement))
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
    means = [{arm: math.exp(sum(logs) / len(logs)) for arm, logs in arms.items()} for arms in rounds.values()]
    return log_ratio_interval([mean["baseline"] for mean in means], [mean["candidate"] for mean in means])


def ratio_verdict(ratio: Interval, noise: float | None, words: tuple[str, str], is_steady: bool) -> Verdict:
    """Different only if the interval excludes 1 and the effect exceeds both 1 % and the baseline's own noise.

    `noise` is the largest |ratio - 1| that the baseline shows against a copy of itself, bound of its interval included;
    None if that was not measured.
    """
    effect, excludes_one = abs(ratio.value - 1), ratio.low > 1 or ratio.high < 1
    is_same = max(abs(ratio.low - 1), abs(ratio.high - 1)) <= PRACTICAL_THRESHOLD
    word, reason = "undecided", ""
    if not is_steady:
        reason = "a steady state was not reached"
    elif noise is None:
        reason = "how much the baseline differs from a copy of itself was not measured"
    elif excludes_one and effect > max(PRACTICAL_THRESHOLD, noise):
        word = words[0] if ratio.value < 1 else words[1]
    elif is_same:
        word = "same"
    elif not excludes_one:
        reason = "the interval holds 1"
    elif effect > PRACTICAL_THRESHOLD:
        reason = f"the baseline differs from a copy of itself by up to {100 * noise:.1f} %"
    else:
        reason = f"a difference of less than {100 * PRACTICAL_THRESHOLD:.0f} % doesn't matter in practice"
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
    if not score.is_binary and paired.num_samples < 2:
        return Verdict(verdict="inconclusive", reason="one sample only")
    found = _of_proportions(score, paired) if score.is_binary else _of_means(score, paired)
    before, change = found.before, found.difference
    is_better = change.value > 0 if score.direction == "higher" else change.value < 0
    return Verdict(
        verdict="inconclusive" if not found.differs else "improved" if is_better else "degraded",
        ratio=score.value / before if before else None,
        low=(before + change.low) / before if before else None,
        high=(before + change.high) / before if before else None,
        difference=change.value,
        difference_low=change.low,
        difference_high=change.high,
        p_value=found.p_value,
    )


class _Change(NamedTuple):
    """The baseline's metric, the candidate's less the baseline's with its interval, and whether they differ."""

    before: float
    difference: Interval
    differs: bool
    p_value: float | None = None


def _of_proportions(score: Score, paired: Paired) -> _Change:
    difference = paired_proportion_interval(paired.num_harmful, paired.num_beneficial, paired.num_samples)
    p_value = mcnemar_p(paired.num_harmful, paired.num_beneficial)
    return _Change(score.value - difference.value, difference, p_value < 0.05, p_value)


def _of_means(score: Score, paired: Paired) -> _Change:
    mean = mean_interval_from(paired.mean_difference, paired.sd_difference, paired.num_samples)
    differs = mean.low > 0 or mean.high < 0
    if score.metric != "perplexity":
        return _Change(score.value - mean.value, mean, differs)
    # its samples' scores are nats, so the exponent of their difference is the ratio of perplexities
    before = score.value / math.exp(mean.value)
    return _Change(before, Interval(*(before * math.expm1(each) for each in mean)), differs)


def _noise(control: Measurement | None, value_of: Callable[[Block], float | None]) -> float | None:
    ratio = None if control is None else paired_ratio(control, value_of)
    return None if ratio is None else max(abs(ratio.low - 1), abs(ratio.high - 1))


def _is_steady(measurement: Measurement) -> bool:
    return all(warm_up.steady_state == "yes" for warm_up in measurement.warm_up.values())


def _median_latency(block: Block) -> float:
    return median(block.latencies_ns) / 1e9


def _energy_per_call(block: Block) -> float | None:
    energy = block.raw.get("energy_j")
    return None if energy is None else energy / len(block.latencies_ns)


_QUANTITIES: dict[str, tuple[Callable[[Block], float | None], tuple[str, str]]] = {
    "latency_p50_s": (_median_latency, ("faster", "slower")),
    "energy_j_per_inference": (_energy_per_call, ("lower", "higher")),
}
