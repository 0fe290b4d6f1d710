"""Weights and activations of an ONNX file in 8 or 4 bits, by ONNX Runtime's own tools."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Batch
from compressbench.core.spec import Spec
from compressbench.models.quiet_logs import errors_only

Quantize = Literal["none", "int8-dynamic", "int8-static", "int8-blocks", "int4"]
_SCOPES = "pkg.torch.onnx.name_scopes"


class Quantization(Spec):
    """What is quantized and how. `left_out` are parts of module names whose products stay in floats."""

    kind: Quantize
    per_channel: bool
    reduce_range: bool
    block_size: int
    accuracy_level: int
    left_out: tuple[str, ...]


def quantize(source: Path, target: Path, how: Quantization, samples: Iterable[Batch] | None) -> tuple[str, ...]:
    """Write `target`, the quantized `source`. The names of the products with weights that were left in floats.

    Raises UnsupportedError if nothing could be quantized.
    """
    with _quiet():
        _without_gemm(source)
        left_out = _left_out(source, how.left_out)
        if how.kind == "int8-dynamic":
            _dynamic(source, target, how, list(left_out))
        elif how.kind == "int8-static":
            _static(source, target, how, list(left_out), samples or ())
        else:
            _blocks(source, target, how, list(left_out))
    return tuple(left_out.values())


def _without_gemm(source: Path) -> None:
    """Products with a bias become a MatMul and an Add in the file: the tools quantize the one and not the other."""
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel

    if not any(node.op_type == "Gemm" for node in onnx.load(source, load_external_data=False).graph.node):
        return
    model = ONNXModel(onnx.load(source))
    scopes = {node.output[0]: list(node.metadata_props) for node in model.model.graph.node if node.op_type == "Gemm"}
    model.replace_gemm_with_matmul()
    for node in model.model.graph.node:
        if node.op_type == "MatMul" and not node.metadata_props:
            node.metadata_props.extend(scopes.get(node.output[0].removesuffix("_MatMul"), []))
    model.save_model_to_file(str(source), _is_split(source))


def _dynamic(source: Path, target: Path, how: Quantization, left_out: list[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source, target, op_types_to_quantize=["MatMul"], per_channel=how.per_channel, reduce_range=how.reduce_range,
        weight_type=QuantType.QInt8, nodes_to_exclude=left_out, use_external_data_format=_is_split(source),
        extra_options={"MatMulConstBOnly": True},
    )  # fmt: skip


def _static(source: Path, target: Path, how: Quantization, left_out: list[str], samples: Iterable[Batch]) -> None:
    """Only inputs of products are rounded: what they give stays float32, so that one kernel multiplies and scales."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        source, target, _Samples(samples), quant_format=QuantFormat.QDQ, op_types_to_quantize=["MatMul"],
        per_channel=how.per_channel, reduce_range=how.reduce_range, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8, nodes_to_exclude=left_out, use_external_data_format=_is_split(source),
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": ["MatMul"]},
    )  # fmt: skip


def _blocks(source: Path, target: Path, how: Quantization, left_out: list[str]) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        onnx.load(source), bits=4 if how.kind == "int4" else 8, block_size=how.block_size, is_symmetric=True,
        accuracy_level=how.accuracy_level, nodes_to_exclude=left_out,
    )  # fmt: skip
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), _is_split(source))


class _Samples:
    """What ONNX Runtime reads calibration samples from (it has the members of its CalibrationDataReader)."""

    def __init__(self, samples: Iterable[Batch]) -> None:
        self._samples = iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._samples, None)
        return None if batch is None else {name: tensor.cpu().numpy() for name, tensor in batch.items()}

    def set_range(self, start_index: int, end_index: int) -> None:
        raise NotImplementedError  # only a reader that can be cut in strides is asked


def constant_products(model: Any) -> list[Any]:
    """MatMul and Gemm nodes of an ONNX model whose second input is a weight."""
    weights = {each.name for each in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights]


def _left_out(source: Path, parts: Sequence[str]) -> dict[str, str]:
    """Names of nodes, and of what stands in their place in the model, whose module has one of `parts` in its name."""
    import onnx

    nodes = constant_products(onnx.load(source, load_external_data=False))
    if not any(node.op_type == "MatMul" for node in nodes):
        raise UnsupportedError("the graph has no products with weights to quantize", got=source.name)
    named = {node.name: _module_of(node) for node in nodes}
    unknown = [part for part in parts if not any(part in module for module in named.values())]
    if unknown:
        raise UnsupportedError("no product of the graph belongs to a module with this name", got=", ".join(unknown))
    return {name: module for name, module in named.items() if any(part in module for part in parts)}


def _module_of(node: Any) -> str:
    scopes = next((each.value for each in node.metadata_props if each.key == _SCOPES), "")
    inner = [part.strip(" '\"[]") for part in scopes.split(",")]
    named = [part for part in inner if part and "." in part]
    return max(named, key=len, default=node.name).removeprefix("model.")


def weight_bytes(path: Path) -> int:
    """Stored bytes that every pass reads: all constants of the graph but tables of which only rows are looked up."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    read = {name for node in model.graph.node for at, name in enumerate(node.input) if not _is_table(node, at)}
    return sum(_num_bytes(each) for each in model.graph.initializer if each.name in read)


def _is_table(node: Any, at: int) -> bool:
    return at == 0 and node.op_type in ("Gather", "GatherBlockQuantized")


def _num_bytes(tensor: Any) -> int:
    import onnx

    count = 1
    for size in tensor.dims:
        count *= size
    if tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
        return (count + 1) // 2
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _is_split(source: Path) -> bool:
    """Whether the weights are in a file of their own."""
    return Path(f"{source}.data").exists()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice to pre-process a graph (the exporter has done it) and remarks on every node."""
    with errors_only(""), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
