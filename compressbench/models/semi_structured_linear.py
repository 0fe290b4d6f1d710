"""A linear layer of 2:4 weights, stored without their zeros and multiplied by sparse tensor cores where there are some."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from compressbench.models.bit_packing import pack, unpack
from compressbench.models.stored_layer import Layout, StoredLayer

GROUP, KEPT = 4, 2
_POSITION_BITS = 2
# of rows, whose bytes of positions end where a byte ends; few, so that a call's scratch memory stays small
_ROWS_AT_A_TIME = 256
# both of PyTorch's backends (cuSPARSELt and CUTLASS) take 16-bit matrices of these multiples
_TILE_ROWS, _TILE_COLUMNS = 32, 64
_FIRST_CAPABILITY = (8, 0)


class SemiStructuredWeight(NamedTuple):
    """What is left of a 2:4 matrix (out x in) without two of every four neighbours along the inputs.

    `values` are the kept ones (out x in/2, the matrix's type), `positions` their places in their groups: 2 bits each, in
    the order of the values row after row, four in a byte (1 x out * in/8, uint8). Positions ascend within a group; where
    fewer than two weights are non-zero, zeros are kept besides.
    """

    values: torch.Tensor
    positions: torch.Tensor

    def dense(self) -> torch.Tensor:
        """The matrix, out x in, with the same numbers; a zero that was -0.0 is 0.0."""
        rows, half = self.values.shape
        groups, columns = half // KEPT, 2 * half
        kept = self.values.view(rows, groups, KEPT)
        dense = self.values.new_zeros(rows, groups, GROUP)
        for start in range(0, rows, _ROWS_AT_A_TIME):
            stop = min(start + _ROWS_AT_A_TIME, rows)
            # in bytes: a position of 2 bits for every second weight
            packed = self.positions[:, start * columns // 8 : -(-stop * columns // 8)]
            places = unpack(packed, _POSITION_BITS, (stop - start) * half).view(-1, groups, KEPT)
            dense[start:stop].scatter_(2, places.long(), kept[start:stop])
        return dense.view(rows, columns)


def misfit(matrix: torch.Tensor) -> str:
    """Why a matrix (out x in) isn't 2:4; "" if at most two of every four neighbours along the inputs are non-zero."""
    rows, columns = matrix.shape
    if columns % GROUP:
        return f"its {columns} inputs are no multiple of {GROUP}"
    num_broken = int(((matrix.detach() != 0).reshape(rows, -1, GROUP).sum(dim=2) > KEPT).sum())
    total = rows * columns // GROUP
    return f"{num_broken:,} of its {total:,} groups of {GROUP} have more than {KEPT} non-zeros" if num_broken else ""


def without_zeros(matrix: torch.Tensor) -> SemiStructuredWeight:
    """The kept values and positions of a matrix (out x in). Raises ValueError if it isn't 2:4."""
    reason = misfit(matrix)
    if reason:
        raise ValueError(reason)
    groups = matrix.detach().reshape(len(matrix), -1, GROUP)
    places = torch.arange(GROUP, dtype=torch.uint8, device=matrix.device)
    mask = ((groups != 0).to(torch.uint8) << places).sum(dim=2, dtype=torch.uint8)
    table = torch.tensor([_kept_positions(code) for code in range(2**GROUP)], dtype=torch.uint8, device=matrix.device)
    positions = table[mask.int()]
    values = groups.gather(2, positions.long()).flatten(1)
    # one sign for zeros, so that the same matrix is stored in the same bits wherever it has been
    values.masked_fill_(values == 0, 0)
    return SemiStructuredWeight(values, pack(positions.view(1, -1), _POSITION_BITS))


def _kept_positions(mask: int) -> list[int]:
    """The two positions to keep, ascending: those of the mask's bits, and zeros where it has fewer than two."""
    order = sorted(range(GROUP), key=lambda position: not mask >> position & 1)
    return sorted(order[:KEPT])


def why_dense(device: torch.device, dtype: torch.dtype, rows: int, columns: int) -> str:
    """Why sparse kernels can't multiply with a matrix (rows x columns) of this type there; "" if they can."""
    if device.type != "cuda":
        return f"there are no sparse kernels for {device.type}"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"the sparse kernels take no {str(dtype).removeprefix('torch.')}"
    if rows % _TILE_ROWS or columns % _TILE_COLUMNS:
        return f"{rows} x {columns} is no multiple of {_TILE_ROWS} x {_TILE_COLUMNS}"
    if not torch.backends.cusparselt.is_available():
        return "this PyTorch has no cuSPARSELt"
    capability = torch.cuda.get_device_capability(device)
    return f"compute capability {capability[0]}.{capability[1]} is below 8.0" if capability < _FIRST_CAPABILITY else ""


def to_sparse(dense: torch.Tensor) -> torch.Tensor:
    """A 2:4 matrix in the form of the device's sparse kernels: 0.5625 of its bytes. PyTorch's notice that this part of
    it is a prototype isn't passed on.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*SparseSemiStructuredTensor is in prototype", category=UserWarning)
        return torch.sparse.to_sparse_semi_structured(dense)


class SemiStructuredLinear(StoredLayer):
    """y = x Wᵀ + bias with a 2:4 matrix W in b/2 + 1 bits per weight of b bits (Mishra et al. 2021, arXiv:2104.08378).

    With the kernel "sparse" the first call puts W into the form of the sparse tensor cores, which replaces the plain one
    until the layer is moved or cast. With "dense" W is spread out in every call: that saves memory, not time.
    """

    kind: ClassVar[str] = "semi-structured"

    values: torch.Tensor | None
    positions: torch.Tensor | None

    def __init__(self, weight: SemiStructuredWeight, bias: torch.Tensor | None = None) -> None:
        super().__init__(2 * weight.values.shape[1], weight.values.shape[0])
        self.register_buffer("values", weight.values)
        self.register_buffer("positions", weight.positions)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self._sparse: torch.Tensor | None = None

    @property
    def kernel(self) -> Literal["sparse", "dense"]:
        """What multiplies on the device where the layer is now."""
        return "dense" if self.why_dense() else "sparse"

    def why_dense(self) -> str:
        """Why the sparse kernels can't be used here; "" if they are."""
        if self._sparse is not None:
            return ""
        values = self.weight().values
        return why_dense(values.device, values.dtype, self.out_features, self.in_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.why_dense():
            return functional.linear(x, self.weight().dense(), self.bias)
        rows = x.reshape(-1, self.in_features).contiguous()
        y: torch.Tensor = functional.linear(rows, self._in_kernel_order(), self.bias)
        return y.reshape(*x.shape[:-1], self.out_features)

    def weight(self) -> SemiStructuredWeight:
        """The values and positions that the layer multiplies with, read back from the kernel's form if they are in it."""
        if self._sparse is not None:
            return without_zeros(self._sparse.to_dense())
        assert self.values is not None  # noqa: S101 -- one of both forms is always there
        assert self.positions is not None  # noqa: S101
        return SemiStructuredWeight(self.values, self.positions)

    def dequantized(self) -> torch.Tensor:
        return self.weight().dense().float()

    def layout(self) -> Layout:
        return {}

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        tensors = self.weight()._asdict()
        return tensors if self.bias is None else {**tensors, "bias": self.bias.detach()}

    @classmethod
    def restore(cls, layout: Layout, tensors: Mapping[str, torch.Tensor]) -> SemiStructuredLinear:
        return cls(SemiStructuredWeight(tensors["values"], tensors["positions"]), tensors.get("bias"))

    def _in_kernel_order(self) -> torch.Tensor:
        """The sparse form of the matrix, made at first use in the place of the plain one."""
        if self._sparse is None:
            # whatever mode the first call happens to run in, the tensors outlive it
            with torch.inference_mode(False), torch.no_grad():
                self._sparse = to_sparse(self.weight().dense())
            self.values = self.positions = None
        return self._sparse

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> SemiStructuredLinear:
        if self._sparse is not None:
            # the kernel's form can't be moved or cast; the next call makes it again
            with torch.inference_mode(False), torch.no_grad():
                self.values, self.positions = self.weight()
            self._sparse = None
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        """A copy starts from the plain form."""
        plain = {} if self._sparse is None else self.weight()._asdict()
        return {**self.__dict__, "_buffers": {**self._buffers, **plain}, "_sparse": None}

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._sparse is not None:
            destination.update({f"{prefix}{name}": tensor for name, tensor in self.weight()._asdict().items()})
