from __future__ import annotations

import math
import zlib
from pathlib import Path

import pytest
import torch

from compressbench.core.errors import DataError
from compressbench.models.click_features import ClickFeatures, bucket
from compressbench.models.heads import processor_id


def test_counts_become_logarithms_and_ids_rows() -> None:
    features = ClickFeatures(["age"], ["user", "item"], [7, 5])
    found = features({"age": [0, 9, -3], "user": [3, 10, 7], "item": ["shoe", "hat", "shoe"]})
    torch.testing.assert_close(found["dense_features"], torch.tensor([[0.0], [math.log(10)], [0.0]]))
    shoe, hat = (zlib.crc32(f"item={name}".encode()) % 5 for name in ("shoe", "hat"))
    assert found["sparse_ids"].tolist() == [[3, shoe], [3, hat], [0, shoe]]


def test_a_text_has_another_row_in_another_column() -> None:
    assert bucket("red", "colour", 10_000) != bucket("red", "mood", 10_000)


@pytest.mark.parametrize("value", [1.5, None, [1]])
def test_a_categorical_value_of_another_kind_is_refused(value: object) -> None:
    with pytest.raises(DataError, match="whole number or a text"):
        bucket(value, "user", 10)


@pytest.mark.parametrize("value", [math.inf, math.nan, "many"])
def test_a_count_that_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(DataError, match="a count is a"):
        ClickFeatures(["age"], [], [])({"age": [value]})


def test_settings_are_saved_and_are_its_identity(tmp_path: Path) -> None:
    features = ClickFeatures(["age"], ["user"], [7])
    features.save_pretrained(tmp_path)
    again = ClickFeatures.from_pretrained(tmp_path)
    assert again.columns == ["age", "user"]
    assert processor_id(again) == processor_id(features)
    assert processor_id(ClickFeatures(["age"], ["user"], [8])) != processor_id(features)


def test_every_categorical_column_has_a_table() -> None:
    with pytest.raises(ValueError, match="1 categorical columns and 2 tables"):
        ClickFeatures([], ["user"], [7, 8])
