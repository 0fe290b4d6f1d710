"""Data sets of the Hugging Face Hub, always at one commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from compressbench.core.errors import DataError
from compressbench.core.names import did_you_mean
from compressbench.data.tables import Table

COMMIT = re.compile(r"[0-9a-f]{40}")
TABLE_BUILDERS = frozenset({"parquet", "csv", "json", "arrow", "text", "cache"})
"""What `datasets` may read here: plain tables. `cache` is a table that was read before."""


def read_hub(name: str, *, split: str, revision: str | None, config: str | None) -> tuple[Table, str]:
    """All rows of a split and the commit hash they come from. `revision` is a branch (None: main), tag or commit.

    Offline, what was loaded before at that commit is used. Raises DataError if the data set, revision, configuration or
    split can't be had.
    """
    import datasets

    commit = resolve_commit(name, revision or "main")
    # One cache folder per commit: on any failure `datasets` falls back to "the latest cached version" of a data set,
    # whichever commit that was. Here it can only find this one.
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "compressbench" / commit
    try:
        builder = datasets.load_dataset_builder(name, config, revision=commit, cache_dir=str(cache))
        _check_builder(builder, name)
        builder.download_and_prepare()
        _check_split(builder, name, split)
        rows = builder.as_dataset(split=split)
    except _load_errors() as error:
        raise DataError(
            "can't be loaded from the Hub",
            where=name,
            got=f"commit {commit}: {_first_line(error)}",
            do="Check the configuration name, and the connection if this is its first use.",
        ) from error
    features = rows.features.items()
    class_names = {column: tuple(kind.names) for column, kind in features if isinstance(kind, datasets.ClassLabel)}
    return Table(rows.with_format("arrow")[:], class_names), commit


def resolve_commit(name: str, revision: str) -> str:
    """The commit hash that `revision` stands for now, or, without a connection, stood for when it was last loaded."""
    from huggingface_hub import errors, hf_hub_download

    try:
        # Asking for a file, rather than for the repository's facts, leaves the branch's commit in the Hub's own cache.
        return Path(hf_hub_download(name, "README.md", repo_type="dataset", revision=revision)).parent.name
    except errors.EntryNotFoundError as error:
        return _cached_commit(name, revision, error)
    except errors.RevisionNotFoundError as error:
        raise DataError(
            "no such revision on the Hub",
            where=name,
            got=repr(revision),
            do="Give a branch, a tag or a full commit hash.",
        ) from error
    except errors.GatedRepoError as error:
        raise DataError(
            "access to this data set is restricted",
            where=name,
            got="a gated repository",
            do="Ask for access on its page, then `hf auth login`.",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            "no such data set on the Hub",
            where=name,
            got=repr(name),
            do="Check the spelling; a local folder is written ./folder; a private one needs `hf auth login`.",
        ) from error
    except _load_errors() as error:
        raise DataError("the Hub can't be asked", where=name, got=_first_line(error)) from error


def _cached_commit(name: str, revision: str, error: Exception) -> str:
    """The commit from the Hub's cache: there is no README, or there is no connection."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    if COMMIT.fullmatch(revision):
        return revision
    folder = repo_folder_name(repo_id=name, repo_type="dataset")
    ref = Path(constants.HF_HUB_CACHE) / folder / "refs" / revision
    if not ref.is_file():
        raise DataError(
            "the Hub can't be reached and this data set was not loaded before",
            where=name,
            got=f"revision {revision!r}",
            do="Load it once with a connection.",
        ) from error
    return ref.read_text(encoding="utf-8").strip()


def _check_builder(builder: Any, name: str) -> None:
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in TABLE_BUILDERS:
        raise DataError(
            "only plain tables are read from the Hub",
            where=name,
            got=f"{kind} files",
            do=f"Use a data set of {', '.join(sorted(TABLE_BUILDERS - {'cache'}))} files.",
        )


def _check_split(builder: Any, name: str, split: str) -> None:
    known = list(builder.info.splits or {})
    if split not in known:
        raise DataError("no such split", where=name, got=repr(split), do=did_you_mean(split, known))


def _load_errors() -> tuple[type[Exception], ...]:
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    # httpx or its successor, whichever the Hub's library was built on
    http_error = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    return (OSError, ValueError, RuntimeError, DatasetsError, cast(type[Exception], http_error))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
