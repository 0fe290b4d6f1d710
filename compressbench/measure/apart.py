"""A comparison of two models in processes of their own: saved, their device freed, measured, and brought back."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from compressbench.core.progress import Progress
from compressbench.core.registry import Resolved
from compressbench.measure.arm_process import Job, write_inputs
from compressbench.measure.processes import compare_in_processes, in_a_process
from compressbench.measure.scenario import Measured
from compressbench.measure.schedule import Schedule
from compressbench.records.measurement import Arm

if TYPE_CHECKING:
    from compressbench.core.protocols import Batch
    from compressbench.models.handle import ModelHandle


class Deployed(NamedTuple):
    """A model and the runtime it is measured in."""

    handle: ModelHandle
    runtime: Resolved


class Conditions(NamedTuple):
    """What is the same for both arms."""

    inputs: list[Batch]
    schedule: Schedule
    meters: Iterable[Resolved]
    num_threads: int | None


def compare_apart(arms: Mapping[Arm, Deployed], conditions: Conditions, progress: Progress) -> Measured:
    """Save baseline and candidate, and measure them in alternating processes. What they answer isn't kept.

    Raises CellError if a process fails.
    """
    inputs = conditions.inputs
    with tempfile.TemporaryDirectory() as name, _off_the_device([arm.handle for arm in arms.values()]):
        folder = Path(name)
        write_inputs(folder / "inputs.safetensors", inputs)
        jobs = {arm: _job(deployed, conditions, folder, arm) for arm, deployed in arms.items()}
        shape = {"batch_size": len(next(iter(inputs[0].values()))), "num_inputs": len(inputs)}
        found = compare_in_processes(jobs, shape, conditions.schedule, progress, in_a_process(folder))
    return Measured(found.measurement, {}, found.failed)


def _job(deployed: Deployed, conditions: Conditions, folder: Path, arm: Arm) -> Job:
    from compressbench.models.artefact import save_artefact

    handle, schedule = deployed.handle, conditions.schedule
    save_artefact(handle, folder / arm, {"arm": arm})
    return Job(
        model=str(folder / arm),
        head=handle.head,
        device=handle.device,
        num_threads=conditions.num_threads,
        runtime=deployed.runtime.as_data(),
        meters=tuple(meter.as_data() for meter in conditions.meters if meter.value.scope == "block"),
        inputs=str(folder / "inputs.safetensors"),
        output_tokens=schedule.output_tokens,
        tier=schedule.tier,
        block_s=schedule.block_s,
        min_s=schedule.warm_up.min_s,
        max_s=schedule.warm_up.max_s,
    )


@contextmanager
def _off_the_device(handles: list[ModelHandle]) -> Iterator[None]:
    """A GPU's memory is for the processes meanwhile; in the machine's own memory the models stay."""
    import torch

    moved = [handle for handle in handles if handle.device.startswith("cuda")]
    for handle in moved:
        handle.model.to("cpu")
    gc.collect()
    if moved:
        torch.cuda.empty_cache()
    try:
        yield
    finally:
        for handle in moved:
            handle.model.to(handle.device)
