"""Under which conditions a table's numbers hold, in one line, or in several that break between what it is made of."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from compressbench.records.record import Record

_BETWEEN, _END = " · ", " ·"


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
        f"{device or 'unknown processor'}, {environment.num_threads or '?'} threads",
        f"{workload['scenario']}, {_batch(workload)}{_length(record)}"
        + (f" and {generated} generated" if generated else "")
        + (f", tier {workload['tier']}" if "tier" in workload else ""),
    ]
    return _BETWEEN.join(parts)


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
    """Pictures have no tokens."""
    is_of_pictures = any(score.task == "image-classification" for score in record.scores)
    return "" if is_of_pictures else f", {record.workload['sequence_length']} tokens"


def _batch(workload: Mapping[str, Any]) -> str:
    tried = workload.get("batch_sizes")
    return f"best batch of {', '.join(map(str, tried))}" if tried else f"batch {workload['batch_size']}"
