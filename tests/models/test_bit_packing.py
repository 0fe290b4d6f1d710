"""Packed codes come back as they went in, and take the bits they say."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressbench.models.bit_packing import pack, packed_columns, unpack


@given(st.integers(1, 8), st.integers(0, 3), st.integers(1, 70), st.integers(0, 2**16))
def test_codes_come_back(bits: int, rows: int, columns: int, seed: int) -> None:
    codes = torch.randint(0, 2**bits, (rows, columns), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (rows, packed_columns(columns, bits))
    assert torch.equal(unpack(packed, bits, columns), codes)


@pytest.mark.parametrize("bits", range(1, 9))
def test_whole_bytes_of_columns_take_exactly_their_bits(bits: int) -> None:
    assert packed_columns(64, bits) == 64 * bits // 8


def test_a_three_bit_code_is_a_plane_of_two_bits_and_one_of_one() -> None:
    codes = torch.tensor([[0b111, 0b100, 0b011, 0b010]], dtype=torch.uint8)
    low_plane, high_plane = 0b10_11_00_11, 0b0011
    assert pack(codes, 3).tolist() == [[low_plane, high_plane]]


@pytest.mark.parametrize("bits", [0, 9])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=r"1 \.\. 8"):
        pack(torch.zeros(1, 8, dtype=torch.uint8), bits)
