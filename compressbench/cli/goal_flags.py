"""Goals as flags, shared by `recommend` and `gate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressbench.core.errors import InputError

if TYPE_CHECKING:
    from compressbench.report.goals import Goal
    from compressbench.report.policy import Policy

_PANEL = "Goals"


def _option(name: str, text: str, **more: Any) -> Any:
    return typer.Option(name, help=text, rich_help_panel=_PANEL, show_default=False, **more)


PolicyFile = Annotated[Path | None, typer.Option("--policy", help="Goals from a YAML file.", show_default=False)]
MaxLatencyP95 = Annotated[float | None, _option("--max-latency-p95-s", "95th percentile of latency, in seconds.")]
MaxMemory = Annotated[float | None, _option("--max-memory-gb", "Peak memory, in GB of 1e9 bytes.")]
MaxSize = Annotated[float | None, _option("--max-size-gb", "Size on disk, in GB of 1e9 bytes.")]
MaxEnergy = Annotated[float | None, _option("--max-energy-j", "Energy per inference, in joules.")]
MinThroughput = Annotated[float | None, _option("--min-throughput", "Samples per second.")]
MaxAccuracyDrop = Annotated[
    float | None,
    _option("--max-accuracy-drop", "Loss of every task metric of which more is better, in its unit (0.01: one point)."),
]
MaxStratumDrop = Annotated[
    float | None, _option("--max-stratum-drop", "Loss of any capability (0.05: five points).", min=0)
]
Goals = Annotated[
    list[str] | None,
    _option(
        "--goal",
        "Any other goal, as accuracy:mlperf=99.9. TYPE: threshold, max-degradation, percent-max-degradation, "
        "min-improvement, percent-min-improvement, recovery_threshold, max_drop, mlperf. May be repeated.",
        metavar="NAME:TYPE=X",
    ),
]
_THRESHOLDS = {
    "max_latency_p95_s": ("latency_p95_s", 1.0),
    "max_memory_gb": ("memory", 1e9),
    "max_size_gb": ("size", 1e9),
    "max_energy_j": ("energy_j_per_inference", 1.0),
    "min_throughput": ("throughput_per_s", 1.0),
}


def read_policy(path: Path | None, numbers: Mapping[str, float | None], goals: Sequence[str], **said: Any) -> Policy:
    """The file's policy with what the flags say instead. `numbers` are the flags' values by parameter."""
    from compressbench.report.policy import Policy, overridden

    asked = [goal for name, value in numbers.items() if value is not None for goal in _goals(name, value)]
    asked += [goal for text in goals for goal in _parsed(text)]
    flags = Policy(goals=tuple(asked), **said)
    if path is None:
        return flags
    from compressbench.report.policy_file import load_policy

    return overridden(load_policy(path), flags)


def _goals(name: str, value: float) -> list[Goal]:
    figure, scale = _THRESHOLDS.get(name, ("accuracy", 1.0))
    word = "threshold" if name in _THRESHOLDS else "max-degradation"
    return _checked(f"--{name.replace('_', '-')}", figure, word, scale * value)


def _parsed(text: str) -> list[Goal]:
    figure, _, rest = text.rpartition(":")
    word, is_there, value = rest.partition("=")
    if not figure or not is_there:
        raise InputError("a goal is NAME:TYPE=VALUE", where="--goal", got=f"'{text}'", do="As accuracy:mlperf=99.")
    try:
        return _checked("--goal", figure, word, value if value.strip().endswith("%") else float(value))
    except ValueError:
        raise InputError("a goal's value must be a number", where="--goal", got=f"'{text}'") from None


def _checked(flag: str, figure: str, word: str, value: float | str) -> list[Goal]:
    from compressbench.report.goals import goals_of

    goals, wrong = goals_of(figure, {word: value})
    if wrong:
        raise InputError(wrong[0].what, where=flag, got=wrong[0].got or f"{word}={value}", do=wrong[0].do)
    return [goal._replace(where=flag) for goal in goals]
