"""A gate on capabilities: no candidate may lose more than so much in any of them, whatever the mean says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from compressbench.core.names import one_line
from compressbench.report.rows import Row

Outcome = Literal["passed", "failed", "inconclusive"]
EXIT_CODES: dict[Outcome, int] = {"passed": 0, "failed": 1, "inconclusive": 2}


class Gate(NamedTuple):
    outcome: Outcome
    lines: list[str]


def stratum_gate(rows: Iterable[Row], max_drop: float) -> Gate:
    """Passed if the whole interval of every loss is at most `max_drop`, failed if one lies wholly above it.

    `max_drop` is in the metric's unit (0.05 is five points), of a perplexity a fraction of the baseline's. Rows without a
    stratum, implausible ones included, leave the gate inconclusive: what was not asked can't pass.
    """
    outcomes: list[Outcome] = []
    lines: list[str] = []
    for row in rows:
        if row.role != "candidate":
            continue
        if not row.strata or row.implausible:
            outcomes.append("inconclusive")
            lines.append(one_line(f"inconclusive {row.candidate}: {row.implausible or 'no task of it has a stratum'}"))
        for stratum in row.strata:
            outcome = _outcome(stratum.loss_low, stratum.loss_high, max_drop)
            outcomes.append(outcome)
            if outcome != "passed":
                interval = f"{stratum.loss:.4g} [{stratum.loss_low:.4g}, {stratum.loss_high:.4g}]"
                what = f"{stratum.name}{': ' + stratum.metric if stratum.metric else ''} lost {interval}"
                lines.append(one_line(f"{outcome} {row.candidate}: {what}, at most {max_drop:g} allowed"))
    worst: Outcome = "passed" if outcomes else "inconclusive"
    worst = "failed" if "failed" in outcomes else "inconclusive" if "inconclusive" in outcomes else worst
    return Gate(worst, lines or [f"passed: no stratum of any candidate lost more than {max_drop:g}"])


def _outcome(low: float, high: float, max_drop: float) -> Outcome:
    return "failed" if low > max_drop else "passed" if high <= max_drop else "inconclusive"
