"""Two meters over the same windows: how far apart are they?

Zeus found polled power within 1 % of the energy counter on most cards (its issue 12) and 74 % away on one (issue 181):
a counter can be wrong, and only a second instrument shows it.
"""

from __future__ import annotations

import math

from compressbench.records.measurement import Measurement

CROSSCHECK = "crosscheck_"
MAX_APART = 0.05


def meters_disagree(primary_j: float, crosscheck_j: float) -> str:
    """The flag for two meters that are more than 5 % of the first apart over the same windows (joules); "" if they agree.

    Two numbers that can't be compared (not finite, not positive) don't agree either, and the flag says so.
    """
    if not (math.isfinite(primary_j) and math.isfinite(crosscheck_j) and primary_j > 0 and crosscheck_j >= 0):
        return f"the meters can't be compared: {primary_j:g} J and {crosscheck_j:g} J"
    if abs(crosscheck_j - primary_j) <= MAX_APART * primary_j:
        return ""
    apart = crosscheck_j / primary_j - 1
    return f"the meters disagree: {primary_j:.4g} J, but the second read {crosscheck_j:.4g} J ({apart:+.1%})"


def disagreement(measurement: Measurement, name: str = "energy_j") -> str:
    """The flag over all windows that both meters read, idle ones too; "" if they agree or there is nothing to compare.

    Like is compared with like only: an estimate of one process beside a counter of the whole package differs by
    construction, so that both have to be measured.
    """
    other = CROSSCHECK + name
    kinds = {each.kind for key in (name, other) if (each := measurement.provenance.get(key)) is not None}
    raws = (*(block.raw for block in measurement.blocks), *(idle.raw for idle in measurement.idle))
    both = [raw for raw in raws if name in raw and other in raw]
    if kinds != {"measured"} or not both:
        return ""
    return meters_disagree(math.fsum(raw[name] for raw in both), math.fsum(raw[other] for raw in both))
