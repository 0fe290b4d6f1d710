"""Under which conditions a table's numbers hold, in one line, or in several that break between what it is made of."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from compressbench.core.names import number_of
from compressbench.core.units import humanize
from compressbench.records.record import Record

_BETWEEN, _END = " · ", " ·"
_WITHOUT_TOKENS = ("image-classification", "click-prediction")


def heading(record: Record) -> str:
    """Recipe, model, machine, threads, workload and date of a record."""
    return f"{conditions(record)} · {record.created_utc[:10]}"


def conditions(record: Record) -> str:
    """The same without the date: what records must share to stand in one table."""
    environment, workload = record.environment, record.workload
    gpus = environment.gpus or ()
    device = gpus[0].name if record.device.startswith("cuda") and gpus else environment.cpu_model
    generated = workload.get("output_tokens")
    parts = [
        record.recipe.name,
        record.recipe.text["model"]["id"],
        f"{device or 'unknown processor'}, {number_of(environment.num_threads or '?', 'thread')}",
        f"{workload['scenario']}, {_batch(workload)}{_length(record)}"
        + (f" and {generated} generated" if generated else "")
        + _limit(workload)
        + (f", tier {workload['tier']}" if "tier" in workload else ""),
    ]
    return _BETWEEN.join(parts)


def workload_and_machine(conditions: str) -> tuple[str, str]:
    """The last two parts of a record's conditions; the others are names, and names may be anything."""
    *_, machine, workload = conditions.split(_BETWEEN)
    return workload, machine


def wrapped(text: str, width: int) -> list[str]:
    """A heading's lines, each with as many whole parts as fit; only a part that alone is too long is broken within."""
    lines, line = list[str](), ""
    for part in text.split(_BETWEEN):
        if not line:
            line = part
        elif len(f"{line}{_BETWEEN}{part}") + len(_END) <= width:
            line = f"{line}{_BETWEEN}{part}"
        else:
            lines.append(f"{line}{_END}")
            line = part
    return [piece for each in (*lines, line) for piece in textwrap.wrap(each, max(1, width))]


def _length(record: Record) -> str:
    """Pictures and clicks have no tokens."""
    has_none = any(score.task in _WITHOUT_TOKENS for score in record.scores)
    return "" if has_none else f", {record.workload['sequence_length']} tokens"


def _limit(workload: Mapping[str, Any]) -> str:
    limit = workload.get("latency_limit_s")
    return f" within {humanize(limit, 's')}" if limit else ""


def _batch(workload: Mapping[str, Any]) -> str:
    tried = workload.get("batch_sizes")
    return f"best batch of {', '.join(map(str, tried))}" if tried else f"batch {workload['batch_size']}"
