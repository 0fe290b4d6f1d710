"""The index of a large folder of records, brought up to date: the records stay the truth, and it is made from them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from compressbench.core.errors import OutputError
from compressbench.records.store import Unreadable
from compressbench.report.index_build import reason_of, remove_other_versions, write_parts
from compressbench.report.index_files import Stamp, StoredFile, index_folder, sort_key, stamps_in, to_read
from compressbench.report.index_read import BrokenIndexError, IndexReader

INDEX_FROM = 200
"""Folders with fewer records are read directly: that takes less than half a second, and leaves nothing in them."""

_WORTH_SAYING = 2000
_SMALL_PART, _MOST_SMALL_PARTS = 500, 32

Say = Callable[[str], object]


def _silent(_: str) -> None:
    pass


class Settings(NamedTuple):
    """`reindex` throws the index away and so hashes every file again; `say` is told when it takes long."""

    reindex: bool = False
    processes: int = 1
    say: Say = _silent


class FolderIndex(NamedTuple):
    """`files` are those that are there now, by path below the folder."""

    folder: Path
    reader: IndexReader
    files: Mapping[str, StoredFile]

    def unreadable(self) -> Iterator[Unreadable]:
        for path in sorted((path for path, file in self.files.items() if file.entry is None), key=sort_key):
            file = self.folder / path
            yield Unreadable(file, reason_of(self.files[path].reason or b"", file))


def open_index(folder: Path, settings: Settings) -> FolderIndex | None:
    """None if the folder holds too few records to be worth one. Files are read only where they are new or changed."""
    index = index_folder(folder)
    reader = _known(index, settings.reindex)
    known = {} if reader is None else reader.files
    stamps = stamps_in(folder, known)
    if len(stamps) < INDEX_FROM:
        return None
    todo = _todo(folder, stamps, known, reader)
    if reader is not None and not todo:
        return _current(folder, reader, stamps)
    try:
        return _updated(folder, index, todo, stamps, settings)
    except (OutputError, BrokenIndexError):
        # a folder that may only be read, or that somebody else is writing: an index for this once
        index = Path(tempfile.mkdtemp(prefix="compressbench-"))
        found = _updated(folder, index / "rows", to_read(folder, stamps, {}), stamps, settings)
        weakref.finalize(found.reader, shutil.rmtree, index, ignore_errors=True)
        return found


def _known(index: Path, reindex: bool) -> IndexReader | None:
    if reindex:
        shutil.rmtree(index, ignore_errors=True)
    if not index.is_dir():
        return None
    try:
        return IndexReader(index)
    except BrokenIndexError:
        shutil.rmtree(index, ignore_errors=True)
        return None


def _todo(
    folder: Path, stamps: Mapping[str, Stamp], known: Mapping[str, StoredFile], reader: IndexReader | None
) -> list[list[str]]:
    """What must be read; and if many updates have left many small parts, those files again, into one part."""
    todo = to_read(folder, stamps, known)
    small = [] if reader is None else reader.small_parts(_SMALL_PART)
    if not todo or len(small) <= _MOST_SMALL_PARTS:
        return todo
    again = {path for part in small for path in part}
    return to_read(folder, stamps, {path: each for path, each in known.items() if path not in again})


def _updated(
    folder: Path, index: Path, todo: list[list[str]], stamps: Mapping[str, Stamp], settings: Settings
) -> FolderIndex:
    num_files = sum(map(len, todo))
    if num_files >= _WORTH_SAYING:
        settings.say(f"reading {num_files:,} new or changed records of {folder} into its index")
    write_parts(folder, index, todo, stamps, settings.processes)
    remove_other_versions(index)
    return _current(folder, IndexReader(index), stamps)


def _current(folder: Path, reader: IndexReader, stamps: Mapping[str, Stamp]) -> FolderIndex:
    files = {path: reader.files[path] for path in stamps}
    for dead in reader.only(files.values()):
        with contextlib.suppress(OSError):
            dead.unlink()
    return FolderIndex(folder, reader, files)
