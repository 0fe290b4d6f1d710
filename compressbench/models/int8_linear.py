"""Linear layers whose weights are stored as int8 with one scale per output channel."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import nn
from torch.nn import functional

from compressbench.models.packed_op import number_of
from compressbench.models.stored_layer import Layout, StoredLayer

_MIN_ROWS_OF_CUDA_INT_MM = 17


class Int8Linear(StoredLayer):
    """What both kinds share: what they store, weight (out x in, int8), weight_scale (out, float32) and perhaps a bias."""

    def dequantized(self) -> torch.Tensor:
        tensors = self.stored_tensors()
        return tensors["weight"].float() * tensors["weight_scale"].float()[:, None]


class Int8WeightLinear(Int8Linear):
    """y = x Wᵀ · scale + bias with int8 W and activations in their own type.

    bfloat16 activations on CPU use PyTorch's packed int8 kernel. On CUDA one row is a reduction under torch.compile, which
    inductor makes one kernel of (other backends don't, and are slower for it). Anything else dequantizes in every call,
    which saves memory and costs time. float16 can't hold sums of unscaled codes, so there the weights are scaled first.
    """

    kind: ClassVar[str] = "int8-weight"

    weight: torch.Tensor
    weight_scale: torch.Tensor
    kernel_scale: torch.Tensor

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(weight.shape[1], weight.shape[0])
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("weight_scale", scale)
        # inductor can't lower the kernel where the scales are made in the same graph
        self.register_buffer("kernel_scale", scale.to(torch.bfloat16), persistent=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.bfloat16 and x.device.type == "cpu":
            rows = x.reshape(-1, self.in_features)
            y = torch._weight_int8pack_mm(rows, self.weight, self.kernel_scale)
            y = y.reshape(*x.shape[:-1], self.out_features)
        elif x.numel() == self.in_features and x.device.type == "cuda" and torch.compiler.is_compiling():
            y = int8_row_product(x.flatten(), self.weight, self.weight_scale).to(x.dtype)
            y = y.reshape(*x.shape[:-1], self.out_features)
        elif x.dtype == torch.float16:
            y = functional.linear(x, (self.weight.float() * self.weight_scale.float()[:, None]).to(x.dtype))
        else:
            y = (functional.linear(x, self.weight.to(x.dtype)).float() * self.weight_scale).to(x.dtype)
        return y if self.bias is None else y + self.bias

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        tensors = {"weight": self.weight, "weight_scale": self.weight_scale}
        return tensors if self.bias is None else {**tensors, "bias": self.bias.data}

    def layout(self) -> Layout:
        return {}

    @classmethod
    def restore(cls, layout: Layout, tensors: Mapping[str, torch.Tensor]) -> Int8WeightLinear:
        return cls(tensors["weight"], tensors["weight_scale"], tensors.get("bias"))

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.kernel_scale = self.weight_scale.to(torch.bfloat16)


class Int8DynamicLinear(Int8Linear):
    """int8 x int8 with the activations quantized anew in every call.

    `input_scale` (in,) divides the activations first (SmoothQuant, where no module before could take it).
    On CPU: PyTorch's packed kernel, one asymmetric scale for the whole activation tensor; `reduce_range` keeps one bit
    free, which processors without VNNI need against overflow. On CUDA: one symmetric scale per row and torch._int_mm.
    The packed form is opaque; `stored_tensors` unpacks it.
    """

    kind: ClassVar[str] = "int8-dynamic"

    input_scale: torch.Tensor | None

    def __init__(
        self,
        weight: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        engine: str,
        reduce_range: bool,
        input_scale: torch.Tensor | None = None,
    ) -> None:
        super().__init__(weight.shape[1], weight.shape[0])
        self.engine, self.reduce_range = engine, reduce_range
        self.register_buffer("input_scale", input_scale)
        if engine == "cuda":
            self.register_buffer("weight", weight)
            self.register_buffer("weight_scale", scale)
            self.register_buffer("bias", None if bias is None else bias.detach())
        else:
            self._pack(weight, scale, None if bias is None else bias.detach().float())

    def _pack(self, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._has_bias, self.number = bias is not None, number_of(self)
        previous = torch.backends.quantized.engine
        with warnings.catch_warnings():
            # quantized tensor types are deprecated in favour of torchao, whose CPU kernels are slower in eager mode
            warnings.simplefilter("ignore")
            torch.backends.quantized.engine = self.engine
            try:
                zeros = torch.zeros(len(scale), dtype=torch.long)
                quantized = torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
                self.packed: Any = torch.ops.quantized.linear_prepack(quantized, bias)
            finally:
                torch.backends.quantized.engine = previous

    @property
    def is_opaque(self) -> bool:
        """Whether the weights are kept in a form whose bytes only the allocator knows."""
        return self.engine != "cuda"

    def packed_again(self) -> Any:
        """The same weights packed a second time: what that allocates is what the packed form occupies."""
        return Int8DynamicLinear(**self._by_argument(), engine=self.engine, reduce_range=self.reduce_range).packed

    def __deepcopy__(self, memo: dict[int, Any]) -> Int8DynamicLinear:
        # the packed form's own copy would be packed for whatever engine the process is set to
        tensors: dict[str, Any] = {
            name: None if tensor is None else tensor.clone() for name, tensor in self._by_argument().items()
        }
        return Int8DynamicLinear(**tensors, engine=self.engine, reduce_range=self.reduce_range).train(self.training)

    def _by_argument(self) -> dict[str, Any]:
        tensors = self.stored_tensors()
        return {
            "weight": tensors["weight"],
            "scale": tensors["weight_scale"],
            "bias": tensors.get("bias"),
            "input_scale": self.input_scale,
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.input_scale is not None:
            x = x / self.input_scale.to(x.dtype)
        if self.engine == "cuda":
            rows = x.reshape(-1, self.in_features)
            y = int8_rows_matmul(rows, self.weight, self.weight_scale)
            y = y if self.bias is None else y + self.bias
            return y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)
        if torch.compiler.is_compiling():
            compiled: torch.Tensor = torch.ops.compressbench.int8_dynamic(x.float(), self.number, self.out_features)
            return compiled.to(x.dtype)
        product: torch.Tensor = torch.ops.quantized.linear_dynamic(x.float(), self.packed, self.reduce_range)
        return product.to(x.dtype)

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        if self.input_scale is not None:
            return {**self._kernel_tensors(), "input_scale": self.input_scale}
        return self._kernel_tensors()

    def dequantized(self) -> torch.Tensor:
        weight = super().dequantized()
        return weight if self.input_scale is None else weight / self.input_scale.float()

    def _kernel_tensors(self) -> dict[str, torch.Tensor]:
        if self.engine == "cuda":
            tensors = {"weight": self.weight, "weight_scale": self.weight_scale, "bias": self.bias}
            return {name: tensor for name, tensor in tensors.items() if tensor is not None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantized, bias = torch.ops.quantized.linear_unpack(self.packed)
            tensors = {"weight": quantized.int_repr(), "weight_scale": quantized.q_per_channel_scales().float()}
        # qnnpack makes up a bias of zeros where none was given
        return {**tensors, "bias": bias} if self._has_bias else tensors

    def layout(self) -> Layout:
        return {"engine": self.engine, "reduce_range": self.reduce_range}

    @classmethod
    def restore(cls, layout: Layout, tensors: Mapping[str, torch.Tensor]) -> Int8DynamicLinear:
        """Packed for the same engine, or for this machine's best where that isn't there."""
        engine = cast(str, layout["engine"])
        if engine != "cuda" and engine not in torch.backends.quantized.supported_engines:
            engine = best_engine()
        return cls(
            tensors["weight"],
            tensors["weight_scale"],
            tensors.get("bias"),
            engine=engine,
            reduce_range=bool(layout["reduce_range"]),
            input_scale=tensors.get("input_scale"),
        )

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, tensor in self._kernel_tensors().items():
            destination[prefix + name] = tensor

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        tensors = [state_dict.get(prefix + name) for name in ("weight", "weight_scale", "bias")]
        weight, scale, bias = tensors
        if weight is None or scale is None:
            missing_keys: list[str] = arguments[2]
            missing_keys += [prefix + name for name in ("weight", "weight_scale") if prefix + name not in state_dict]
        elif self.engine == "cuda":
            self.weight, self.weight_scale, self.bias = weight, scale, bias
        else:
            self._pack(weight, scale, bias)


def int8_row_product(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """x (in) times weightᵀ (out x in, int8, `scale` per output channel): out, float32.

    To be compiled into one kernel that reads the codes as they are stored; a matrix product would first write them out in
    the type of x.
    """
    return (x.float() * weight.float()).sum(dim=1) * scale.float()


def int8_rows_matmul(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """x (rows x in) times weightᵀ (out x in, int8, `scale` per output channel), x quantized per row: rows x out, float32.

    torch._int_mm on CUDA needs more than 16 rows: fewer are padded with zeros.
    """
    row_scale = x.float().abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    quantized = (x.float() / row_scale).round().to(torch.int8)
    missing = max(0, _MIN_ROWS_OF_CUDA_INT_MM - len(x)) if x.is_cuda else 0
    product = torch._int_mm(functional.pad(quantized, (0, 0, 0, missing)), weight.t())[: len(x)]
    return product.float() * row_scale * scale


def best_engine() -> str:
    """The PyTorch CPU engine with the fastest dynamic int8 kernels that this build has."""
    supported = torch.backends.quantized.supported_engines
    return next(engine for engine in ("onednn", "x86", "fbgemm", "qnnpack") if engine in supported)
