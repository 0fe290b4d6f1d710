"""Records into the Parquet files of an index: written in parts, each whole or not there, several at a time if asked."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from compressbench.core.errors import RecordError
from compressbench.core.garbage import no_garbage_collection
from compressbench.records.files import cannot_write, write_atomically
from compressbench.records.store import Located, read_record
from compressbench.report.figures import Figure, faults_of, figure_of, unsteady_of
from compressbench.report.index_files import Stamp, in_parts
from compressbench.report.rows import Row, rows_of
from compressbench.report.stored import TEXTS, entry_of, text_of

if TYPE_CHECKING:
    import pyarrow as pa

ROWS, FIGURES = ".rows.parquet", ".figures.parquet"
PLACES_PER_PART = 1 << 20
# what isn't a number of a figure is in one text: few distinct ones stand for millions
WORDS = ("kind", "reason", "direction", "is_log", "verdict")
NUMBERS = tuple(name for name in Figure._fields if name not in WORDS)
_PART_SIZE = 2000
# one of the whole rows is read at the cost of its group; figures are sorted by name, so that a group has few names
_ROWS_PER_GROUP, _FIGURES_PER_GROUP = 128, 16384
_WORTH_A_PROCESS = 2000
_HERE = "\0"

Columns = dict[str, list[Any]]


class Part(NamedTuple):
    """Whole runs of files below `folder`, to become files of the index in `into`; its rows have `number` in their place."""

    folder: Path
    into: Path
    number: int
    runs: Sequence[Sequence[str]]
    stamps: Mapping[str, Stamp]


def write_parts(
    folder: Path, into: Path, runs: Sequence[Sequence[str]], stamps: Mapping[str, Stamp], processes: int = 1
) -> None:
    """Raises OutputError if the index can't be written; what was written until then is whole."""
    first = time.time_ns() >> 20  # numbers grow from one update to the next, and two updates at once don't share one
    parts = [
        Part(folder, into, first + at, part, {path: stamps[path] for run in part for path in run})
        for at, part in enumerate(in_parts(runs, _PART_SIZE))
    ]
    num_files = sum(map(len, runs))
    if processes > 1 and num_files >= _WORTH_A_PROCESS:
        parts = _in_processes(parts, min(processes, len(parts)))
    for part in parts:
        write_part(part)


def _in_processes(parts: Sequence[Part], processes: int) -> list[Part]:
    """What is left to do: all that was not done when a process could not be started, or died."""
    from concurrent.futures import Future, ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    left = list(parts)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        asked: list[tuple[Part, Future[None]]] = [(part, pool.submit(write_part, part)) for part in parts]
        with contextlib.suppress(BrokenProcessPool):
            for part, done in asked:
                done.result()
                left.remove(part)
    return left


def write_part(part: Part) -> None:
    """The figures first: a part is there when its rows are."""
    with no_garbage_collection():
        rows, figures = _columns(part)
    try:
        part.into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(part.into, error) from error
    for suffix, columns, size in ((FIGURES, figures, _FIGURES_PER_GROUP), (ROWS, rows, _ROWS_PER_GROUP)):
        data = _parquet(columns, suffix, size)
        write_atomically(part.into / f"{part.number:016x}.{checksum(data)}{suffix}", data)


def checksum(data: bytes) -> str:
    """It stands in the file's name: a damaged index is noticed, and made anew."""
    return hashlib.sha256(data).hexdigest()[:16]


def _columns(part: Part) -> tuple[Columns, Columns]:
    rows: Columns = {name: [] for name in _schema(ROWS).names}
    figures: list[tuple[Any, ...]] = []
    place = part.number * PLACES_PER_PART
    for run in part.runs:
        judged = list(_judged(part.folder, run))
        num_in_run = Counter(row.run_id for _, _, row in judged if row is not None)
        for path, located, row in judged:
            found = _of_file(path, part.stamps[path])
            if isinstance(located, str):
                found["reason"] = os.fsencode(located.replace(str(part.folder / path), _HERE))
            else:
                assert row is not None  # noqa: S101 -- a record that could be read has a row
                found |= {"num_in_run": num_in_run[row.run_id], **_of_row(located, row)}
                figures += _of_figures(place, row)
            for name, values in rows.items():
                values.append(found.get(name, place if name == "place" else None))
            place += 1
    figures.sort(key=lambda figure: (figure[1], figure[0]))
    names = _schema(FIGURES).names
    return rows, {name: list(values) for name, values in zip(names, zip(*figures, strict=True), strict=False)}


