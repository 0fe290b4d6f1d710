"""A catalog says the same of records that were read just now and of records that an index was made from."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import record_builder as build

from compressbench.core.errors import RecordError
from compressbench.records.record import Record
from compressbench.records.store import RecordStore, read_records
from compressbench.report import index, plain
from compressbench.report.catalog import Catalog, Only, newest, older_words, open_catalog, within
from compressbench.report.figures import contender_of
from compressbench.report.rows import CELL_NAMES, rows_of
from compressbench.report.sources import IndexedRows, ReadRows
from compressbench.report.stored import TEXTS, Entry, entry_of

DATA = Path(__file__).parent.parent / "data"
EARLY, LATE = "20261122T074513.926665Z", "20261123T074513.926665Z"


def a_run(run_id: str = EARLY, name: str = "example", **harmful: int) -> list[Record]:
    """A baseline and candidates that lost so many of its right answers."""
    said = build.recipe(tuple(harmful), name=name)
    candidates = [
        build.record(each, recipe=said, run_id=run_id, scores=(build.accuracy_after(lost, 20),))
        for each, lost in harmful.items()
    ]
    return [build.record(recipe=said, run_id=run_id), *candidates]


def write(folder: Path, records: list[Record]) -> list[Path]:
    return [RecordStore(folder).append(record) for record in records]


def varied(folder: Path) -> None:
    """Two recipes, a candidate measured again, a failure, other metrics, folders in folders, files that aren't records."""
    write(folder / "a", a_run(EARLY, int8=60, int4=90, wanda=25))
    write(folder / "a", a_run(LATE, int8=61))
    write(folder / "b" / "c", a_run(EARLY, "other", int8=30))
    (folder / "b" / "table.json").write_text("[]")
    said = build.recipe(("small",), name="language", tasks=[{"use": "perplexity"}])
    scores = (build.perplexity(12.5),)
    write(folder, [build.record(recipe=said, scores=scores), build.failed("small", recipe=said)])
    changed = write(folder, [build.record("int8", recipe=build.recipe(name="broken"), run_id=LATE)])[0]
    changed.write_bytes(changed.read_bytes().replace(b"Example CPU", b"Example Cpu"))


def both(monkeypatch: pytest.MonkeyPatch, paths: list[Path], **asked: object) -> tuple[Catalog, Catalog]:
    """Read directly, and through an index."""
    monkeypatch.setattr(index, "INDEX_FROM", 10**9)
    read = open_catalog(paths, **asked)  # type: ignore[arg-type]
    monkeypatch.setattr(index, "INDEX_FROM", 1)
    indexed = open_catalog(paths, **asked)  # type: ignore[arg-type]
    assert {type(source) for source in read._sources} == {ReadRows}
    return read, indexed


def assert_same(read: Catalog, indexed: Catalog) -> None:
    places = range(len(read))
    assert len(indexed) == len(read) > 0
    assert [indexed.path(at) for at in places] == [read.path(at) for at in places]
    assert [indexed.entry(at) for at in places] == [read.entry(at) for at in places]
    assert indexed.unreadable == read.unreadable
    assert indexed.metrics() == read.metrics()
    for what in TEXTS:
        assert list(indexed.texts(what)) == list(read.texts(what))
    assert list(indexed.rows()) == list(read.rows())
    for names in ((), CELL_NAMES, ("disk_bytes", "no_such_cost", "latency_p50_s")):
        assert indexed.contenders(names) == read.contenders(names)
        assert [list(each.figures) for each in indexed.contenders(names)] == [
            list(each.figures) for each in read.contenders(names)
        ]
    last = read.contenders()[-1]
    for asked in ({"recipe": last.recipe}, {"key": last.comparability_key}, {"recipe": "nobody's"}):
        assert indexed.contenders(["disk_bytes"], **asked) == read.contenders(["disk_bytes"], **asked)


