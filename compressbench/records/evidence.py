"""What disturbed a measurement: read between blocks, judged by a rule that was fixed before the run.

Columns, one value per block in the order of the blocks: None where a block's value couldn't be read, and an empty column
where the machine doesn't give it at all; `unread` has the reason of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from compressbench.core.errors import RecordError
from compressbench.core.spec import Spec

Column = tuple[float | None, ...]

# NVML's nvmlClocksEventReason bits that slow a GPU down against its request
THROTTLES = {
    0x4: "SwPowerCap", 0x8: "HwSlowdown", 0x10: "SyncBoost", 0x20: "SwThermalSlowdown", 0x40: "HwThermalSlowdown",
    0x80: "HwPowerBrakeSlowdown",
}  # fmt: skip
THROTTLE_BITS = sum(THROTTLES)

NO_EVIDENCE = "no evidence could be read"
NO_GPU_EVIDENCE = "no evidence of the GPU could be read"
# at least one of them has to be there: the others can't see that somebody else computes
_SEES_OTHERS = ("foreign_share", "run_queue_wait_share")
_SEES_THE_GPU = ("gpu_throttle_reasons", "gpu_sm_clock_hz", "gpu_num_other_processes")
_CLOCKS = {"gpu_sm_clock_hz": "GPU clock dropped", "gpu_memory_clock_hz": "GPU memory clock dropped"}


class DisturbanceRule(Spec):
    """Above which values a block counts as disturbed, and below which share of clean blocks a row is contended.

    Shares of the machine are of all its cores' time; those of waiting and throttling are of the block's wall time.
    `max_clock_drop` is against the upper quartile of the same arm's blocks: a clock that is low throughout shows in the
    throttle reasons.
    """

    max_foreign_share: float = 0.05
    max_steal_share: float = 0.02
    max_run_queue_wait_share: float = 0.02
    max_throttled_share: float = 0.0
    throttle_bits: int = THROTTLE_BITS
    max_clock_drop: float = 0.02
    max_other_gpu_processes: int = 0
    min_clean_share: float = 0.8


class Evidence(Spec):
    """Of every block: how much CPU it got, and what else the machine did meanwhile.

    All cores are those that this process may run on. `notes` are settings of the device that no block changes.
    """

    cpu_share: Column = Field((), description="CPU time of this process, per wall second")
    foreign_share: Column = Field((), description="CPU time of other processes, per second of all cores")
    steal_share: Column = Field((), description="time that a hypervisor gave to others, per second of all cores")
    share_resolution: Column = Field(
        (), description="how much of the two shares above the coarse ticks of the machine's counters can make up"
    )
    run_queue_wait_share: Column = Field(
        (), description="time that the one of our threads which waited longest waited for a CPU, per wall second"
    )
    pressure_share: Column = Field((), description="time in which some process waited for a CPU, per wall second")
    throttled_share: Column = Field(
        (), description="time a cgroup's CPU quota stood in the way, summed over cores, per wall second"
    )
    num_involuntary_switches: Column = ()
    cpu_frequency_hz: Column = Field((), description="of the core that ran the measuring thread, at the block's end")
    gpu_sm_clock_hz: Column = Field((), description="mean of the samples in the block")
    gpu_memory_clock_hz: Column = Field((), description="mean of the samples in the block")
    gpu_throttle_reasons: Column = Field((), description="NVML's clocks event reasons, or-ed over the block")
    gpu_temperature_c: Column = Field((), description="highest of the samples in the block")
    gpu_power_limit_w: Column = ()
    gpu_num_other_processes: Column = ()
    notes: tuple[str, ...] = ()
    unread: Mapping[str, str] = {}


def disturbances(
    evidence: Evidence, rule: DisturbanceRule, num_blocks: int, arms: Sequence[str] = ()
) -> list[tuple[str, ...]]:
    """Per block the reasons why it counts as disturbed; an empty one is clean.

    A block of which nothing could be read that sees other processes isn't clean: its reason is `NO_EVIDENCE`. `arms`, one
    per block, lets clocks be compared within an arm, because a model's own load moves them. Raises RecordError if a
    column hasn't a value per block.
    """
    columns = _columns(evidence, num_blocks)
    if arms and len(arms) != num_blocks:
        raise RecordError(f"there are {len(arms)} arms for {num_blocks} blocks")
    usual = {name: _usual_clocks(columns.get(name, ()), arms) for name in _CLOCKS}
    found = []
    for at in range(num_blocks):
        block = {name: column[at] for name, column in columns.items()}
        reference = {name: usual[name].get(arms[at] if arms else "") for name in _CLOCKS}
        is_on_gpu = any(name.startswith("gpu_") for name in evidence.unread)
        found.append((*_missing(block, is_on_gpu), *_on_cpu(block, rule), *_on_gpu(block, reference, rule)))
    return found


def disturbed_rounds(
    evidence: Evidence, rule: DisturbanceRule, rounds: Sequence[int], arms: Sequence[str] = ()
) -> dict[int, tuple[str, ...]]:
    """The rounds to repeat, in order, each with the distinct reasons of its blocks. `rounds` has the round of each block.

    One disturbed block makes its round disturbed, because the round is what the statistics take as one value.
    """
    found: dict[int, dict[str, None]] = {}
    for number, reasons in zip(rounds, disturbances(evidence, rule, len(rounds), arms), strict=True):
        if reasons:
            found.setdefault(number, {}).update(dict.fromkeys(reasons))
    return {number: tuple(found[number]) for number in sorted(found)}


def is_contended(disturbed: Sequence[tuple[str, ...]], rule: DisturbanceRule) -> bool:
    """Whether too few blocks are clean for the row to be ranked; no blocks at all are too few."""
    num_clean = sum(not reasons for reasons in disturbed)
    return not disturbed or num_clean < rule.min_clean_share * len(disturbed) - 1e-9


def contention(disturbed: Sequence[tuple[str, ...]], rule: DisturbanceRule) -> str:
    """Why the row is contended, in words with counts, most frequent reason first; empty if it isn't."""
    if not is_contended(disturbed, rule):
        return ""
    counts = Counter(reason for reasons in disturbed for reason in reasons)
    why = ", ".join(f"{reason} in {count}" for reason, count in counts.most_common())
    return f"{sum(not reasons for reasons in disturbed)} of {len(disturbed)} blocks are clean" + (why and f": {why}")


