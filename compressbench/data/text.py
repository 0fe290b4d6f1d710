"""Running text for language models: fixed characters of one pinned revision."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from compressbench.core.errors import DataError
from compressbench.data.embedded_data import cut_text
from compressbench.data.samples import load_samples
from compressbench.data.sources import HubSource, locate, suffix_of
from compressbench.data.tables import local_revision, refuse_config

MAX_TEXT_BYTES = 1 << 30
"""The largest text, unpacked: a gzip file can expand a thousandfold."""


@dataclass(frozen=True)
class Text:
    """One running text. `revision` is a commit hash, or `sha256:<hex>` of the file it was read from."""

    source: str
    split: str
    revision: str
    text: str


def load_text(
    source: str,
    *,
    split: str,
    revision: str | None = None,
    config: str | None = None,
    column: str = "text",
    join: str = "\n\n",
) -> Text:
    """The text of a split.

    `source` is `embedded:tinyshakespeare` (train: the first 90 % of the characters, test: the last 10 %), a local .txt
    or .txt.gz file (UTF-8, at most 1 GiB unpacked), or a table as in `load_samples`, whose `column` is joined with
    `join`.

    Raises DataError for anything that is missing, empty, too large or not UTF-8.
    """
    place = locate(source, split, form="text")
    if isinstance(place, HubSource) or place.suffix not in {".txt", ".txt.gz"}:
        rows = load_samples(source, split=split, columns={"text": column}, revision=revision, config=config)
        return Text(source, split, rows.revision, _not_empty(join.join(rows.columns["text"]), source))
    refuse_config(config, source)
    text = read_text_file(place.paths[0])
    if source.startswith("embedded:"):
        text = cut_text(text, split)
    return Text(source, split, local_revision(place, source, revision), _not_empty(text, source))


def read_text_file(path: Path) -> str:
    """The characters of a .txt or .txt.gz file as they are: line ends are not changed."""
    try:
        return _read_capped(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=str(path), got=str(error), do="Convert it to UTF-8.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError("not a whole gzip file", where=str(path), got=str(error), do="Copy it again.") from error


def _read_capped(path: Path) -> bytes:
    packed = suffix_of(path) == ".txt.gz"
    with cast(BinaryIO, gzip.open(path, "rb")) if packed else path.open("rb") as file:
        data = file.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise DataError(
            "the text is too large",
            where=str(path),
            got=f"more than {MAX_TEXT_BYTES} bytes unpacked",
            do="Cut it to the part that is needed.",
        )
    return data


def _not_empty(text: str, source: str) -> str:
    if not text.strip():
        raise DataError("the text is empty", where=source, got=f"{len(text)} characters")
    return text
