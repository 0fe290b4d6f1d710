"""What may be said of one number of a candidate against the baseline's."""

from __future__ import annotations

from compressbench.core.spec import Spec


class Verdict(Spec):
    """`ratio` is candidate / baseline with its 95 % interval. For a task metric `difference` is in the metric's unit.

    verdict: faster | slower | lower | higher | same | undecided for costs, and degraded | equivalent | improved |
    inconclusive for task metrics. `reason` says why nothing more can be said. The `clean_` ratio is over undisturbed rounds
    only, where some were disturbed; the verdict is on all. `baseline_value` is what the baseline took in the blocks that
    the ratio is of.

    Of task metrics: `p_value` is of a difference, `p_adjusted` of the same among all of the run (Holm), `p_equivalent` of
    TOST at the declared `margin`, adjusted likewise. `smallest_detectable` is the difference that these samples would show
    with 80 % power, `num_samples_needed` how many would settle an inconclusive one. `noise` is what the baseline differs
    from itself: in speed, or in a metric. Where a metric `is_log` (perplexity), `margin` and `smallest_detectable` are
    fractions of the baseline's value, and `noise` is in nats.
    """

    verdict: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    p_equivalent: float | None = None
    margin: float | None = None
    smallest_detectable: float | None = None
    num_samples_needed: int | None = None
    num_harmful: int | None = None
    num_beneficial: int | None = None
    noise: float | None = None
    is_log: bool = False
    baseline_value: float | None = None
    clean_ratio: float | None = None
    clean_low: float | None = None
    clean_high: float | None = None
    reason: str = ""
