"""Codes of 1 to 8 bits in as many bits of memory: planes of 4, 2 and 1 bits, each packed into whole bytes.

3 bits are a plane of 2 and a plane of 1, 7 bits one of 4, 2 and 1; 8 bits are the bytes themselves.
"""

from __future__ import annotations

import torch

_WIDTHS = (8, 4, 2, 1)


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack codes (rows x columns, uint8, below 2**bits) into rows x packed_columns(columns, bits) bytes."""
    shift, planes = 0, []
    for width in _plane_widths(bits):
        planes.append(_pack_plane((codes >> shift) & (2**width - 1), width))
        shift += width
    return torch.cat(planes, dim=1)


def unpack(packed: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """The codes (rows x columns, uint8) that `pack` packed."""
    codes = torch.zeros(len(packed), columns, dtype=torch.uint8, device=packed.device)
    shift = start = 0
    for width in _plane_widths(bits):
        stop = start + _plane_bytes(columns, width)
        codes |= _unpack_plane(packed[:, start:stop], width)[:, :columns] << shift
        shift, start = shift + width, stop
    return codes


def packed_columns(columns: int, bits: int) -> int:
    """Bytes per row: columns * bits / 8 where `columns` is a multiple of 8."""
    return sum(_plane_bytes(columns, width) for width in _plane_widths(bits))


def _plane_widths(bits: int) -> list[int]:
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must lie in 1 .. 8, got {bits}")
    return [width for width in _WIDTHS if bits & width]


def _plane_bytes(columns: int, width: int) -> int:
    return -(-columns * width // 8)


def _pack_plane(codes: torch.Tensor, width: int) -> torch.Tensor:
    per_byte = 8 // width
    padded = torch.nn.functional.pad(codes, (0, -codes.shape[1] % per_byte))
    padded = padded.view(len(codes), padded.shape[1] // per_byte, per_byte)
    packed = torch.zeros_like(padded[:, :, 0])
    for position in range(per_byte):
        packed |= padded[:, :, position] << (position * width)
    return packed


def _unpack_plane(packed: torch.Tensor, width: int) -> torch.Tensor:
    shifts = torch.arange(0, 8, width, dtype=torch.uint8, device=packed.device)
    codes: torch.Tensor = (packed[:, :, None] >> shifts) & (2**width - 1)
    return codes.flatten(1)
