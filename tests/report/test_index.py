"""The index of a large folder: what is read again and when, and that nothing can make it say what the records don't."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import record_builder as build

from compressbench.core.errors import RecordError
from compressbench.records import store
from compressbench.records.record import Record
from compressbench.records.store import RecordStore, read_records
from compressbench.report import index, index_build, index_files, index_read
from compressbench.report.catalog import Catalog, open_catalog
from compressbench.report.index import Settings
from compressbench.report.rows import rows_of

CANDIDATES = ("int8", "int4", "wanda")
RUNS = ("20261122T074513.926665Z", "20261123T074513.926665Z")


def record(candidate: str, run_id: str = RUNS[0]) -> Record:
    harmful = {"int8": 40, "int4": 45, "wanda": 20, "late": 21}
    scores = (build.accuracy_after(harmful[candidate], 20),) if candidate in harmful else (build.accuracy(),)
    short = build.measurement(0.01, 0.01, rounds=2, calls=5)
    said = build.recipe((*CANDIDATES, "late"))
    return build.record(candidate, run_id=run_id, recipe=said, scores=scores, measurement=short)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs of four records, large enough for an index."""
    monkeypatch.setattr(index, "INDEX_FROM", 2)
    records = RecordStore(tmp_path / "records")
    for run_id in RUNS:
        for candidate in ("baseline", *CANDIDATES):
            records.append(record(candidate, run_id))
    time.sleep(0.03)  # no longer so young that it is read again to be sure
    return records.folder


