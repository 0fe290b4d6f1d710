"""Which operators ran, in which types and where, from ONNX Runtime's own profile."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from compressbench.core.deploying import KernelUse
from compressbench.runtimes.onnx_session import Opened, open_engine

INT8 = (
    "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "QLinearMatMul", "QGemm", "QAttention",
)  # fmt: skip
BLOCKS = ("MatMulNBits",)
_PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm")
_FLOATS = {"float": "float32", "float16": "float16", "bfloat16": "bfloat16", "double": "float64"}
_ON_HOST = frozenset(
    (
        "Shape",
        "Gather",
        "Concat",
        "Unsqueeze",
        "Squeeze",
        "Slice",
        "Cast",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Range",
        "Reshape",
    )
)
"""Operators of shapes, which every provider leaves to the CPU."""


def kernels_of(opened: Opened, run: Callable[[Any], object]) -> KernelUse:
    """The operators of one `run` of a profiled engine."""
    with tempfile.TemporaryDirectory(prefix="compressbench-profile-") as folder:
        engine = open_engine(opened.folder, opened.opening, str(Path(folder) / "profile"))
        run(engine)
        path = Path(engine.end_profiling())
        events = json.loads(path.read_text(encoding="utf-8"))
    return kernel_use(events, opened)


def kernel_use(events: Iterable[Mapping[str, Any]], opened: Opened) -> KernelUse:
    """From the events of a profile: those of kernels have the operator's name, its provider and its inputs' types."""
    counts: Counter[str] = Counter()
    in_floats, on_host = set[str](), set[str]()
    for event in events:
        about = event.get("args", {})
        if event.get("cat") != "Node" or "op_name" not in about or not str(event["name"]).endswith("_kernel_time"):
            continue
        name = str(about["op_name"])
        types = [next(iter(each)) for each in about.get("input_type_shape", []) if each]
        kind = f"int{opened.deployed.notes.get('weight_bits', '?')}" if name in BLOCKS else _type_of(types)
        counts[f"{name} {kind}"] += 1
        node = str(event["name"]).removesuffix("_kernel_time")
        if opened.wanted and name in _PRODUCTS and _has_weights(about):
            in_floats.add(node)
        if opened.opening.provider == "cuda" and about.get("provider") == "CPUExecutionProvider":
            on_host |= set() if name in _ON_HOST else {name}
    return KernelUse(dict(counts), opened.wanted, tuple(_fallbacks(opened, in_floats, on_host)))


def _fallbacks(opened: Opened, in_floats: set[str], on_host: set[str]) -> Iterable[str]:
    unasked = len(in_floats) - len(opened.facts.left_out)
    if unasked > 0:
        names = ", ".join(sorted(in_floats)[:3])
        yield f"{unasked} products with weights ran in floats though {opened.deployed.precision} was asked for ({names})"
    if on_host:
        yield f"operators ran on the CPU though CUDA was asked for: {', '.join(sorted(on_host)[:6])}"


def _type_of(types: list[str]) -> str:
    """The narrowest type among the inputs: what a product of quantized weights multiplies."""
    whole = [each for each in types if each in ("int8", "uint8", "int4", "uint4")]
    floats = [_FLOATS[each] for each in types if each in _FLOATS]
    if whole:
        return "int4" if any("int4" in each for each in whole) else "int8"
    return (floats or types or ["nothing"])[0]


def _has_weights(about: Mapping[str, Any]) -> bool:
    """Whether the second input is a weight: a matrix, where products of activations have a batch and heads before theirs,
    or one that the kernel has packed for itself, which a profile doesn't list.
    """
    inputs = [each for each in about.get("input_type_shape", []) if each]
    return len(inputs) == 1 or len(next(iter(inputs[1].values()), [])) == 2
