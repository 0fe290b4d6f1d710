"""Contenders with numbers that the test chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressbench.report.figures import Contender, Figure


def contender(name: str = "int8", figures: Mapping[str, Figure] | None = None, **changed: Any) -> Contender:
    """A candidate whose one metric is accuracy; the baseline if it is called so."""
    fields: dict[str, Any] = {
        "at": 0,
        "recipe": "example",
        "candidate": name,
        "role": "baseline" if name == "baseline" else "candidate",
        "status": "ok",
        "run_id": "run",
        "model": "model",
        "steps": name,
        "comparability_key": "key",
        "baseline_id": "base",
        "metrics": ("accuracy",),
        "faults": (),
        "unsteady": (),
        "figures": figures or {},
    }
    return Contender(**{**fields, **changed})


def score(value: float, difference: float, half: float, **changed: Any) -> Figure:
    """A metric of which more is better, with its paired difference."""
    before = value - difference
    return Figure(
        value=value,
        low=value - 0.01,
        high=value + 0.01,
        kind="measured",
        direction="higher",
        verdict="inconclusive",
        difference=difference,
        difference_low=difference - half,
        difference_high=difference + half,
        ratio=value / before,
        ratio_low=(value - half) / before,
        ratio_high=(value + half) / before,
    )._replace(**changed)


def cost(value: float, half: float, ratio: float = 1.0, times: float = 1.0, **changed: Any) -> Figure:
    """A timed cost with its own interval, and its paired ratio between ratio / times and ratio * times."""
    return Figure(
        value=value,
        low=value - half,
        high=value + half,
        kind="measured",
        ratio=ratio,
        ratio_low=ratio / times,
        ratio_high=ratio * times,
    )._replace(**changed)


def counted(value: float, ratio: float | None = None) -> Figure:
    return Figure(value, kind="measured", ratio=ratio, ratio_low=ratio, ratio_high=ratio)
