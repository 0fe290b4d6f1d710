"""What a group of rows is called: its recipe, and below it model, question, workload and machine in few words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from compressbench.core.names import one_line
from compressbench.report.figures import Contender
from compressbench.report.rows import Row

_MOST_NAMED = 2


def title_of(contenders: Sequence[Contender]) -> str:
    """The recipes' names, of many only how many."""
    return _listed([each.recipe for each in contenders], "recipes")


def subtitle_of(contenders: Sequence[Contender], row: Row) -> str:
    """`minilm-banking77 · single-stream, batch 1, 32 tokens · AMD EPYC, 2 threads`"""
    models = _listed([re.sub(r".*[/:]", "", each.model) or each.model for each in contenders], "models")
    return " · ".join(part for part in (models, _workload(row), _machine(row)) if part)


def _workload(row: Row) -> str:
    asked = dict(part.rpartition(" ")[::2] for part in row.conditions.get("workload", "").split(", "))
    batch, length, generated = (asked.get(name) for name in ("batch_size", "sequence_length", "output_tokens"))
    parts = [row.scenario, f"batch {batch}" if batch else "", f"{length} tokens" if length else ""]
    return one_line(", ".join(part for part in parts if part) + (f" and {generated} generated" if generated else ""))


def _machine(row: Row) -> str:
    """The processor's name; its flags stand among the conditions."""
    hardware = re.sub(r", \w+ \([^)]*\)", "", row.conditions.get("hardware", "")).partition("; ")[0]
    threads = row.conditions.get("threads", "").partition(" ")[0]
    return one_line(f"{hardware}, {threads} threads" if threads not in ("", "?") else hardware)


def _listed(names: Sequence[str], what: str) -> str:
    distinct = list(dict.fromkeys(one_line(name) for name in names))
    return ", ".join(distinct) if len(distinct) <= _MOST_NAMED else f"{len(distinct)} {what}"
