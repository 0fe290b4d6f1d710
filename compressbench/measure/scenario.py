"""What a recipe's scenario asks of the arms: which calls at which batch sizes, in blocks, and at random arrivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from compressbench.core.errors import CellError
from compressbench.core.progress import Progress
from compressbench.core.protocols import Batch, Session
from compressbench.measure.blocks import CallersOfArm, Tools, compare
from compressbench.measure.calls import Caller, caller
from compressbench.measure.outputs import KeptAnswers, keep_answers
from compressbench.measure.schedule import Schedule
from compressbench.measure.server import find_highest_rate
from compressbench.measure.server_rule import ServerRule
from compressbench.measure.sweep import SweepRule, Swept, sweep
from compressbench.measure.threads import SessionOf, best_of_threads
from compressbench.recipe.schema import Workload
from compressbench.records.measurement import Arm, Measurement, SweepPoint

# of a server's rounds, the time they may take, and how near the highest rate is enclosed
_SERVER = {"smoke": (3, 60.0, 0.05), "standard": (5, 300.0, 0.02), "audit": (10, 1800.0, 0.01)}


class Measured(NamedTuple):
    """The measurement, what the timed calls of either arm answered, and by meter why its numbers are missing."""

    measurement: Measurement
    answers: Mapping[Arm, KeptAnswers]
    failed: Mapping[str, str]


@dataclass
class Contest:
    """Baseline and candidate on the same inputs. `inputs_of` makes those of a batch size, `session_of` an arm's session
    with so many CPU threads.
    """

    sessions: Mapping[Arm, Session]
    inputs_of: Callable[[int], list[Batch]]
    workload: Workload
    seed: int
    session_of: SessionOf | None = None
    batch_sizes: dict[Arm, int] = field(default_factory=dict)
    thread_counts: dict[Arm, int] = field(default_factory=dict)
    points: tuple[SweepPoint, ...] = ()

    def run(self, schedule: Schedule, tools: Tools, progress: Progress) -> Measured:
        """Choose batch sizes (offline), run the blocks, and look for the highest rate (server)."""
        self._choose_batch_sizes(tools, progress)
        answers = {arm: keep_answers(self._inputs(arm), self._tokens) for arm in self.sessions}
        arms = {arm: self._callers(arm, answers[arm]) for arm in self.sessions}
        # the control is the baseline's session again; what it answers is the baseline's answer
        arms["control"] = self._callers("baseline", None)
        batch_size = self.batch_sizes.get("baseline", self.workload.batch_size)
        shape = {
            "batch_size": batch_size,
            "num_inputs": len(self._inputs("baseline")),
            "batch_sizes": {arm: size for arm, size in self.batch_sizes.items() if size != batch_size},
            "thread_counts": dict(self.thread_counts),
            "sweep": self.points,
        }
        measurement, failed = compare(arms, shape, schedule, tools, progress)
        counts = {arm: kept.num_blocks_not_finite for arm, kept in answers.items() if kept.num_blocks_not_finite}
        measurement = measurement.model_copy(update={"num_blocks_not_finite": counts})
        for arm, kept in answers.items():
            kept.repeat(self._ask(arm))
        if self.workload.scenario == "server":
            measurement = self._with_rates(measurement, tools, progress)
        return Measured(measurement, answers, failed)

    @property
    def _tokens(self) -> int | None:
        return self.workload.output_tokens

    def _inputs(self, arm: Arm) -> list[Batch]:
        return self.inputs_of(self.batch_sizes.get(arm, self.workload.batch_size))

    def _callers(self, arm: Arm, keep: KeptAnswers | None) -> CallersOfArm:
        session, inputs = self.sessions[arm], self._inputs(arm)
        return CallersOfArm(caller(session, inputs, self._tokens), caller(session, inputs, self._tokens, keep=keep))

    def _ask(self, arm: Arm) -> Callable[[int], Any]:
        """The answer to one input, untimed."""
        session, inputs, tokens = self.sessions[arm], self._inputs(arm), self._tokens
        if tokens is None:
            return lambda slot: session(inputs[slot])
        return lambda slot: session.generate(inputs[slot], tokens)

    def _choose_batch_sizes(self, tools: Tools, progress: Progress) -> None:
        """Each arm's best batch size, and with `thread_counts` its best number of threads, whose session it is then."""
        sizes: Sequence[int] | None = self.workload.batch_sizes
        if not sizes:
            return
        counts = self.workload.thread_counts
        with progress.bar("sweep batch sizes", len(counts or [0])) as bar:
            if not counts or self.session_of is None:
                found = self._sweep(self.sessions, sizes, tools)
            else:
                tried = {}
                for count in counts:
                    sessions = {arm: self.session_of(arm, count) for arm in self.sessions}
                    tried[count] = (sessions, self._sweep(sessions, sizes, tools))
                    bar.advance()
                found, self.thread_counts = best_of_threads({count: each for count, (_, each) in tried.items()})
                self.sessions = {arm: tried[count][0][arm] for arm, count in self.thread_counts.items()}
        for arm in ("baseline", "candidate"):
            if arm not in found.best:
                raise CellError(f"the {arm} has no batch size to run at", got=_why_none(found, arm))
        self.points, self.batch_sizes = tuple(found.points), found.best

    def _sweep(self, sessions: Mapping[Arm, Session], sizes: Sequence[int], tools: Tools) -> Swept:
        def call_of(arm: Arm, size: int) -> Caller:
            return caller(sessions[arm], self.inputs_of(size), self._tokens)

        limit_s = self.workload.latency_limit_s if self.workload.scenario == "offline" else None
        return sweep(list(sessions), call_of, sizes, SweepRule(limit_s=limit_s), clock=tools.clock)

    def _with_rates(self, measurement: Measurement, tools: Tools, progress: Progress) -> Measurement:
        rounds, budget_s, resolution = _SERVER[self.workload.tier]
        assert self.workload.latency_limit_s is not None  # noqa: S101 -- the schema asks for it
        rule = ServerRule(
            quantile=self.workload.latency_quantile,
            limit_s=self.workload.latency_limit_s,
            rounds=rounds,
            budget_s=budget_s,
            resolution=resolution,
            seed=self.seed,
        )
        calls = {arm: caller(session, self._inputs(arm), self._tokens) for arm, session in self.sessions.items()}
        server = find_highest_rate(calls, rule, progress=progress)
        return measurement.model_copy(update={"server": server})


def _why_none(found: Swept, arm: Arm) -> str:
    points = [point for point in found.points if point.arm == arm]
    failures = [point.failure for point in points if point.failure]
    return failures[0] if failures else "no size keeps latency_limit_s in nine calls of ten"
