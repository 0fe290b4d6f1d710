"""Which record files stand in a folder, which of them changed since they were indexed, and where the index is kept."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from compressbench.core.errors import RecordError
from compressbench.records.store import looks_like_a_record, read_record
from compressbench.report.stored import Entry

FOLDER = ".compressbench"
# the kernel's clock for files advances in steps of some milliseconds: a file this young could change and look the same
_YOUNG_NS = 20_000_000

Run = tuple[str, str]
"""A run's id and the hash of its recipe."""


class Stamp(NamedTuple):
    """The inode's change time also moves where a byte was changed and the modification time put back."""

    size: int
    mtime_ns: int
    ctime_ns: int


class StoredFile(NamedTuple):
    """A file as the index has it, at its place there. `entry` and `run` are None, and `reason` says why, where it could not
    be read; `num_in_run` records of the run were judged together.
    """

    place: int
    stamp: Stamp
    reason: bytes | None
    num_in_run: int | None
    run: Run | None
    entry: Entry | None


def index_folder(folder: Path) -> Path:
    """One for each state of the code that makes indexes: what other code said of a record isn't what this would say."""
    return folder / FOLDER / f"rows-{code_version()}"


@cache
def code_version() -> str:
    """A hash of all the code that makes rows out of records."""
    package = Path(__file__).parent.parent
    files = sorted(path for room in ("core", "records", "report") for path in (package / room).rglob("*.py"))
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(package).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def sort_key(path: str) -> list[str]:
    """Files in the order in which pathlib sorts them."""
    return path.split("/")


def stamps_in(folder: Path, known: Mapping[str, StoredFile]) -> dict[str, Stamp]:
    """The record files below a folder, by their path in it. Files that are `known` and unchanged aren't opened."""
    young = time.time_ns() - _YOUNG_NS
    found: dict[str, Stamp] = {}
    for path, entry in _json_files(str(folder), ""):
        try:
            status = entry.stat()
        except OSError:
            continue
        stamp = Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns if status.st_ctime_ns < young else 0)
        before = known.get(path)
        if (before is not None and before.stamp == stamp) or looks_like_a_record(Path(entry.path)):
            found[path] = stamp
    return found


def _json_files(folder: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Like rglob: links to folders aren't followed, folders that can't be read are passed over."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _json_files(entry.path, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".json"):
            yield f"{prefix}{entry.name}", entry


def no_records_in(paths: Iterable[Path]) -> list[Path]:
    """The JSON files below folders that nobody would take for records. Tables that were drawn of records aren't told of,
    nor what saved models are made of.
    """
    found: list[Path] = []
    for folder in dict.fromkeys(path for path in paths if path.is_dir()):
        for path, _ in _json_files(str(folder), ""):
            *above, name = path.split("/")
            is_ours = name == "table.json" or any(each == "artefacts" or each.startswith(".") for each in above)
            if not is_ours and not looks_like_a_record(folder / path):
                found.append(folder / path)
    return sorted(found)


def to_read(folder: Path, stamps: Mapping[str, Stamp], known: Mapping[str, StoredFile]) -> list[list[str]]:
    """By run the files that must be read: new and changed ones, and all others of the same run.

    The verdicts of a run are one family: where one of its files came, went or changed, they all may have changed.
    """
    living = {path: each for path, each in known.items() if stamps.get(path) == each.stamp}
    run_of: dict[str, Run | None] = {path: run_in(folder / path) for path in stamps if path not in living}
    num_left = Counter(each.run for each in living.values())
    dirty = {each.run for each in living.values() if each.run and num_left[each.run] != each.num_in_run}
    dirty |= {run for run in run_of.values() if run}
    run_of |= {path: each.run for path, each in living.items() if each.run in dirty}
    return _by_run(run_of)


def _by_run(run_of: Mapping[str, Run | None]) -> list[list[str]]:
    """Oldest run first. Files of no run are families of their own."""
    runs: defaultdict[Run, list[str]] = defaultdict(list)
    for path, run in run_of.items():
        runs[run or ("", path)].append(path)
    return [sorted(paths, key=sort_key) for _, paths in sorted(runs.items())]


def run_in(path: Path) -> Run | None:
    """The run that a file says it belongs to, read from its first lines; None if it isn't a record that can be read."""
    try:
        with path.open("rb") as stream:
            lines = [stream.readline().rstrip(b",\n") for _ in range(5)]
        fields = json.loads(b"{%s}" % b",".join(lines).removeprefix(b"{"))
        return str(fields["run_id"]), str(fields["recipe"]["hash"])
    except OSError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    # not as it would be written today, and perhaps a record all the same
    try:
        record = read_record(path)
    except RecordError:
        return None
    return record.run_id, record.recipe.hash


def in_parts(runs: Sequence[Sequence[str]], size: int) -> list[list[Sequence[str]]]:
    """Whole runs, in parts of about so many files."""
    parts: list[list[Sequence[str]]] = []
    free = 0
    for run in runs:
        if free < len(run) or not parts:
            parts.append([])
            free = size
        parts[-1].append(run)
        free -= len(run)
    return parts
