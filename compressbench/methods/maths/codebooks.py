"""Four-bit code books (NF4, FP4), blockwise quantization to the nearest of their values, and double quantization.

Dettmers, Pagnoni, Holtzman & Zettlemoyer 2023 (QLoRA), arXiv:2305.14314; FP4 and the dynamic map as in bitsandbytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from compressbench.models.quantized_weight import QuantizedWeight

# the outermost probability, halfway between 1 - 1/30 and 1 - 1/32, as float32
_NF4_TAIL = float(torch.tensor(0.9677083))
_FP4_MAGNITUDES = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)


def nf4() -> torch.Tensor:
    """NormalFloat's 16 values, ascending in [-1, 1], float32: 7 negative ones, 0 and 8 positive ones.

    Quantiles of the standard normal distribution, evenly spaced in probability on either side and scaled to 1. With
    probabilities, quantiles and quotients each rounded to float32, they are the published values to the last bit.
    """
    positive, negative = _quantiles(9), -_quantiles(8)
    values = torch.cat([negative, torch.zeros(1), positive.flip(0)])
    return values / values.max()


def fp4() -> torch.Tensor:
    """bitsandbytes' FP4 in [-1, 1], float32, ordered by bit pattern (sign, 2 exponent bits, mantissa): it has two zeros.

    Not the E2M1 of the Open Compute Project: the subnormal is 0.0625 where the largest value is 12 (there 0.5 of 6).
    """
    magnitudes = torch.tensor(_FP4_MAGNITUDES, dtype=torch.float64) / max(_FP4_MAGNITUDES)
    return torch.cat([magnitudes, -magnitudes]).float()


def dynamic_map() -> torch.Tensor:
    """The 256 values of the signed 8-bit dynamic type in (-1, 1], ascending, float32.

    Dettmers 2015, arXiv:1511.04561. The decade 10**-e .. 10**(1 - e) is cut into 2**(7 - e) even parts, e = 1 .. 7,
    of which the middles count; 0 and 1 complete it.
    """
    magnitudes = []
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1)
        middles = (edges[:-1] + edges[1:]) / 2
        magnitudes += [10.0 ** (decade - 6) * float(middle) for middle in middles]
    return torch.tensor(sorted([*magnitudes, *(-value for value in magnitudes), 0.0, 1.0]))


def blockwise(
    weight: torch.Tensor, codebook: torch.Tensor, block_size: int = 64, scale_dtype: torch.dtype = torch.float32
) -> QuantizedWeight:
    """Quantize weight (out x in) to the code book's values nearest to weight / scale, scale = max|w| of its block.

    Blocks run along in_features, and the last may be shorter; bitsandbytes' run over the flattened matrix, which is the
    same where in_features is a multiple of block_size. A weight in the middle between two values gets the lower one; a
    block of zeros keeps scale 0. The codes are the nearest ones for the scale as it is stored. Raises ValueError for
    weights that aren't finite, and where a scale is too large for `scale_dtype`.
    """
    columns, codebook = weight.shape[1], codebook.to(weight.device)
    blocks = functional.pad(weight.detach(), (0, -columns % block_size)).reshape(len(weight), -1, block_size)
    scale = blocks.abs().amax(dim=2).to(scale_dtype)
    if not bool(scale.isfinite().all()):
        raise ValueError(f"the weights must be finite, and their scales must fit into {scale_dtype}")
    codes = _nearest(blocks.double() / _nonzero(scale.double())[:, :, None], codebook)
    bits = (len(codebook) - 1).bit_length()
    return QuantizedWeight(codes.flatten(1)[:, :columns].contiguous(), scale, bits, block_size, codebook=codebook)


@dataclass(frozen=True)
class DoubleQuantized:
    """Scales in 8 bits each: `codes` of the dynamic map (uint8, shaped as the scales), and what they are relative to.

    `scale` (one float32 per block of the flattened scales) and `mean` (one float32 for all). With blocks of 64 weights
    and of 256 scales that is 8 / 64 + 32 / (64 * 256) bits a weight instead of 32 / 64: 4.127 in all.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    mean: torch.Tensor
    block_size: int

    def dequantize(self) -> torch.Tensor:
        """The scales (float32) that the codes stand for."""
        values = dynamic_map().to(self.codes.device)[self.codes.flatten().long()]
        per_code = self.scale.repeat_interleave(self.block_size)[: len(values)]
        return (values * per_code + self.mean).view_as(self.codes)


def double_quantize(scales: torch.Tensor, block_size: int = 256) -> DoubleQuantized:
    """Quantize scales (any shape) blockwise to 8 bits after subtracting their mean, as QLoRA does to absmax scales."""
    flat = scales.detach().float().flatten()
    mean = flat.mean()
    quantized = blockwise((flat - mean)[None], dynamic_map(), block_size)
    return DoubleQuantized(quantized.codes.view_as(scales), quantized.scale[0], mean, block_size)


def _quantiles(count: int) -> torch.Tensor:
    """The normal distribution's quantiles at `count` probabilities from the tail to one half, without the last (0)."""
    probabilities = torch.linspace(_NF4_TAIL, 0.5, count, dtype=torch.float64).float()
    quantiles: torch.Tensor = torch.special.ndtri(probabilities.double())
    return quantiles[:-1].float()


def _nearest(values: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Codes (uint8) of the nearest values; beyond the ends that is an end."""
    ascending, order = codebook.double().sort(stable=True)
    middles = (ascending[:-1] + ascending[1:]) / 2
    codes: torch.Tensor = order.to(torch.uint8)[torch.bucketize(values, middles)]
    return codes


def _nonzero(scale: torch.Tensor) -> torch.Tensor:
    return torch.where(scale == 0, torch.ones_like(scale), scale)
