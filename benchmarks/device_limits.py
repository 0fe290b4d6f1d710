"""What this device can do at most, how well that repeats, and how near the embedded models come to it.

Limits are measured five times in a row, as they are at the start of a run (1.5 s each, as long once more where others take
the CPU). Times of the encoder are medians of 0.25 s blocks, those of the decoder medians of the gaps between tokens.
`python benchmarks/device_limits.py [threads]`
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from compressbench.core.roofline import Roof, roof
from compressbench.measure import device_limits
from compressbench.measure.device_limits import measure_limits
from compressbench.models.load import load_model
from compressbench.models.work import count_work
from compressbench.recipe.schema import ModelSpec
from compressbench.records.limits import Limits

NUM_RUNS = 5
NUM_BLOCKS, BLOCK_S = 8, 0.25
PROMPT, GENERATED = 32, 64


def measure(num_threads: int) -> Limits:
    """The limits five times, and the best of each."""
    runs = []
    for _ in range(NUM_RUNS):
        device_limits._measured.clear()
        runs.append(measure_limits("cpu", num_threads))
    print(f"{'limit':<10} {'best of 5':>10} {'lowest':>10} {'spread':>8}   medians within a run")
    show("copy GB/s", [run.copy_bytes_per_s for run in runs], [run.copy_median_bytes_per_s or 0 for run in runs])
    for dtype in runs[0].matmul_flops_per_s:
        rates = [run.matmul_flops_per_s.get(dtype, 0.0) for run in runs]
        show(dtype, rates, [run.matmul_median_flops_per_s.get(dtype, 0.0) for run in runs])
    print(f"matrix rates in GFLOP/s; {runs[0].copy_bytes / 2**20:.0f} MiB copied; cache {runs[0].cache_bytes} bytes")
    print(f"seconds per run: {', '.join(f'{run.seconds:.1f}' for run in runs)}")
    print(f"disturbed: {'; '.join(', '.join(run.disturbed) or 'nothing' for run in runs)}")
    best = {dtype: max(run.matmul_flops_per_s.get(dtype, 0.0) for run in runs) for dtype in runs[0].matmul_flops_per_s}
    copy = max(run.copy_bytes_per_s for run in runs)
    return runs[0].model_copy(update={"copy_bytes_per_s": copy, "matmul_flops_per_s": best})


def show(name: str, rates: list[float], medians: list[float]) -> None:
    best, lowest = max(rates) / 1e9, min(rates) / 1e9
    within = ", ".join(f"{median / 1e9:.1f}" for median in medians)
    print(f"{name:<10} {best:10.1f} {lowest:10.1f} {1 - lowest / best:8.1%}   {within}")


def seconds_of(call: Callable[[], Any]) -> list[float]:
    """Medians of blocks of calls, after one block to get warm."""
    medians = []
    for _ in range(NUM_BLOCKS + 1):
        spent: list[float] = []
        while sum(spent) < BLOCK_S:
            begun = time.perf_counter()
            with torch.inference_mode():
                call()
            spent.append(time.perf_counter() - begun)
        medians.append(statistics.median(spent))
    return medians[1:]


def row(name: str, found: Roof, spent: list[float]) -> None:
    shares = [found.mbu, found.mfu, found.overhead_share]
    percents = " ".join("     -" if share is None else f"{share:6.1%}" for share in shares)
    print(f"{name:<22} {statistics.median(spent) * 1e3:8.2f} ms {percents} {found.bound or '-':>8}   {min(spent) * 1e3:.2f}"
          f" to {max(spent) * 1e3:.2f} ms; {'; '.join(found.notes)}")  # fmt: skip


class Marks:
    """A streamer: when each token came."""

    def __init__(self) -> None:
        self._at: list[float] = []

    def put(self, _: torch.Tensor) -> None:
        self._at.append(time.perf_counter())

    def end(self) -> None:
        pass

    @property
    def gaps(self) -> list[float]:
        """Between tokens: the prompt is put first, and the first token comes from its pass."""
        return [later - earlier for earlier, later in zip(self._at[1:], self._at[2:], strict=False)]


def encoder(limits: Limits) -> None:
    model: Any = load_model(ModelSpec(id="embedded:minilm-banking77"), "sequence-classification").model
    for batch_size in (1, 32):
        batch = {"input_ids": torch.randint(1000, 30_000, (batch_size, PROMPT))}
        work = count_work(model, batch)
        spent = seconds_of(lambda batch=batch: model(**batch))  # type: ignore[misc]
        if work.forward is not None:
            row(f"MiniLM, batch {batch_size}", roof(work.forward, limits.ceilings, statistics.median(spent)), spent)


def decoder(limits: Limits) -> None:
    handle = load_model(ModelSpec(id="embedded:shakespeare-lm"), "causal-lm")
    model: Any = handle.model
    batch = {"input_ids": torch.randint(0, 1000, (1, PROMPT))}
    work = count_work(model, batch, GENERATED)
    gaps = []
    for _ in range(NUM_BLOCKS + 1):
        marks = Marks()
        model.generate(**batch, do_sample=False, min_new_tokens=GENERATED, max_new_tokens=GENERATED, streamer=marks)
        gaps.append(statistics.median(marks.gaps))
    steps = gaps[1:]
    if work.decode is not None:
        row("language model, decode", roof(work.decode, limits.ceilings, statistics.median(steps)), steps)


def main(num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    print(f"{num_threads} threads, load {os.getloadavg()[0]:.1f}")
    limits = measure(num_threads)
    print(f"\n{'model':<22} {'time':>11} {'MBU':>6} {'MFU':>6} {'over':>6} {'bound':>8}   range; notes")
    encoder(limits)
    decoder(limits)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
