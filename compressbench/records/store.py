"""Records on disk: one JSON file each, never changed after it was written, its per-sample rows in Parquet beside it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from compressbench.core.errors import OutputError, RecordError
from compressbench.core.garbage import no_garbage_collection
from compressbench.core.names import one_line
from compressbench.core.questions import SampleRow
from compressbench.core.spec import content_hash
from compressbench.records.files import make_folder, write_atomically
from compressbench.records.record import READABLE_VERSIONS, SCHEMA_VERSION, Record
from compressbench.records.sample_rows import columns_of

_BLANK = "0" * 64
_BEGINNING = b'{"sha256":"'
_HEAD = b'{"sha256":"%s",\n' % _BLANK.encode()
_CHECKSUM_AT = len(_BEGINNING)
_VERSION = re.compile(rb'"schema_version":(\d{1,9}),\n')
_FILE_NAME = re.compile(r".+\.\d{8}T\d{6}\.\d{6}Z\.json")
_LONGEST_STEM = 160
_LONGEST_REASON = 200
# a record as it was written has a line for each of its keys
_FEWEST_LINES = 15
# more than a checksum can have in a row
_MANY_DIGITS = b"0" * 65
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)


class Unreadable(NamedTuple):
    path: Path
    reason: str


class Located(NamedTuple):
    """A record and the file that it was read from."""

    path: Path
    record: Record


class RecordStore:
    """A folder of records. Making it proves that the folder can be written (OutputError), before anything is measured."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)

    @property
    def checkpoints(self) -> Path:
        """Where unfinished training of a cell may be kept, until the cell is done or a run starts anew."""
        return self.folder / ".checkpoints"

    def forget_checkpoints(self) -> None:
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def append(self, record: Record) -> Path:
        """Write the record under a name of its own. Raises OutputError, also if that name is taken."""
        path = self.folder / f"{stem_of(record.recipe.name, record.candidate, record.run_id)}.json"
        if path.exists():
            raise OutputError("a record of this run and candidate is already there", where=str(path))
        write_atomically(path, dump(record))
        return path

    def keys_to_keep(self, is_enough: Callable[[Record], bool], *, resume: bool) -> set[str]:
        """Of a run that goes on those that are finished; one that starts anew forgets its checkpoints, too."""
        if resume:
            return self.finished_keys(is_enough)
        self.forget_checkpoints()
        return set()

    def finished_keys(self, is_enough: Callable[[Record], bool] = lambda record: True) -> set[str]:
        """Keys of the cells that have a readable record with status ok in this folder, which also `is_enough`."""
        files = [path for path in self.folder.glob("*.json") if looks_like_a_record(path)]
        found = read_records(files)[0] if files else []
        return {record.key for record in found if record.status == "ok" and is_enough(record)}

    def write_samples(self, stem: str, task: str, rows: Sequence[SampleRow]) -> tuple[str, str]:
        """Write per-sample rows (id, prediction, target, score, weight, and what else they have); the file's name and its
        SHA-256.
        """
        return self.write_columns(stem, task, columns_of(rows))

    def write_columns(self, stem: str, what: str, columns: Mapping[str, Sequence[Any]]) -> tuple[str, str]:
        """Write a table of columns as Parquet; the file's name and its SHA-256."""
        import io

        import pyarrow as pa
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), buffer)
        path = self.folder / f"{stem}.{what}.parquet"
        write_atomically(path, buffer.getvalue())
        return path.name, hashlib.sha256(buffer.getvalue()).hexdigest()


def stem_of(recipe: str, candidate: str, run_id: str) -> str:
    """The beginning of the names of a record's files; long names are cut, for a file name has at most 255 bytes."""
    names = f"{recipe}.{candidate}"
    if len(names) > _LONGEST_STEM:
        names = f"{recipe[:60]}.{candidate[:60]}.{content_hash([recipe, candidate])}"
    return f"{names}.{run_id}"


def dump(record: Record) -> bytes:
    """JSON with one top-level key per line; it starts with the SHA-256 of the file as it is with 64 zeros in that place."""
    fields = {"sha256": _BLANK, **record.model_dump(mode="json")}
    lines = (f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in fields.items())
    data = ("{" + ",\n".join(lines) + "}\n").encode()
    digest = hashlib.sha256(data).hexdigest().encode()
    return data[:_CHECKSUM_AT] + digest + data[_CHECKSUM_AT + 64 :]


