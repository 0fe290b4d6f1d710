"""The costs of a candidate against those of the baseline of its own run: paired ratios, and what may be said of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from compressbench.core.server_rates import of_finished_rounds, rate_ratio
from compressbench.core.statistics import Interval
from compressbench.records.measurement import Measurement, Server
from compressbench.records.record import Record
from compressbench.report.paired import (
    ValueOf,
    clean_ratio,
    control_noise,
    largest_effect,
    paired_ratio,
    quantities,
)
from compressbench.report.verdict import Verdict

PRACTICAL_THRESHOLD = 0.01
COUNTED_COSTS = ("peak_memory_bytes", "weights_memory_bytes", "disk_bytes", "num_parameters", "effective_bits")


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


_RATES = {"seconds_per_sample": "throughput_per_s", "seconds_per_output_token": "output_tokens_per_s"}


def costs_against_baseline(record: Record, baseline: Reference) -> dict[str, Verdict]:
    """A verdict for every cost that both sides have."""
    verdicts: dict[str, Verdict] = {}
    for name in COUNTED_COSTS:
        ours, theirs = record.reading(name), baseline.record.reading(name)
        if ours is not None and theirs is not None and theirs.value > 0:
            verdicts[name] = counted_ratio(ours.value / theirs.value)
    if record.measurement is not None:
        verdicts |= _timed(record.measurement, baseline)
    return verdicts


def counted_ratio(ratio: float) -> Verdict:
    """What is counted has no error; less than a thousandth is no difference."""
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
    for seconds, rate in _RATES.items():
        if seconds in found:
            found[rate] = _inverse(found.pop(seconds))
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


def _copy_noise(measurement: Measurement | None, value_of: ValueOf) -> float | None:
    """How much the baseline differs from a copy of itself; in protocol 1, which has no other control, at most."""
    ratio = None if measurement is None else paired_ratio(measurement, value_of)
    if ratio is None or measurement is None:
        return None
    return largest_effect(ratio) if measurement.protocol == 1 else abs(ratio.value - 1)


def _is_steady(measurement: Measurement) -> bool:
    return all(warm_up.steady_state == "yes" for warm_up in measurement.warm_up.values())
