from __future__ import annotations

import numpy as np
import pytest
import torch

from compressbench.models.rowwise_embedding import RowwiseEmbedding
from compressbench.models.size import count_weights
from compressbench.models.work import count_work
from compressbench.testing import tiny_click_model

WEIGHT = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))


def brute_force(fused: torch.Tensor, bits: int) -> np.ndarray:
    """Every value from the bytes themselves, one after the other."""
    rows = []
    for row in fused.numpy():
        codes = [(int(byte) >> shift) & (2**bits - 1) for byte in row[: 16 * bits // 8] for shift in range(0, 8, bits)]
        scale, zero = row[16 * bits // 8 :].view(np.float32 if bits == 8 else np.float16).astype(np.float64)
        rows.append([code * scale + zero for code in codes])
    return np.array(rows)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_what_is_looked_up_is_what_the_bytes_say(bits: int) -> None:
    layer = RowwiseEmbedding.quantize(WEIGHT, bits)
    wanted = brute_force(layer.fused, bits)
    ids = torch.tensor([[3, 3, 39], [0, 17, 5]])
    np.testing.assert_allclose(layer(ids).numpy(), wanted[ids], atol=1e-6)
    np.testing.assert_allclose(layer.dequantized().numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_no_value_is_further_away_than_half_a_step(bits: int) -> None:
    layer = RowwiseEmbedding.quantize(WEIGHT, bits)
    step = (WEIGHT.amax(dim=1) - WEIGHT.amin(dim=1)) / (2**bits - 1)
    # scale and zero in float16 move a value by up to their own rounding
    slack = 1e-6 if bits == 8 else 4e-3
    assert ((layer.dequantized() - WEIGHT).abs().amax(dim=1) <= step / 2 + slack).all()


@pytest.mark.parametrize(("bits", "row_bytes"), [(8, 16 + 8), (4, 8 + 4), (2, 4 + 4)])
def test_bytes_are_those_of_the_codes_and_two_numbers_a_row(bits: int, row_bytes: int) -> None:
    layer = RowwiseEmbedding.quantize(WEIGHT, bits)
    assert sum(tensor.nbytes for tensor in layer.stored_tensors().values()) == 40 * row_bytes
    assert layer.num_weights == WEIGHT.numel()
    assert count_weights(torch.nn.Sequential(layer)).num_bytes == 40 * row_bytes


def test_a_searched_range_has_a_smaller_squared_error_where_one_value_is_far_out() -> None:
    weight = WEIGHT.clone()
    weight[:, 0] = 8.0
    plain, searched = (RowwiseEmbedding.quantize(weight, 4, search=search).dequantized() for search in (False, True))
    assert (searched - weight).square().sum() < (plain - weight).square().sum()


def test_a_row_of_equal_values_comes_back() -> None:
    layer = RowwiseEmbedding.quantize(torch.full((2, 16), 0.25), 4)
    assert torch.equal(layer.dequantized(), torch.full((2, 16), 0.25))


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_made_again_gives_the_same_bit_for_bit(bits: int, dtype: torch.dtype) -> None:
    layer = RowwiseEmbedding.quantize(WEIGHT.to(dtype), bits)
    tensors = {name: tensor.clone() for name, tensor in layer.stored_tensors().items()}
    again = RowwiseEmbedding.restore(layer.layout(), tensors)
    ids = torch.arange(40)
    assert layer(ids).dtype == dtype
    assert torch.equal(again(ids), layer(ids))


def test_an_id_that_is_not_there_is_refused_and_none_gives_nothing() -> None:
    layer = RowwiseEmbedding.quantize(WEIGHT, 8)
    with pytest.raises(RuntimeError, match="out of bounds"):
        layer(torch.tensor([40]))
    assert layer(torch.empty(0, dtype=torch.int64)).shape == (0, 16)


def test_codes_that_end_within_a_byte_are_refused() -> None:
    with pytest.raises(ValueError, match="whole bytes"):
        RowwiseEmbedding.quantize(WEIGHT[:, :3], 4)


def test_of_a_quantized_table_only_the_rows_that_are_looked_up_count_as_read() -> None:
    model = tiny_click_model().model
    batch = {"dense_features": torch.zeros(3, 2), "sparse_ids": torch.tensor([[0, 1, 2], [59, 39, 4], [7, 1, 0]])}
    before = count_work(model, batch).weight_bytes
    model.tables[0] = RowwiseEmbedding.quantize(model.tables[0].weight, 8)
    after = count_work(model, batch).weight_bytes
    assert before is not None
    assert after == before - 3 * 16 * 4 + 3 * 24
