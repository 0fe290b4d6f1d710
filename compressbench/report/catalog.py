"""Records as rows to decide among: read once or found in an index, the newest of each recipe and candidate kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from compressbench.core.garbage import no_garbage_collection
from compressbench.records.record import Record
from compressbench.records.store import Located, Unreadable
from compressbench.report.figures import Contender
from compressbench.report.index import Settings
from compressbench.report.rows import Row
from compressbench.report.sources import Source, rows_read, sources_of
from compressbench.report.stored import Entry


class Only(NamedTuple):
    """Rows of one recipe that have one of these keys (the record's, which say what decides the result)."""

    recipe: str
    keys: frozenset[str]


class Catalog:
    """Rows in the order of their runs, by place. `unreadable` are the files that were left out, and why; `num_older` rows
    were left out because a newer run measured the same candidate under the same conditions.
    """

    def __init__(
        self, sources: Sequence[Source], unreadable: Sequence[Unreadable] = (), *, all_runs: bool = False,
        only: Only | None = None,
    ) -> None:  # fmt: skip
        found = [(entry, source, number) for source in sources for number, entry in enumerate(source.entries)]
        if only is not None:
            found = [each for each in found if each[0].recipe == only.recipe and each[0].key in only.keys]
        found.sort(key=lambda each: (each[0].run_id, each[0].position, *each[1].order_of(each[2])))
        kept = range(len(found)) if all_runs else newest([entry for entry, _, _ in found])
        self._places = [found[at] for at in kept]
        self.num_older = len(found) - len(self._places)
        self._sources = sources
        self.unreadable = list(unreadable)

    def __len__(self) -> int:
        return len(self._places)

    def entry(self, at: int) -> Entry:
        """Of which recipe, candidate and run it is."""
        return self._places[at][0]

    def row(self, at: int) -> Row:
        """The whole row of a contender."""
        return next(self.rows([at]))

    def rows(self, places: Iterable[int] | None = None) -> Iterator[Row]:
        """Whole rows one after the other, of all places or these, in that order."""
        yield from (row for source, numbers in self._by_source(places) for row in source.rows(numbers))

    def path(self, at: int) -> Path:
        """The file of its record."""
        _, source, number = self._places[at]
        return source.path(number)

    def record(self, at: int) -> Record:
        """The whole record; of an index its file is read, and RecordError raised if it was changed just now."""
        _, source, number = self._places[at]
        return source.record(number)

    def details(self, places: Iterable[int]) -> Iterator[str]:
        """What a page of one record shows beyond its row, as JSON without flips, in the order of the places."""
        return self.texts("detail", places)

    def texts(self, what: str, places: Iterable[int] | None = None) -> Iterator[str]:
        """One of the texts of report/stored.py, of all places or these, in that order."""
        yield from (text for source, numbers in self._by_source(places) for text in source.texts(what, numbers))

    def metrics(self) -> list[tuple[str, ...]]:
        """Of each place the metrics of its tasks."""
        of_source = {id(source): source.metrics() for source in self._sources}
        return [of_source[id(source)][number] for _, source, number in self._places]

    def contenders(self, names: Iterable[str] = (), *, recipe: str = "", key: str = "") -> list[Contender]:
        """All rows, or those of one recipe or comparability key, with their tasks' metrics and the costs asked for."""
        asked = list(dict.fromkeys(names))
        at_of: dict[int, dict[int, int]] = {id(source): {} for source in self._sources}
        for at, (_, source, number) in enumerate(self._places):
            at_of[id(source)][number] = at
        with no_garbage_collection():
            found = [
                each
                for source in self._sources
                for each in source.contenders(at_of[id(source)], asked, recipe=recipe, key=key)
            ]
        return sorted(found, key=lambda contender: contender.at)

    def _by_source(self, places: Iterable[int] | None) -> Iterator[tuple[Source, list[int]]]:
        """Neighbours of one source together, so that it is asked once for all of them."""
        asked = self._places if places is None else (self._places[at] for at in places)
        for _, run in groupby(asked, key=lambda place: id(place[1])):
            together = list(run)
            yield together[0][1], [number for _, _, number in together]


def catalog_of(located: Sequence[Located]) -> Catalog:
    """Of records that were read or made elsewhere, all of them."""
    return Catalog([rows_read(located)] if located else [], all_runs=True)


def newest(entries: Sequence[Entry]) -> list[int]:
    """Of each recipe and candidate the record of the newest run under each set of conditions, and the baselines that those
    runs were paired with: their places, in order. `entries` are in the order of their runs. What another machine gave, or
    another workload, replaces nothing.
    """
    last = {(entry.recipe, entry.candidate, entry.held_under): at for at, entry in enumerate(entries)}
    kept = set(last.values())
    runs = {(entries[at].recipe, entries[at].run_id) for at in kept}
    return [
        at
        for at, entry in enumerate(entries)
        if at in kept or (entry.role == "baseline" and (entry.recipe, entry.run_id) in runs)
    ]


def older_words(num_older: int) -> str:
    """ "" if nothing was left out."""
    if not num_older:
        return ""
    rows = "1 row of an older run is" if num_older == 1 else f"{num_older:,} rows of older runs are"
    why = "a newer run measured the same under the same conditions"
    return f"{rows} left out: {why}. compressbench table --all shows every run."


def within(catalog: Catalog, limit: int) -> tuple[list[int], str]:
    """The places of the newest runs that have at most `limit` rows together (0: all), in order, and a sentence that says so
    if there are more. Runs stay whole; of one that alone has more than that, the first rows.
    """
    num_rows = len(catalog)
    if not limit or num_rows <= limit:
        return list(range(num_rows)), ""
    runs: dict[tuple[str, str], list[int]] = {}
    for at in range(num_rows):
        runs.setdefault((catalog.entry(at).run_id, catalog.entry(at).recipe), []).append(at)
    shown: list[int] = []
    for run in reversed(runs.values()):
        if len(shown) + len(run) > limit:
            break
        shown += run
    which = f"Of {num_rows:,} rows those of the newest runs are shown, {len(shown):,}"
    if not shown:
        shown = run[:limit]
        which = f"Of {num_rows:,} rows the first {limit:,} of the newest run are shown"
    return sorted(shown), f"{which}. --limit 0 shows all; --format json and csv always have them all."


def open_catalog(
    paths: Iterable[Path], *, all_runs: bool = False, only: Only | None = None, settings: Settings | None = None
) -> Catalog:
    """Records in files and folders; of large folders through an index, which is brought up to date first.

    A run is judged as it was measured, whichever of its candidates are kept. Raises RecordError if a path doesn't exist or
    holds no record at all.
    """
    with no_garbage_collection():
        sources, unreadable = sources_of(list(paths), settings or Settings())
        return Catalog(sources, unreadable, all_runs=all_runs, only=only)
