"""A candidate against the baseline of its own run: paired ratios with their intervals, and what may be said of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from compressbench.core.server_rates import of_finished_rounds, rate_ratio
from compressbench.core.spec import Spec
from compressbench.core.statistics import (
    Interval,
    mcnemar_p,
    mean_interval_from,
    paired_proportion_interval,
)
from compressbench.records.measurement import Measurement, Server
from compressbench.records.record import Paired, Record, Score
from compressbench.report.paired import (
    ValueOf,
    clean_ratio,
    control_noise,
    largest_effect,
    paired_ratio,
    quantities,
)

PRACTICAL_THRESHOLD = 0.01
_COUNTED = ("peak_memory_bytes", "weights_memory_bytes", "disk_bytes", "num_parameters", "effective_bits")


class Verdict(Spec):
    """`ratio` is candidate / baseline with its 95 % interval. For a task metric `difference` is in the metric's unit.

    verdict: faster | slower | lower | higher | same | undecided for costs, and degraded | improved | inconclusive for
    task metrics. `reason` says why nothing more can be said. The `clean_` ratio is over undisturbed rounds only, where some
    were disturbed; the verdict is on all.
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
    clean_ratio: float | None = None
    clean_low: float | None = None
    clean_high: float | None = None
    reason: str = ""


class Reference(NamedTuple):
    """A baseline's record, and by quantity how much it differs from a copy of itself; None where nobody can say."""

    record: Record
    noise: Mapping[str, float | None]


def reference(baseline: Record) -> Reference:
    measured = baseline.measurement
    if measured is None:
        return Reference(baseline, {})
    return Reference(
        baseline, {name: _copy_noise(measured, each.value_of) for name, each in quantities(measured).items()}
    )


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
        verdicts |= _timed(record.measurement, baseline)
    return verdicts


def _counted(ratio: float) -> Verdict:
    word = "same" if abs(ratio - 1) <= 0.001 else "lower" if ratio < 1 else "higher"
    return Verdict(verdict=word, ratio=ratio, low=ratio, high=ratio)


def _timed(measurement: Measurement, baseline: Reference) -> dict[str, Verdict]:
    found: dict[str, Verdict] = {}
    is_steady = _is_steady(measurement)
    for name, (value_of, words) in quantities(measurement).items():
        ratio = paired_ratio(measurement, value_of)
        if ratio is not None:
            noise = _noise_of(measurement, value_of, baseline.noise.get(name))
            clean = clean_ratio(measurement, value_of)
            verdict = ratio_verdict(ratio, noise, words, is_steady)
            found[name] = verdict if clean is None else verdict.model_copy(update=_as_clean(clean))
    if measurement.server is not None:
        found["max_rate_per_s"] = _rates(measurement.server, is_steady)
    per_sample = found.pop("seconds_per_sample", None)
    if per_sample is not None:
        found["throughput_per_s"] = _inverse(per_sample)
    return found


def _rates(server: Server, is_steady: bool) -> Verdict:
    """Highest rates of arrival. Rounds are their own control: both arms meet the same arrivals in each."""
    ratio = rate_ratio(of_finished_rounds(server.trials, server.num_rounds), "candidate")
    if isinstance(ratio, str):
        return Verdict(verdict="undecided", reason=ratio)
    return ratio_verdict(ratio, 0.0, ("lower", "higher"), is_steady)


def _noise_of(measurement: Measurement, value_of: ValueOf, copy_noise: float | None) -> float | None:
    """Protocol 2: what the control shows in the same schedule, or more if a copy in another place of memory does."""
    if measurement.protocol == 1:
        return copy_noise
    control = control_noise(measurement, value_of)
    return None if control is None else max(control, copy_noise or 0.0)


def ratio_verdict(ratio: Interval, noise: float | None, words: tuple[str, str], is_steady: bool) -> Verdict:
    """Different only if the interval excludes 1 and the effect exceeds both 1 % and the baseline's own noise.

    `noise` is the largest |ratio - 1| that the baseline shows against itself, bound of its interval included; None if
    that was not measured.
    """
    effect, excludes_one = abs(ratio.value - 1), ratio.low > 1 or ratio.high < 1
    is_same = max(abs(ratio.low - 1), abs(ratio.high - 1)) <= PRACTICAL_THRESHOLD
    word, reason = "undecided", ""
    if not is_steady:
        reason = "a steady state was not reached"
    elif noise is None:
        reason = "how much the baseline differs from itself was not measured"
    elif excludes_one and effect > max(PRACTICAL_THRESHOLD, noise):
        word = words[0] if ratio.value < 1 else words[1]
    elif is_same:
        word = "same"
    elif not excludes_one:
        reason = "the interval holds 1"
    elif effect > PRACTICAL_THRESHOLD:
        reason = f"the baseline differs from itself by up to {100 * noise:.1f} %"
    else:
        reason = f"a difference of less than {100 * PRACTICAL_THRESHOLD:.0f} % doesn't matter in practice"
    return Verdict(verdict=word, ratio=ratio.value, low=ratio.low, high=ratio.high, noise=noise, reason=reason)


def _as_clean(ratio: Interval) -> dict[str, float]:
    return {"clean_ratio": ratio.value, "clean_low": ratio.low, "clean_high": ratio.high}


def _inverse(latency: Verdict) -> Verdict:
    low, ratio, high = latency.low, latency.ratio, latency.high
    if low is None or ratio is None or high is None:
        return latency
    words = {"faster": "higher", "slower": "lower"}
    word = words.get(latency.verdict, latency.verdict)
    clean = {}
    if latency.clean_ratio and latency.clean_low and latency.clean_high:
        clean = _as_clean(Interval(1 / latency.clean_ratio, 1 / latency.clean_high, 1 / latency.clean_low))
    return latency.model_copy(update={"verdict": word, "ratio": 1 / ratio, "low": 1 / high, "high": 1 / low, **clean})


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


def _copy_noise(measurement: Measurement | None, value_of: ValueOf) -> float | None:
    """How much the baseline differs from a copy of itself; in protocol 1, which has no other control, at most."""
    ratio = None if measurement is None else paired_ratio(measurement, value_of)
    if ratio is None or measurement is None:
        return None
    return largest_effect(ratio) if measurement.protocol == 1 else abs(ratio.value - 1)


def _is_steady(measurement: Measurement) -> bool:
    return all(warm_up.steady_state == "yes" for warm_up in measurement.warm_up.values())
