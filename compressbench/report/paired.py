"""Ratios of interleaved blocks: candidate over baseline, and control over baseline, which is noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from compressbench.core.statistics import Interval, log_ratio_interval, median
from compressbench.records.evidence import disturbed_rounds
from compressbench.records.measurement import Arm, Block, Measurement

# a quantity that more windows than this lack is absent, not thinned out
MAX_VOID_SHARE = 0.2
ValueOf = Callable[[Block], float | None]


class Quantity(NamedTuple):
    """What is compared block by block, and the words for a lower and a higher value than the baseline's."""

    value_of: ValueOf
    words: tuple[str, str]


def quantities(measurement: Measurement) -> dict[str, Quantity]:
    """The quantities that blocks can have, by their names in tables; each positive, and lower is better."""
    speed, cost = ("faster", "slower"), ("lower", "higher")
    samples = _samples_of(measurement)
    return {
        "latency_p50_s": Quantity(lambda block: median(block.latencies_ns) / 1e9, speed),
        "seconds_per_sample": Quantity(lambda block: median(block.latencies_ns) / 1e9 / samples(block), speed),
        "ttft_p50_s": Quantity(lambda block: _median_s(block.first_token_ns), speed),
        "tpot_p50_s": Quantity(_seconds_per_token, speed),
        "seconds_per_output_token": Quantity(lambda block: _seconds_per_output(block, samples(block)), speed),
        "energy_j_per_inference": Quantity(lambda block: _energy_per(block, samples(block)), cost),
        "energy_j_per_output_token": Quantity(lambda block: _energy_per_token(block, samples(block)), cost),
    }


def paired_ratio(
    measurement: Measurement, value_of: ValueOf, arm: Arm = "candidate", without: Iterable[int] = ()
) -> Interval | None:
    """`arm` / baseline, geometric mean over rounds, each the mean of the blocks that the arm has in it.

    The round is the unit because its mirrored order cancels a drift. Rounds in which an instrument has no value are left
    out if they are few; None where they are many, or below two rounds.
    """
    rounds: dict[int, dict[Arm, list[float]]] = {}
    void = set(without)
    num_rounds = len({block.round for block in measurement.blocks} - void)
    for block in measurement.blocks:
        if block.arm in ("baseline", arm) and block.round not in void:
            value = value_of(block)
            if value is None or value <= 0:
                void.add(block.round)
                continue
            rounds.setdefault(block.round, {}).setdefault(block.arm, []).append(math.log(value))
    whole = [means for number, means in rounds.items() if number not in void]
    if len(whole) < max(2.0, (1 - MAX_VOID_SHARE) * num_rounds):
        return None
    means = [{each: math.exp(sum(logs) / len(logs)) for each, logs in arms.items()} for arms in whole]
    return log_ratio_interval([mean["baseline"] for mean in means], [mean[arm] for mean in means])


def control_noise(measurement: Measurement, value_of: ValueOf) -> float | None:
    """The largest |ratio - 1| that the interval of control / baseline holds; None without a control."""
    ratio = paired_ratio(measurement, value_of, "control") if measurement.protocol >= 2 else None
    return None if ratio is None else largest_effect(ratio)


def largest_effect(ratio: Interval) -> float:
    return max(abs(ratio.low - 1), abs(ratio.high - 1))


def clean_ratio(measurement: Measurement, value_of: ValueOf) -> Interval | None:
    """The ratio over undisturbed rounds only; None if nothing was disturbed, nothing was read, or too little is left."""
    if measurement.evidence is None or measurement.rule is None:
        return None
    rounds, arms = zip(*((block.round, block.arm) for block in measurement.blocks), strict=True)
    disturbed = disturbed_rounds(measurement.evidence, measurement.rule, rounds, arms)
    return paired_ratio(measurement, value_of, without=disturbed) if disturbed else None


def _samples_of(measurement: Measurement) -> Callable[[Block], int]:
    """Samples per call: the batch size of the block's arm."""
    of_arm, common = measurement.batch_sizes, measurement.batch_size
    return lambda block: of_arm.get(block.arm, common)


def _median_s(nanoseconds: tuple[int, ...]) -> float | None:
    return median(nanoseconds) / 1e9 if nanoseconds else None


def _seconds_per_token(block: Block) -> float | None:
    """Mean gap between tokens after the first: the sum of gaps over their number (TPOT weighted by tokens)."""
    return sum(block.token_gaps_ns) / len(block.token_gaps_ns) / 1e9 if block.token_gaps_ns else None


def _seconds_per_output(block: Block, batch_size: int) -> float | None:
    """Of whole calls, their prompts' time included."""
    count = sum(block.num_tokens)
    return sum(block.latencies_ns) / 1e9 / count / batch_size if count else None


def _energy_per(block: Block, batch_size: int) -> float | None:
    energy = block.raw.get("energy_j")
    return None if energy is None else energy / len(block.latencies_ns) / batch_size


def _energy_per_token(block: Block, batch_size: int) -> float | None:
    energy, count = block.raw.get("energy_j"), sum(block.num_tokens)
    return energy / count / batch_size if energy is not None and count else None
