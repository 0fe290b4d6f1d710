"""Goodput: how much of what was asked a server answers in time, and the highest rate at which it still does.

A request is good if its time to first token and its time per output token both keep their limits. The share of good
requests is their attainment; goodput is the highest rate of arrivals at which attainment keeps its goal (DistServe, Zhong
et al. 2024, arXiv:2401.09670). Whatever failed is not good, and is in the denominator. A rate counts as kept only if the
lower end of its attainment's interval reaches the goal, and no lower rate failed to.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import Field

from compressbench.core.quantiles import QuantileEstimate, clustering, summarize_quantiles
from compressbench.core.reading import Reading
from compressbench.core.spec import Spec
from compressbench.core.statistics import proportion_interval, quantile_type_8
from compressbench.core.units import humanize
from compressbench.measure.endpoint_load import MAX_IN_FLIGHT, Load, Outcome

PROBABILITIES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
# of the limit of the time to first token: what this program may add to it by sending late
_MAX_LATENESS = 0.05
# of one core: above it, stamps wait for each other
_MAX_CPU_SHARE = 0.8


class ServiceLevel(Spec):
    """What users are promised: seconds, and the share of requests that must keep both."""

    ttft_s: float = Field(gt=0)
    tpot_s: float = Field(gt=0)
    goal: float = Field(0.9, gt=0, lt=1)

    def is_kept_by(self, outcome: Outcome) -> bool:
        """A text of one token has no time per output token, and keeps that limit."""
        ttft, tpot = outcome.ttft_s, outcome.tpot_s
        return not outcome.failure and ttft is not None and ttft <= self.ttft_s and (tpot or 0.0) <= self.tpot_s


class Estimate(Spec):
    """A number with its 95 % interval; None with the reason where there is none."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""


class RateResult(Spec):
    """One rate of arrivals as it was tried. `reason` says why its numbers can't be used, and is empty if they can.

    `attainment` is a share, `goodput_per_s` that share of the rate. Quantiles are of the requests that were answered, in
    seconds; `failures` count the others by kind, and `said` has an example of each.
    """

    rate_per_s: float
    num_requests: int
    num_good: int
    attainment: Estimate
    goodput_per_s: Estimate
    is_kept: bool
    failures: Mapping[str, int]
    said: Mapping[str, str]
    ttft_s: Mapping[str, Estimate]
    tpot_s: Mapping[str, Estimate]
    itl_s: Mapping[str, Estimate]
    end_to_end_s: Mapping[str, Estimate]
    output_tokens_per_s: float
    seconds: float
    lateness_p99_s: float
    client_cpu_share: float
    max_in_flight: int
    cached_prompt_tokens: int
    readings: tuple[Reading, ...] = ()
    reason: str = ""


def judge(load: Load, rate_per_s: float, level: ServiceLevel) -> RateResult:
    """What a run of requests at this rate shows. The order of the outcomes is that of their arrivals."""
    outcomes = load.outcomes
    good = [level.is_kept_by(each) for each in outcomes]
    share = _share(good)
    answered = [each for each in outcomes if not each.failure]
    lateness = quantile_type_8(sorted(each.lateness_s for each in outcomes), 0.99)
    reason = refusal(lateness, load, level)
    failures = Counter(each.failure for each in outcomes if each.failure)
    return RateResult(
        rate_per_s=rate_per_s,
        num_requests=len(outcomes),
        num_good=sum(good),
        attainment=share,
        goodput_per_s=_times(share, rate_per_s),
        is_kept=not reason and share.low is not None and share.low >= level.goal,
        failures=dict(failures.most_common()),
        said={each.failure: each.said for each in reversed(outcomes) if each.failure},
        ttft_s=_quantiles([each.ttft_s for each in answered]),
        tpot_s=_quantiles([each.tpot_s for each in answered]),
        itl_s=_gaps(answered),
        end_to_end_s=_quantiles([(each.token_ns[-1] - each.scheduled_ns) / 1e9 for each in answered]),
        output_tokens_per_s=sum(each.num_tokens for each in answered) / load.seconds,
        seconds=load.seconds,
        lateness_p99_s=lateness,
        client_cpu_share=load.cpu_share,
        max_in_flight=load.max_in_flight,
        cached_prompt_tokens=sum(each.cached_tokens for each in outcomes),
        reason=reason,
    )


def refusal(lateness_p99_s: float, load: Load, level: ServiceLevel) -> str:
    """Why the run says nothing of the server: this program itself was late or too busy."""
    if load.max_in_flight > MAX_IN_FLIGHT:
        return (
            f"more than {MAX_IN_FLIGHT} requests would have been in flight at once, and those beyond had to wait here"
        )
    if lateness_p99_s > _MAX_LATENESS * level.ttft_s:
        return (
            f"requests were sent up to {humanize(lateness_p99_s, 's')} late (p99), above {100 * _MAX_LATENESS:g} % of the "
            f"limit of {humanize(level.ttft_s, 's')}: this machine is too busy to be the clients"
        )
    if load.cpu_share > _MAX_CPU_SHARE:
        return f"this program used {100 * load.cpu_share:.0f} % of a core, so that its stamps are late"
    return ""


def goodput(results: Sequence[RateResult]) -> RateResult | None:
    """The highest rate that was kept with no lower one failing; None if the lowest was not kept."""
    ordered = sorted(results, key=lambda each: each.rate_per_s)
    kept = list(itertools.takewhile(lambda each: each.is_kept, ordered))
    return kept[-1] if kept else None


def _share(good: Sequence[bool]) -> Estimate:
    """Wilson's interval for as many independent requests as these are worth: those that queue together fail together."""
    count = len(good)
    effective = max(1, int(count / clustering([float(each) for each in good], 0.5)))
    found = proportion_interval(sum(good) / count, effective)
    return Estimate(value=found.value, low=max(0.0, found.low), high=min(1.0, found.high))


def _times(share: Estimate, rate: float) -> Estimate:
    ends = [None if each is None else each * rate for each in (share.value, share.low, share.high)]
    return Estimate(value=ends[0], low=ends[1], high=ends[2], reason=share.reason)


def _seconds(value: float) -> str:
    return humanize(value, "s")


def _quantiles(values: Sequence[float | None], what: str = "requests") -> dict[str, Estimate]:
    known = [value for value in values if value is not None]
    found = summarize_quantiles(known, list(PROBABILITIES.values()), _seconds, what)
    return {name: _estimate(each) for name, each in zip(PROBABILITIES, found, strict=True)}


def _estimate(found: QuantileEstimate) -> Estimate:
    return Estimate(value=found.value, low=found.low, high=found.high, reason=found.reason)


def _gaps(answered: Sequence[Outcome]) -> dict[str, Estimate]:
    if not all(each.knows_gaps for each in answered):
        reason = "tokens come several at a time, and the server doesn't say how many"
        return dict.fromkeys(PROBABILITIES, Estimate(reason=reason))
    gaps = [(b - a) / 1e9 for each in answered for a, b in itertools.pairwise(each.token_ns)]
    return _quantiles(gaps, "gaps")
