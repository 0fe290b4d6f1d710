from __future__ import annotations

import itertools
import warnings
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from compressbench.methods.maths.integers import per_channel_symmetric
from compressbench.models.audit import ModelFacts, Weighed, num_broken_groups, stored_bytes, weigh_model
from compressbench.models.int8_linear import Int8DynamicLinear, Int8WeightLinear, best_engine
from compressbench.models.low_rank_linear import LowRankLinear
from compressbench.models.packed_linear import PackedLinear
from compressbench.models.quantized_weight import QuantizedWeight
from compressbench.models.size import count_weights
from compressbench.models.stored_layer import StoredLayer
from compressbench.testing import tiny_causal_lm, tiny_classifier


def weigh(model: nn.Module, *structures: str) -> ModelFacts:
    return weigh_model(model, lambda name: structures)


def only(module: nn.Module, *structures: str) -> Weighed:
    """The one module that holds something."""
    (found,) = weigh(nn.Sequential(module), *structures).modules
    return found


def packed(
    bits: int, group_size: int, rows: int = 48, columns: int = 64, bias: bool = False, seed: int = 0
) -> PackedLinear:
    generator = torch.Generator().manual_seed(seed)
    groups = -(-columns // group_size)
    weight = QuantizedWeight(
        codes=torch.randint(0, 2**bits, (rows, columns), generator=generator, dtype=torch.uint8),
        scale=torch.rand(rows, groups, generator=generator) + 0.1,
        bits=bits,
        group_size=group_size,
        zero=torch.randint(0, 2**bits, (rows, groups), generator=generator, dtype=torch.uint8),
    )
    return PackedLinear(weight, torch.ones(rows) if bias else None)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("bias", [False, True])
def test_bits_of_a_packed_layer_are_codes_plus_scales_and_zero_points_per_group(bits: int, bias: bool) -> None:
    found = only(packed(bits, 8, bias=bias))
    groups = 64 // 8
    zero_bits = 8 * (groups * bits // 8)  # packed too, to whole bytes in each row
    assert found.row.bits == bits + (32 * groups + zero_bits) / 64
    assert found.code_bits == bits
    assert (found.row.kind, found.row.num_weights, found.row.unknown) == ("packed", 48 * 64, "")
    assert (found.is_matrix, found.is_linear, found.is_floating, found.row.dtype) == (True, True, False, "uint8")


def test_zeros_are_those_of_the_dequantized_weights() -> None:
    layer = packed(2, 16)
    matrix = layer.dequantized()
    zeros = int((matrix == 0).sum())
    found = only(layer)
    assert zeros > 0
    assert (found.num_zeros, found.num_values, found.num_rows) == (zeros, matrix.numel(), 48)
    assert found.row.sparsity == zeros / matrix.numel()


@pytest.mark.parametrize("make", [tiny_classifier, tiny_causal_lm, lambda: tiny_causal_lm(tied=False)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dense_model_weighs_what_the_size_meter_counts(make: Any, dtype: torch.dtype) -> None:
    model = make().model.to(dtype)
    facts, count = weigh(model), count_weights(model)
    assert (facts.num_parameters, facts.num_bytes) == (count.num_parameters, count.num_bytes)
    assert {row.row.bits for row in facts.modules} == {8 * dtype.itemsize}
    (use,) = facts.dtypes.values()
    assert (use.num_elements, use.num_bytes) == (count.num_parameters, count.num_bytes)
    assert stored_bytes(model) == count.num_bytes


@pytest.mark.parametrize("is_dynamic", [False, True])
def test_int8_layers_weigh_a_byte_a_weight_and_four_a_row(is_dynamic: bool) -> None:
    replaced = nn.Linear(64, 48)
    codes, scale = per_channel_symmetric(replaced.weight.detach())
    layer: nn.Module = Int8WeightLinear(codes, scale, replaced.bias)
    if is_dynamic:
        layer = Int8DynamicLinear(codes, scale, replaced.bias, engine=best_engine(), reduce_range=False)
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(48, 8))
    facts = weigh(model)
    assert facts.modules[0].row.bits == 8 + 32 / 64
    assert facts.modules[0].code_bits == 8
    assert facts.modules[0].num_zeros == int((codes == 0).sum())
    assert facts.num_bytes == 64 * 48 + 4 * 48 + 4 * 48 + 4 * (48 * 8 + 8) == count_weights(model).num_bytes
    assert facts.num_parameters == 64 * 48 + 48 + 48 * 8 + 8
    assert {name: use.num_elements for name, use in facts.dtypes.items()} == {"int8": 3072, "float32": 488}


def test_the_addresses_of_tensors_that_are_made_for_a_moment_are_not_taken_for_ties() -> None:
    codes, scale = per_channel_symmetric(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))
    layers = [
        Int8DynamicLinear(codes.clone(), scale.clone(), None, engine=best_engine(), reduce_range=False)
        for _ in range(6)
    ]
    facts = weigh(nn.Sequential(*layers))
    assert facts.num_bytes == 6 * (64 * 64 + 4 * 64)
    assert not any(found.row.tied_to for found in facts.modules)


def test_a_tied_head_counts_where_it_is_met_first() -> None:
    facts = weigh(tiny_causal_lm(num_layers=1).model)
    ties = {found.row.name: found.row.tied_to for found in facts.modules if found.row.tied_to}
    assert ties == {"lm_head": "model.embed_tokens"}


def test_a_tied_head_with_a_bias_of_its_own_has_that_counted() -> None:
    embedding, head = nn.Embedding(8, 4), nn.Linear(4, 8)
    head.weight = embedding.weight
    facts = weigh(nn.Sequential(embedding, head))
    assert (facts.num_parameters, facts.num_bytes) == (8 * 4 + 8, 4 * (8 * 4 + 8))
    assert [found.is_linear for found in facts.modules] == [False, True]


def test_torchs_own_quantized_layers_are_seen_through_their_packed_parameters() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = nn.Sequential(nn.Linear(64, 48))
        model = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear})  # type: ignore[no-untyped-call]
        facts = weigh(model)
    (found,) = facts.modules
    assert (found.row.dtype, found.row.num_weights, found.code_bits) == ("int8", 64 * 48, 8.0)
    assert found.row.sparsity is not None
    assert facts.num_parameters == 64 * 48 + 48
    assert not found.is_floating


