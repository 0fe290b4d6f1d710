from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from compressbench.methods.maths import scaling
from compressbench.methods.maths.scaling import (
    AwqScales,
    awq_clip,
    awq_scales,
    clip_groups,
    column_means,
    fold_into_linear,
    fold_into_norm,
    scale_columns,
    smooth_scales,
)

ALPHAS = [0.0, 0.25, 0.5, 0.85, 1.0]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def with_outliers(generator: torch.Generator, rows: int, columns: int) -> torch.Tensor:
    """Activations as transformers have them: a few features far larger than the rest."""
    sizes = torch.ones(columns, dtype=torch.float64)
    sizes[torch.randperm(columns, generator=generator)[: columns // 16]] = 30.0
    return normal(generator, rows, columns) * sizes


def round_to_nearest(bits: int, group_size: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Asymmetric min/max rounding of every group of a row, the plainest there is."""

    def quantize(matrix: torch.Tensor) -> torch.Tensor:
        parts = []
        for part in torch.split(matrix, matrix.shape[1] if group_size == -1 else group_size, dim=1):
            low, high = part.amin(dim=1, keepdim=True).clamp(max=0), part.amax(dim=1, keepdim=True).clamp(min=0)
            scale = ((high - low) / (2**bits - 1)).clamp(min=1e-12)
            zero = (-low / scale).round()
            parts.append((((part / scale).round() + zero).clamp(0, 2**bits - 1) - zero) * scale)
        return torch.cat(parts, dim=1)

    return quantize


@pytest.mark.parametrize("alpha", ALPHAS)
def test_smoothing_leaves_powers_of_the_product_of_the_maxima(alpha: float) -> None:
    generator = seeded(0)
    x, weight = with_outliers(generator, 50, 32), normal(generator, 24, 32)
    activation_max, weight_max = x.abs().amax(dim=0), weight.abs().amax(dim=0)
    scales = smooth_scales(activation_max, weight_max, alpha)
    product = activation_max * weight_max
    torch.testing.assert_close((x / scales).abs().amax(dim=0), product.pow(1 - alpha), rtol=1e-13, atol=0)
    torch.testing.assert_close(scale_columns(weight, scales).abs().amax(dim=0), product.pow(alpha), rtol=1e-13, atol=0)


def test_alpha_zero_flattens_the_weights_and_alpha_one_the_activations() -> None:
    generator = seeded(1)
    x, weight = with_outliers(generator, 50, 32), normal(generator, 24, 32)
    activation_max, weight_max = x.abs().amax(dim=0), weight.abs().amax(dim=0)
    flat_weight = scale_columns(weight, smooth_scales(activation_max, weight_max, 0.0))
    flat_x = x / smooth_scales(activation_max, weight_max, 1.0)
    for flat in (flat_weight, flat_x):
        assert flat.abs().amax(dim=0).tolist() == pytest.approx([1.0] * 32, rel=1e-14)


def test_a_feature_that_is_always_zero_keeps_scale_one() -> None:
    activation_max, weight_max = torch.tensor([0.0, 2.0, 0.0, 8.0]), torch.tensor([1.0, 0.0, 0.0, 2.0])
    for alpha in ALPHAS:
        scales = smooth_scales(activation_max, weight_max, alpha)
        assert scales[:3].tolist() == [1, 1, 1]
        assert float(scales[3]) == pytest.approx(8**alpha / 2 ** (1 - alpha))


def some_scales(method: str, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if method == "smoothquant":
        return smooth_scales(x.abs().amax(dim=0), weight.abs().amax(dim=0), 0.7)
    # a loss that likes every step further than the one before
    losses = iter(range(100, 0, -1))
    found = awq_scales(x.abs().mean(dim=0), lambda _: float(next(losses)))
    assert found.alpha == 0.95
    return found.scales


@pytest.mark.parametrize("method", ["smoothquant", "awq"])
@pytest.mark.parametrize("seed", range(5))
def test_folded_into_a_norm_scales_change_nothing(method: str, seed: int) -> None:
    generator = seeded(seed)
    hidden = with_outliers(generator, 40, 32)
    norm_weight, norm_bias = normal(generator, 32), normal(generator, 32)
    weights = [normal(generator, 24, 32) for _ in range(3)]

    def layer_norm(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return functional.layer_norm(hidden, (32,), weight, bias)

    def rms_norm(weight: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        return functional.rms_norm(hidden, (32,), weight, 1e-6)

    for norm, bias in ((layer_norm, norm_bias), (layer_norm, None), (rms_norm, None)):
        x = norm(norm_weight, bias)
        scales = some_scales(method, x, torch.cat(weights))
        folded = norm(*fold_into_norm(norm_weight, bias, scales))
        assert float((folded - x).abs().max()) > 0.1, "nothing was folded"
        for weight in weights:
            before, after = x @ weight.T, folded @ scale_columns(weight, scales).T
            assert float((after - before).norm() / before.norm()) < 1e-14


@pytest.mark.parametrize("method", ["smoothquant", "awq"])
@pytest.mark.parametrize("has_bias", [True, False])
def test_folded_into_the_linear_layer_before_scales_change_nothing(method: str, has_bias: bool) -> None:
    generator = seeded(3)
    hidden, first, second = normal(generator, 40, 16), normal(generator, 32, 16), normal(generator, 24, 32)
    bias = normal(generator, 32) if has_bias else None
    x = functional.linear(hidden, first, bias)
    scales = some_scales(method, x, second)
    folded = functional.linear(hidden, *fold_into_linear(first, bias, scales))
    before, after = x @ second.T, folded @ scale_columns(second, scales).T
    assert float((after - before).norm() / before.norm()) < 1e-14


def test_more_scales_than_the_layer_before_has_outputs_are_refused() -> None:
    with pytest.raises(ValueError, match="32 scales don't fit the 8 outputs"):
        fold_into_linear(torch.ones(8, 16), None, torch.ones(32))


def test_folding_keeps_the_types_of_what_is_folded_into() -> None:
    scales = torch.full((4,), 1.7)
    weight, bias = fold_into_norm(torch.ones(4, dtype=torch.bfloat16), torch.ones(4, dtype=torch.float16), scales)
    assert bias is not None
    assert (weight.dtype, bias.dtype) == (torch.bfloat16, torch.float16)
    assert scale_columns(torch.ones(2, 4, dtype=torch.bfloat16), scales).dtype == torch.bfloat16


def block_loss(x: torch.Tensor, weights: list[torch.Tensor], bits: int) -> Callable[[torch.Tensor], float]:
    """The squared output error of layers that share x, with scaled, rounded and unscaled weights."""
    quantize = round_to_nearest(bits, 16)

    def loss(scales: torch.Tensor) -> float:
        errors = [x @ (quantize(scale_columns(weight, scales)) / scales - weight).T for weight in weights]
        return float(sum(error.square().mean() for error in errors))

    return loss


def awq_problem(seed: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = seeded(seed)
    return with_outliers(generator, 64, 64), [normal(generator, 32, 64), normal(generator, 16, 64)]


@pytest.mark.parametrize("seed", range(20))
def test_the_search_is_never_worse_than_rounding_and_wins_where_activations_have_outliers(seed: int) -> None:
    x, weights = awq_problem(seed)
    loss = block_loss(x, weights, bits=3)
    for weight_mean in (None, column_means(weights, 16)):
        found = awq_scales(x.abs().mean(dim=0), loss, weight_mean=weight_mean)
        assert found.loss_at_ones == loss(torch.ones(64, dtype=torch.float64))
        assert found.loss == loss(found.scales)
        assert found.loss < 0.8 * found.loss_at_ones


@pytest.mark.parametrize("seed", range(20))
def test_where_scaling_cannot_help_the_search_still_never_loses(seed: int) -> None:
    generator = seeded(seed)
    x, weights = normal(generator, 64, 64), [normal(generator, 32, 64)]
    found = awq_scales(torch.rand(64, generator=generator, dtype=torch.float64), block_loss(x, weights, bits=4))
    assert found.loss <= found.loss_at_ones


def test_the_grid_is_the_papers() -> None:
    mean_abs = torch.tensor([0.5, 2.0, 8.0])
    tried: list[torch.Tensor] = []

    def loss(scales: torch.Tensor) -> float:
        tried.append(scales)
        return abs(len(tried) - 11.0)  # lowest at the eleventh

    found = awq_scales(mean_abs, loss)
    assert len(tried) == 20
    for step, scales in enumerate(tried):
        powers = [value ** (step / 20) for value in (0.5, 2.0, 8.0)]
        expected = [power / math.sqrt(max(powers) * min(powers)) for power in powers]
        assert scales.tolist() == pytest.approx(expected, rel=1e-6)
    assert found == AwqScales(tried[10], 0.5, 0.0, 10.0)


def test_with_duo_scaling_ones_and_the_weights_alone_are_tried_too() -> None:
    mean_abs, weight_mean = torch.tensor([0.5, 2.0, 8.0]), torch.tensor([0.2, 0.4, 0.1])
    tried: list[torch.Tensor] = []

    def loss(scales: torch.Tensor) -> float:
        tried.append(scales)
        return 1.0

    found = awq_scales(mean_abs, loss, n_grid=4, weight_mean=weight_mean)
    assert (found.alpha, found.scales.tolist()) == (None, [1, 1, 1])
    assert [scales.tolist() for scales in tried[:1]] == [[1, 1, 1]]
    assert len(tried) == 5
    for step, scales in enumerate(tried[1:]):
        ratios = scales / (mean_abs.pow(step / 4) / weight_mean.pow(1 - step / 4))
        torch.testing.assert_close(ratios, ratios[:1].expand(3), rtol=2e-3, atol=0)


def test_a_dead_feature_gets_a_finite_scale() -> None:
    tried: list[torch.Tensor] = []

    def loss(scales: torch.Tensor) -> float:
        tried.append(scales)
        return 1.0

    awq_scales(torch.tensor([0.0, 1.0, 3.0]), loss)
    awq_scales(torch.tensor([0.0, 1.0, 3.0]), loss, weight_mean=torch.tensor([0.0, 0.0, 1.0]))
    assert all(bool((scales.isfinite() & (scales > 0)).all()) for scales in tried)


def test_a_loss_that_is_not_a_number_never_wins_and_is_refused_without_scaling() -> None:
    losses = iter([1.0, math.nan, 0.5, math.nan])
    assert awq_scales(torch.tensor([1.0, 2.0]), lambda _: next(losses), n_grid=4).loss == 0.5
    with pytest.raises(ValueError, match="the loss without scaling is nan"):
        awq_scales(torch.tensor([1.0, 2.0]), lambda _: math.nan)


@pytest.mark.parametrize("group_size", [8, 5, -1])
def test_column_means_agree_with_a_loop(group_size: int) -> None:
    generator = seeded(8)
    weights = [normal(generator, 6, 16), normal(generator, 3, 16)]
    weights[0][2, :8] = 0
    size = 16 if group_size == -1 else group_size
    expected = []
    for column in range(16):
        start = column // size * size
        relative = []
        for weight in weights:
            for row in weight.tolist():
                largest = max(abs(value) for value in row[start : start + size])
                relative.append(abs(row[column]) / largest if largest else 0.0)
        expected.append(sum(relative) / len(relative))
    assert column_means(weights, group_size).tolist() == pytest.approx(expected, rel=1e-12)


def group_errors(weight: torch.Tensor, x: torch.Tensor, found: torch.Tensor, group_size: int) -> torch.Tensor:
    """out x groups: the mean squared error of the output that a group's columns alone are to blame for."""
    size = weight.shape[1] if group_size == -1 else group_size
    parts = zip(torch.split(x, size, dim=1), torch.split(found - weight, size, dim=1), strict=True)
    return torch.stack([(columns @ moved.T).square().mean(dim=0) for columns, moved in parts], dim=1)


def clip_problem(seed: int, columns: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    generator = seeded(seed)
    weight = normal(generator, 20, columns) / normal(generator, 3, 20, columns).square().mean(dim=0).sqrt()
    return weight, with_outliers(generator, 70, columns)


@pytest.mark.parametrize(("columns", "group_size"), [(48, 16), (50, 16), (48, -1)])
def test_clipping_takes_the_best_ratio_of_every_group(columns: int, group_size: int) -> None:
    weight, x = clip_problem(0, columns)
    quantize = round_to_nearest(3, group_size)
    maxima = awq_clip(weight, x, quantize, group_size)
    size = columns if group_size == -1 else group_size
    largest = torch.stack([part.abs().amax(dim=1) for part in torch.split(weight, size, dim=1)], dim=1)
    assert maxima.shape == largest.shape
    errors = []
    for step in range(10):
        limit = (largest * (1 - step / 20)).repeat_interleave(size, dim=1)[:, :columns]
        clipped = torch.minimum(torch.maximum(weight, -limit), limit)
        errors.append(group_errors(weight, x, quantize(clipped), group_size))
    best = torch.stack(errors).argmin(dim=0).double()
    torch.testing.assert_close(maxima, largest * (1 - best / 20), rtol=1e-12, atol=0)
    assert len(set(best.flatten().tolist())) > 3


@pytest.mark.parametrize("seed", range(20))
def test_clipping_never_raises_a_groups_error_and_lowers_the_layers(seed: int) -> None:
    weight, x = clip_problem(seed)
    quantize = round_to_nearest(3, 16)
    clipped = quantize(clip_groups(weight, awq_clip(weight, x, quantize, 16), 16))
    before, after = (group_errors(weight, x, found, 16) for found in (quantize(weight), clipped))
    assert bool((after <= before * (1 + 1e-12)).all())
    whole_before, whole_after = ((x @ (found - weight).T).square().mean() for found in (quantize(weight), clipped))
    assert float(whole_after) < float(whole_before)


def test_searching_a_few_rows_at_a_time_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = clip_problem(2)
    seen: list[int] = []

    def quantize(matrix: torch.Tensor) -> torch.Tensor:
        seen.append(len(matrix))
        return round_to_nearest(3, 16)(matrix)

    whole = awq_clip(weight, x, quantize, 16)
    assert set(seen) == {20}
    seen.clear()
    monkeypatch.setattr(scaling, "_BATCH_ELEMENTS", 48 * 3 + 5)
    assert torch.equal(awq_clip(weight, x, quantize, 16), whole)
    assert set(seen) == {3, 2}


def test_clipping_in_bfloat16_is_searched_in_float32() -> None:
    weight, x = (part.bfloat16() for part in clip_problem(4))
    quantize = round_to_nearest(3, 16)
    maxima = awq_clip(weight, x, quantize, 16)
    assert maxima.dtype == torch.bfloat16
    assert clip_groups(weight, maxima, 16).dtype == torch.bfloat16
    clipped = quantize(clip_groups(weight, maxima, 16))
    before, after = (group_errors(weight.double(), x.double(), q.double(), 16) for q in (quantize(weight), clipped))
    assert bool((after <= before * (1 + 1e-4) + 1e-12).all())


def test_ratios_that_leave_out_the_unclipped_weight_are_refused() -> None:
    weight, x = clip_problem(5)
    with pytest.raises(ValueError, match=r"the first ratio must be 1, got 0\.9"):
        awq_clip(weight, x, round_to_nearest(3, 16), 16, ratios=(0.9, 0.8))