@pytest.mark.parametrize("all_runs", [False, True])
@pytest.mark.parametrize("schema", [1, 2, 3, 4, 5])
def test_an_index_says_what_the_records_of_every_schema_say(
    schema: int, all_runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(DATA / f"records-v{schema}", tmp_path / "records")
    read, indexed = both(monkeypatch, [tmp_path / "records"], all_runs=all_runs)
    assert {type(source) for source in indexed._sources} == {IndexedRows}
    assert_same(read, indexed)


@pytest.mark.parametrize("all_runs", [False, True])
def test_an_index_says_what_a_folder_of_many_kinds_says(
    all_runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    varied(tmp_path)
    read, indexed = both(monkeypatch, [tmp_path], all_runs=all_runs)
    assert_same(read, indexed)
    assert len(read.unreadable) == 1
    assert len(read) == (10 if all_runs else 9)
    assert_same(read, open_catalog([tmp_path], all_runs=all_runs))


def test_contenders_and_rows_are_those_of_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    varied(tmp_path)
    rows = rows_of(read_records([tmp_path])[0])
    _, indexed = both(monkeypatch, [tmp_path], all_runs=True)
    assert list(indexed.rows()) == rows
    expected = [contender_of(row, dict.fromkeys([*row.metrics, "mbu"]), at) for at, row in enumerate(rows)]
    assert indexed.contenders(["mbu"]) == expected
    assert [indexed.row(at) for at in (3, 0)] == [rows[3], rows[0]]
    assert list(indexed.rows([4, 1])) == [rows[4], rows[1]]


def test_the_texts_of_an_index_make_the_tables_of_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    varied(tmp_path)
    _, indexed = both(monkeypatch, [tmp_path], all_runs=True)
    rows = list(indexed.rows())
    assert "".join(plain.json_list(indexed.texts("row"))) == plain.to_json(rows)
    metrics = ["accuracy", "perplexity"]
    assert "".join(plain.csv_lines(metrics, zip(indexed.metrics(), indexed.texts("csv"), strict=True))) == (
        plain.to_csv(rows)
    )


def newest_of(records: list[Record]) -> list[Record]:
    return [records[at] for at in newest(entries_of(records))]


def entries_of(records: list[Record]) -> list[Entry]:
    return [entry_of(record, row) for record, row in zip(records, rows_of(records), strict=True)]


def test_the_newest_are_those_of_the_newest_run_with_the_baselines_they_were_paired_with() -> None:
    runs = [f"2026112{day}T000000.000000Z" for day in (1, 2, 3)]
    said = build.recipe(("a", "b"))

    def of(name: str, run: int) -> Record:
        return build.record(name, recipe=said, run_id=runs[run])

    records = [of("baseline", 0), of("a", 0), of("b", 0), of("baseline", 1), of("a", 1), of("baseline", 2), of("a", 2)]
    found = [(record.candidate, runs.index(record.run_id)) for record in newest_of(records)]
    assert found == [("baseline", 0), ("b", 0), ("baseline", 2), ("a", 2)]
    other = build.record(recipe=build.recipe(name="other"), run_id=runs[0])
    assert newest_of([other, *records])[0] is other
    elsewhere = build.record("b", recipe=said, run_id=runs[2], environment=build.environment(cpu_model="Another"))
    assert newest_of([*records, elsewhere])[-1] is elsewhere
    assert [each.candidate for each in newest_of([*records, elsewhere])].count("b") == 2, "each machine has its own"
    longer = {"scenario": "single-stream", "batch_size": 1, "sequence_length": 128}
    asked = build.record("b", recipe=said, run_id=runs[2], workload=longer)
    assert [each.candidate for each in newest_of([*records, asked])].count("b") == 2, "and so has each workload"
    of_old_code = [of("a", 0).model_copy(update={"schema_version": 4}), of("a", 1)]
    assert newest_of(of_old_code) == of_old_code[1:], "how records were written asks for nothing"


def test_how_many_older_rows_were_left_out_is_said(tmp_path: Path) -> None:
    write(tmp_path, a_run(EARLY, int8=60) + a_run(LATE, int8=61))
    assert open_catalog([tmp_path]).num_older == 2
    assert open_catalog([tmp_path], all_runs=True).num_older == 0
    assert older_words(0) == ""
    assert older_words(1).startswith("1 row of an older run is left out")
    assert older_words(2_000).startswith("2,000 rows of older runs are left out")


def latest(records: list[Record]) -> list[Record]:
    """By looking at all of them for each."""
    last = [
        not any(
            (other.recipe.name, other.candidate) == (record.recipe.name, record.candidate)
            for other in records[at + 1 :]
        )
        for at, record in enumerate(records)
    ]
    runs = {(record.recipe.name, record.run_id) for record, is_last in zip(records, last, strict=True) if is_last}
    return [
        record
        for record, is_last in zip(records, last, strict=True)
        if is_last or (record.role == "baseline" and (record.recipe.name, record.run_id) in runs)
    ]


def test_the_newest_rows_are_the_latest_records() -> None:
    choose = random.Random(7)
    made = {name: build.record(name, measurement=None) for name in ("baseline", "x", "y")}
    said = {name: build.recipe(name=name) for name in "ab"}
    for _ in range(200):
        records = [
            made[choose.choice(list(made))].model_copy(update={"run_id": f"r{run}", "recipe": said[name]})
            for run in range(choose.randrange(1, 5))
            for name in choose.choices("ab", k=choose.randrange(1, 4))
        ]
        entries = entries_of(records)
        places = {id(record): at for at, record in enumerate(records)}
        assert newest(entries) == [places[id(record)] for record in latest(records)]


def test_a_run_is_judged_as_it_was_measured_whatever_was_measured_later(tmp_path: Path) -> None:
    write(tmp_path, a_run(EARLY, int8=60, int4=90))
    before = {row.candidate: row.against_baseline for row in open_catalog([tmp_path]).rows()}
    write(tmp_path, a_run(LATE, int4=91))
    after = {(row.run_id, row.candidate): row.against_baseline for row in open_catalog([tmp_path]).rows()}
    assert after[EARLY, "int8"] == before["int8"]
    assert (EARLY, "int4") not in after


def in_two_folders(folder: Path) -> list[Path]:
    run = a_run(int8=60, int4=70, wanda=80)
    write(folder / "one", run[:2])
    write(folder / "two", run[2:])
    return [folder / "one", folder / "two"]


def folder_and_file(folder: Path) -> list[Path]:
    one, two = in_two_folders(folder)
    return [one, next(two.glob("*int4*.json"))]


def twice(folder: Path) -> list[Path]:
    write(folder, a_run(int8=60, int4=70))
    return [folder, folder]


@pytest.mark.parametrize("given", [in_two_folders, folder_and_file, twice])
def test_a_run_that_lies_in_several_places_is_judged_as_one(
    given: Callable[[Path], list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = given(tmp_path)
    read, indexed = both(monkeypatch, paths, all_runs=True)
    assert_same(read, indexed)
    assert list(indexed.rows()) == rows_of(read_records(paths)[0])


def test_runs_of_several_folders_stand_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "one", a_run(LATE, int8=60))
    write(tmp_path / "two", a_run(EARLY, int4=60))
    (tmp_path / "nothing").mkdir()
    read, indexed = both(monkeypatch, [tmp_path / each for each in ("one", "nothing", "two")])
    assert_same(read, indexed)
    assert [each.run_id for each in indexed.contenders()] == [EARLY, EARLY, LATE, LATE]


def test_a_path_that_is_not_there_and_a_folder_without_records_are_errors(tmp_path: Path) -> None:
    write(tmp_path / "records", a_run(int8=60))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(RecordError, match="no such file or folder"):
        open_catalog([tmp_path / "records", tmp_path / "nowhere"])
    with pytest.raises(RecordError, match="no record is there"):
        open_catalog([tmp_path / "nothing"])


def test_only_is_asked_before_what_is_newest(tmp_path: Path) -> None:
    write(tmp_path, a_run(EARLY, int8=60))
    write(tmp_path, [each.model_copy(update={"key": "another"}) for each in a_run(LATE, int8=61)])
    only = Only("example", frozenset({"key-of-int8", "key-of-baseline"}))
    assert {each.run_id for each in open_catalog([tmp_path], only=only).contenders()} == {EARLY}
    assert not len(open_catalog([tmp_path], only=Only("other", only.keys)))


def test_a_limit_keeps_the_newest_runs_whole(tmp_path: Path) -> None:
    write(tmp_path, a_run(EARLY, "old", a=1, b=2) + a_run(LATE, "new", a=1, b=2))
    catalog = open_catalog([tmp_path])
    assert within(catalog, 6) == within(catalog, 0) == ([0, 1, 2, 3, 4, 5], "")
    shown, said = within(catalog, 5)
    assert [catalog.entry(at).recipe for at in shown] == ["new"] * 3
    assert said.startswith("Of 6 rows those of the newest runs are shown, 3. --limit 0 shows all")
    shown, said = within(catalog, 2)
    assert [catalog.entry(at).candidate for at in shown] == ["baseline", "a"]
    assert said.startswith("Of 6 rows the first 2 of the newest run are shown.")
