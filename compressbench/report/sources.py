"""Where the rows of a catalog come from: records that were read just now, or the index of a large folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from compressbench.records.record import Record
from compressbench.records.store import Located, Unreadable, read_located, read_record
from compressbench.report.figures import Contender, contender_of
from compressbench.report.index import FolderIndex, Settings, open_index
from compressbench.report.index_files import Run, sort_key, stamps_in
from compressbench.report.rows import Row, rows_of
from compressbench.report.stored import Entry, entry_of, text_of

Order = tuple[int, list[str]]
"""The place of the argument and the path of the file below it: decides among records of one run and position."""


class Source(Protocol):
    """Rows by number. `entries` has one for each."""

    @property
    def entries(self) -> Sequence[Entry]: ...

    def order_of(self, number: int) -> Order: ...

    def path(self, number: int) -> Path: ...

    def record(self, number: int) -> Record: ...

    def rows(self, numbers: Sequence[int]) -> Iterator[Row]: ...

    def texts(self, what: str, numbers: Sequence[int]) -> Iterator[str]: ...

    def metrics(self) -> Sequence[tuple[str, ...]]: ...

    def contenders(
        self, at_of: Mapping[int, int], names: Sequence[str], *, recipe: str = "", key: str = ""
    ) -> Iterator[Contender]:
        """Those of the numbers in `at_of`, which gives them their place in the catalog."""
        ...


class _Found(NamedTuple):
    """A record that was read, where its file stands in order."""

    order: Order
    located: Located


class ReadRows:
    """Rows of records that were read just now, all of them judged together."""

    def __init__(self, found: Sequence[_Found]) -> None:
        in_order = sorted(found, key=lambda e: (e.located.record.run_id, e.located.record.position, *e.order))
        self._orders = [each.order for each in in_order]
        self._located = [each.located for each in in_order]
        self._rows = rows_of(each.record for each in self._located)
        self.entries = [entry_of(each.record, row) for each, row in zip(self._located, self._rows, strict=True)]

    def order_of(self, number: int) -> Order:
        return self._orders[number]

    def path(self, number: int) -> Path:
        return self._located[number].path

    def record(self, number: int) -> Record:
        return self._located[number].record

    def rows(self, numbers: Sequence[int]) -> Iterator[Row]:
        return (self._rows[number] for number in numbers)

    def texts(self, what: str, numbers: Sequence[int]) -> Iterator[str]:
        return (text_of(what, *self._located[number], self._rows[number]) for number in numbers)

    def metrics(self) -> list[tuple[str, ...]]:
        return [row.metrics for row in self._rows]

    def contenders(
        self, at_of: Mapping[int, int], names: Sequence[str], *, recipe: str = "", key: str = ""
    ) -> Iterator[Contender]:
        for number, at in at_of.items():
            row = self._rows[number]
            if recipe in ("", row.recipe) and key in ("", row.comparability_key):
                yield contender_of(row, dict.fromkeys([*row.metrics, *names]), at)


def rows_read(located: Sequence[Located]) -> ReadRows:
    """Of records that somebody else has read."""
    return ReadRows([_Found((0, list(each.path.parts)), each) for each in located])


class IndexedRows:
    """Rows of a folder's index, but for those of `without` (runs that have records elsewhere too)."""

    def __init__(self, argument: int, index: FolderIndex, without: frozenset[Run] = frozenset()) -> None:
        self._argument, self._index = argument, index
        self._files: list[str] = []
        self._places: list[int] = []
        self.entries: list[Entry] = []
        for path, file in index.files.items():
            if file.entry is not None and file.run not in without:
                self._files.append(path)
                self._places.append(file.place)
                self.entries.append(file.entry)

    def order_of(self, number: int) -> Order:
        return self._argument, sort_key(self._files[number])

    def path(self, number: int) -> Path:
        return self._index.folder / self._files[number]

    def record(self, number: int) -> Record:
        return read_record(self.path(number))

    def rows(self, numbers: Sequence[int]) -> Iterator[Row]:
        return map(Row.model_validate_json, self.texts("row", numbers))

    def texts(self, what: str, numbers: Sequence[int]) -> Iterator[str]:
        return self._index.reader.texts(what, [self._places[number] for number in numbers])

    def metrics(self) -> list[tuple[str, ...]]:
        found = self._index.reader.metrics()
        return [found[place] for place in self._places]

    def contenders(
        self, at_of: Mapping[int, int], names: Sequence[str], *, recipe: str = "", key: str = ""
    ) -> Iterator[Contender]:
        at_of_place = {self._places[number]: at for number, at in at_of.items()}
        return self._index.reader.contenders(at_of_place, names, recipe=recipe, key=key)


def sources_of(paths: Sequence[Path], settings: Settings) -> tuple[list[Source], list[Unreadable]]:
    """Large folders by their index, all else read. Runs that have records in several places are read too, for they are
    judged as one. Raises RecordError if a path doesn't exist or nothing is there.
    """
    indexes, read, unreadable = _opened(paths, settings)
    shared = _shared(indexes, read)
    for argument, index in indexes.items():
        for path, file in index.files.items():
            if file.run in shared:
                located, left_out = read_located([index.folder / path])
                read += [_Found((argument, sort_key(path)), each) for each in located]
                unreadable += left_out
    indexed = [IndexedRows(argument, index, shared) for argument, index in indexes.items()]
    return [*indexed, *([ReadRows(read)] if read else [])], unreadable


def _opened(paths: Sequence[Path], settings: Settings) -> tuple[dict[int, FolderIndex], list[_Found], list[Unreadable]]:
    indexes: dict[int, FolderIndex] = {}
    read: list[_Found] = []
    unreadable: list[Unreadable] = []
    for path in paths:
        if not path.exists():
            read_located([path])  # says so, before anything that takes long
    opened: dict[Path, FolderIndex | None] = {}
    for at, path in enumerate(paths):
        index = _opened_once(path, settings, opened) if path.is_dir() else None
        if index is not None:
            indexes[at] = index
            unreadable += index.unreadable()
        elif not path.is_dir() or stamps_in(path, {}):
            located, left_out = read_located([path])
            read += [_Found((at, list(each.path.relative_to(path).parts)), each) for each in located]
            unreadable += left_out
    if not (indexes or read or unreadable):
        read_located(paths)  # says that nothing is there
    return indexes, read, unreadable


def _opened_once(path: Path, settings: Settings, opened: dict[Path, FolderIndex | None]) -> FolderIndex | None:
    """A folder that is named twice is brought up to date once."""
    folder = path.resolve()
    if folder not in opened:
        opened[folder] = open_index(path, settings)
    index = opened[folder]
    return None if index is None else index._replace(folder=path)


def _shared(indexes: Mapping[int, FolderIndex], read: Sequence[_Found]) -> frozenset[Run]:
    """Runs with records in more than one of the places."""
    seen: set[Run] = {(each.located.record.run_id, each.located.record.recipe.hash) for each in read}
    shared: set[Run] = set()
    for index in indexes.values():
        here = {file.run for file in index.files.values() if file.run is not None}
        shared |= here & seen
        seen |= here
    return frozenset(shared)
