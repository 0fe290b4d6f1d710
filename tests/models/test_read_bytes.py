from __future__ import annotations

import random

import pytest
import torch

from compressbench.models.read_bytes import ReadBytes


def addresses(tensor: torch.Tensor) -> set[int]:
    """Every byte of a tensor's elements, one by one."""
    size = tensor.element_size()
    index = torch.arange(tensor.untyped_storage().nbytes() // size)
    places = index.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).flatten().tolist()
    base = tensor.untyped_storage().data_ptr()
    return {base + place * size + byte for place in places for byte in range(size)}


def a_view(tensor: torch.Tensor, generator: random.Random) -> torch.Tensor:
    for _ in range(generator.randint(0, 4)):
        dim = generator.randrange(tensor.dim())
        kind = generator.randrange(4)
        if kind == 0:
            start = generator.randrange(tensor.shape[dim])
            tensor = tensor.narrow(dim, start, generator.randint(1, tensor.shape[dim] - start))
        elif kind == 1:
            tensor = tensor.transpose(dim, generator.randrange(tensor.dim()))
        elif kind == 2 and tensor.dim() > 1:
            tensor = tensor.select(dim, generator.randrange(tensor.shape[dim]))
        else:
            tensor = tensor.unsqueeze(0).expand(3, *tensor.shape)
    return tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_the_union_of_any_views_is_that_of_their_bytes(dtype: torch.dtype) -> None:
    generator = random.Random(0)
    for _ in range(100):
        stored = [torch.zeros(4, 6, 5, dtype=dtype), torch.zeros(7, 3, dtype=dtype)]
        views = [a_view(generator.choice(stored), generator) for _ in range(generator.randint(0, 5))]
        read = ReadBytes(stored)
        for view in views:
            read.add_tensor(view)
        assert read.total == len(set[int]().union(*map(addresses, views)))


def test_rows_of_a_table_count_once_each_and_not_besides_the_whole() -> None:
    table = torch.zeros(10, 4)
    read = ReadBytes([table])
    read.add_rows(table, torch.tensor([[1, 3, 1], [9, 3, 1]]))
    assert read.total == 3 * 16
    read.add_tensor(table[3:5])
    assert read.total == 4 * 16
    read.add_tensor(table.t())
    assert read.total == table.nbytes


def test_what_is_not_stored_is_not_read_from_there() -> None:
    stored, other = torch.zeros(8), torch.zeros(8)
    read = ReadBytes([stored, torch.zeros(0)])
    read.add_tensor(other)
    read.add_rows(other.view(2, 4), torch.tensor([0]))
    read.add_tensor(torch.zeros(0))
    assert read.total == 0


def test_bytes_without_an_address_count_once_per_name() -> None:
    read = ReadBytes([])
    for name in ("a", "b", "a"):
        read.add_bytes(name, 5)
    assert read.total == 10
