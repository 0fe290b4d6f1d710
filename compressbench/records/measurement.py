"""What was measured, raw: interleaved blocks of calls, what instruments read around them, what disturbed them.

History of `protocol`:
1  A B B A rounds; a copy of the baseline is measured against it once per run, in the baseline's own record.
2  A B C C B A rounds in rotating order: the control C is the baseline's session again, in every candidate's schedule.
   Windows of instruments carry their uncertainty and their faults, blocks the evidence of what disturbed them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from compressbench.core.protocols import Provenance
from compressbench.core.reading import Uncertainties, Values
from compressbench.core.spec import Spec
from compressbench.core.units import is_energy
from compressbench.records.evidence import DisturbanceRule, Evidence

Arm = Literal["baseline", "candidate", "control"]
Nanoseconds = Annotated[int, Field(gt=0)]
Tier = Literal["smoke", "standard", "audit"]
OF_PHASES = "energy_j"
"""The value whose increments prefill and decode are told apart by."""


class Block(Spec):
    """Calls of one arm, one after the other. `raw` are additive values that block meters read over the whole block.

    `uncertainties` are their standard uncertainties (k = 1) without the instrument's gain; `void` has, by meter or value,
    why there is no value. `seconds` is the block's wall time, first call's beginning to last call's end.

    Of generation: the time from the call to its first token (one per call), all gaps between tokens that follow, and how
    many tokens each call gave per sequence.
    """

    round: int = Field(ge=0)
    position: int = Field(ge=0, le=5)
    arm: Arm
    latencies_ns: tuple[Nanoseconds, ...] = Field(min_length=1)
    raw: Values = Field({})
    uncertainties: Uncertainties = Field({})
    void: Mapping[str, str] = {}
    seconds: float | None = Field(None, gt=0)
    first_token_ns: tuple[Nanoseconds, ...] = ()
    token_gaps_ns: tuple[int, ...] = ()
    num_tokens: tuple[int, ...] = ()
    prefill_cpu_share: float | None = Field(None, ge=0, le=1)


class WarmUp(Spec):
    """What was run and thrown away before the blocks; `not-reached` rows can't be ranked. `reason` says what moved."""

    num_calls: int
    seconds: float
    first_call_s: float
    steady_state: Literal["yes", "not-reached"]
    reason: str = ""


class Idle(Spec):
    """What block meters read while nothing ran: `raw` per `seconds`, with standard uncertainties."""

    when: Literal["before", "after"]
    seconds: float = Field(gt=0)
    raw: Values = Field({})
    uncertainties: Uncertainties = Field({})
    void: Mapping[str, str] = {}


class Outputs(Spec):
    """What the timed calls themselves answered, so that speed, energy and quality are of the same outputs.

    `sha256` is over the answers (label or token ids) to the distinct inputs in their order, in `file` beside the record.
    `is_repeatable` is whether inputs that were met twice got the same answers, None if none was. `num_scored` answers have
    a known right one, and `num_correct` of those are right.
    """

    sha256: str
    num_inputs: int
    is_repeatable: bool | None
    num_scored: int = 0
    num_correct: int = 0
    file: str = ""


class PhaseEnergy(Spec):
    """Mean power of prefill and decode over all blocks of an arm, by regression on the meter's ticks; or why there is none.

    The ticks lie within the blocks, or `is_beside`: in generations beside them, which say the ratio of the two.
    Standard uncertainties (k = 1) without the meter's gain. The joules of a phase are its watts times its seconds.
    """

    prefill_s: float
    decode_s: float
    num_ticks: int
    prefill_w: float | None = None
    decode_w: float | None = None
    prefill_uncertainty_w: float | None = Field(None, ge=0)
    decode_uncertainty_w: float | None = Field(None, ge=0)
    is_beside: bool = False
    reason: str = ""

    @model_validator(mode="after")
    def _has_both_with_uncertainties_or_says_why_not(self) -> PhaseEnergy:
        watts = (self.prefill_w, self.decode_w, self.prefill_uncertainty_w, self.decode_uncertainty_w)
        if any(each is None for each in watts) != all(each is None for each in watts):
            raise ValueError("the watts of both phases need their uncertainties, or there are none")
        if (self.prefill_w is None) != bool(self.reason):
            raise ValueError(f"phases have watts, or a reason why not (got {self.prefill_w}, {self.reason!r})")
        return self


