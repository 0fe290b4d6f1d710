"""Gross and net energy: what was drawn, and what was drawn beyond what the idle machine draws.

Gross is what is ranked (ISO/IEC 21031, SCI: all of the reserved hardware, idle included). Net = gross - idle power x time
says what the work itself added. Leaving idle out can halve a number (arXiv:2508.15734: 0.10 against 0.24 Wh per prompt).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from compressbench.core.protocols import Provenance
from compressbench.records.measurement import Block, Idle, Measurement

OF_THIS_PROCESS = "this process"
"""Stands in the boundary of what counts one process: its idle power is nothing by construction."""


class IdlePower(NamedTuple):
    """Watts while nothing ran, with standard uncertainty (k = 1, without the instrument's gain), or the reason for none.

    `drift_w` is the power after the blocks minus that before them; the uncertainty has it in it.
    """

    watts: float | None = None
    uncertainty_w: float | None = None
    drift_w: float | None = None
    reason: str = ""


class Net(NamedTuple):
    """Joules above idle, with standard uncertainty (k = 1, without the gain, which is relative to them), or a reason."""

    joules: float | None = None
    uncertainty_j: float | None = None
    reason: str = ""


def idle_power(idles: Sequence[Idle], provenance: Provenance | None, name: str = "energy_j") -> IdlePower:
    """The idle power between the windows before and after.

    Somewhere between the two it lies, nobody knows where: half the sum, and a rectangular distribution of the drift's
    width (GUM 4.3.7) joins the uncertainties of the windows.
    """
    reason = _why_not(provenance)
    if reason:
        return IdlePower(reason=reason)
    before, after = (_mean_power(idles, when, name) for when in ("before", "after"))
    if before is None or after is None:
        when = "before" if before is None else "after"
        return IdlePower(reason=f"idle was not read {when} the blocks{_void(idles, when)}")
    drift = after[0] - before[0]
    uncertainty = math.sqrt((before[1] ** 2 + after[1] ** 2) / 4 + drift**2 / 12)
    return IdlePower((before[0] + after[0]) / 2, uncertainty, drift)


def net_energy(gross_j: float, uncertainty_j: float, seconds: float, idle: IdlePower) -> Net:
    """Gross minus idle power x `seconds`. A net that isn't told apart from nothing (2 standard uncertainties) is none."""
    if idle.watts is None or idle.uncertainty_w is None:
        return Net(reason=idle.reason)
    net = gross_j - idle.watts * seconds
    uncertainty = math.hypot(uncertainty_j, idle.uncertainty_w * seconds)
    if net <= 2 * uncertainty:
        return Net(reason=f"not told apart from idle: {net:.3g} J above it, ± {uncertainty:.2g} J")
    return Net(net, uncertainty)


def net_of(measurement: Measurement, blocks: Sequence[Block], name: str = "energy_j") -> Net:
    """The net energy of `blocks` together, those without a value left out; divide by what they did yourself."""
    idle = idle_power(measurement.idle, measurement.provenance.get(name), name)
    read = [block for block in blocks if name in block.raw and block.seconds is not None]
    if not read:
        return Net(reason=f"no block has '{name}'")
    gross = math.fsum(block.raw[name] for block in read)
    seconds = math.fsum(block.seconds or 0.0 for block in read)
    return net_energy(gross, math.hypot(*(block.uncertainties.get(name, 0.0) for block in read)), seconds, idle)


def _why_not(provenance: Provenance | None) -> str:
    if provenance is None:
        return "no energy was read"
    if OF_THIS_PROCESS in provenance.boundary:
        return "only this process is counted, whose idle power is nothing by construction: gross is all there is"
    if provenance.kind != "measured":
        return f"idle power can't be {provenance.kind}: it has to be measured"
    return ""


def _mean_power(idles: Sequence[Idle], when: str, name: str) -> tuple[float, float] | None:
    """Watts over all windows of that time, and their standard uncertainty."""
    found = [idle for idle in idles if idle.when == when and name in idle.raw]
    if not found:
        return None
    seconds = math.fsum(idle.seconds for idle in found)
    uncertainty = math.hypot(*(idle.uncertainties.get(name, 0.0) for idle in found))
    return math.fsum(idle.raw[name] for idle in found) / seconds, uncertainty / seconds


def _void(idles: Sequence[Idle], when: str) -> str:
    reasons = [reason for idle in idles if idle.when == when for reason in idle.void.values()]
    return f": {'; '.join(dict.fromkeys(reasons))}" if reasons else ""
