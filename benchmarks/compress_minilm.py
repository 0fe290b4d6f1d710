"""How long and how much memory calibrated methods take on MiniLM's encoder: 36 linear modules, 128 sentences.

Seconds are medians of interleaved turns, and beside them the ratio to plain rounding (rtn) in the same turns. Memory is the
highest sum of tensors that PyTorch's allocator handed out, above the model itself, in transformer blocks (7.1 MB).
`python benchmarks/compress_minilm.py [turns]`
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace
from functools import cache
from typing import Any

from compressbench.core.calibration import Calibration
from compressbench.core.registry import methods
from compressbench.models.allocations import trace_allocations
from compressbench.models.handle import ModelHandle, Supplies
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.tasks.calibration import draw_calibration
from compressbench.tasks.text_classification import TextClassification

STEPS: dict[str, dict[str, Any]] = {
    "rtn": {"bits": 4},
    "gptq": {"bits": 4},
    "sparsegpt": {"sparsity": 0.5},
    "wanda": {"sparsity": 0.5},
    "awq": {"bits": 4},
    "smoothquant": {},
    "low-rank": {"ratio": 0.2},
}


def minilm() -> ModelHandle:
    handle = load_model(ModelSpec(id="embedded:minilm-banking77"), "sequence-classification")
    task = TextClassification(data="embedded:banking77")

    @cache
    def draw(wanted: Calibration) -> Any:
        return draw_calibration(task, handle, wanted, 0)

    draw(Calibration())
    return replace(handle, supplies=Supplies(calibration=draw))


def main(turns: int) -> None:
    handle = minilm()
    steps = {name: methods.resolve(name)(**options) for name, options in STEPS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(turns):
        for name, step in steps.items():
            copy = handle.copy()
            begun = time.perf_counter()
            step.apply(copy)
            seconds[name].append(time.perf_counter() - begun)
    model = sum(parameter.nbytes for parameter in handle.model.parameters())
    block = sum(parameter.nbytes for parameter in handle.model.bert.encoder.layer[0].parameters())
    for name, step in steps.items():
        peak = trace_allocations(lambda step=step: step.apply(handle.copy()), "cpu").peak_bytes  # type: ignore[misc]
        median = statistics.median(seconds[name])
        ratio = median / statistics.median(seconds["rtn"])
        spread = f"{min(seconds[name]):.1f} to {max(seconds[name]):.1f}"
        above = (peak - model) / block
        print(f"{name:<11} {median:6.1f} s ({spread}), {ratio:5.1f} x rtn; {above:.2f} blocks above the model")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
