"""Records on disk: whatever is changed is noticed, nothing is overwritten, what can't be read is told."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import record_builder as build

from compressbench.core.errors import OutputError, RecordError
from compressbench.core.questions import SampleRow
from compressbench.records.record import SCHEMA_VERSION, Record
from compressbench.records.sample_rows import read_samples
from compressbench.records.store import RecordStore, dump, load, read_record, read_records, stem_of

RECORDED = Path(__file__).parent.parent / "data" / "records-v1"
SMALL = build.failed("int8", environment=build.environment(packages={}, cpu_flags=None))


def sealed(text: str) -> bytes:
    """Text as a file of ours, with the checksum that belongs to it."""
    blank = '{"sha256":"' + "0" * 64 + '",\n' + text
    return blank.replace("0" * 64, hashlib.sha256(blank.encode()).hexdigest(), 1).encode()


@pytest.mark.parametrize("record", [build.record(), build.record("int8"), SMALL], ids=["baseline", "int8", "failed"])
def test_a_record_comes_back_as_it_was(tmp_path: Path, record: Record) -> None:
    path = RecordStore(tmp_path).append(record)
    assert read_record(path) == record
    assert path.name == f"example.{record.candidate}.{record.run_id}.json"


def test_the_file_is_plain_json_with_one_key_per_line() -> None:
    data = dump(build.record())
    fields = json.loads(data)
    assert list(fields)[:2] == ["sha256", "schema_version"]
    assert [line.partition(":")[0].strip('{"') for line in data.decode().splitlines()] == list(fields)


def test_one_changed_byte_anywhere_is_noticed() -> None:
    data = dump(SMALL)
    for position in range(len(data)):
        for mask in (0x01, 0x20, 0x80):
            changed = bytearray(data)
            changed[position] ^= mask
            with pytest.raises(RecordError):
                load(bytes(changed), "changed")


@pytest.mark.parametrize("cut", [0, 1, 11, 60, 80, -2, -1])
def test_a_record_that_was_cut_off_is_noticed(cut: int) -> None:
    with pytest.raises(RecordError):
        load(dump(SMALL)[:cut], "cut")


def test_the_checksum_is_that_of_the_file_with_zeros_in_its_place() -> None:
    data = dump(SMALL)
    stated = json.loads(data)["sha256"]
    assert hashlib.sha256(data.replace(stated.encode(), b"0" * 64)).hexdigest() == stated


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it isn't JSON"),
        (b"[" * 200_000, "it isn't JSON"),
        (b"\xff\xfe\x00", "it isn't JSON"),
        (b"[1, 2]", "no schema_version"),
        (b'{"name": "x"}', "no schema_version"),
        (b'{"schema_version": 1}', "doesn't start with its checksum"),
        (
            sealed('"schema_version":6,\n"new":1}\n'),
            r"reads schema 1, 2, 3, 4 and 5 \(got schema 6\). Upgrade compressbench",
        ),
        (sealed('"schema_version":0,\n"old":1}\n'), r"\(got schema 0\). Write it again"),
        (sealed('"schema_version":"two",\n"new":1}\n'), "got schema 'two'"),
        (sealed('"schema_version":1,\n"new":1}\n'), "not a valid record: run_id: Field required"),
        (b'{"sha256":"' + b"0" * 64 + b'",\n"schema_version":1,\n"new":1}\n', "changed after it was written"),
    ],
)
def test_what_is_no_record_says_why(data: bytes, said: str) -> None:
    with pytest.raises(RecordError, match=said) as caught:
        load(data, "some.json")
    assert str(caught.value).startswith("some.json: ")
    assert caught.value.exit_code == 2


def test_a_record_with_a_good_checksum_is_still_checked() -> None:
    fields = json.loads(dump(build.record()))
    del fields["sha256"]
    fields["readings"][0] |= {"low": 5.0, "high": 6.0}
    with pytest.raises(RecordError, match="outside its interval"):
        load(sealed('"schema_version":1,\n' + json.dumps(fields)[len('{"schema_version": 1, ') :] + "\n"), "forged")


def test_a_record_is_never_written_over(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    path = store.append(build.record())
    before = path.read_bytes()
    with pytest.raises(OutputError, match="already there"):
        store.append(build.record(key="another"))
    assert path.read_bytes() == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_record_that_cannot_be_written_leaves_no_half(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    store = RecordStore(tmp_path)

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(OutputError, match=os.strerror(number)):
            store.append(build.record())
        with pytest.raises(OutputError, match=os.strerror(number)):
            store.write_samples("a", "task", [])
    assert list(tmp_path.iterdir()) == []
    store.append(build.record())


def test_a_store_below_a_file_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as caught:
        RecordStore(tmp_path / "file" / "out")
    assert caught.value.exit_code == 2


def test_what_cannot_be_read_is_listed_and_the_rest_is_read(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    good, bad = store.append(build.record()), store.append(build.record("int8"))
    bad.write_bytes(bad.read_bytes().replace(b"key-of-int8", b"key-of-gold"))
    headless = tmp_path / f"example.x.{build.RUN_ID}.json"
    headless.write_bytes(good.read_bytes()[20:])
    records, unreadable = read_records([tmp_path])
    assert [record.candidate for record in records] == ["baseline"]
    assert [(each.path, "checksum doesn't match" in each.reason) for each in unreadable] == [
        (bad, True),
        (headless, False),
    ]


def test_other_json_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.append(build.record())
    (tmp_path / "table.json").write_text("[]")
    (tmp_path / "folder.json").mkdir()
    RecordStore(tmp_path / "folder.json").append(build.record("int8"))
    records, unreadable = read_records([tmp_path])
    assert [record.candidate for record in records] == ["baseline", "int8"]
    assert unreadable == []


def test_a_file_that_may_not_be_opened_is_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.append(build.record())
    secret = tmp_path / "secret.json"
    secret.touch()
    real_open, real_read = Path.open, Path.read_bytes

    def unless_secret(path: Path) -> Path:
        if path == secret:
            raise PermissionError(errno.EACCES, "Permission denied")
        return path

    monkeypatch.setattr(Path, "open", lambda path, mode="r": real_open(unless_secret(path), mode))
    monkeypatch.setattr(Path, "read_bytes", lambda path: real_read(unless_secret(path)))
    records, unreadable = read_records([tmp_path])
    assert len(records) == 1
    assert [each.reason for each in unreadable] == [f"{secret}: can't be read (got Permission denied)"]


def test_a_single_file_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    path = RecordStore(tmp_path).append(build.record())
    other = path.rename(tmp_path / "other.txt")
    assert len(read_records([other])[0]) == 1


def test_no_folder_and_no_record_are_errors_that_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"no such file or folder\. Run a recipe first"):
        read_records([tmp_path / "nowhere"])
    with pytest.raises(RecordError, match=r"no record is there. compressbench run RECIPE --out FOLDER"):
        read_records([tmp_path])
    with pytest.raises(RecordError, match="can't be read"):
        read_record(tmp_path / "nowhere.json")


def test_records_come_oldest_run_first_and_in_the_order_of_the_recipe(tmp_path: Path) -> None:
    store, said = RecordStore(tmp_path), build.recipe(("z", "a"))
    for run in ("20261123T000000.000000Z", "20261122T000000.000000Z"):
        for name in ("a", "baseline", "z"):
            store.append(build.record(name, recipe=said, run_id=run))
    found = [(record.run_id[6:8], record.candidate) for record in read_records([tmp_path])[0]]
    assert found == [(day, name) for day in ("22", "23") for name in ("baseline", "z", "a")]


def test_only_good_records_are_finished(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    assert store.finished_keys() == set()
    store.append(build.record())
    store.append(build.failed("int8"))
    assert store.finished_keys() == {"key-of-baseline"}
    assert store.finished_keys(lambda record: record.candidate == "int8") == set()


def test_a_run_that_starts_anew_keeps_nothing_and_one_that_goes_on_what_is_enough(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    for name in ("baseline", "int8"):
        store.append(build.record(name))
    store.checkpoints.mkdir()
    assert store.keys_to_keep(lambda record: record.candidate == "int8", resume=True) == {"key-of-int8"}
    assert store.checkpoints.exists()
    assert store.keys_to_keep(lambda record: True, resume=False) == set()
    assert not store.checkpoints.exists()


def test_names_of_any_length_fit_a_file_system(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    names = ["c" * 127 + end for end in "ab"]
    paths = [store.append(build.record(name, recipe=build.recipe(names, name="r" * 128))) for name in names]
    assert len({path.name for path in paths}) == 2
    for path in paths:
        file, _ = store.write_samples(path.stem, "text-classification-2", [])
        assert len(file) < 240
    assert {record.candidate for record in read_records([tmp_path])[0]} == set(names)
    assert stem_of("r", "c", "run") == "r.c.run"


ROWS = [
    SampleRow(id="1", prediction="a", target="b", score=0.0),
    SampleRow(id="zwölf", prediction="", target="=cmd()", score=1.5, weight=3.0),
    SampleRow(id="3", prediction="a", target="a", score=1.0, also={"acc_norm,none": 0.5}, confidence=0.25, cluster="p"),
]


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    file, sha256 = RecordStore(tmp_path).write_samples("example.int8.run", "task", ROWS)
    assert file == "example.int8.run.task.parquet"
    assert hashlib.sha256((tmp_path / file).read_bytes()).hexdigest() == sha256
    assert read_samples(tmp_path / "any.json", file, sha256) == ROWS


def test_changed_or_missing_samples_are_refused(tmp_path: Path) -> None:
    file, sha256 = RecordStore(tmp_path).write_samples("a", "task", ROWS)
    path = tmp_path / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RecordError, match="its checksum doesn't match"):
        read_samples(tmp_path / "any.json", file, sha256)
    path.unlink()
    with pytest.raises(RecordError, match="No such file"):
        read_samples(tmp_path / "any.json", file, sha256)


def test_samples_are_only_read_beside_the_record(tmp_path: Path) -> None:
    file, sha256 = RecordStore(tmp_path).write_samples("a", "task", ROWS)
    (tmp_path / "records").mkdir()
    with pytest.raises(RecordError, match="records"):
        read_samples(tmp_path / "records" / "any.json", f"../{file}", sha256)


def test_a_record_recorded_by_the_first_version_is_still_read() -> None:
    records, unreadable = read_records([RECORDED])
    assert unreadable == []
    assert [(record.candidate, record.status) for record in records] == [
        ("baseline", "ok"),
        ("bf16", "ok"),
        ("int8-dynamic", "ok"),
        ("half-the-layers", "ok"),
        ("broken", "failed"),
    ]
    for record in records:
        assert_holds(record.model_dump(mode="json"), written_as(record, RECORDED))
        assert record.audit is None
        assert record.measurement is None or record.measurement.protocol == 1


def written_as(record: Record, folder: Path) -> dict[str, Any]:
    path = folder / f"{stem_of(record.recipe.name, record.candidate, record.run_id)}.json"
    written: dict[str, Any] = json.loads(path.read_bytes())
    del written["sha256"]
    return written


def assert_holds(found: Any, written: Any) -> None:
    """All that was written is found again; later versions may have added keys."""
    if isinstance(written, dict):
        for key, value in written.items():
            assert_holds(found[key], value)
    elif isinstance(written, list):
        assert len(found) == len(written)
        for ours, theirs in zip(found, written, strict=True):
            assert_holds(ours, theirs)
    else:
        assert found == written


@pytest.mark.parametrize("version", ["records-v2", "records-v3", "records-v4", "records-v5"])
def test_a_record_recorded_by_a_later_version_is_still_read(version: str) -> None:
    folder = RECORDED.parent / version
    records, unreadable = read_records([folder])
    assert unreadable == []
    assert [(r.candidate, r.audit and r.audit.claim_ok, r.artefact is not None) for r in records] == [
        ("baseline", None, False),
        ("gptq", True, True),
        ("gptq-in-name", False, False),
    ]
    for record in records:
        assert_holds(record.model_dump(mode="json"), written_as(record, folder))


def test_a_record_recorded_by_this_version_is_the_same_to_the_byte() -> None:
    folder = RECORDED.parent / "records-v5"
    for record in read_records([folder])[0]:
        path = folder / f"{stem_of(record.recipe.name, record.candidate, record.run_id)}.json"
        assert dump(record) == path.read_bytes()
        assert record.schema_version == SCHEMA_VERSION


def test_reading_records_does_not_import_numpy_or_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from compressbench.records.store import read_records;"
        f"from compressbench.report.rows import rows_of; rows_of(read_records([Path({str(RECORDED)!r})])[0]);"
        "print([name for name in ('torch', 'numpy', 'scipy', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
