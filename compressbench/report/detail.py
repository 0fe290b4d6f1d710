"""What a page of one record shows beyond its row: recipe, steps, environment, audit, latencies, flipped samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compressbench.records.record import Record


def detail_of(path: Path, record: Record) -> dict[str, Any]:
    """Plain data, ready for JSON."""
    return {
        "file": path.name,
        "recipe": dict(record.recipe.text),
        "environment": record.environment.model_dump(mode="json"),
    }
