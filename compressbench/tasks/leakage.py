"""Training never sees evaluation data."""

from __future__ import annotations

from compressbench.core.errors import DataError
from compressbench.data.sources import LocalFiles, locate


def refuse_evaluation_data(data: str, split: str, train_split: str) -> None:
    """Raise DataError if the training split is the evaluation split, under whatever name.

    A single local file holds the same rows for every split; embedded texts in one file are cut apart.
    """
    same_files = (
        not data.startswith("embedded:")
        and isinstance(found := locate(data, split), LocalFiles)
        and (found == locate(data, train_split))
    )
    if split == train_split or same_files:
        raise DataError(
            "training would see the evaluation data",
            where=data,
            got=f"split {split!r} and train_split {train_split!r}",
            do="Give a folder with one file per split, such as train.jsonl and test.jsonl.",
        )
