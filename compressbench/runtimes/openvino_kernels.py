"""Which kernels a compiled graph of OpenVINO ran, read from its execution graph.

The plugin decides per node: a matrix product of an int8 graph may still run in float32. What it chose is known once the
graph has run with the shapes in question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from compressbench.core.deploying import KernelUse

_MOVES_NOTHING = {"Const", "Input", "Output", "Reshape", "MemoryInput", "MemoryOutput"}
_PRODUCTS = {"FullyConnected", "MatMul", "Convolution", "ScaledDotProductAttention"}
_HEAVY = _PRODUCTS | {"Softmax", "MVN", "RMS", "Subgraph"}
_PACKED = {"u8", "i8", "u4", "i4"}
_SLOW = ("ref", "gemm_ref", "jit_sse")
_NAMES = {"i8": "int8", "u8": "int8", "f32": "float32", "bf16": "bfloat16", "f16": "float16"}


class Node(NamedTuple):
    """`kind` is the plugin's type of layer, `primitive` the kernel, `type` what it computes in, as the plugin says it."""

    kind: str
    primitive: str
    type: str
    name: str


def nodes(compiled: Any) -> list[Node]:
    """Of the compiled model, in the order of execution; constants and the like left out."""
    found = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        kind, primitive, dtype = (
            info[key].astype(str) if key in info else "" for key in ("layerType", "primitiveType", "runtimePrecision")
        )
        if kind not in _MOVES_NOTHING:
            found.append(Node(kind, primitive, dtype, node.get_friendly_name()))
    return found


def kernel_use(found: Iterable[Node], quantize: str, precision: str) -> KernelUse:
    """The nodes counted by kernel; `quantize` and `precision` are the runtime's options, and say what was wanted."""
    found = list(found)
    counts = Counter(_named(node) for node in found)
    return KernelUse(counts, _wanted(quantize, precision), tuple(_fallbacks(found, quantize, precision)))


def product_types(found: Iterable[Node]) -> str:
    """What matrix products compute in, the most frequent first, e.g. "int8, float32"."""
    counts = Counter(_type(node) for node in found if node.kind in _PRODUCTS)
    return ", ".join(name for name, _ in counts.most_common()) or "unknown"


def _wanted(quantize: str, precision: str) -> tuple[str, ...]:
    """Parts of the names of kernels of which one has to run."""
    if quantize.endswith("-weights"):
        bits = quantize.removeprefix("int").removesuffix("-weights")
        return (f"(u{bits} weights)", f"(i{bits} weights)")
    dtype = "int8" if quantize == "int8" else precision
    return () if dtype == "auto" else tuple(f"{kind} {dtype}" for kind in sorted(_PRODUCTS))


def _fallbacks(found: Iterable[Node], quantize: str, precision: str) -> list[str]:
    dtype = "int8" if quantize == "int8" else precision
    other: dict[str, list[str]] = {}
    slow: dict[str, list[str]] = {}
    for node in found:
        if dtype in ("int8", "bfloat16", "float16") and node.kind in _PRODUCTS and _type(node) != dtype:
            other.setdefault(f"{node.kind} in {_type(node)}, not {dtype}", []).append(node.name)
        if node.kind in _HEAVY and _stem(node).startswith(_SLOW):
            slow.setdefault(f"{node.kind} by the slow kernel {_stem(node)}", []).append(node.name)
    return [f"{len(names)} {what}: {', '.join(names[:3])}" for what, names in {**other, **slow}.items()]


def _named(node: Node) -> str:
    """E.g. "FullyConnected int8 brgemm_avx512"; weights that the kernel widens are named at the end."""
    name = f"{node.kind} {_type(node)} {_stem(node)}"
    return f"{name} ({node.type} weights)" if _widens_weights(node) else name


def _widens_weights(node: Node) -> bool:
    return node.kind == "FullyConnected" and node.type in _PACKED and _type(node) != "int8"


def _type(node: Node) -> str:
    """What it computes in: the end of the kernel's name, because for packed weights the plugin gives their type."""
    end = node.primitive.rpartition("_")[2].lower()
    return _NAMES.get(end) or _NAMES.get(node.type.lower(), node.type.lower())


def _stem(node: Node) -> str:
    """The kernel without the type that the plugin puts at its end."""
    return node.primitive.rpartition("_")[0] or node.primitive
