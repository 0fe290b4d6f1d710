"""Linear layers that compute with bitsandbytes: 4-bit codes of a codebook (NF4, FP4), and LLM.int8().

Both hold plain tensors and call the library's functions on them. The library's own 4-bit module isn't used, because on
CPU its first forward rewrites the weights and rounds away the scales that are saved later.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, ClassVar, cast

import torch
from torch import nn

from compressbench.core.errors import MissingDependencyError, UnsupportedError
from compressbench.models.stored_layer import Layout, StoredLayer

_NESTED_BLOCKSIZE = 256
_ROWS_OF_CPU_KERNEL = 32


@cache
def bitsandbytes() -> Any:
    """The package, imported quietly. Raises MissingDependencyError.

    What is dropped: the import's offer of a kernel package, a deprecation inside PyTorch, and the notice in every call
    that int8 activations pass through float16, which BnbInt8Linear documents.
    """
    loggers = {
        "backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
        "autograd._functions": "MatMul8bitLt: inputs",
    }
    for name, beginning in loggers.items():
        logging.getLogger(f"bitsandbytes.{name}").addFilter(partial(_differs, beginning))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.script_method` is", DeprecationWarning)
            return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise MissingDependencyError(
            "bitsandbytes can't be imported", got=str(error), do="Install it: pip install bitsandbytes."
        ) from error


def _differs(beginning: str, record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(beginning)


class Bnb4Linear(StoredLayer):
    """y = x Wᵀ + bias, W = codebook[codes] * absmax with one absmax per `blocksize` neighbours along the inputs.

    Activations are cast to `compute_dtype`, the output to the type of x. On CPUs with AVX512-BF16 and in bfloat16 the
    library's fused kernel runs, for which the codes are kept in its order and the scales a second time in bfloat16
    (1/32 byte per weight); everywhere else its general routine. With double quantization absmax is one byte per block,
    with a mean and one float32 scale per 256 blocks.
    Layout: quant_type (nf4, fp4), blocksize, compute_dtype, in_features, out_features. in_features has to be a multiple
    of blocksize: bitsandbytes 0.50.2 dequantizes anything else wrongly on CPU.
    """

    kind: ClassVar[str] = "bnb-4bit"

    codes: torch.Tensor
    absmax: torch.Tensor
    nested_absmax: torch.Tensor | None
    nested_offset: torch.Tensor | None
    codebook: torch.Tensor
    nested_codebook: torch.Tensor | None
    kernel_absmax: torch.Tensor | None

    def __init__(self, layout: Layout, tensors: Mapping[str, torch.Tensor]) -> None:
        """`tensors` as `stored_tensors` gives them."""
        super().__init__(cast(int, layout["in_features"]), cast(int, layout["out_features"]))
        self.quant_type, self.blocksize = cast(str, layout["quant_type"]), cast(int, layout["blocksize"])
        self.compute_dtype: torch.dtype = getattr(torch, cast(str, layout["compute_dtype"]))
        functional, device = bitsandbytes().functional, tensors["codes"].device
        has_nested = "nested_absmax" in tensors
        nested_codebook = functional.create_dynamic_map().to(device) if has_nested else None
        for name in ("codes", "absmax", "nested_absmax", "nested_offset"):
            self.register_buffer(name, tensors.get(name))
        codebook = functional.get_4bit_type(self.quant_type, device=device, blocksize=self.blocksize)
        self.register_buffer("codebook", codebook, persistent=False)
        self.register_buffer("nested_codebook", nested_codebook, persistent=False)
        self.register_buffer("kernel_absmax", None, persistent=False)
        self.bias = _frozen(tensors.get("bias"))
        self._to_kernel_order()

    @classmethod
    def quantize(cls, weight: torch.Tensor, bias: torch.Tensor | None, layout: Layout, nested: bool) -> Bnb4Linear:
        """Round `weight` (out x in) to the codebook; `nested` is double quantization. `layout` lacks the shape only."""
        functional = bitsandbytes().functional
        packed, state = functional.quantize_4bit(
            weight.detach().float().contiguous(),
            blocksize=layout["blocksize"],
            compress_statistics=nested,
            quant_type=layout["quant_type"],
        )
        shape = {"in_features": weight.shape[1], "out_features": weight.shape[0]}
        return cls({**layout, **shape}, _tensors_of(packed, state, bias))

    @classmethod
    def from_library(cls, module: Any, name: str = "") -> Bnb4Linear:
        """What a bitsandbytes Linear4bit holds, before its first forward.

        On CPUs with the fused kernel the library computes in bfloat16 whatever type it is told, and so does this layer.
        Raises UnsupportedError for a shape that the library dequantizes wrongly there.
        """
        state = module.weight.quant_state
        compute_dtype = module.compute_dtype or torch.float32
        on_cpu = module.weight.device.type == "cpu"
        if on_cpu and state.shape[1] % state.blocksize:
            raise UnsupportedError(
                f"bitsandbytes needs inputs in multiples of {state.blocksize} on CPU",
                where=name,
                got=f"{state.shape[1]}",
                do="Name the module in llm_int8_skip_modules.",
            )
        if on_cpu and bitsandbytes().functional.has_avx512bf16():
            compute_dtype = torch.bfloat16
        layout = {
            "quant_type": state.quant_type,
            "blocksize": state.blocksize,
            "compute_dtype": str(compute_dtype).removeprefix("torch."),
            "in_features": state.shape[1],
            "out_features": state.shape[0],
        }
        packed = module.weight.detach().as_subclass(torch.Tensor)
        return cls(layout, _tensors_of(packed.view(torch.uint8), state, module.bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.to(self.compute_dtype).contiguous()
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        library = bitsandbytes()
        if self.kernel_absmax is None:
            y = library.matmul_4bit(rows, self.codes.view(-1, 1), self._state(), bias=bias)
        else:
            y = library.functional.gemv_4bit(rows, self.codes, state=self._kernel_state())
            y = y if bias is None else y + bias
        product: torch.Tensor = y.to(x.dtype)
        return product

    def dequantized(self) -> torch.Tensor:
        functional = bitsandbytes().functional
        matrix: torch.Tensor = functional.dequantize_4bit(self._stored_codes().view(-1, 1), self._state())
        return matrix.float()

    def layout(self) -> Layout:
        return {
            "quant_type": self.quant_type,
            "blocksize": self.blocksize,
            "compute_dtype": str(self.compute_dtype).removeprefix("torch."),
            "in_features": self.in_features,
            "out_features": self.out_features,
        }

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        """codes (out x in/2, uint8, the first of two codes in the high bits), absmax (one per block, float32, or uint8
        with nested_absmax and nested_offset), and bias.
        """
        names = ("absmax", "nested_absmax", "nested_offset", "bias")
        tensors = {"codes": self._stored_codes(), **{name: getattr(self, name) for name in names}}
        return {name: tensor.detach() for name, tensor in tensors.items() if tensor is not None}

    @classmethod
    def restore(cls, layout: Layout, tensors: Mapping[str, torch.Tensor]) -> Bnb4Linear:
        return cls(layout, tensors)

    def _state(self) -> Any:
        """The library's description of the stored tensors."""
        functional, nested = bitsandbytes().functional, None
        if self.nested_absmax is not None:
            nested = functional.QuantState(
                absmax=self.nested_absmax, code=self.nested_codebook, blocksize=_NESTED_BLOCKSIZE, dtype=torch.float32
            )
        return functional.QuantState(
            absmax=self.absmax,
            shape=torch.Size((self.out_features, self.in_features)),
            code=self.codebook,
            blocksize=self.blocksize,
            quant_type=self.quant_type,
            dtype=torch.float32,
            offset=None if self.nested_offset is None else self.nested_offset[0],
            state2=nested,
        )

    def _kernel_state(self) -> Any:
        """The library's description of the tensors that its fused CPU kernel reads."""
        state = self._state()
        state.absmax, state.nested, state.packing_format_for_cpu = self.kernel_absmax, False, True
        return state

    def _to_kernel_order(self) -> None:
        functional = bitsandbytes().functional
        fits = self.compute_dtype == torch.bfloat16 and self.out_features % _ROWS_OF_CPU_KERNEL == 0
        if fits and self.codes.device.type == "cpu" and functional.has_avx512bf16():
            self.codes, state = functional._convert_weight_packed_for_cpu(self.codes, self._state())
            self.kernel_absmax = state.absmax

    def _stored_codes(self) -> torch.Tensor:
        if self.kernel_absmax is None:
            return self.codes
        state = self._kernel_state()
        state.original_nested, state.original_dtype, state.original_qshape = False, torch.float32, self.codes.shape
        stored: torch.Tensor = bitsandbytes().functional._convert_weight_packed_for_cpu_inverse(self.codes, state)[0]
        return stored

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Bnb4Linear:
        # another device has another kernel
        self.codes, self.kernel_absmax = self._stored_codes(), None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._to_kernel_order()
        return self


