"""What a trial says of the quantile of a queue's latency, with the luck of its arrivals taken out.

Latencies of a queue come in clusters: near the rate where p99 meets a limit of ten service times, a thousand of them say as
much as forty independent ones, and nearly all of that is the luck of the arrivals. The arrivals are ours, though. An ideal
server, which takes the trial's mean service time for every query, meets the same luck, and what it does on average over all
patterns of arrivals is computed. So the share of queries above a level is taken as the ideal server's average share plus
what the real server has more than the ideal one on the same arrivals (a control variate, Lavenberg & Welch 1981). With
nothing in common between the two it is as good as counting.

The bound is binomial, as in MLPerf's LoadGen, for the effective number of queries: as many independent ones as would leave
the share as uncertain as it is, by 20 batches, and never more than there are. Clusters are judged at the level itself and
on long waits, of which there are enough to see them. A trial that is short against the memory of the queue shows nothing.

By `benchmarks/server_bound_coverage.py`, at exactly the rate where the quantile meets the limit, trials are accepted in 0
to 2 % of cases (nominal 1 %) for services from constant to exponential, and in up to 3 % where services drift by a tenth.
What no trial can know is how often something rare happens: with stalls of ten service times in 5 or in 1 of 1,000 calls, a
trial of 1,000 queries accepts that rate in 5 or in 39 % of cases, one of 5,000 in 2 or in 11 %, up to a tenth too high.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from compressbench.core.autocorrelation import batch_edges, batch_spread
from compressbench.core.quantiles import BOUND_CONFIDENCE
from compressbench.core.statistics import largest_within, t_quantile

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

_Z99 = 2.3263478740408408
_SEEN, _SEEN_TAILS = 100, 8
_SHORTEST_WAIT_NS = 1.0
_MIN_PATTERNS = 50
_LEAST_MEMORIES = 60


class Bound(NamedTuple):
    """`bound_ns` is what the quantile stays below with 99 % confidence, None with the reason why nobody can say."""

    bound_ns: float | None
    num_effective: int
    reason: str = ""


@dataclass
class IdealServer:
    """Latencies of a server whose every service takes the time 1, over many patterns of arrivals of a trial's length."""

    num_queries: int
    size: int = 2_000_000
    seed: int = 0
    _patterns: Floats | None = field(default=None, repr=False)
    _latest: tuple[float, Floats] | None = field(default=None, repr=False)

    def late(self, load: float, level: float) -> tuple[float, float]:
        """The mean share of queries that take longer than `level` at this load, and its variance of simulation."""
        shares = (self._latencies(load) > level).mean(axis=1)
        return float(shares.mean()), float(shares.var(ddof=1)) / len(shares)

    def _latencies(self, load: float) -> Floats:
        import numpy as np

        if self._latest is None or self._latest[0] != load:
            if self._patterns is None:
                self._patterns = self._drawn()
            self._latest = load, waited(self._patterns / load, np.ones(self.num_queries))
        return self._latest[1]

    def _drawn(self) -> Floats:
        """Exponential gaps, scaled to the number of queries as in arrivals.unit_arrivals."""
        import numpy as np

        num_patterns = max(_MIN_PATTERNS, math.ceil(self.size / self.num_queries))
        gaps = np.random.default_rng(self.seed).exponential(size=(num_patterns, self.num_queries))
        times = np.cumsum(gaps, axis=1)
        found: Floats = times * (self.num_queries / times[:, -1:])
        return found


def waited(arrivals: Floats, services: Floats) -> Floats:
    """Latencies of one worker in the order of arrival, along the last axis; Lindley's recursion without a loop."""
    import numpy as np

    done = np.cumsum(services)
    found: Floats = np.maximum.accumulate(arrivals - (done - services), axis=-1) + done - arrivals
    return found


@dataclass
class Judge:
    """Of trials on one pattern of arrivals (`unit`, at a rate of 1): is the quantile within the limit?"""

    unit: Sequence[float]
    quantile: float
    limit_ns: int
    ideal: IdealServer

    def is_within(self, latencies_ns: Sequence[int], services_ns: Sequence[int], rate_per_s: float) -> bool:
        """Whether the upper bound of the quantile is within the limit."""
        trial = _Trial.of(self, latencies_ns, services_ns, rate_per_s)
        return trial.memory * _LEAST_MEMORIES <= len(latencies_ns) and trial.is_below(self.limit_ns)

    def bound(self, latencies_ns: Sequence[int], services_ns: Sequence[int], rate_per_s: float) -> Bound:
        """The upper bound itself: the smallest of the latencies, or the limit, that the quantile is shown to be below."""
        trial = _Trial.of(self, latencies_ns, services_ns, rate_per_s)
        if trial.memory * _LEAST_MEMORIES > len(latencies_ns):
            return Bound(None, trial.effective(self.limit_ns), trial.too_short())
        ordered = sorted(set(latencies_ns))
        if trial.is_below(self.limit_ns):
            below = [each for each in ordered if each <= self.limit_ns]
            found = _first(below, trial.is_below)
            return Bound(float(self.limit_ns if found is None else found), trial.effective(self.limit_ns))
        found = _first([each for each in ordered if each > self.limit_ns], trial.is_below)
        effective = trial.effective(self.limit_ns)
        if found is not None:
            return Bound(float(found), effective)
        return Bound(None, effective, self._too_few(len(latencies_ns), effective))

    def max_over(self, rate_per_s: float, service_ns: float) -> int:
        """With more queries than these above the limit a trial is lost, as it looks before it: the bound's own number,
        what the luck of the arrivals adds, and a margin of 1 % and ten, because service times aren't known before.
        """
        import numpy as np

        count, load = len(self.unit), rate_per_s * service_ns / 1e9
        allowed = largest_within(count, 1 - self.quantile, 1 - BOUND_CONFIDENCE)
        arrivals = np.asarray(self.unit) * (1e9 / rate_per_s)
        over = int((waited(arrivals, np.full(count, service_ns)) > self.limit_ns).sum())
        luck = over - count * self.ideal.late(load, self.limit_ns / service_ns)[0]
        return max(0, math.ceil(allowed + luck + 0.01 * count + 10))

    def _too_few(self, count: int, effective: int) -> str:
        name, needed = f"p{100 * self.quantile:g}", math.log(1 - BOUND_CONFIDENCE) / math.log(self.quantile)
        if effective >= needed:
            return f"{name} may lie beyond the slowest of {count} queries"
        like_these = math.ceil(needed * count / max(1, effective))
        return (
            f"{count} queries say as much as {effective} independent ones, too few for a bound of {name}: "
            f"it needs about {like_these} like these"
        )