class ClosedTensor(torch.Tensor):
    """A float matrix to whoever asks, int8 codes and a scale inside; it has no storage of its own."""

    codes: torch.Tensor
    scale: torch.Tensor

    @staticmethod
    def __new__(cls, codes: torch.Tensor, scale: torch.Tensor) -> Any:
        made = torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32)
        made.codes, made.scale = codes, scale
        return made

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if operator in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return cls(args[0].codes, args[0].scale)
        raise NotImplementedError(str(operator))


class Int8Tensor(ClosedTensor):
    """The same, open to whoever takes it apart."""

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["codes", "scale"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, context: Any, size: Any, stride: Any) -> Int8Tensor:
        made: Int8Tensor = Int8Tensor(inner["codes"], inner["scale"])
        return made

    def dequantize(self) -> torch.Tensor:
        return self.codes.float() * self.scale[:, None]


def test_a_tensor_subclass_weighs_what_is_inside_of_it() -> None:
    layer = nn.Linear(64, 48)
    codes, scale = per_channel_symmetric(layer.weight.detach())
    layer.weight = nn.Parameter(Int8Tensor(codes, scale), requires_grad=False)
    facts = weigh(nn.Sequential(layer))
    (found,) = facts.modules
    assert (found.row.bits, found.code_bits, found.row.dtype) == (8 + 32 / 64, 8.0, "int8")
    assert found.num_zeros == int((codes == 0).sum())
    assert not found.is_floating
    assert (facts.num_parameters, facts.num_bytes) == (64 * 48 + 48, 64 * 48 + 8 * 48)


def test_a_tensor_subclass_that_cannot_be_taken_apart_is_unknown() -> None:
    layer = nn.Linear(64, 48, bias=False)
    layer.weight = nn.Parameter(ClosedTensor(*per_channel_symmetric(layer.weight.detach())), requires_grad=False)
    facts = weigh(nn.Sequential(layer))
    assert facts.unknown == "0: weight has no storage that can be read"
    assert facts.modules[0].row.bits is facts.modules[0].row.sparsity is facts.num_bytes is None


class Opaque(nn.Module):
    """Codes of some width in int32 words, as other libraries pack them."""

    def __init__(self, **sizes: int) -> None:
        super().__init__()
        self.register_buffer("qweight", torch.ones(8, 48, dtype=torch.int32))
        self.register_buffer("scales", torch.ones(2, 48))
        for name, size in sizes.items():
            setattr(self, name, size)


def test_a_foreign_layer_that_says_its_shape_is_counted_and_one_that_does_not_is_unknown() -> None:
    found = only(Opaque(in_features=64, out_features=48))
    assert found.code_bits == 4.0
    assert found.row.bits == 4.0 + 32 * 2 / 64
    assert "can't be dequantized" in found.row.unknown
    assert found.row.sparsity is None
    facts = weigh(nn.Sequential(Opaque(), nn.Linear(2, 2)))
    assert facts.num_bytes is facts.num_parameters is stored_bytes(nn.Sequential(Opaque())) is None
    assert "0: a Opaque packs its weights into torch.int32" in facts.unknown
    assert facts.modules[0].row.bits is facts.modules[0].row.num_weights is None


def test_weights_without_a_storage_are_unknown_and_not_nothing() -> None:
    facts = weigh(nn.Sequential(nn.Linear(4, 4, device="meta"), nn.Linear(4, 4)))
    assert "no storage" in facts.unknown
    assert facts.num_bytes is None
    assert facts.modules[0].row.bits is facts.modules[0].row.sparsity is None
    assert facts.modules[1].row.bits == 32


