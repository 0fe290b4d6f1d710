"""Where data comes from: `embedded:NAME`, `root:NAME` below the data root, a local file or folder, or a Hub id.

No data is read here, and no network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compressbench.core.errors import DataError
from compressbench.core.names import did_you_mean
from compressbench.data.data_root import PREFIX, below_root, require_below_root
from compressbench.data.embedded_data import EMBEDDED_TABLES, EMBEDDED_TEXTS, embedded_path

Form = Literal["samples", "text"]

TABLE_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")
TEXT_SUFFIXES = (".txt", ".txt.gz", *TABLE_SUFFIXES)
REFUSED_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".npy", ".npz", ".joblib", ".py")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*")
SPLIT_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")
SHARD = re.compile(r"(?P<split>.+?)-(?P<index>\d+)(?:-of-(?P<total>\d+))?(?:-[0-9a-f]{8,})?")
"""Stems such as test-00000-of-00002; not test-clean, which is a split of its own."""

_Order = tuple[int, str]


@dataclass(frozen=True)
class LocalFiles:
    """The files of one split, in the order in which their rows count."""

    paths: tuple[Path, ...]

    @property
    def suffix(self) -> str:
        return suffix_of(self.paths[0])


@dataclass(frozen=True)
class HubSource:
    """A data set of the Hugging Face Hub, `owner/name`."""

    name: str


def check_source(source: str, split: str, *, form: Form | None = None) -> None:
    """Raise DataError for a source or split that can be seen to be wrong without a network and without reading data.

    `form` says what it will be used for: "samples" (a table) or "text"; None allows both. A Hub id is checked for its
    form only.
    """
    locate(source, split, form=form)


def locate(source: str, split: str, *, form: Form | None = None) -> LocalFiles | HubSource:
    """The files of `split`, or the Hub data set that holds it; a source that looks local never becomes a Hub id."""
    if not SPLIT_NAME.fullmatch(split):
        raise DataError(
            "a split is a plain name",
            where=source,
            got=repr(split),
            do="Slices such as 'test[:100]' are not taken; set a limit instead.",
        )
    if source.startswith("embedded:"):
        return _embedded(source, split, form)
    if source.startswith(PREFIX):
        return _below_root(source, split, form)
    if is_local(source):
        return _local(Path(source).expanduser(), split, form)
    if HUB_ID.fullmatch(source):
        return HubSource(source)
    name = source.partition(":")[2] or source
    raise DataError(
        "not a data source",
        where="data",
        got=repr(source),
        do="Give embedded:NAME, root:NAME, a path such as ./rows.jsonl, or a Hub id owner/name. "
        + did_you_mean(f"embedded:{name}", [f"embedded:{known}" for known in (*EMBEDDED_TABLES, *EMBEDDED_TEXTS)]),
    )


def is_local(source: str) -> bool:
    """Whether `source` means a path: by how it starts, by its suffix, or because it is there."""
    looks = source.startswith(("./", "../", "/", "~", ".\\", "..\\")) or source in {".", ".."}
    known = suffix_of(Path(source)) in {*TEXT_SUFFIXES, *REFUSED_SUFFIXES}
    return looks or known or os.path.exists(source)  # of os.path: False, not an error, for what can't be a path


def suffix_of(path: Path) -> str:
    """The suffix in small letters; `.txt.gz` counts as one."""
    name = path.name.lower()
    return ".txt.gz" if name.endswith(".txt.gz") else path.suffix.lower()


def _embedded(source: str, split: str, form: Form | None) -> LocalFiles:
    known: dict[str, Mapping[str, str]] = {}
    if form != "text":
        known |= EMBEDDED_TABLES
    if form != "samples":
        known |= EMBEDDED_TEXTS
    name = source.removeprefix("embedded:")
    if name not in known:
        raise DataError(
            f"no embedded {form or 'data'} of that name", where=source, got=repr(name), do=did_you_mean(name, known)
        )
    if split not in known[name]:
        raise DataError("no such split", where=source, got=repr(split), do=did_you_mean(split, known[name]))
    return LocalFiles((embedded_path(name, known[name][split]),))


def _below_root(source: str, split: str, form: Form | None) -> LocalFiles:
    files = _local(below_root(source), split, form)
    for path in files.paths:
        require_below_root(path, source)
    return files


def _local(path: Path, split: str, form: Form | None) -> LocalFiles:
    allowed = TABLE_SUFFIXES if form == "samples" else TEXT_SUFFIXES
    if path.is_dir():
        return _split_of_folder(path, split, allowed)
    if suffix_of(path) in REFUSED_SUFFIXES:
        raise DataError(
            "pickles and scripts can run code and are never opened",
            where=str(path),
            got=suffix_of(path),
            do=f"Convert it to one of {', '.join(allowed)}.",
        )
    if not path.is_file():
        raise DataError("no such file", where=str(path), do=_near_files(path))
    if suffix_of(path) not in allowed:
        raise DataError(
            "a format that is not read here",
            where=str(path),
            got=suffix_of(path) or "no suffix",
            do=f"Convert it to one of {', '.join(allowed)}.",
        )
    return LocalFiles((path,))


def _near_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} either."
    return did_you_mean(path.name, (entry.name for entry in path.parent.iterdir()))


def _split_of_folder(folder: Path, split: str, allowed: tuple[str, ...]) -> LocalFiles:
    whole, shards = _splits(folder, allowed)
    if split not in {*whole, *shards}:
        raise DataError(
            "no file of that split",
            where=str(folder),
            got=repr(split),
            do=f"Name it {split}.jsonl or {split}-00000-of-00001.parquet. " + did_you_mean(split, {*whole, *shards}),
        )
    paths = whole.get(split, [])
    parts = [path for _, path in sorted(shards.get(split, {}).items())]
    if len(paths) + bool(parts) > 1:
        raise DataError(
            f"more than one file could be split '{split}'",
            where=str(folder),
            got=_names([*paths, *parts]),
            do="Name the file itself as the source.",
        )
    _check_shards_complete(folder, parts)
    return LocalFiles(tuple(paths or parts))


def _splits(folder: Path, allowed: tuple[str, ...]) -> tuple[dict[str, list[Path]], dict[str, dict[_Order, Path]]]:
    """Split name -> its whole files, and split name -> its Parquet shards by their number."""
    whole: dict[str, list[Path]] = {}
    shards: dict[str, dict[_Order, Path]] = {}
    for path in sorted(folder.iterdir()):
        suffix = suffix_of(path)
        if not path.is_file() or suffix not in allowed:
            continue
        stem = path.name[: -len(suffix)]
        if suffix == ".parquet" and (shard := SHARD.fullmatch(stem)):
            shards.setdefault(shard["split"], {})[int(shard["index"]), path.name] = path
        else:
            whole.setdefault(stem, []).append(path)
    return whole, shards


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _check_shards_complete(folder: Path, parts: list[Path]) -> None:
    found = [shard for path in parts if (shard := SHARD.fullmatch(path.stem)) and shard["total"]]
    if not found:
        return
    total = int(found[0]["total"])
    expected = [(index, total) for index in range(total)]
    if [(int(shard["index"]), int(shard["total"])) for shard in found] != expected or len(parts) != total:
        raise DataError(
            f"{total} shards were announced",
            where=str(folder),
            got=_names(parts),
            do="Copy the missing files, or remove those of another set.",
        )
