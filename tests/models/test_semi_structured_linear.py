from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

from compressbench.models import semi_structured_linear
from compressbench.models.bit_packing import unpack
from compressbench.models.semi_structured_linear import (
    SemiStructuredLinear,
    misfit,
    to_sparse,
    why_dense,
    without_zeros,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# more rows than are unpacked at once, rows that end within a byte of positions, a single group
SHAPES = [(64, 128), (300, 24), (515, 20), (1, 4), (2, 12)]
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def a_2_of_4(rows: int, columns: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Groups with zero, one and two non-zeros anywhere, and zeros of both signs, as masks that are multiplied leave."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.rand(rows, columns // 4, 4, generator=generator)
    num_kept = torch.randint(0, 3, (rows, columns // 4, 1), generator=generator)
    mask = groups.argsort(dim=2).argsort(dim=2) < num_kept
    return (drawn(rows, columns, seed=seed + 1) * mask.view(rows, columns)).to(dtype)


def made(rows: int, columns: int, dtype: torch.dtype = torch.float32, *, bias: bool = True) -> SemiStructuredLinear:
    return SemiStructuredLinear(
        without_zeros(a_2_of_4(rows, columns, dtype)), drawn(rows, seed=9).to(dtype) if bias else None
    )


def is_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return found.keys() == expected.keys() and all(
        torch.equal(found[name].cpu().contiguous().view(torch.uint8), each.cpu().contiguous().view(torch.uint8))
        for name, each in expected.items()
    )


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double().cpu() - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_matrix_comes_back(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrix = a_2_of_4(*shape, dtype)
    again = without_zeros(matrix).dense()
    assert (again.shape, again.dtype) == (matrix.shape, dtype)
    kept = matrix != 0
    assert torch.equal(again != 0, kept)
    assert torch.equal(again[kept].view(BITS[dtype]), matrix[kept].view(BITS[dtype]))
    assert not again[~kept].view(BITS[dtype]).any(), "every zero is a positive one"


def test_the_drawn_matrices_have_what_is_hard() -> None:
    matrix = a_2_of_4(64, 128)
    counts = torch.count_nonzero(matrix.view(64, 32, 4), dim=2)
    assert set(counts.flatten().tolist()) == {0, 1, 2}
    zeros = matrix[matrix == 0]
    assert bool(zeros.signbit().any())
    assert bool((~zeros.signbit()).any())


def test_every_pattern_of_a_group_keeps_its_non_zeros_and_two_places() -> None:
    patterns = [each for each in itertools.product([0.0, 1.0], repeat=4) if sum(each) <= 2]
    assert len(patterns) == 11
    matrix = torch.tensor(patterns) * torch.tensor([3.0, -5.0, 7.0, -11.0])
    weight = without_zeros(matrix)
    assert torch.equal(weight.dense(), matrix)
    places = unpack(weight.positions, 2, 22).view(11, 2).tolist()
    for row, (first, second), values in zip(matrix.tolist(), places, weight.values.tolist(), strict=True):
        assert first < second
        assert values == [row[first], row[second]]
        assert {first, second} >= {place for place, number in enumerate(row) if number}


def test_a_matrix_that_is_not_2_of_4_is_refused() -> None:
    matrix = a_2_of_4(8, 16)
    assert misfit(matrix) == ""
    matrix[2, 4:7] = 1.0
    matrix[5, 8:12] = 1.0
    assert misfit(matrix) == "2 of its 32 groups of 4 have more than 2 non-zeros"
    with pytest.raises(ValueError, match="2 of its 32 groups"):
        without_zeros(matrix)
    # two of four neighbours, but not of an aligned group
    assert misfit(torch.tensor([[0.0, 0, 1, 1, 0, 0, 0, 0]])) == ""
    assert misfit(torch.tensor([[0.0, 1, 1, 1, 0, 0, 0, 0]])) != ""
    with pytest.raises(ValueError, match="30 inputs are no multiple of 4"):
        without_zeros(torch.zeros(4, 30))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(64, 128), (300, 24), (6, 20)])
@pytest.mark.parametrize("bias", [True, False])
def test_stored_bytes_are_half_the_values_and_a_bit_per_weight(
    shape: tuple[int, int], dtype: torch.dtype, bias: bool
) -> None:
    layer, num_weights, bits = made(*shape, dtype, bias=bias), shape[0] * shape[1], 8 * dtype.itemsize
    of_bias = shape[0] * dtype.itemsize if bias else 0
    stored = layer.stored_tensors()
    assert sum(tensor.nbytes for tensor in stored.values()) - of_bias == num_weights * (bits / 2 + 1) / 8
    assert stored["values"].dtype == dtype
    assert sum(tensor.nbytes for tensor in [*layer.buffers(), *layer.parameters()]) == sum(
        tensor.nbytes for tensor in stored.values()
    )
    assert layer.num_weights == num_weights


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_on_cpu_it_computes_bit_for_bit_what_the_dense_matrix_does(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrix, bias = a_2_of_4(*shape, dtype), drawn(shape[0], seed=9).to(dtype)
    for of_layer in (None, bias):
        layer = SemiStructuredLinear(without_zeros(matrix), of_layer)
        assert layer.kernel == "dense"
        assert layer.why_dense() == "there are no sparse kernels for cpu"
        for x in (drawn(5, shape[1], seed=3), drawn(2, 3, shape[1], seed=4)):
            expected = functional.linear(x.to(dtype), matrix, of_layer)
            assert torch.equal(layer(x.to(dtype)), expected)
    assert torch.equal(layer.dequantized(), matrix.float())


@pytest.mark.parametrize("dtype", DTYPES)
def test_restored_copied_and_pickled_layers_are_the_same_in_every_bit(dtype: torch.dtype) -> None:
    layer, x = made(80, 64, dtype), drawn(3, 64, seed=6).to(dtype)
    before, expected = {name: tensor.clone() for name, tensor in layer.stored_tensors().items()}, layer(x)
    restored = SemiStructuredLinear.restore(layer.layout(), before)
    again = SemiStructuredLinear.restore(layer.layout(), {name: before[name] for name in ("values", "positions")})
    assert again.bias is None
    duplicates = [restored, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]  # noqa: S301
    layer.stored_tensors()["values"].zero_()
    for duplicate in duplicates:
        assert torch.equal(duplicate(x), expected)
        assert is_same(duplicate.stored_tensors(), before)


def test_cast_it_holds_the_cast_matrix() -> None:
    layer = made(64, 128)
    assert torch.equal(copy.deepcopy(layer).bfloat16().weight().dense(), layer.weight().dense().bfloat16())


def test_the_machines_types_and_shapes_that_the_sparse_kernels_take(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, bfloat16 = torch.device("cuda", 0), torch.bfloat16
    monkeypatch.setattr(torch.backends.cusparselt, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert why_dense(cuda, bfloat16, 32, 64) == why_dense(cuda, torch.float16, 4096, 11008) == ""
    assert why_dense(torch.device("cpu"), bfloat16, 32, 64) == "there are no sparse kernels for cpu"
    assert why_dense(cuda, torch.float32, 32, 64) == "the sparse kernels take no float32"
    assert why_dense(cuda, bfloat16, 48, 64) == "48 x 64 is no multiple of 32 x 64"
    assert why_dense(cuda, bfloat16, 32, 96) == "32 x 96 is no multiple of 32 x 64"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert why_dense(cuda, bfloat16, 32, 64) == "compute capability 7.5 is below 8.0"
    monkeypatch.setattr(torch.backends.cusparselt, "is_available", lambda: False)
    assert why_dense(cuda, bfloat16, 32, 64) == "this PyTorch has no cuSPARSELt"


def test_these_multiples_are_enough_for_both_of_pytorch_s_backends() -> None:
    for backend in (
        torch.sparse.SparseSemiStructuredTensorCUSPARSELT,
        torch.sparse.SparseSemiStructuredTensorCUTLASS,
    ):
        for dtype in (torch.bfloat16, torch.float16):
            limits = backend._DTYPE_SHAPE_CONSTRAINTS[dtype]
            assert 32 % limits.sparse_min_rows == 64 % limits.sparse_min_cols == 0


class OnCpu(torch.sparse.SparseSemiStructuredTensorCUTLASS):
    """PyTorch's sparse tensor as it is, conversions and dispatch included; only the product itself is a dense one."""

    num_made = 0

    @classmethod
    def from_dense(cls, original_tensor: torch.Tensor, alg_id: int = 0) -> Any:
        cls.num_made += 1
        packed, meta = sparse_semi_structured_from_dense_cutlass(original_tensor)  # type: ignore[no-untyped-call]
        return cls(original_tensor.shape, packed, meta, None, None, None)

    def _mm(self, B: torch.Tensor, *, bias: torch.Tensor | None = None, **_: Any) -> torch.Tensor:  # noqa: N803
        return functional.linear(B, self.to_dense(), bias)  # type: ignore[no-untyped-call]


@pytest.fixture
def sparse_on_cpu(monkeypatch: pytest.MonkeyPatch) -> type[OnCpu]:
    class Fresh(OnCpu):
        _PROTOTYPE_WARNING_SHOWN = False

    monkeypatch.setattr(semi_structured_linear, "why_dense", lambda *_: "")
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", Fresh.from_dense)
    return Fresh


def test_the_sparse_form_is_made_once_and_replaces_the_plain_one(sparse_on_cpu: type[OnCpu]) -> None:
    layer, x = made(64, 128, torch.bfloat16), drawn(2, 3, 128, seed=3).bfloat16()
    matrix, before = layer.weight().dense(), {name: each.clone() for name, each in layer.stored_tensors().items()}
    assert (layer.kernel, sparse_on_cpu.num_made) == ("sparse", 0)
    for _ in range(2):
        with torch.inference_mode():
            found = layer(x)
    assert (layer.kernel, layer.why_dense(), sparse_on_cpu.num_made) == ("sparse", "", 1)
    assert torch.equal(found, functional.linear(x, matrix, layer.bias))
    assert isinstance(layer._sparse, sparse_on_cpu)
    assert list(layer.buffers()) == []
    parts = [getattr(layer._sparse, name) for name in layer._sparse.__tensor_flatten__()[0]]
    assert sum(part.nbytes for part in parts) == matrix.nbytes * 9 / 16
    assert not any(part.is_inference() for part in parts), "other modes have to be able to use them"
    # what is stored is read out of what multiplies
    assert is_same(layer.stored_tensors(), before)
    assert torch.equal(layer.dequantized(), matrix.float())


@pytest.mark.usefixtures("sparse_on_cpu")
def test_a_layer_in_sparse_form_is_moved_cast_copied_and_saved_whole() -> None:
    layer, x = made(64, 128, torch.bfloat16), drawn(3, 128, seed=3).bfloat16()
    before = {name: each.clone() for name, each in layer.stored_tensors().items()}
    expected = layer(x)
    duplicates = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]  # noqa: S301
    assert is_same(dict(layer.state_dict()), before)
    assert list(layer.buffers()) == [], "nothing of this changes the layer itself"
    for duplicate in duplicates:
        assert is_same(dict(duplicate.state_dict()), before)
        assert torch.equal(duplicate(x), expected)
    assert torch.equal(SemiStructuredLinear.restore({}, layer.stored_tensors())(x), expected)
    layer.to("cpu")
    assert layer._sparse is None
    assert is_same(dict(layer.named_buffers()), {name: before[name] for name in ("values", "positions")})
    assert is_same(dict(layer.state_dict()), before)
    assert torch.equal(layer(x), expected)
    torch.testing.assert_close(layer.float().weight().dense(), duplicates[0].weight().dense().float(), rtol=0, atol=0)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(32, 64), (96, 128), (1024, 576)])
@pytest.mark.parametrize("bias", [True, False])
def test_on_cuda_the_products_are_sparse_and_near_those_in_float64(
    shape: tuple[int, int], dtype: torch.dtype, bias: bool
) -> None:
    layer = made(*shape, dtype, bias=bias)
    on_cuda = copy.deepcopy(layer).cuda()
    for x in (drawn(1, shape[1], seed=3), drawn(2, 5, shape[1], seed=4), drawn(64, shape[1], seed=5)):
        x = x.to(dtype)
        expected = x.double() @ layer.dequantized().double().t()
        expected = expected if layer.bias is None else expected + layer.bias.double()
        with torch.inference_mode():
            assert relative(on_cuda(x.cuda()), expected) < 1e-2
        assert on_cuda.kernel == "sparse"
    assert list(on_cuda.buffers()) == []
    assert is_same(on_cuda.stored_tensors(), layer.stored_tensors())
    assert torch.equal(on_cuda.dequantized().cpu(), layer.dequantized())
    assert is_same(copy.deepcopy(on_cuda).cpu().stored_tensors(), layer.stored_tensors())


@pytest.mark.gpu
@needs_cuda
def test_on_cuda_it_holds_nine_sixteenths_of_the_dense_matrix_and_runs_the_sparse_kernel() -> None:
    before = torch.cuda.memory_allocated()
    layer = made(2048, 2048, torch.bfloat16, bias=False).cuda()
    x = drawn(8, 2048).bfloat16().cuda()
    plain = torch.cuda.memory_allocated()
    with torch.inference_mode(), torch.profiler.profile() as profile:
        layer(x)
    dense_bytes = 2 * 2048 * 2048
    assert plain - before <= dense_bytes * (9 / 16 + 0.01)
    assert torch.cuda.memory_allocated() - plain <= 0.01 * dense_bytes
    assert any("_cslt_sparse_mm" in event.name for event in profile.events() or ())


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize(("rows", "columns", "dtype"), [(24, 64, torch.bfloat16), (64, 64, torch.float32)])
def test_on_cuda_what_the_kernels_refuse_stays_dense(rows: int, columns: int, dtype: torch.dtype) -> None:
    layer = made(rows, columns, dtype)
    on_cuda, x = copy.deepcopy(layer).cuda(), drawn(5, columns, seed=3).to(dtype)
    assert on_cuda.kernel == "dense"
    assert relative(on_cuda(x.cuda()), layer(x).double()) < 1e-2
    with pytest.raises(RuntimeError, match="support"):
        to_sparse(on_cuda.weight().dense())