def test_a_sparse_weight_weighs_its_values_and_its_indices() -> None:
    layer = nn.Linear(64, 48, bias=False)
    weight = layer.weight.detach() * (torch.arange(64) % 8 == 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer.weight = nn.Parameter(weight.to_sparse_csr(), requires_grad=False)
    found = only(layer)
    assert found.row.stored_bytes == 4 * 48 * 8 + 8 * (48 * 8 + 49)
    assert (found.row.num_weights, found.num_zeros) == (64 * 48, 48 * 56)


def test_factors_are_weighed_one_by_one() -> None:
    layer = LowRankLinear(torch.randn(48, 4), torch.randn(4, 64), torch.zeros(48))
    facts = weigh(nn.Sequential(layer))
    assert {found.row.name: found.row.num_weights for found in facts.modules} == {"0.right": 4 * 64, "0.left": 4 * 48}
    assert facts.num_parameters == 4 * (64 + 48) + 48 == count_weights(nn.Sequential(layer)).num_parameters


def test_buffers_that_are_not_saved_and_modules_without_weights_do_not_count() -> None:
    module = nn.Linear(4, 4, bias=False)
    module.register_buffer("cache", torch.ones(1000), persistent=False)
    facts = weigh(nn.Sequential(module, nn.ReLU(), nn.Dropout()))
    assert (len(facts.modules), facts.num_bytes) == (1, 64)


def test_a_layer_that_stores_codes_and_keeps_its_weights_is_seen() -> None:
    codes, scale = per_channel_symmetric(torch.randn(48, 64, generator=torch.Generator().manual_seed(0)))
    honest, as_buffer, as_attribute = (Int8WeightLinear(codes, scale, None) for _ in range(3))
    as_buffer.register_buffer("cache", torch.ones(48, 64), persistent=False)
    as_attribute.cache = torch.ones(48, 64, dtype=torch.float16)
    assert [only(each).keeps_floats for each in (honest, as_buffer, as_attribute)] == [False, True, True]
    assert not only(nn.Linear(64, 48)).keeps_floats


def test_full_precision_weights_do_not_pass_for_scales() -> None:
    class Disguised(Int8WeightLinear):
        def stored_tensors(self) -> dict[str, torch.Tensor]:
            return {**super().stored_tensors(), "weight_scale": torch.ones(48, 64)}

    codes, scale = per_channel_symmetric(torch.randn(48, 64))
    assert only(Disguised(codes, scale, None)).code_bits == 8 + 32


def test_one_byte_floats_are_no_full_precision() -> None:
    layer = nn.Linear(64, 48, bias=False)
    layer.weight = nn.Parameter(layer.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    found = only(layer)
    assert (found.row.dtype, found.code_bits, found.is_floating) == ("float8_e4m3fn", 8.0, False)
    assert found.num_zeros == int((layer.weight.float() == 0).sum())


def brute_force_broken(weight: torch.Tensor, most: int, group: int) -> int:
    rows = weight.tolist()
    starts = range(0, weight.shape[1], group)
    return sum(sum(each != 0 for each in row[at : at + group]) > most for row, at in itertools.product(rows, starts))


@pytest.mark.parametrize(("most", "group"), [(2, 4), (1, 4), (4, 8), (1, 2), (3, 5)])
@pytest.mark.parametrize("columns", [16, 18])
def test_broken_groups_agree_with_counting_by_hand(most: int, group: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(most + group + columns)
    weight = torch.randn(6, columns, generator=generator) * (torch.rand(6, columns, generator=generator) < 0.5)
    expected = brute_force_broken(weight, most, group)
    assert num_broken_groups(weight, f"{most}:{group}") == expected
    assert expected > 0


def test_a_structure_that_is_not_n_of_m_cannot_be_checked() -> None:
    assert num_broken_groups(torch.ones(4, 4), "blocks") is None


def test_a_transposed_layer_is_looked_at_along_its_inputs() -> None:
    layer = Conv1D(8, 16)  # 16 inputs, 8 outputs, stored as 16 x 8
    mask = (torch.arange(16) % 4 < 2).float()
    with torch.no_grad():
        layer.weight.fill_(1).mul_(mask[:, None])
    found = only(layer, "2:4", "1:4")
    assert found.broken_groups == {"2:4": 0, "1:4": 8 * 4}
    assert (found.num_rows, found.num_columns) == (8, 16)
    with torch.no_grad():
        layer.weight.fill_(1)[:, ::2] = 0  # two of every four along the outputs
    assert only(layer, "2:4").broken_groups == {"2:4": 4 * 4}


def test_the_structure_of_a_convolution_is_not_checked() -> None:
    assert only(nn.Conv2d(4, 4, 2), "2:4").broken_groups == {"2:4": None}


def test_one_module_at_a_time_is_dequantized() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    class Watched(PackedLinear):
        def dequantized(self) -> torch.Tensor:
            assert not any(reference() is not None for reference in alive)
            matrix = super().dequantized()
            alive.append(weakref.ref(matrix))
            return matrix

    layers: list[StoredLayer] = [Watched(packed(4, 16).quantized()) for _ in range(4)]
    assert len(weigh(nn.Sequential(*layers), "2:4").modules) == 4
    assert len(alive) == 4
