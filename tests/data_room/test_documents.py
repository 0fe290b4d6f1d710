from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compressbench.core.errors import DataError
from compressbench.data.documents import Documents, load_documents
from compressbench.data.samples import load_samples, permutation

ROWS: list[dict[str, Any]] = [
    {"question": f"what is {number}?", "choices": {"text": ["one", "two"], "label": ["A", "B"]}, "answer": number % 2}
    for number in range(9)
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_a_document_is_a_whole_row(path: Path) -> None:
    documents = load_documents(str(path), split="test")
    assert documents.rows == ROWS
    assert documents.ids == tuple("012345678")
    assert documents.revision.startswith("sha256:")


def test_the_limit_and_take_give_the_first_rows_under_the_same_ids(path: Path) -> None:
    limited, whole = load_documents(str(path), split="test", limit=4), load_documents(str(path), split="test")
    assert limited == whole.take(4)
    assert len(whole.take(100)) == 9
    for wrong in (0, -1):
        with pytest.raises(DataError, match="at least one sample"):
            whole.take(wrong)
        with pytest.raises(DataError, match="at least one sample"):
            load_documents(str(path), split="test", limit=wrong)


def test_shuffled_documents_keep_their_ids(path: Path) -> None:
    whole = load_documents(str(path), split="test")
    shuffled = whole.shuffled(3)
    assert shuffled.ids != whole.ids
    assert dict(zip(shuffled.ids, map(repr, shuffled.rows), strict=True)) == dict(
        zip(whole.ids, map(repr, whole.rows), strict=True)
    )
    assert shuffled == whole.shuffled(3)
    assert shuffled != whole.shuffled(4)


def test_shuffled_samples_keep_their_ids_and_their_order_is_that_of_the_documents(path: Path) -> None:
    columns = {"text": "question", "label": "answer"}
    samples = load_samples(str(path), split="test", columns=columns)
    shuffled = samples.shuffled(3)
    assert shuffled.ids == load_documents(str(path), split="test").shuffled(3).ids
    assert shuffled.columns["text"] == [f"what is {id_}?" for id_ in shuffled.ids]
    assert shuffled.columns["label"] == [int(id_) % 2 for id_ in shuffled.ids]


def test_the_permutation_of_a_seed_never_changes() -> None:
    assert permutation(8, 0) == [7, 4, 3, 2, 6, 0, 5, 1]
    assert sorted(permutation(1000, 7)) == list(range(1000))


def test_an_empty_table_and_uneven_documents_are_data_errors(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("")
    with pytest.raises(DataError, match="empty"):
        load_documents(str(tmp_path), split="test")
    with pytest.raises(DataError, match="ids must differ"):
        Documents("here", "test", "x", ("0", "0"), [{}, {}])
    with pytest.raises(DataError, match="2 ids need as many rows"):
        Documents("here", "test", "x", ("0", "1"), [{}])
