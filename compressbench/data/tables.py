"""Local tables: Parquet, JSON lines, JSON and CSV to one pyarrow table, with class names where the file has them."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressbench.core.errors import DataError
from compressbench.data.sources import LocalFiles


@dataclass(frozen=True)
class Table:
    """Rows as read. `arrow` is a pyarrow.Table; `class_names` are the names of its ClassLabel columns, by column."""

    arrow: Any
    class_names: dict[str, tuple[str, ...]]


def sha256_of(paths: Sequence[Path]) -> str:
    """`sha256:<hex>` of the bytes of the files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def refuse_config(config: str | None, source: str) -> None:
    """Raise DataError if a configuration is asked of files, which have none."""
    if config is not None:
        raise DataError(
            "only data sets of the Hub have configurations",
            where=source,
            got=f"config {config!r}",
            do="Leave `config` out.",
        )


def local_revision(files: LocalFiles, source: str, wanted: str | None) -> str:
    """The checksum of the files; DataError if `wanted` is given and is another one."""
    found = sha256_of(files.paths)
    if wanted is not None and wanted != found:
        raise DataError(
            "the files are not the pinned ones",
            where=source,
            got=f"revision {wanted}",
            do=f"They have {found}; pin that, or restore the files.",
        )
    return found


def read_table(files: LocalFiles) -> Table:
    """Every row of the files. DataError names the file (and line) that can't be read."""
    import pyarrow as pa

    if files.suffix == ".parquet":
        return _read_parquet(files.paths)
    path = files.paths[0]
    rows = _read_csv(path) if files.suffix == ".csv" else _read_json(path)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        # not Table.from_pylist: it takes its columns from the first row and drops what only later rows have
        return Table(pa.table({name: [row.get(name) for row in rows] for name in columns}), {})
    except pa.ArrowException as error:
        raise DataError("a column holds values of different types", where=str(path), got=str(error)) from error


def _read_parquet(paths: Sequence[Path]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables: list[Any] = []
    for path in paths:
        try:
            tables.append(pq.read_table(path, partitioning=None))
        except (pa.ArrowException, OSError) as error:
            raise DataError("not a readable Parquet file", where=str(path), got=str(error)) from error
    try:
        table = pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise DataError("the shards have different columns", where=str(paths[0].parent), got=str(error)) from error
    return Table(table, _class_names(table.schema.metadata or {}, paths[0]))


def _class_names(metadata: dict[bytes, bytes], path: Path) -> dict[str, tuple[str, ...]]:
    """ClassLabel names from the feature schema that `datasets` writes into Parquet files (key `huggingface`)."""
    if b"huggingface" not in metadata:
        return {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        labels = {name: spec for name, spec in features.items() if _is_class_label(spec)}
        return {name: tuple(spec["names"]) for name, spec in labels.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            "the 'huggingface' schema in the file can't be read",
            where=str(path),
            got=repr(error),
            do="Write the file again with `datasets`, or drop that metadata.",
        ) from error


def _is_class_label(spec: Any) -> bool:
    return isinstance(spec, dict) and spec.get("_type") == "ClassLabel"


def _read_csv(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError("not a readable CSV file", where=str(path), got=str(error)) from error
    for line, row in rows:
        if None in row:
            raise DataError(
                "more fields than the header has",
                where=f"{path}:{line}",
                got=repr(row[None]),
                do="Quote texts that contain commas.",
            )
    return [row for _, row in rows]


def _read_json(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=str(path), got=str(error)) from error
    if text.lstrip().startswith("["):
        return [_object(row, f"{path}[{index}]") for index, row in enumerate(_parse(text, str(path)))]
    # only \n ends a line: U+2028 and its like are allowed inside JSON strings
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [_object(_parse(line, f"{path}:{number}"), f"{path}:{number}") for number, line in lines]


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError("not JSON", where=where, got=str(error), do="Write one object per line.") from error


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(
            "a row is an object", where=where, got=type(row).__name__, do='Write {"text": ..., "label": ...}.'
        )
    return row