@dataclass
class _Trial:
    judge: Judge
    real: Floats
    ideal: Floats
    service_ns: float
    load: float
    memory: float
    clusters: float = 1.0

    @classmethod
    def of(cls, judge: Judge, latencies_ns: Sequence[int], services_ns: Sequence[int], rate_per_s: float) -> _Trial:
        import numpy as np

        real = np.asarray(latencies_ns, dtype=np.float64)
        services = np.asarray(services_ns, dtype=np.float64)
        service_ns = float(services.mean())
        ideal = waited(np.asarray(judge.unit) * (1e9 / rate_per_s), np.full(len(real), service_ns))
        load = rate_per_s * service_ns / 1e9
        memory = _memory(load, float(services.var()) / service_ns**2)
        trial = cls(judge, real, ideal, service_ns, load, memory)
        trial.clusters = max(1.0, trial._clusters_of_waits(real - services))
        return trial

    def _clusters_of_waits(self, waits: Floats) -> float:
        """Judged on the longest waits, of which there are enough to see how they cluster.

        Not on latencies: services that drift by a tenth say nothing of latencies of ten services.
        """
        import numpy as np

        count = len(waits)
        share = min(0.5, max(_SEEN / count, _SEEN_TAILS * (1 - self.judge.quantile)))
        level = max(_SHORTEST_WAIT_NS, float(np.sort(waits)[count - 1 - int(share * count)]))
        more = (waits > level).astype(np.float64) - (self.ideal - self.service_ns > level)
        return self._inflation(more, level + self.service_ns, share)

    def too_short(self) -> str:
        return (
            f"{len(self.real)} queries are too few at a load of {100 * self.load:.0f} %, where the queue remembers the "
            f"last {self.memory:.0f}: a trial needs {_LEAST_MEMORIES} times those"
        )

    def is_below(self, level: float) -> bool:
        """Whether the quantile is below `level` with 99 % confidence."""
        effective = self.effective(level)
        allowed = largest_within(effective, 1 - self.judge.quantile, 1 - BOUND_CONFIDENCE)
        return allowed >= 0 and self._share_over(level) * effective <= allowed

    def effective(self, level: float) -> int:
        share = min(1 - self.judge.quantile, max(1 / len(self.real), self._share_over(level)))
        inflation = self._inflation(self._more(level), level, share)
        return int(len(self.real) / max(self.clusters, inflation))

    def _more(self, level: float) -> Floats:
        """1 for every query that only the real server answers later than `level`, -1 where only the ideal one does."""
        found: Floats = (self.real > level) - (self.ideal > level).astype(float)
        return found

    def _share_over(self, level: float) -> float:
        return max(0.0, self._average(level)[0] + float(self._more(level).mean()))

    def _inflation(self, more: Floats, level: float, share: float) -> float:
        """How many times the variance of the share above `level` is that of as many independent queries.

        An effective number that is estimated from 20 batches is reduced by what they leave open (Student's t to z).
        """
        import numpy as np

        edges = batch_edges(len(more))
        sums = np.add.reduceat(more - more.mean(), edges[:-1])
        spread = batch_spread(sums.tolist(), edges).corrected
        from_batches = spread * (t_quantile(BOUND_CONFIDENCE, len(edges) - 2) / _Z99) ** 2
        return (from_batches + self._average(level)[1] * len(more)) / (share * (1 - share))

    def _average(self, level: float) -> tuple[float, float]:
        return self.judge.ideal.late(self.load, level / self.service_ns)


def _memory(load: float, squared_variation: float) -> float:
    """About how many queries a queue remembers (Whitt 1989, Planning queueing simulations)."""
    return math.inf if load >= 1 else (1 + squared_variation) / 2 / (1 - load) ** 2


def _first(ordered: Sequence[int], holds: Callable[[float], bool]) -> int | None:
    """The first value at which something holds that goes on to hold; None if it doesn't at the last."""
    if not ordered or not holds(ordered[-1]):
        return None
    low, high = -1, len(ordered) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(ordered[middle]) else (middle, high)
    return ordered[high]