def load(data: bytes, where: str) -> Record:
    """The record in `data`. Raises RecordError if a byte was changed, or the schema is another version's."""
    version = _version_in(data, where)
    if version not in READABLE_VERSIONS:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        do = "Upgrade compressbench." if newer else "Write it again with this version."
        known = f"{', '.join(map(str, READABLE_VERSIONS[:-1]))} and {READABLE_VERSIONS[-1]}"
        raise RecordError(
            f"this version reads schema {known}", where=where, got=f"schema {one_line(repr(version))[:80]}", do=do
        )
    blanked = data[:_CHECKSUM_AT] + _BLANK.encode() + data[_CHECKSUM_AT + 64 :]
    if hashlib.sha256(blanked).hexdigest().encode() != data[_CHECKSUM_AT : _CHECKSUM_AT + 64]:
        raise RecordError("the file was changed after it was written: its checksum doesn't match", where=where)
    _refuse_what_no_record_has(data, where)
    try:
        # parsed and checked in one go: this is where a table's time goes
        return Record.model_validate_json(b"{" + data[len(_HEAD) :])
    except ValidationError as error:
        raise RecordError(f"not a valid record: {_first_of(error)}", where=where) from error


def _first_of(error: ValidationError) -> str:
    """Where the first mistake is and what; keys and names of a record may be anything and of any length."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = one_line(".".join(map(str, first["loc"])))
    return f"{place[:_LONGEST_REASON]}: {one_line(first['msg'])[:_LONGEST_REASON]}"


def _refuse_what_no_record_has(data: bytes, where: str) -> None:
    """Keys that stand twice, where the next reader could see another record; whole numbers that are no floats."""
    keys = [line.partition(b":")[0] for line in data.split(b"\n")]
    if len(keys) > _FEWEST_LINES and len(set(keys)) == len(keys) and _MANY_DIGITS not in data.translate(_DIGITS):
        return
    try:
        json.loads(data, object_pairs_hook=_without_doubles, parse_int=_as_float_would)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not a valid record: {one_line(str(error))[:_LONGEST_REASON]}", where=where) from error


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' stands twice")
    return found


def _as_float_would(digits: str) -> int:
    if len(digits) > len(_MANY_DIGITS):
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _version_in(data: bytes, where: str) -> object:
    """The schema version, read without the rest where the file looks as `dump` writes it."""
    found = _VERSION.match(data, len(_HEAD))
    if found and data.startswith(_BEGINNING):
        return int(found[1])
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RecordError("not a record: it isn't JSON", where=where, got=str(error)) from error
    if not isinstance(fields, dict) or "schema_version" not in fields:
        raise RecordError("not a record: it has no schema_version", where=where)
    if not data.startswith(_BEGINNING):
        raise RecordError("not a record as it was written: it doesn't start with its checksum", where=where)
    return fields["schema_version"]


def read_record(path: Path) -> Record:
    """Raises RecordError if the file isn't there, isn't a record, or was changed."""
    try:
        return load(path.read_bytes(), str(path))
    except OSError as error:
        raise RecordError("can't be read", where=str(path), got=error.strerror or str(error)) from error


def checksum_of(path: Path) -> str | None:
    """The checksum that a record's file says of itself, not proven; None if there is none to read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_CHECKSUM_AT + 64)
    except OSError:
        return None
    return head[_CHECKSUM_AT:].decode("ascii", "replace") if head.startswith(_BEGINNING) else None


def read_records(paths: Iterable[Path]) -> tuple[list[Record], list[Unreadable]]:
    """All records in files and folders, oldest run first, and what could not be read.

    Raises RecordError if a path doesn't exist or holds no record at all.
    """
    located, unreadable = read_located(paths)
    return [each.record for each in located], unreadable


def read_located(paths: Iterable[Path]) -> tuple[list[Located], list[Unreadable]]:
    """The same, each record with the file that it stands in."""
    found: list[Located] = []
    unreadable: list[Unreadable] = []
    # records hold no cycles, but millions of numbers: looking for cycles among them takes longer than reading them
    with no_garbage_collection():
        for path in _record_files(paths):
            try:
                found.append(Located(path, read_record(path)))
            except RecordError as error:
                unreadable.append(Unreadable(path, str(error)))
    return sorted(found, key=lambda each: (each.record.run_id, each.record.position)), unreadable


def _record_files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found.extend(sorted(file for file in path.rglob("*.json") if looks_like_a_record(file)))
        elif path.is_file():
            found.append(path)
        else:
            raise RecordError("no such file or folder", where=str(path), do="Run a recipe first, or check the path.")
    if not found:
        where = ", ".join(map(str, paths))
        raise RecordError("no record is there", where=where, do="compressbench run RECIPE --out FOLDER writes them.")
    return found


def looks_like_a_record(path: Path) -> bool:
    """By its name or its first bytes, so that a record whose beginning was lost is told of and not passed over."""
    if not path.is_file():
        # a link that leads nowhere or to itself
        return path.is_symlink() and not path.exists() and bool(_FILE_NAME.fullmatch(path.name))
    if _FILE_NAME.fullmatch(path.name):
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(_CHECKSUM_AT) == _BEGINNING
    except OSError:
        return True  # reading it will say why it can't be read
