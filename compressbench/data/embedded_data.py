"""The data that ships in the package. Origins and licences: ATTRIBUTION.md in each folder of `embedded/`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

EMBEDDED_TABLES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "banking77": {"train": "train.parquet", "test": "test.parquet"},
        "arithmetic": {"train": "train.parquet", "test": "test.parquet"},
        "shakespeare-choices": {"test": "test.parquet"},
        "shakespeare-last-words": {"test": "test.parquet"},
        "synthetic-clicks": {"train": "train.parquet", "test": "test.parquet"},
        "synthetic-shapes": {"train": "train.parquet", "test": "test.parquet"},
    }
)
"""Name -> split -> file, for tables."""

EMBEDDED_TEXTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {"tinyshakespeare": {"train": "input.txt.gz", "test": "input.txt.gz"}}
)
"""Name -> split -> file, for running text; splits in one file are cut by `cut_text`."""

TRAIN_FRACTION = 0.9


def embedded_path(name: str, file: str) -> Path:
    """Where `file` of the embedded data set `name` lies."""
    return Path(__file__).parent / "embedded" / name / file


def cut_text(text: str, split: str) -> str:
    """The usual split of TinyShakespeare (char-rnn, nanoGPT): the first 90 % of the characters train, the rest test."""
    cut = int(len(text) * TRAIN_FRACTION)
    return text[:cut] if split == "train" else text[cut:]
