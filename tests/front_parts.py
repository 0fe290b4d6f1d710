"""Contenders made up for tests of ranks and fronts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressbench.report.figures import Contender, Figure

Z95 = 1.959963984540054


def score(difference: float, error: float, *, before: float = 0.9) -> Figure:
    """An accuracy, and its difference from the baseline's with a standard error."""
    half = Z95 * error
    return Figure(
        value=before + difference,
        low=before + difference - 0.01,
        high=before + difference + 0.01,
        direction="higher",
        difference=difference,
        difference_low=difference - half,
        difference_high=difference + half,
    )


def cost(ratio: float, spread: float = 0.0, *, before: float = 1e8) -> Figure:
    """A cost, and its ratio to the baseline's, whose interval goes from ratio / (1 + spread) to ratio * (1 + spread)."""
    low, high = ratio / (1 + spread), ratio * (1 + spread)
    return Figure(before * ratio, before * low, before * high, ratio=ratio, ratio_low=low, ratio_high=high)


def contender(name: str, figures: Mapping[str, Figure], **changed: Any) -> Contender:
    fields: dict[str, Any] = {
        "at": 0,
        "recipe": "example",
        "candidate": name,
        "role": "baseline" if name == "baseline" else "candidate",
        "status": "ok",
        "run_id": "20261122T074513.926665Z",
        "model": "embedded:minilm-banking77",
        "steps": "",
        "comparability_key": "key",
        "baseline_id": "the baseline",
        "metrics": ("accuracy",),
        "faults": (),
        "unsteady": (),
        "figures": figures,
    }
    return Contender(**{**fields, **changed})


def baseline() -> Contender:
    own = Figure(1e8, 1e8, 1e8)
    figures = {"accuracy": Figure(0.9, 0.89, 0.91, direction="higher"), "disk_bytes": own, "latency_p50_s": own}
    return contender("baseline", figures)


def candidate(
    name: str, lost: float, size: float, *, error: float = 0.002, latency: float | None = None, **changed: Any
) -> Contender:
    """Loses so much accuracy, is so large and so slow in parts of the baseline."""
    figures = {"accuracy": score(-lost, error), "disk_bytes": cost(size)}
    if latency is not None:
        figures["latency_p50_s"] = cost(latency, 0.02)
    return contender(name, figures, **changed)
