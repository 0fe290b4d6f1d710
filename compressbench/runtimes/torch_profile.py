"""The kernels of one call with the types of the tensors that they read, from PyTorch's profiler."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

_TYPES = {
    "float": "float32", "double": "float64", "c10::BFloat16": "bfloat16", "c10::Half": "float16",
    "signed char": "int8", "unsigned char": "uint8", "c10::Float8_e4m3fn": "float8",
}  # fmt: skip
_REGION = re.compile(r"(Torch-Compiled Region|## Call CompiledFxGraph).*")
_NOISE = re.compile(r"Pregraph|TorchDynamo|^cuda[A-Z]|^cu[A-Z]|^## (?!Call)|^aten::(empty|as_strided|resolve_conj)")


def profiled(call: Callable[[], None], device: str) -> dict[str, int]:
    """How often each ran, e.g. "aten::_weight_int8pack_mm bfloat16 int8": 48; the most frequent first."""
    from compressbench.models.profiling import profiler

    with profiler(device, record_shapes=True) as profile:
        call()
    counts = Counter(_named(event.name, getattr(event, "input_dtypes", None) or ()) for event in profile.events() or ())
    counts.pop("", None)
    return dict(counts.most_common())


def _named(name: str, types: Sequence[str]) -> str:
    if _NOISE.search(name):
        return ""
    known = dict.fromkeys(_TYPES[each] for each in types if each in _TYPES)
    return " ".join([_REGION.sub(r"\1", name).removeprefix("## "), *known])
