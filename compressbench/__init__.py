"""Which compressed model should I deploy? Paired, audited benchmarks of compressed models.

Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressbench.core.errors import CompressbenchError
    from compressbench.core.protocols import Facts, Method, Probe, Runtime
    from compressbench.core.questions import Task
    from compressbench.core.reading import Reading
    from compressbench.plan import make_plan, plan_file
    from compressbench.recipe.load import load_recipe, parse_recipe
    from compressbench.records.record import Record
    from compressbench.records.store import read_record, read_records
    from compressbench.report.rows import rows_of
    from compressbench.run import run_recipe

__version__ = "0.1.0"

_PLACES = {
    "CompressbenchError": "core.errors",
    "Facts": "core.protocols",
    "Method": "core.protocols",
    "Probe": "core.protocols",
    "Reading": "core.reading",
    "Record": "records.record",
    "Runtime": "core.protocols",
    "Task": "core.questions",
    "load_recipe": "recipe.load",
    "make_plan": "plan",
    "parse_recipe": "recipe.load",
    "plan_file": "plan",
    "read_record": "records.store",
    "read_records": "records.store",
    "rows_of": "report.rows",
    "run_recipe": "run",
}

__all__ = [
    "CompressbenchError",
    "Facts",
    "Method",
    "Probe",
    "Reading",
    "Record",
    "Runtime",
    "Task",
    "load_recipe",
    "make_plan",
    "parse_recipe",
    "plan_file",
    "read_record",
    "read_records",
    "rows_of",
    "run_recipe",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'compressbench' has no attribute '{name}'")
    return getattr(importlib.import_module(f"compressbench.{_PLACES[name]}"), name)