class SweepPoint(Spec):
    """One arm at one batch size of an offline sweep: calls of two passes, each after a warm-up, or why there are none.

    Of a sweep with a limit of latency `is_within_limit` says whether nine calls in ten kept it.
    """

    arm: Arm
    batch_size: int
    samples_per_s: float | None = Field(gt=0)
    num_calls: int
    latencies_ns: tuple[Nanoseconds, ...] = ()
    failure: str = ""
    num_threads: int | None = None
    is_within_limit: bool | None = None


class RateTrial(Spec):
    """One rate of arrivals (Poisson) of the server scenario. Latencies count from the scheduled arrival.

    `quantile_bound_s` is the one-sided 99 % upper bound of the stated quantile, None if there were too few queries;
    `reason` says why a rate was not kept. `load` is the share of time that the worker is busy, `lateness_p99_s` how late an
    idle worker began. `first_token_ns` of a generation counts from the scheduled arrival, too.
    """

    arm: Arm
    round: int
    rate_per_s: float = Field(gt=0)
    num_queries: int
    latencies_ns: tuple[Nanoseconds, ...]
    quantile_bound_s: float | None
    is_kept: bool
    reason: str = ""
    load: float | None = None
    lateness_p99_s: float | None = None
    first_token_ns: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _is_kept_or_says_why_not(self) -> RateTrial:
        if self.is_kept == bool(self.reason) or (self.is_kept and self.quantile_bound_s is None):
            raise ValueError(f"a rate is kept with a bound, or has a reason (got {self.is_kept}, {self.reason!r})")
        return self


class Server(Spec):
    """The highest rate of arrivals at which `quantile` of the queries stays within `limit_s`.

    Each of `num_rounds` finished rounds has one pattern of arrivals. `capacity_per_s` is what the worker answers without
    a pause; `reasons` say, by arm, why no rate or no upper end was found. The highest rate is enclosed to `resolution`.
    """

    quantile: float = Field(gt=0, lt=1)
    limit_s: float = Field(gt=0)
    seed: int
    trials: tuple[RateTrial, ...]
    resolution: float | None = None
    num_rounds: int = 0
    capacity_per_s: Mapping[Arm, float] = {}
    reasons: Mapping[Arm, str] = {}


class Measurement(Spec):
    """Interleaved blocks of baseline, candidate and control on the same inputs, raw, in the order they ran.

    `num_planned_rounds` were asked for; further rounds repeat those that were disturbed, and none is left out.
    `batch_sizes` has the arms whose batch is not `batch_size`: each arm's best of an offline sweep; `thread_counts` has
    each arm's best number of CPU threads where those were tried too. `num_blocks_not_finite` has the arms of which so many
    blocks ended with logits that are no numbers.
    """

    protocol: Literal[1, 2] = 1
    tier: Tier | None = None
    batch_size: int
    num_inputs: int
    warm_up: Mapping[Arm, WarmUp]
    blocks: tuple[Block, ...]
    provenance: Mapping[str, Provenance]
    harness_overhead_ns: float
    calls_per_block: Mapping[Arm, int]
    num_planned_rounds: int | None = None
    isolation: Literal["same-process", "processes"] = "same-process"
    evidence: Evidence | None = None
    rule: DisturbanceRule | None = None
    idle: tuple[Idle, ...] = ()
    outputs: Mapping[Arm, Outputs] = {}
    num_blocks_not_finite: Mapping[Arm, Annotated[int, Field(gt=0)]] = {}
    phases: Mapping[Arm, PhaseEnergy] = {}
    batch_sizes: Mapping[Arm, int] = {}
    thread_counts: Mapping[Arm, int] = {}
    sweep: tuple[SweepPoint, ...] = ()
    server: Server | None = None

    @model_validator(mode="after")
    def _every_joule_says_how_it_was_read(self) -> Measurement:
        if self.protocol == 1:
            return self
        for name in self._energies():
            how = self.provenance.get(name)
            if how is None or not how.boundary:
                raise ValueError(f"'{name}' needs a provenance with a boundary (got {how})")
            if how.tick_s is None and how.kind != "modelled":
                raise ValueError(f"'{name}' is {how.kind} and needs the tick of its meter")
            if how.relative_uncertainty is None and not how.uncertainty_reason:
                raise ValueError(f"'{name}' needs a relative_uncertainty, or an uncertainty_reason")
        return self

    def _energies(self) -> Iterator[str]:
        windows: list[Block | Idle] = [*self.blocks, *self.idle]
        for window in windows:
            for name in filter(is_energy, window.raw):
                if window.seconds is None or name not in window.uncertainties:
                    raise ValueError(f"'{name}' of a block or of idle needs its window's seconds and its uncertainty")
                yield name
        if any(phases.prefill_w is not None for phases in self.phases.values()):
            yield OF_PHASES
