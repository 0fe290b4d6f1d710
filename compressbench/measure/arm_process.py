"""One block of one arm in a process of its own: `python -m compressbench.measure.arm_process JOB RESULT`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from compressbench.core import registry
from compressbench.core.progress import SilentProgress
from compressbench.core.protocols import Batch, Provenance
from compressbench.core.registry import resolve_use
from compressbench.core.spec import Spec
from compressbench.measure.blocks import CallersOfArm, OneBlock, Tools, one_block
from compressbench.measure.calls import caller
from compressbench.measure.drift import DriftRule
from compressbench.measure.instruments import opened
from compressbench.measure.outputs import keep_answers
from compressbench.measure.schedule import Schedule
from compressbench.measure.steady_state import WarmUpRule
from compressbench.measure.watching import watching
from compressbench.records.evidence import Evidence
from compressbench.records.measurement import Block, Tier, WarmUp


class Job(Spec):
    """What a process is told: a saved model, where and how to run it, and how long."""

    model: str
    head: str
    device: str
    num_threads: int | None
    runtime: Mapping[str, Any]
    meters: tuple[Mapping[str, Any], ...]
    inputs: str
    output_tokens: int | None
    tier: Tier
    block_s: float
    min_s: float
    max_s: float
    num_calls: int | None = None


class Result(Spec):
    """What a process found. `load_seconds` is from its files to weights on the device."""

    block: Block
    warm_up: WarmUp
    provenance: Mapping[str, Provenance]
    failed: Mapping[str, str]
    absent: Mapping[str, str]
    evidence: Evidence | None
    harness_overhead_ns: float
    load_seconds: float = Field(ge=0)


def run_job(job: Job) -> Result:
    """Load the model, warm up, and measure one block."""
    from compressbench.models.load import load_model
    from compressbench.recipe.schema import ModelSpec
    from compressbench.runtimes.device import prepare_device

    prepare_device(job.device.partition(":")[0], job.num_threads)
    begun = time.perf_counter()
    handle = load_model(ModelSpec(id=job.model), job.head, device=job.device)
    load_seconds = time.perf_counter() - begun
    runtime = resolve_use(registry.runtimes, job.runtime).value
    session = runtime.prepare(handle, job.device)
    inputs = read_inputs(Path(job.inputs))
    meters = [resolve_use(registry.meters, each) for each in job.meters]
    tokens = job.output_tokens
    # what is kept goes with the process; logits that are no numbers end it
    keep = keep_answers(inputs, tokens)
    callers = CallersOfArm(caller(session, inputs, tokens), caller(session, inputs, tokens, keep=keep))
    parent = (os.getppid(),)
    with opened(meters, job.device, SilentProgress()) as working, watching(job.device, [runtime], parent) as watcher:
        found = one_block(callers, job.num_calls, _schedule(job), Tools(working.instruments, watcher))
    return _result(found, working.absent, load_seconds)


def _schedule(job: Job) -> Schedule:
    rule = WarmUpRule(min_s=job.min_s, max_s=job.max_s, drift=DriftRule())
    return Schedule(1, job.block_s, job.output_tokens, rule, job.tier)


def _result(found: OneBlock, absent: Mapping[str, str], load_seconds: float) -> Result:
    return Result(**found._asdict(), absent=absent, load_seconds=load_seconds)


def write_inputs(path: Path, inputs: Iterable[Batch]) -> None:
    from safetensors.torch import save_file

    save_file(
        {f"{index}.{name}": each.contiguous() for index, batch in enumerate(inputs) for name, each in batch.items()},
        path,
    )


def read_inputs(path: Path) -> list[Batch]:
    from safetensors.torch import load_file

    batches: dict[int, dict[str, Any]] = {}
    for key, tensor in load_file(path).items():
        index, _, name = key.partition(".")
        batches.setdefault(int(index), {})[name] = tensor
    return [batches[index] for index in sorted(batches)]


def main(job: str, result: str) -> None:
    found = run_job(Job.model_validate_json(Path(job).read_text()))
    Path(result).write_text(found.model_dump_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
