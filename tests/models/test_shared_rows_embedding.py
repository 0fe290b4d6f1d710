from __future__ import annotations

import torch

from compressbench.models.shared_rows_embedding import SharedRowsEmbedding, index_type, pruned_bytes
from compressbench.models.size import count_weights

WEIGHT = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
IS_PRUNED = torch.tensor([0, 1, 0, 0, 1, 1, 0, 1, 0, 1], dtype=torch.bool)
SHARED = torch.tensor([1.0, 2.0, 3.0, 4.0])


def test_pruned_ids_get_the_shared_row_and_all_others_their_own() -> None:
    layer = SharedRowsEmbedding.prune(WEIGHT, IS_PRUNED, SHARED)
    ids = torch.tensor([[0, 1], [9, 8]])
    wanted = torch.stack([SHARED if IS_PRUNED[id_] else WEIGHT[id_] for id_ in ids.flatten()]).view(2, 2, 4)
    assert torch.equal(layer(ids), wanted)
    assert torch.equal(layer.dequantized(), torch.where(IS_PRUNED[:, None], SHARED, WEIGHT))


def test_it_stores_the_rows_that_stayed_the_shared_one_and_a_number_for_each_id() -> None:
    layer = SharedRowsEmbedding.prune(WEIGHT, IS_PRUNED, SHARED)
    stored = sum(tensor.nbytes for tensor in layer.state_dict().values())
    assert stored == (5 + 1) * 4 * 4 + 10 * 2 == pruned_bytes(10, 5, 16)
    assert count_weights(torch.nn.Sequential(layer)).num_parameters == 24


def test_row_numbers_are_wide_enough() -> None:
    assert index_type(2**15) is torch.int16
    assert index_type(2**15 + 1) is torch.int32


def test_a_layer_made_again_gives_the_same() -> None:
    layer = SharedRowsEmbedding.prune(WEIGHT, IS_PRUNED, SHARED)
    again = SharedRowsEmbedding.restore(layer.layout(), {})
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(torch.arange(10)), layer(torch.arange(10)))
