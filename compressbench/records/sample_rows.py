"""The per-sample rows beside a record: a Parquet file for each task, with a column for each field that any row has."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compressbench.core.errors import RecordError
from compressbench.core.questions import SampleRow

_ALWAYS = ("id", "prediction", "target", "score", "weight")
_ALSO = "also:"


def read_samples(record_path: Path, samples_file: str, sha256: str) -> list[SampleRow]:
    """The per-sample rows beside a record. Raises RecordError if they are missing, changed, or no such rows."""
    columns = read_columns(record_path, samples_file, sha256)
    try:
        return [_row_from(dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]
    except (ValueError, TypeError) as error:
        raise _no_rows(record_path.with_name(Path(samples_file).name), error) from error


def read_columns(record_path: Path, samples_file: str, sha256: str) -> dict[str, list[Any]]:
    """The same as plain columns, unchecked but for the checksum: thousands of rows in milliseconds."""
    path = record_path.with_name(Path(samples_file).name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise cannot_read_samples(path, error.strerror or str(error)) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise cannot_read_samples(path, "its checksum doesn't match")
    import io

    import pyarrow.parquet as pq

    try:
        found: dict[str, list[Any]] = pq.read_table(io.BytesIO(data)).to_pydict()
    except (ValueError, TypeError, NotImplementedError) as error:  # Arrow's own errors are among them
        raise _no_rows(path, error) from error
    return found


def _no_rows(path: Path, error: Exception) -> RecordError:
    return cannot_read_samples(path, f"they are no rows of samples: {str(error).splitlines()[0]}")


def columns_of(rows: Sequence[SampleRow]) -> dict[str, list[Any]]:
    """One column per field that no row has at its default, and one per metric of `also`."""
    fields = {name: field for name, field in SampleRow.model_fields.items() if name != "also"}
    columns = {name: [getattr(row, name) for row in rows] for name in fields}
    optional = [name for name in fields if name not in _ALWAYS]
    for name in optional:
        if all(value == fields[name].default for value in columns[name]):
            del columns[name]
    metrics = dict.fromkeys(metric for row in rows for metric in row.also)
    return {**columns, **{f"{_ALSO}{metric}": [row.also.get(metric) for row in rows] for metric in metrics}}


def _row_from(stored: Mapping[str, Any]) -> SampleRow:
    also = {name.removeprefix(_ALSO): value for name, value in stored.items() if name.startswith(_ALSO)}
    plain = {name: value for name, value in stored.items() if not name.startswith(_ALSO)}
    return SampleRow(**plain, also={name: value for name, value in also.items() if value is not None})


def cannot_read_samples(path: Path, why: str) -> RecordError:
    return RecordError("the per-sample rows can't be read", where=str(path), got=why)
