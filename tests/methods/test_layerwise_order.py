"""Which method leaves the smaller output error: the order that the papers report, on layers with correlated inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layerwise_reference import Layer, correlated_layer, output_error

from compressbench.methods.maths.gptq import GptqOptions, gptq
from compressbench.methods.maths.masks import keep_largest, keep_largest_per_row, keep_n_of_m
from compressbench.methods.maths.sparsegpt import SparseGptOptions, sparsegpt
from compressbench.methods.maths.uniform import Grid, rtn
from compressbench.methods.maths.wanda import ColumnNorms, wanda_scores

SEEDS = range(20)


def gptq_to_rtn(layer: Layer, grid: Grid, inputs: torch.Tensor, **options: Any) -> float:
    """GPTQ's output error as a fraction of RTN's."""
    found = gptq(layer.weight, layer.hessian(), grid, GptqOptions(**options)).quantized
    rounded = rtn(layer.weight, grid)
    errors = [output_error(layer, quantized.dequantize(torch.float64), inputs) for quantized in (found, rounded)]
    return errors[0] / errors[1]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [-1, 32])
@pytest.mark.parametrize("decay", [0.25, 0.75])
def test_gptq_never_errs_more_than_rtn(bits: int, group_size: int, decay: float) -> None:
    for seed in SEEDS:
        layer = correlated_layer(seed, decay=decay)
        assert gptq_to_rtn(layer, Grid(bits, group_size), layer.inputs) <= 1


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("options", [{}, {"desc_act": True}])
def test_gptq_errs_at_most_half_as_much_as_rtn_also_on_inputs_it_has_not_seen(
    bits: int, options: dict[str, Any]
) -> None:
    for seed in SEEDS:
        layer = correlated_layer(seed)
        assert gptq_to_rtn(layer, Grid(bits), layer.inputs, **options) <= 0.5
        assert gptq_to_rtn(layer, Grid(bits), layer.unseen, **options) <= 0.5


def test_without_correlation_nothing_is_gained() -> None:
    for seed in range(5):
        layer = correlated_layer(seed, num_inputs=10_000, decay=0.0)
        assert gptq_to_rtn(layer, Grid(4), layer.unseen) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("structure", ["50 %", "2:4"])
def test_sparsegpt_errs_less_than_wanda_and_wanda_less_than_magnitude(structure: str) -> None:
    for seed in SEEDS:
        layer = correlated_layer(seed, spread=0.5)
        accumulator = ColumnNorms(layer.inputs.shape[1])
        accumulator.add(layer.inputs)
        scores, magnitude = wanda_scores(layer.weight, accumulator.norms()), layer.weight.abs()
        if structure == "2:4":
            masks = keep_n_of_m(scores, 2, 4), keep_n_of_m(magnitude, 2, 4)
            options = SparseGptOptions(num_zeros=2, group=4)
        else:
            masks = keep_largest_per_row(scores, 0.5), keep_largest(magnitude, 0.5)
            options = SparseGptOptions(sparsity=0.5)
        updated = sparsegpt(layer.weight, layer.hessian(), options).weight
        pruned = [updated, *(layer.weight * mask for mask in masks)]
        for inputs in (layer.inputs, layer.unseen):
            errors = [output_error(layer, weight, inputs) for weight in pruned]
            assert errors == sorted(errors)
            assert errors[0] < 0.8 * errors[1] < 0.8 * errors[2]
