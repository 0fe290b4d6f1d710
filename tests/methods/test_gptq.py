from __future__ import annotations

from typing import Any

import pytest
import torch
from layerwise_reference import Layer, correlated_layer, one_column_at_a_time, output_error, quadratic_loss

from compressbench.methods.maths.gptq import GptqOptions, GptqResult, gptq
from compressbench.methods.maths.uniform import Grid, group_grid, round_to_codes, rtn
from compressbench.models.packed_linear import PackedLinear
from compressbench.models.quantized_weight import QuantizedWeight

BITS = (2, 3, 4, 8)
ACT_ORDER = {"desc_act": True}
STATIC = {"static_groups": True}
ORDERS: list[dict[str, Any]] = [{}, ACT_ORDER, STATIC, ACT_ORDER | STATIC]


def matrix(result: GptqResult) -> torch.Tensor:
    return result.quantized.dequantize(torch.float64)


def assert_same(found: QuantizedWeight, expected: QuantizedWeight) -> None:
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.scale, expected.scale)
    assert (found.bits, found.group_size) == (expected.bits, expected.group_size)
    assert torch.equal(found.zero_points(), expected.zero_points())
    assert (found.zero is None) == (expected.zero is None)
    assert found.group_of is None


def by_hand(layer: Layer, grid: Grid, options: GptqOptions, damp: float) -> tuple[torch.Tensor, float]:
    """GPTQ one column at a time, with the options spelled out; the matrix that the codes stand for, and the loss."""
    size = layer.weight.shape[1]
    group_size = size if grid.group_size == -1 else grid.group_size
    hessian = layer.hessian()
    order = hessian.diagonal().argsort(descending=True) if options.desc_act else torch.arange(size)
    damped = (hessian + damp * torch.eye(size, dtype=torch.float64))[order][:, order]
    grids: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def settle(index: int, current: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        group = (int(order[index]) if options.static_groups else index) // group_size
        if group not in grids:
            source = layer.weight if options.static_groups else current
            grids[group] = group_grid(source[:, group * group_size : (group + 1) * group_size], grid)
        scale, zero = grids[group]
        return (round_to_codes(current[:, index], scale, zero, grid.bits) - zero) * scale.double()

    settled, loss = one_column_at_a_time(layer.weight[:, order], damped, settle)
    restored = torch.empty_like(settled)
    restored[:, order] = settled
    return restored, loss


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("group_size", [-1, 8, 5])
@pytest.mark.parametrize("grid", [{"bits": 2}, {"bits": 4, "sym": True}, {"bits": 3, "mse": True}])
def test_agrees_with_one_column_at_a_time_and_an_inverse_from_scratch(
    order: dict[str, Any], group_size: int, grid: dict[str, Any]
) -> None:
    layer, options = correlated_layer(3, (6, 24), 100), GptqOptions(block_size=7, **order)
    result = gptq(layer.weight, layer.hessian(), Grid(group_size=group_size, **grid), options)
    expected, loss = by_hand(layer, Grid(group_size=group_size, **grid), options, result.damp)
    torch.testing.assert_close(matrix(result), expected, rtol=0, atol=1e-12)
    assert result.loss == pytest.approx(loss, rel=1e-9)
    assert not torch.equal(matrix(result), rtn(layer.weight, Grid(group_size=group_size, **grid)).dequantize().double())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("sym", [False, True])
@pytest.mark.parametrize(
    ("group_size", "options"),
    [(-1, {}), (-1, ACT_ORDER), (16, {}), (12, {"block_size": 5}), (16, STATIC), (12, ACT_ORDER | STATIC)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_a_diagonal_hessian_it_is_rtn_bit_for_bit(
    bits: int, sym: bool, group_size: int, options: dict[str, Any], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(bits)
    weight = torch.randn(9, 40, generator=generator, dtype=dtype)
    energies = 10 ** torch.randn(40, generator=generator, dtype=dtype)
    grid = Grid(bits, group_size, sym, mse=bits == 3)
    for hessian in (torch.diag(energies), 3 * torch.eye(40, dtype=dtype)):
        result = gptq(weight, hessian, grid, GptqOptions(**options))
        assert_same(result.quantized, rtn(weight, grid))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("group_size", [-1, 16])
@pytest.mark.parametrize("grid", [{"bits": bits} for bits in BITS] + [{"bits": 3, "sym": True, "mse": True}])
@pytest.mark.parametrize("keep_zeros", [False, True])
def test_the_loss_is_the_quadratic_form_of_the_change(
    order: dict[str, Any], group_size: int, grid: dict[str, Any], keep_zeros: bool
) -> None:
    layer = correlated_layer(5, (8, 40), 100)
    layer.weight[:, ::5] = 0
    result = gptq(layer.weight, layer.hessian(), Grid(group_size=group_size, **grid), GptqOptions(**order), keep_zeros)
    expected = quadratic_loss(matrix(result) - layer.weight, layer.hessian(), result.damp)
    assert result.loss == pytest.approx(expected, rel=1e-10)
    assert result.damp_percent == 0.01


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("group_size", "mse"), [(-1, False), (16, False), (20, True), (32, False)])
def test_the_block_size_changes_no_code(order: dict[str, Any], group_size: int, mse: bool) -> None:
    layer = correlated_layer(6, (8, 60), 200)
    results = [
        gptq(layer.weight, layer.hessian(), Grid(3, group_size, mse=mse), GptqOptions(block_size=size, **order))
        for size in (60, 1, 7, 16, 128)
    ]
    for result in results[1:]:
        assert torch.equal(matrix(result), matrix(results[0]))
        assert result.loss == pytest.approx(results[0].loss, rel=1e-12)


def test_scales_of_small_groups_come_from_weights_as_they_are_by_then() -> None:
    layer = correlated_layer(7, (16, 64))
    found = gptq(layer.weight, layer.hessian(), Grid(3, 16)).quantized
    stale = rtn(layer.weight, Grid(3, 16))
    assert torch.equal(found.scale[:, 0], stale.scale[:, 0])
    assert not bool((found.scale[:, 1:] == stale.scale[:, 1:]).all(dim=0).any())
    static = gptq(layer.weight, layer.hessian(), Grid(3, 16), GptqOptions(static_groups=True)).quantized
    assert torch.equal(static.scale, stale.scale)


def test_act_order_stores_which_group_a_column_belongs_to_and_the_packed_layer_keeps_it() -> None:
    layer = correlated_layer(8, (16, 50), spread=1.0)
    quantized = gptq(layer.weight, layer.hessian(), Grid(2, 16), GptqOptions(desc_act=True)).quantized
    by_energy = layer.hessian().diagonal().argsort(descending=True)
    assert quantized.group_of is not None
    assert quantized.group_of.dtype == torch.int32
    assert quantized.group_of[by_energy].tolist() == [column // 16 for column in range(50)]
    for group in range(4):
        values = quantized.dequantize()[:, quantized.group_of == group]
        assert all(len(row.unique()) <= 4 for row in values)
    packed = PackedLinear(quantized)
    assert torch.equal(packed.dequantized(), quantized.dequantize())
    assert set(packed.stored_tensors()) == {"packed", "scale", "zero", "group_of"}


@pytest.mark.parametrize(("group_size", "options"), [(-1, ACT_ORDER), (16, STATIC), (16, ACT_ORDER | STATIC)])
def test_no_table_of_groups_is_stored_where_neighbours_share_them(group_size: int, options: dict[str, Any]) -> None:
    layer = correlated_layer(9, (8, 50), spread=1.0)
    quantized = gptq(layer.weight, layer.hessian(), Grid(4, group_size), GptqOptions(**options)).quantized
    assert quantized.group_of is None
    assert output_error(layer, quantized.dequantize(torch.float64)) < 0.05


@pytest.mark.parametrize("group_size", [-1, 16])
def test_with_act_order_the_order_of_the_columns_does_not_matter(group_size: int) -> None:
    layer = correlated_layer(10, (8, 48), spread=1.0)
    shuffle = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    options = GptqOptions(desc_act=True)
    found = gptq(layer.weight, layer.hessian(), Grid(3, group_size), options)
    shuffled = gptq(layer.weight[:, shuffle], layer.hessian()[shuffle][:, shuffle], Grid(3, group_size), options)
    assert torch.equal(matrix(shuffled), matrix(found)[:, shuffle])
    plain = gptq(layer.weight[:, shuffle], layer.hessian()[shuffle][:, shuffle], Grid(3, group_size))
    assert not torch.equal(matrix(plain), matrix(found)[:, shuffle])


def test_the_unit_of_the_inputs_does_not_matter_even_beside_dead_columns() -> None:
    layer = correlated_layer(11, (8, 40))
    layer.inputs[:, [2, 17]] = 0
    results = []
    for factor in (2.0**-20, 1.0, 2.0**20):
        scaled = layer._replace(inputs=layer.inputs * factor)
        results.append(gptq(layer.weight, scaled.hessian(), Grid(3, 8)))
    assert torch.equal(matrix(results[0]), matrix(results[1]))
    assert torch.equal(matrix(results[2]), matrix(results[1]))


@pytest.mark.parametrize("order", ORDERS)
def test_weights_of_dead_inputs_become_zero_and_influence_no_other(order: dict[str, Any]) -> None:
    layer = correlated_layer(12, (8, 40))
    layer.inputs[:, [0, 13]] = 0
    before = layer.weight.clone()
    found = matrix(gptq(layer.weight, layer.hessian(), Grid(4, 8), GptqOptions(**order)))
    assert not bool(found[:, [0, 13]].any())
    assert torch.equal(layer.weight, before), "the weight is left alone"
    layer.weight[:, [0, 13]] = 1000
    assert torch.equal(matrix(gptq(layer.weight, layer.hessian(), Grid(4, 8), GptqOptions(**order))), found)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("sym", [False, True])
def test_pruned_weights_stay_zero_where_that_is_asked_for(order: dict[str, Any], sym: bool) -> None:
    layer = correlated_layer(13)
    pruned = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    layer.weight[pruned] = 0
    grid, options = Grid(4, 16, sym), GptqOptions(**order)
    kept = matrix(gptq(layer.weight, layer.hessian(), grid, options, keep_zeros=True))
    assert not bool(kept[pruned].any())
    free = matrix(gptq(layer.weight, layer.hessian(), grid, options))
    assert bool(free[pruned].any()), "otherwise the errors of others fill them"
    rounded = rtn(layer.weight, grid).dequantize(torch.float64)
    assert output_error(layer, free) < output_error(layer, kept) < output_error(layer, rounded)


@pytest.mark.parametrize("options", ORDERS)
def test_fewer_inputs_than_columns_work_in_single_precision_too(options: dict[str, Any]) -> None:
    layer = correlated_layer(14, (16, 96), num_inputs=24)
    for dtype in (torch.float32, torch.float64):
        result = gptq(layer.weight.to(dtype), layer.hessian(dtype), Grid(4, 32), GptqOptions(**options))
        assert result.damp_percent == 0.01
        rounded = rtn(layer.weight, Grid(4, 32)).dequantize(torch.float64)
        assert output_error(layer, matrix(result)) < output_error(layer, rounded) / 2


def test_single_precision_costs_next_to_nothing() -> None:
    layer = correlated_layer(15, (32, 96))
    exact = gptq(layer.weight, layer.hessian(), Grid(3, 32))
    single = gptq(layer.weight.float(), layer.hessian(torch.float32), Grid(3, 32))
    assert (exact.quantized.codes == single.quantized.codes).float().mean() > 0.9
    assert output_error(layer, matrix(single)) == pytest.approx(output_error(layer, matrix(exact)), rel=0.05)
    assert single.loss == pytest.approx(
        quadratic_loss(matrix(single) - layer.weight, layer.hessian(), single.damp), rel=1e-4
    )


def test_weights_of_half_precision_give_what_their_values_give() -> None:
    layer = correlated_layer(16)
    weight = layer.weight.bfloat16()
    found = gptq(weight, layer.hessian(torch.float32), Grid(4, 16))
    assert_same(found.quantized, gptq(weight.float(), layer.hessian(torch.float32), Grid(4, 16)).quantized)


def test_a_hessian_that_needs_more_damping_gets_it_and_a_hopeless_one_is_refused() -> None:
    layer = correlated_layer(17, (4, 20))
    hessian = layer.hessian()
    mean = float(hessian.diagonal().mean())
    smallest = float(torch.linalg.eigvalsh(hessian)[0])
    indefinite = hessian - (smallest + 0.0188 * mean) * torch.eye(20, dtype=torch.float64)
    result = gptq(layer.weight, indefinite.clone(), Grid(3))
    assert result.damp_percent > 0.0188
    change = matrix(result) - layer.weight
    assert result.loss == pytest.approx(quadratic_loss(change, indefinite, result.damp), rel=1e-9)
    with pytest.raises(
        ValueError, match=r"Cholesky decomposition of the 20 x 20 Hessian fails with a damping of 0\.01"
    ):
        gptq(layer.weight, -hessian, Grid(3))
    with pytest.raises(ValueError, match="Cholesky decomposition"):
        gptq(layer.weight, indefinite.clone(), Grid(3), GptqOptions(damp_auto_increment=0))


def test_a_block_size_of_nothing_is_refused() -> None:
    layer = correlated_layer(18, (4, 20))
    with pytest.raises(ValueError, match="block_size must be positive, got 0"):
        gptq(layer.weight, layer.hessian(), Grid(3), GptqOptions(block_size=0))
