"""What a group of rows is called: its recipe, and below it model, question, workload and machine in few words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from compressbench.core.names import one_line
from compressbench.report.figures import Contender
from compressbench.report.heading import workload_and_machine

_MOST_NAMED = 2


def title_of(contenders: Sequence[Contender]) -> str:
    """The recipes' names, of many only how many."""
    return _listed([each.recipe for each in contenders], "recipes")


def subtitle_of(contenders: Sequence[Contender], conditions: str) -> str:
    """`minilm-banking77 · single-stream, batch 1, 32 tokens · AMD EPYC, 2 threads`, as the heading of a table has it."""
    models = _listed([re.sub(r".*[/:]", "", each.model) or each.model for each in contenders], "models")
    return " · ".join(part for part in (models, *map(one_line, workload_and_machine(conditions))) if part)


def _listed(names: Sequence[str], what: str) -> str:
    distinct = list(dict.fromkeys(one_line(name) for name in names))
    return ", ".join(distinct) if len(distinct) <= _MOST_NAMED else f"{len(distinct)} {what}"
