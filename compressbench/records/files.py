"""Writing so that a crash leaves the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from compressbench.core.errors import OutputError


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write `data`, whole or in pieces, beside `path`, flush it to the disk, and rename it into place.

    Raises OutputError if the folder can't be written or the disk is full; nothing half-written stays behind.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as stream:
            stream.writelines([data] if isinstance(data, bytes) else data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        # gone already after the rename; below a file, or on a broken disk, there is nothing to remove
        with contextlib.suppress(OSError):
            part.unlink()


def make_folder(path: Path) -> Path:
    """The folder, made if it wasn't there and proven writable. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".compressbench-can-write"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        "can't be written",
        where=str(path),
        got=error.strerror or str(error),
        do="Choose another folder with --out, or free space and permissions there.",
    )
