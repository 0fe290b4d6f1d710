"""Under which conditions a table's numbers hold, in one line."""

from __future__ import annotations

from compressbench.records.record import Record


def heading(record: Record) -> str:
    """Recipe, model, machine, threads, workload and date of a record."""
    environment, workload = record.environment, record.workload
    gpus = environment.gpus or ()
    device = gpus[0].name if record.device.startswith("cuda") and gpus else environment.cpu_model
    model = record.recipe.text["model"]["id"]
    parts = [
        record.recipe.name,
        model,
        f"{device or 'unknown processor'}, {environment.num_threads or '?'} threads",
        f"{workload['scenario']}, batch {workload['batch_size']}, {workload['sequence_length']} tokens",
        record.created_utc[:10],
    ]
    return " · ".join(parts)
