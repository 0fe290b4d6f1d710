"""What is said of one record, in the texts that tables are made of: the same whether it was read just now or indexed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from compressbench.core.spec import content_hash
from compressbench.records.record import Record
from compressbench.report.detail import detail_of
from compressbench.report.heading import conditions
from compressbench.report.plain import csv_parts, json_item
from compressbench.report.rows import Row

TEXTS = ("row", "csv", "detail", "heading")


class Entry(NamedTuple):
    """What decides a row's place in a catalog, and whether it is in it at all."""

    recipe: str
    candidate: str
    role: str
    run_id: str
    recipe_hash: str
    position: int
    key: str
    held_under: str


def entry_of(record: Record, row: Row) -> Entry:
    """What it held under are its conditions but the version of records: newer code's record takes an older one's place."""
    conditions = {name: value for name, value in row.conditions.items() if name != "schema"}
    return Entry(
        recipe=record.recipe.name,
        candidate=record.candidate,
        role=record.role,
        run_id=record.run_id,
        recipe_hash=record.recipe.hash,
        position=record.position,
        key=record.key,
        held_under=content_hash(conditions),
    )


def text_of(what: str, path: Path, record: Record, row: Row) -> str:
    """`row`: an item of the JSON table; `csv`: the pieces of its CSV line; `detail`: see detail.py; `heading`: the
    conditions that records must share to stand in one table on the terminal. The detail has no flips: they are in other
    files, which may change without the record.
    """
    if what == "row":
        return json_item(row)
    if what == "csv":
        return csv_parts(row)
    return json.dumps(detail_of(path, record, flips=False)) if what == "detail" else conditions(record)
