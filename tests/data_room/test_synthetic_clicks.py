from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest

from compressbench.data.embedded_data import embedded_path
from compressbench.data.synthetic_clicks import COUNTS, SEED, SIZES, VERSION, generate, log_loss_bounds


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_files_that_ship_are_what_the_process_makes(split: str) -> None:
    table = pq.read_table(embedded_path("synthetic-clicks", f"{split}.parquet"))
    made = generate(split, table.num_rows)
    for name in (*SIZES, *COUNTS):
        assert np.array_equal(table[name].to_numpy(), made.columns[name]), name
    assert np.array_equal(table["label"].to_numpy(), made.label)
    about = table.schema.metadata
    assert (about[b"version"], about[b"seed"]) == (str(VERSION).encode(), str(SEED).encode())
    assert ("probability" in table.column_names) == (split == "test")


def test_the_first_rows_are_the_same_however_many_are_made_and_splits_share_none() -> None:
    few, many = generate("train", 100), generate("train", 500)
    assert all(np.array_equal(few.columns[name], many.columns[name][:100]) for name in few.columns)
    assert np.array_equal(few.label, many.label[:100])
    assert not np.array_equal(generate("test", 100).columns["user"], few.columns["user"])


def test_ids_are_met_as_zipfs_law_says() -> None:
    rows = 200_000
    counts = np.sort(np.bincount(generate("train", rows).columns["category"], minlength=100))[::-1]
    weights = np.arange(1, 101) ** -1.05
    expected = rows * weights / weights.sum()
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected) + 1).all()


def test_clicks_are_drawn_with_the_probabilities_and_the_oracle_is_reached_on_average() -> None:
    clicks = generate("test", 200_000)
    p = clicks.probability
    deciles = np.quantile(p, np.linspace(0, 1, 11))
    for low, high in pairwise(deciles):
        part = (p >= low) & (p < high)
        error = np.sqrt((p[part] * (1 - p[part])).mean() / part.sum())
        assert abs(clicks.label[part].mean() - p[part].mean()) < 4 * error
    expected, reached = log_loss_bounds(clicks)
    assert abs(expected - reached) < 4 * np.std(np.log(p)) / np.sqrt(len(p))
    worse = np.clip(p * 1.2, 0, 0.999)
    assert -np.where(clicks.label == 1, np.log(worse), np.log1p(-worse)).mean() > reached
