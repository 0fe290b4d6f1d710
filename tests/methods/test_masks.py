from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressbench.methods.maths.masks import keep_largest, keep_largest_overall, keep_largest_per_row, keep_n_of_m

FAST = settings(max_examples=60, deadline=None, database=None, derandomize=True)
PERCENTS = st.integers(1, 99).map(lambda percent: percent / 100)


def brute_force(scores: npt.NDArray[np.float32], sparsity: float) -> npt.NDArray[np.bool_]:
    """Which of a flat group stay: strike out the smallest one by one, the earliest among equals."""
    kept = np.ones(scores.size, dtype=bool)
    for _ in range(int(Fraction(str(sparsity)) * scores.size)):
        smallest = min((float(score), index) for index, score in enumerate(scores) if kept[index])
        kept[smallest[1]] = False
    return kept


def scores_with_ties(rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, (rows, columns), generator=generator).float()


@FAST
@given(st.integers(1, 400), PERCENTS, st.integers(0, 5))
def test_exactly_the_floor_of_the_fraction_goes_even_when_all_are_equal(size: int, sparsity: float, kinds: int) -> None:
    scores = torch.arange(size).remainder(kinds + 1).float()
    assert int((~keep_largest(scores, sparsity)).sum()) == int(Fraction(str(sparsity)) * size)


@pytest.mark.parametrize("columns", [50, 100])
def test_a_product_that_falls_short_of_a_whole_number_in_binary_is_not_cut(columns: int) -> None:
    for percent in range(1, 100):  # 0.29 * 100 is 28.999999999999996
        mask = keep_largest_per_row(torch.zeros(2, columns), percent / 100)
        assert (~mask).sum(dim=1).tolist() == [percent * columns // 100] * 2


@FAST
@given(st.integers(1, 6), st.integers(1, 20), PERCENTS, st.integers(0, 1000))
def test_one_group_and_rows_agree_with_striking_out_one_by_one(
    rows: int, columns: int, sparsity: float, seed: int
) -> None:
    scores = scores_with_ties(rows, columns, seed)
    whole = brute_force(scores.flatten().numpy(), sparsity).reshape(rows, columns)
    assert keep_largest(scores, sparsity).numpy().tolist() == whole.tolist()
    by_row = [brute_force(row.numpy(), sparsity).tolist() for row in scores]
    assert keep_largest_per_row(scores, sparsity).numpy().tolist() == by_row


@FAST
@given(st.integers(1, 4), st.integers(1, 4), PERCENTS, st.integers(0, 1000))
def test_one_threshold_over_tensors_agrees_with_one_long_tensor(
    rows: int, columns: int, sparsity: float, seed: int
) -> None:
    first, second = scores_with_ties(rows, columns, seed), scores_with_ties(columns, rows + 1, seed + 1)
    expected = brute_force(torch.cat([first.flatten(), second.flatten()]).numpy(), sparsity)
    found = keep_largest_overall([first, second], sparsity)
    assert [mask.shape for mask in found] == [first.shape, second.shape]
    assert torch.cat([mask.flatten() for mask in found]).tolist() == expected.tolist()


@FAST
@given(PERCENTS, PERCENTS, st.integers(0, 1000))
def test_what_is_zero_at_less_sparsity_is_zero_at_more(one: float, other: float, seed: int) -> None:
    less, more = sorted((one, other))
    scores = scores_with_ties(5, 16, seed)
    for keep in (keep_largest, keep_largest_per_row, lambda s, f: keep_largest_overall([s, s * 2], f)[1]):
        assert not bool((~keep(scores, less) & keep(scores, more)).any())


def test_a_common_threshold_empties_the_layer_of_small_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    large = torch.rand(16, 16, generator=generator) + 1
    small = (torch.rand(16, 16, generator=generator) + 1) / 100
    common = keep_largest_overall([large, small], 0.5)
    assert bool(common[0].all())
    assert not bool(common[1].any())
    assert [int(keep_largest(scores, 0.5).sum()) for scores in (large, small)] == [128, 128]


@FAST
@given(st.sampled_from([(2, 4), (4, 8), (1, 4), (1, 3), (5, 7), (15, 16)]), st.integers(1, 5), st.integers(0, 1000))
def test_every_aligned_group_loses_its_smallest_and_no_more(pattern: tuple[int, int], rows: int, seed: int) -> None:
    kept, group = pattern
    scores = scores_with_ties(rows, group * 3, seed)
    mask = keep_n_of_m(scores, group - kept, group)
    for row, row_mask in zip(scores, mask, strict=True):
        for start in range(0, group * 3, group):
            part, part_mask = row[start : start + group], row_mask[start : start + group]
            assert int((~part_mask).sum()) == group - kept
            assert float(part[part_mask].min()) >= float(part[~part_mask].max())


def test_a_group_that_does_not_divide_the_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="6 columns are not a multiple of 4"):
        keep_n_of_m(torch.rand(2, 6), 2, 4)


def test_a_mask_has_the_shape_of_its_scores_whatever_their_memory_layout() -> None:
    scores = torch.arange(12.0).reshape(3, 4).t()
    assert keep_largest(scores, 0.5).tolist() == (scores >= 6).tolist()
    assert keep_largest_per_row(scores, 2 / 3).tolist() == [[False, False, True]] * 4
