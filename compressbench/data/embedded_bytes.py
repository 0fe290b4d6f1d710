"""Files inside of a table: pictures and sounds, as `datasets` stores them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressbench.core.errors import DataError


def embedded_bytes(value: Any, where: str, what: str, feature: str) -> bytes:
    """The bytes in a cell: itself, or `bytes` of a struct {bytes, path}. Raises DataError for anything else.

    A file that a table only names is not opened: the table's checksum says nothing of it, and a path can lead anywhere.
    """
    found = value.get("bytes") if isinstance(value, Mapping) else value
    if isinstance(found, bytes | bytearray) and found:
        return bytes(found)
    is_named = isinstance(found, str) or isinstance(value, Mapping)
    raise DataError(
        f"the table names a {what} and doesn't hold it" if is_named else f"a {what} must be bytes",
        where=where,
        got=repr(value)[:80],
        do=f"Write the bytes into a Parquet file: a column of the feature {feature} of `datasets` does that.",
    )