def _columns(evidence: Evidence, num_blocks: int) -> dict[str, Column]:
    """Those that were read, by name."""
    columns: dict[str, Column] = {
        name: column
        for name in Evidence.model_fields
        if name not in ("notes", "unread") and (column := getattr(evidence, name))
    }
    for name, column in columns.items():
        if len(column) != num_blocks:
            raise RecordError(f"the evidence '{name}' has {len(column)} values for {num_blocks} blocks")
    return columns


def _missing(block: Mapping[str, float | None], is_on_gpu: bool) -> Iterator[str]:
    if all(block.get(name) is None for name in _SEES_OTHERS):
        yield NO_EVIDENCE
    if is_on_gpu and all(block.get(name) is None for name in _SEES_THE_GPU):
        yield NO_GPU_EVIDENCE


def _on_cpu(block: Mapping[str, float | None], rule: DisturbanceRule) -> Iterator[str]:
    resolution = block.get("share_resolution") or 0.0
    limits = {
        "foreign_share": (rule.max_foreign_share + resolution, "foreign load"),
        "steal_share": (rule.max_steal_share + resolution, "steal"),
        "run_queue_wait_share": (rule.max_run_queue_wait_share, "run-queue wait"),
        "throttled_share": (rule.max_throttled_share, "CPU quota"),
    }
    for name, (limit, reason) in limits.items():
        value = block.get(name)
        if value is not None and value > limit:
            yield reason


def _on_gpu(
    block: Mapping[str, float | None], usual: Mapping[str, float | None], rule: DisturbanceRule
) -> Iterator[str]:
    bits = int(block.get("gpu_throttle_reasons") or 0) & rule.throttle_bits
    if bits:
        names = [name for bit, name in THROTTLES.items() if bits & bit]
        yield f"GPU throttled ({', '.join(names) or hex(bits)})"
    for name, reason in _CLOCKS.items():
        value, reference = block.get(name), usual[name]
        if value is not None and reference is not None and value < (1 - rule.max_clock_drop) * reference:
            yield reason
    others = block.get("gpu_num_other_processes")
    if others is not None and others > rule.max_other_gpu_processes:
        yield "other processes on the GPU"


def _usual_clocks(column: Column, arms: Sequence[str]) -> dict[str, float]:
    """By arm (all blocks are of the arm "" if none are given) the clock that a quarter of the blocks reach."""
    by_arm: dict[str, list[float]] = {}
    for at, value in enumerate(column):
        if value is not None:
            by_arm.setdefault(arms[at] if arms else "", []).append(value)
    return {arm: sorted(values)[-(-3 * (len(values) - 1) // 4)] for arm, values in by_arm.items()}
