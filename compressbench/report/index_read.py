"""The Parquet files of an index, asked with DuckDB: only the columns and groups that a question needs."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressbench.core.errors import RecordError
from compressbench.report.figures import Contender, Figure
from compressbench.report.index_build import FIGURES, NUMBERS, PLACES_PER_PART, ROWS, checksum
from compressbench.report.index_files import Stamp, StoredFile
from compressbench.report.stored import Entry

if TYPE_CHECKING:
    import duckdb

_BATCH = 5000
_TEXTS_AT_ONCE = 512
_NOTHING = (None,) * len(NUMBERS)
_FILE = ("place", "path", *Stamp._fields, "reason", "num_in_run")
_LIGHT = (
    "recipe", "candidate", "role", "status", "run_id", "model", "steps", "comparability_key", "baseline_id",
)  # fmt: skip
_made = tuple.__new__  # what _make does, without looking at the length


class BrokenIndexError(Exception):
    """The index can't be read and must be made anew; nobody outside of these modules sees it."""


class IndexReader:
    """All parts in a folder. Where several have the same file, the newest counts. Raises BrokenIndexError."""

    def __init__(self, folder: Path) -> None:
        import duckdb

        self._folder = folder
        self._parts = _whole_parts(folder)
        self._error = duckdb.Error
        self._db = duckdb.connect()
        self._db.execute("SET parquet_metadata_cache = true")
        try:
            self.files = self._read_files() if self._parts else {}
        except (duckdb.Error, UnicodeError) as error:
            raise BrokenIndexError(str(error)) from error

    def _read_files(self) -> dict[str, StoredFile]:
        columns = ", ".join((*_FILE, *Entry._fields))
        known = self._db.cursor().execute(f"SELECT {columns} FROM {self._table(ROWS)} ORDER BY place")  # noqa: S608
        found = {}
        for place, path, size, mtime, ctime, reason, num_in_run, *entry in _rows(known):
            read = Entry._make(entry) if reason is None else None
            run = None if read is None else (read.run_id, read.recipe_hash)
            found[path.decode(errors="surrogateescape")] = StoredFile(
                place, Stamp(size, mtime, ctime), reason, num_in_run, run, read
            )
        return found

    def _table(self, suffix: str, number: int | None = None) -> str:
        parts = self._parts.values() if number is None else [self._parts[number]]
        return f"read_parquet([{', '.join(_quoted(str(part[suffix])) for part in parts)}])"

    def _ask(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        try:
            yield from _rows(self._db.cursor().execute(query, list(values)))
        except self._error as error:
            what, do = "the index can't be read", "Run it again, with --reindex if that doesn't help."
            raise RecordError(what, where=str(self._folder), got=str(error).partition("\n")[0], do=do) from error

    def small_parts(self, size: int) -> list[list[str]]:
        """Of every part with fewer living files than that, the files."""
        files: dict[int, list[str]] = {}
        for path, file in self.files.items():
            files.setdefault(file.place // PLACES_PER_PART, []).append(path)
        return [paths for paths in files.values() if len(paths) < size]

    def only(self, files: Iterable[StoredFile]) -> list[Path]:
        """Ask no part that holds none of these files any more; the files of those parts."""
        living = {file.place // PLACES_PER_PART for file in files}
        dead = [part for number, part in self._parts.items() if number not in living]
        self._parts = {number: part for number, part in self._parts.items() if number in living}
        return [path for part in dead for path in (part[ROWS], part[FIGURES])]

    def texts(self, what: str, places: Sequence[int]) -> Iterator[str]:
        """One of the TEXTS of each place, in that order."""
        for start in range(0, len(places), _TEXTS_AT_ONCE):
            some = places[start : start + _TEXTS_AT_ONCE]
            by_part: dict[int, list[int]] = {}
            for place in some:
                by_part.setdefault(place // PLACES_PER_PART, []).append(place)
            found: dict[int, str] = {}
            for part, asked in by_part.items():
                found |= self._texts_in(what, part, asked)
            yield from (found[place] for place in some)

    def _texts_in(self, what: str, part: int, places: Sequence[int]) -> dict[int, str]:
        query = f"SELECT place, {what} FROM {self._table(ROWS, part)} WHERE place BETWEEN ? AND ?"  # noqa: S608
        return dict(self._ask(query, min(places), max(places)))

    def contenders(
        self, at_of: Mapping[int, int], names: Sequence[str], *, recipe: str = "", key: str = ""
    ) -> Iterator[Contender]:
        """Those of the places in `at_of`, which gives them their `at`, in no order."""
        where, values = self._where(at_of, recipe, key)
        figures = self._figures(where, values, names)
        light = f"SELECT place, metrics, faults, unsteady, {', '.join(_LIGHT)} FROM {self._table(ROWS)} WHERE {where}"  # noqa: S608
        named: dict[str, list[tuple[str, dict[int, Figure]]]] = {}
        for row in self._ask(light, *values):
            place, metrics, faults, unsteady = row[:4]
            if place not in at_of:
                continue
            own = _strings(metrics)
            if metrics not in named:
                named[metrics] = [(name, figures[name]) for name in (*own, *names) if name in figures]
            found = {name: of_name[place] for name, of_name in named[metrics] if place in of_name}
            yield Contender._make((at_of[place], *row[4:], own, _strings(faults), _strings(unsteady), found))

    def _figures(self, where: str, values: Sequence[Any], names: Sequence[str]) -> dict[str, dict[int, Figure]]:
        """By name and place, those of the tasks' metrics and of `names`."""
        query = (
            f"SELECT name, place, words, {', '.join(NUMBERS)} FROM {self._table(FIGURES)} "  # noqa: S608
            f"WHERE {where} AND (is_metric OR name IN (SELECT unnest(?::VARCHAR[])))"
        )
        found: defaultdict[str, dict[int, Figure]] = defaultdict(dict)
        absent: dict[str, Figure] = {}  # one for each reason: many rows lack the same for the same
        for row in self._ask(query, *values, list(names)):
            name, place, words = row[:3]
            lacks = row[3] is None and row[3:] == _NOTHING
            figure = absent.get(words) if lacks else None
            if figure is None:
                figure = _made(Figure, row[3:6] + _words(words) + row[6:])
                if lacks:
                    absent[words] = figure
            found[name][place] = figure
        return found

    def _where(self, places: Mapping[int, int], recipe: str, key: str) -> tuple[str, list[Any]]:
        """The condition and its values. Places are asked for where they are few; of many the others are passed over."""
        asked: dict[str, Any] = {
            name: value for name, value in (("recipe = ?", recipe), ("comparability_key = ?", key)) if value
        }
        if 2 * len(places) < len(self.files):
            asked["place IN (SELECT unnest(?::BIGINT[]))"] = list(places)
        return " AND ".join(asked) or "true", list(asked.values())

    def metrics(self) -> dict[int, tuple[str, ...]]:
        """By place the metrics of its tasks."""
        query = f"SELECT place, metrics FROM {self._table(ROWS)} WHERE reason IS NULL"  # noqa: S608
        return {place: _strings(text) for place, text in self._ask(query)}


def _whole_parts(folder: Path) -> dict[int, dict[str, Path]]:
    """By number the two files of every part, each as it was written. Figures without rows are a part's that isn't done."""
    files: dict[str, dict[int, Path]] = {ROWS: {}, FIGURES: {}}
    for path in folder.glob("*.parquet"):
        try:
            name, digest, kind = path.name.split(".", 2)
            same, number = files[f".{kind}"], int(name, 16)
            is_whole = number not in same and checksum(path.read_bytes()) == digest
        except (ValueError, LookupError, OSError) as error:
            raise BrokenIndexError(path.name) from error
        if not is_whole:
            raise BrokenIndexError(path.name)
        same[number] = path
    if files[ROWS].keys() - files[FIGURES].keys():
        raise BrokenIndexError(folder.name)
    return {number: {ROWS: files[ROWS][number], FIGURES: files[FIGURES][number]} for number in sorted(files[ROWS])}


def _rows(answer: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    return chain.from_iterable(iter(lambda: answer.fetchmany(_BATCH), []))


def _quoted(text: str) -> str:
    """A path as a literal; what would stand for other signs in it stands for itself."""
    return "'" + re.sub(r"[*?\[]", r"[\g<0>]", text).replace("'", "''") + "'"


@cache
def _strings(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


@cache
def _words(text: str) -> tuple[Any, ...]:
    return tuple(json.loads(text))