class BnbInt8Linear(StoredLayer):
    """LLM.int8(): y = x Wᵀ + bias with int8 rows of W and of x, columns of x that reach `threshold` apart.

    x is rounded row by row, by way of float16, to int8; products are summed as int32 and scaled in float32. A column in
    which any |x| is at least `threshold` is multiplied in the type of x with the dequantized weights instead; with
    threshold 0 there are none. The output has the type of x, which is also the type in which the library adds up.
    Stored: weight (out x in, int8), weight_scale (out, float32, the largest |w| of the row), bias.
    """

    kind: ClassVar[str] = "bnb-int8"

    weight: torch.Tensor
    weight_scale: torch.Tensor

    def __init__(
        self, weight: torch.Tensor, weight_scale: torch.Tensor, bias: torch.Tensor | None, threshold: float
    ) -> None:
        super().__init__(weight.shape[1], weight.shape[0])
        self.threshold = float(threshold)
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", weight_scale)
        self.bias = _frozen(bias)

    @classmethod
    def quantize(cls, weight: torch.Tensor, bias: torch.Tensor | None, threshold: float) -> BnbInt8Linear:
        """Round `weight` (out x in) row by row, by way of float16 as the library does."""
        codes, scale, _ = bitsandbytes().functional.int8_vectorwise_quant(weight.detach().half().contiguous())
        codes = codes.masked_fill(scale[:, None] == 0, 0)  # a row of zeros was divided by zero
        return cls(codes, scale, bias, threshold)

    @classmethod
    def from_library(cls, module: Any, name: str = "") -> BnbInt8Linear:
        """What a bitsandbytes Linear8bitLt holds. Raises UnsupportedError if that is no int8."""
        if module.state.has_fp16_weights:
            raise UnsupportedError("the weights stay in float16", where=name, do="Leave llm_int8_has_fp16_weight out.")
        scale = module.weight.SCB if module.weight.SCB is not None else module.state.SCB
        weight = module.weight.detach().as_subclass(torch.Tensor)
        return cls(weight, scale, module.bias, module.state.threshold)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        library = bitsandbytes()
        state = library.MatmulLtState()
        state.CB, state.SCB, state.threshold = self.weight, self.weight_scale, self.threshold
        # the library's switch to float weights that it calls training is on unless it is switched off
        state.has_fp16_weights, state.is_training = False, False
        bias = None if self.bias is None else self.bias.to(x.dtype)
        y: torch.Tensor = library.matmul(x.reshape(-1, self.in_features), self.weight, bias=bias, state=state)
        return y.reshape(*x.shape[:-1], self.out_features)

    def dequantized(self) -> torch.Tensor:
        return self.weight.float() * (self.weight_scale.float()[:, None] / 127)

    def layout(self) -> Layout:
        return {"threshold": self.threshold}

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        tensors = {"weight": self.weight, "weight_scale": self.weight_scale}
        return tensors if self.bias is None else {**tensors, "bias": self.bias.detach()}

    @classmethod
    def restore(cls, layout: Layout, tensors: Mapping[str, torch.Tensor]) -> BnbInt8Linear:
        threshold = cast(float, layout["threshold"])
        return cls(tensors["weight"], tensors["weight_scale"], tensors.get("bias"), threshold)


def _tensors_of(packed: torch.Tensor, state: Any, bias: torch.Tensor | None) -> dict[str, torch.Tensor]:
    rows, columns = state.shape
    tensors = {"codes": packed.reshape(rows, columns // 2), "absmax": state.absmax}
    if state.nested:
        tensors |= {"nested_absmax": state.state2.absmax, "nested_offset": state.offset.reshape(1)}
    return tensors if bias is None else {**tensors, "bias": bias}


def _frozen(bias: torch.Tensor | None) -> nn.Parameter | None:
    return None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