def _judged(folder: Path, run: Sequence[str]) -> Iterator[tuple[str, Located | str, Row | None]]:
    """The files of one run, first those that can't be read with the reason, then the others in order with their rows."""
    located: list[tuple[str, Located]] = []
    for path in run:
        try:
            located.append((path, Located(folder / path, read_record(folder / path))))
        except RecordError as error:
            yield path, str(error), None
    located.sort(key=lambda each: (each[1].record.run_id, each[1].record.position))
    for (path, each), row in zip(located, rows_of(each.record for _, each in located), strict=True):
        yield path, each, row


def reason_of(stored: bytes, file: Path) -> str:
    """Why a file could not be read, in the words of whoever asks for it by this path."""
    return os.fsdecode(stored).replace(_HERE, str(file))


def _of_file(path: str, stamp: Stamp) -> dict[str, Any]:
    return {"path": os.fsencode(path), **stamp._asdict()}


def _of_row(located: Located, row: Row) -> dict[str, Any]:
    names = ("status", "model", "steps", "comparability_key", "baseline_id")
    lists = {"metrics": row.metrics, "faults": faults_of(row), "unsteady": unsteady_of(row)}
    return {
        **entry_of(located.record, row)._asdict(),
        **{name: getattr(row, name) for name in names},
        **{name: json.dumps(values) for name, values in lists.items()},
        **{what: text_of(what, *located, row) for what in TEXTS},
    }


def _of_figures(place: int, row: Row) -> Iterator[tuple[Any, ...]]:
    for name in row.cells:
        is_metric = name in row.metrics
        figure = figure_of(row, name)
        words = json.dumps([getattr(figure, word) for word in WORDS])
        yield (place, name, is_metric, row.recipe, row.comparability_key, words, *(getattr(figure, n) for n in NUMBERS))


def _schema(suffix: str) -> pa.Schema:
    import pyarrow as pa

    text, whole, real = pa.string(), pa.int64(), pa.float64()
    if suffix == ROWS:
        files = {"place": whole, "path": pa.binary(), **dict.fromkeys(Stamp._fields, whole), "reason": pa.binary()}
        names = (
            "recipe",
            "candidate",
            "role",
            "run_id",
            "recipe_hash",
            "key",
            "held_under",
            "status",
            "model",
            "steps",
        )
        lists = ("comparability_key", "baseline_id", "metrics", "faults", "unsteady")
        return pa.schema(
            {**files, "num_in_run": whole, "position": whole, **dict.fromkeys((*names, *lists, *TEXTS), text)}.items()
        )
    row = {
        "place": whole,
        "name": text,
        "is_metric": pa.bool_(),
        "recipe": text,
        "comparability_key": text,
        "words": text,
    }
    return pa.schema({**row, **dict.fromkeys(NUMBERS, real)}.items())


def _parquet(columns: Columns, suffix: str, group_size: int) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(suffix)
    table = pa.table({name: columns.get(name, []) for name in schema.names}, schema=schema)
    buffer = io.BytesIO()
    words = [field.name for field in schema if field.type == pa.string() and field.name not in TEXTS]
    pq.write_table(table, buffer, compression="zstd", use_dictionary=words, row_group_size=group_size)
    return buffer.getvalue()


def remove_other_versions(index: Path) -> None:
    """Indexes of other code: nobody reads them any more, and they are large."""
    for other in index.parent.glob("rows-*"):
        if other != index:
            shutil.rmtree(other, ignore_errors=True)