@pytest.fixture
def was_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The candidates and runs of the files that were read."""
    names: list[str] = []

    def noted(path: Path) -> Record:
        names.append(path.name)
        return store.read_record(path)

    monkeypatch.setattr(index_build, "read_record", noted)
    return names


def opened(folder: Path, **settings: object) -> Catalog:
    return open_catalog([folder], all_runs=True, settings=Settings(**settings))  # type: ignore[arg-type]


def assert_is_of_the_records(catalog: Catalog, folder: Path) -> None:
    records, unreadable = read_records([folder])
    assert list(catalog.rows()) == rows_of(records)
    assert catalog.unreadable == unreadable


def adjusted(catalog: Catalog, run_id: str = RUNS[0]) -> dict[str, float | None]:
    rows = [row for row in catalog.rows() if row.run_id == run_id and row.role == "candidate"]
    return {row.candidate: row.against_baseline["accuracy"].p_adjusted for row in rows}


def parts_of(folder: Path) -> list[Path]:
    return sorted(index_files.index_folder(folder).glob("*.rows.parquet"))


def test_a_small_folder_is_read_directly_and_nothing_is_left_in_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "INDEX_FROM", 9)
    before = sorted(folder.rglob("*"))
    assert_is_of_the_records(opened(folder), folder)
    assert sorted(folder.rglob("*")) == before
    monkeypatch.setattr(index, "INDEX_FROM", 8)
    opened(folder)
    assert parts_of(folder)


def test_what_did_not_change_is_not_read_again(folder: Path, was_read: list[str]) -> None:
    opened(folder)
    assert len(was_read) == 8
    assert_is_of_the_records(opened(folder), folder)
    assert len(was_read) == 8


def test_a_new_candidate_changes_the_verdicts_of_its_whole_run_and_of_no_other(
    folder: Path, was_read: list[str]
) -> None:
    before = opened(folder)
    was_read.clear()
    RecordStore(folder).append(record("late"))
    time.sleep(0.03)
    after = opened(folder)
    assert_is_of_the_records(after, folder)
    assert adjusted(after).keys() == {*CANDIDATES, "late"}
    assert adjusted(after)["int8"] != adjusted(before)["int8"]
    assert adjusted(after, RUNS[1]) == adjusted(before, RUNS[1])
    assert len(was_read) == 5
    assert all(RUNS[0] in name for name in was_read)
    assert_is_of_the_records(opened(folder), folder)
    assert len(was_read) == 5


def test_a_file_that_was_deleted_is_gone_and_its_run_is_judged_without_it(folder: Path, was_read: list[str]) -> None:
    before = opened(folder)
    was_read.clear()
    next(folder.glob(f"*wanda*{RUNS[0]}*")).unlink()
    after = opened(folder)
    assert_is_of_the_records(after, folder)
    assert adjusted(after)["int8"] != adjusted(before)["int8"]
    assert len(was_read) == 3
    assert_is_of_the_records(opened(folder), folder)
    assert len(was_read) == 3


def test_a_baseline_that_was_deleted_leaves_its_run_without_verdicts_of_costs(folder: Path) -> None:
    opened(folder)
    next(folder.glob(f"*baseline*{RUNS[1]}*")).unlink()
    after = opened(folder)
    assert_is_of_the_records(after, folder)
    verdicts = {row.run_id: set(row.against_baseline) for row in after.rows() if row.candidate == "int8"}
    assert verdicts[RUNS[1]] == {"accuracy"} < verdicts[RUNS[0]]


def test_a_whole_run_may_go(folder: Path, was_read: list[str]) -> None:
    opened(folder)
    was_read.clear()
    for path in folder.glob(f"*{RUNS[0]}*"):
        path.unlink()
    assert_is_of_the_records(opened(folder), folder)
    assert not was_read


def test_a_file_that_was_touched_is_read_again_and_says_the_same(folder: Path, was_read: list[str]) -> None:
    before = list(opened(folder).rows())
    was_read.clear()
    os.utime(next(folder.glob("*int8*")))
    assert list(opened(folder).rows()) == before
    assert any("int8" in name for name in was_read)


@pytest.mark.parametrize("name", ["int8", "baseline"])
def test_one_changed_byte_is_noticed_though_size_and_time_are_as_before(folder: Path, name: str) -> None:
    before = opened(folder)
    path = next(folder.glob(f"*{name}*{RUNS[0]}*"))
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[data.index(b'"value":0.9') + len(b'"value":0.9')] ^= 1
    with path.open("r+b") as stream:
        stream.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = opened(folder)
    assert [each.path for each in after.unreadable] == [path]
    assert "its checksum doesn't match" in after.unreadable[0].reason
    assert path not in [after.path(at) for at in range(len(after))]
    assert_is_of_the_records(after, folder)
    assert len(after) == len(before) - 1
    assert opened(folder).unreadable == after.unreadable


def test_a_file_that_was_changed_is_named_by_the_path_that_was_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next(folder.glob("*int8*"))
    path.write_bytes(path.read_bytes() + b" ")
    opened(folder)
    monkeypatch.chdir(folder.parent)
    assert_is_of_the_records(opened(Path("records")), Path("records"))
    assert opened(Path("records")).unreadable[0].reason.startswith("records/")


def test_reindexing_reads_every_file_again(folder: Path, was_read: list[str]) -> None:
    opened(folder)
    opened(folder, reindex=True)
    assert len(was_read) == 16


def test_a_file_too_young_to_be_sure_of_is_read_again(
    folder: Path, was_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_files, "_YOUNG_NS", 3600 * 10**9)
    opened(folder)
    monkeypatch.setattr(index_files, "_YOUNG_NS", 0)
    opened(folder)
    opened(folder)
    assert len(was_read) == 16


def test_an_index_of_other_code_is_neither_used_nor_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_files, "code_version", lambda: "older")
    opened(folder)
    older = index_files.index_folder(folder)
    assert older.is_dir()
    monkeypatch.undo()
    monkeypatch.setattr(index, "INDEX_FROM", 2)
    assert_is_of_the_records(opened(folder), folder)
    assert not older.exists()
    assert index_files.index_folder(folder).is_dir()


def cut(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-200])


def flip(part: Path) -> None:
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)


def lose_figures(part: Path) -> None:
    next(part.parent.glob("*.figures.parquet")).unlink()


def copy_under_another_number(part: Path) -> None:
    part.with_name(f"0{part.name[:-1]}").write_bytes(b"")
    part.with_name("nonsense.parquet").write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, lose_figures, copy_under_another_number])
def test_a_damaged_index_is_made_anew(folder: Path, damage: Callable[[Path], None], was_read: list[str]) -> None:
    opened(folder)
    damage(parts_of(folder)[0])
    assert_is_of_the_records(opened(folder), folder)
    assert len(was_read) == 16
    opened(folder)
    assert len(was_read) == 16


def test_an_index_that_is_lost_while_it_is_asked_is_an_error_that_says_what_to_do(folder: Path) -> None:
    catalog = opened(folder)
    for part in index_files.index_folder(folder).iterdir():
        part.unlink()
    with pytest.raises(RecordError, match="--reindex"):
        list(catalog.rows())


def test_a_folder_that_can_not_be_written_is_indexed_elsewhere_for_this_once(folder: Path) -> None:
    (folder / index_files.FOLDER).write_text("a file where the index would be")
    catalog = opened(folder)
    assert_is_of_the_records(catalog, folder)
    elsewhere = catalog._sources[0]._index.reader._folder  # type: ignore[attr-defined]
    assert elsewhere.is_dir()
    assert folder not in elsewhere.parents
    del catalog
    assert not elsewhere.exists()


def test_many_small_updates_are_gathered_into_one_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_MOST_SMALL_PARTS", 3)
    opened(folder)
    numbers = []
    for day in range(4, 12):
        RecordStore(folder).append(record("baseline", f"202611{day:02}T000000.000000Z"))
        time.sleep(0.03)
        assert_is_of_the_records(opened(folder), folder)
        numbers.append(len(parts_of(folder)))
    assert max(numbers) == 4
    assert min(numbers[3:]) == 1


def test_several_processes_make_the_same_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_build, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(index_build, "_PART_SIZE", 4)
    said: list[str] = []
    monkeypatch.setattr(index, "_WORTH_SAYING", 8)
    catalog = opened(folder, processes=2, say=said.append)
    assert len(parts_of(folder)) == 2
    assert said == [f"reading 8 new or changed records of {folder} into its index"]
    assert_is_of_the_records(catalog, folder)
    assert catalog.contenders(["disk_bytes"]) == opened(folder, reindex=True).contenders(["disk_bytes"])


def test_runs_stay_whole_and_in_order_in_parts() -> None:
    runs = [["a"] * 3, ["b"], ["c"] * 5, ["d"]]
    assert index_files.in_parts(runs, 4) == [runs[:2], runs[2:3], runs[3:]]


@pytest.mark.parametrize(
    "spoil", [lambda data: b"", lambda data: b"[1]", lambda data: data[:300], lambda data: b"\xff"]
)
def test_a_file_that_is_no_record_is_of_no_run(spoil: Callable[[bytes], bytes], folder: Path) -> None:
    path = next(folder.glob("*.json"))
    assert index_files.run_in(path) == (RUNS[0], "hash-of-example")
    path.write_bytes(spoil(path.read_bytes()))
    assert index_files.run_in(path) is None
    assert_is_of_the_records(opened(folder), folder)


def test_a_record_with_its_fields_in_another_order_is_of_its_run(folder: Path) -> None:
    import hashlib
    import json

    path = next(folder.glob(f"*int8*{RUNS[0]}*"))
    fields = json.loads(path.read_bytes())
    order = ["sha256", "recipe", *sorted(fields.keys() - {"sha256", "recipe"})]
    text = json.dumps({**{name: fields[name] for name in order}, "sha256": "0" * 64}, separators=(",", ":"))
    data = text.replace('",', '",\n', 1).encode()
    path.write_bytes(data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1))
    assert index_files.run_in(path) == (RUNS[0], "hash-of-example")
    catalog = opened(folder)
    assert not catalog.unreadable
    assert_is_of_the_records(catalog, folder)


def test_names_of_folders_and_files_may_be_hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "INDEX_FROM", 1)
    folder = tmp_path / "it's [a-z]* ?\"<b>\\x"
    RecordStore(folder / "in\nner").append(record("baseline"))
    odd = record("int8").model_copy(update={"recipe": build.recipe(name="=1+1'\";--")})
    (folder / "\udcff.20261122T074513.926665Z.json").write_bytes(store.dump(odd))
    for _ in range(2):
        catalog = opened(folder)
        assert_is_of_the_records(catalog, folder)
        assert [len(catalog.contenders(recipe=name)) for name in ("=1+1'\";--", "example", "' OR 1=1 --")] == [1, 1, 0]


def test_deciding_from_an_index_imports_nothing_heavy(folder: Path) -> None:
    opened(folder)
    script = (
        "import sys; from pathlib import Path; from compressbench.report import index; index.INDEX_FROM = 2;"
        "from compressbench.report.catalog import open_catalog; catalog = open_catalog([Path(sys.argv[1])], all_runs=True);"
        "assert len(catalog.contenders(['latency_p95_s'])) == len(list(catalog.rows())) == 8;"
        "heavy = {'torch', 'numpy', 'scipy', 'pandas', 'pyarrow', 'multiprocessing'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_index_without_a_single_row_is_one_too(folder: Path) -> None:
    for path in folder.glob("*.json"):
        path.write_bytes(path.read_bytes() + b" ")
    catalog = opened(folder)
    assert len(catalog) == 0
    assert len(catalog.unreadable) == 8
    assert catalog.contenders(["disk_bytes"]) == []
    assert index_read.IndexReader(index_files.index_folder(folder)).files.keys() == {
        path.name for path in folder.glob("*.json")
    }
