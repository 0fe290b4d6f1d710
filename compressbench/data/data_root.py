"""The data root: the folder below which `root:NAME` finds local copies of data sets, for as long as a call lasts.

What a recipe and its records say is `root:sst2`, the same on every machine; where that lies is no part of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from compressbench.core.errors import DataError

PREFIX = "root:"

_ROOT: ContextVar[Path | None] = ContextVar("data_root", default=None)


@contextmanager
def reading_below(folder: str | Path | None) -> Iterator[Path | None]:
    """`root:NAME` is read below `folder` within the block, and as before after it; None leaves it as it is outside.

    Yields the folder as an absolute path without links. Raises DataError if it isn't one. Not for a block that yields
    to its caller: a generator's caller would see the root too.
    """
    token = _ROOT.set(_ROOT.get() if folder is None else _checked(folder))
    try:
        yield _ROOT.get()
    finally:
        _ROOT.reset(token)


def has_data_root() -> bool:
    return _ROOT.get() is not None


def below_root(source: str) -> Path:
    """Where the source `root:NAME` lies, whether or not anything is there.

    Raises DataError without a data root, and for a name that isn't below it.
    """
    root, name = _ROOT.get(), source.removeprefix(PREFIX)
    if root is None:
        raise DataError(
            "there is no data root",
            where=source,
            do="Say where the local copies lie: --data-root DIR, COMPRESSBENCH_DATA_ROOT, or data_root=... in Python.",
        )
    if not _is_plain(name):
        raise DataError("not a name below the data root", where=source, got=repr(name), do="Write root:FOLDER.")
    path = root / name
    require_below_root(path, source)
    return path


def require_below_root(path: Path, source: str) -> None:
    """Raise DataError if `path` is a link out of the data root, or passes one."""
    root = _ROOT.get()
    try:
        is_below = root is not None and path.resolve().is_relative_to(root)
    except (OSError, RuntimeError) as error:  # links in a circle
        raise DataError("a link that leads nowhere", where=source, got=path.name) from error
    if not is_below:
        raise DataError(
            "a link leaves the data root", where=source, got=path.name, do="Copy what it points to below the root."
        )


def _is_plain(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return name.isprintable() and ":" not in name and not set(parts) & {"", ".", ".."}


def _checked(folder: str | Path) -> Path:
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise DataError("the data root is no folder", where=str(folder), do="Give the folder of the local copies.")
    return path.resolve()
