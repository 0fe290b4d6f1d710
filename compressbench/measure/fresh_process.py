"""A deployed model in a process that knows nothing of the run: `python -m compressbench.measure.fresh_process JOB RESULT`.

It opens an export, or loads an artefact and prepares it, answers the inputs it is given, and says what it needed.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from compressbench.core.errors import CellError
from compressbench.core.protocols import Batch, Session
from compressbench.core.spec import Spec

if TYPE_CHECKING:
    from compressbench.measure.parity import Answers

_STATUS = Path("/proc/self/status")


class Job(Spec):
    """`folder` holds an export, or an artefact that `runtime` prepares. Answers go to `answers`."""

    folder: str
    head: str
    device: str
    num_threads: int
    runtime: Mapping[str, Any]
    inputs: str
    answers: str


class Result(Spec):
    open_s: float
    resident_bytes: int | None


class Reopened(NamedTuple):
    answers: Answers
    open_s: float
    resident_bytes: int | None


def reopen(
    folder: Path, runtime: Mapping[str, Any], shape: tuple[str, str, int], inputs: Sequence[Batch], room: Path
) -> Reopened:
    """Open `folder` in a new process and answer `inputs` there. `shape` is head, device and CPU threads; `room` a folder
    for what goes to and fro.

    Raises CellError with the process's last words if it fails.
    """
    from compressbench.measure.arm_process import write_inputs
    from compressbench.measure.parity import read_answers
    from compressbench.measure.processes import run_module

    write_inputs(room / "inputs.safetensors", inputs)
    head, device, num_threads = shape
    job = Job(
        folder=str(folder.resolve()),
        head=head,
        device=device,
        num_threads=num_threads,
        runtime=runtime,
        inputs=str(room / "inputs.safetensors"),
        answers=str(room / "answers.safetensors"),
    )
    ended = run_module("compressbench.measure.fresh_process", job, room)
    if ended.result is None:
        last = ended.last_words[-1:] or [f"exit code {ended.exit_code}"]
        raise CellError("what was exported can't be used by a fresh process", where=str(folder), got=last[0][:500])
    result = Result.model_validate_json(ended.result)
    return Reopened(read_answers(Path(job.answers)), result.open_s, result.resident_bytes)


def run_job(job: Job) -> tuple[Result, Answers]:
    """Open the files, answer, and weigh what the process holds."""
    from compressbench.core import registry
    from compressbench.measure.arm_process import read_inputs
    from compressbench.measure.parity import answers_of
    from compressbench.runtimes.device import prepare_device

    prepare_device(job.device.partition(":")[0], job.num_threads)
    inputs = read_inputs(Path(job.inputs))
    runtime = registry.resolve_use(registry.runtimes, job.runtime).value
    gc.collect()
    before, begun = resident_bytes(), time.perf_counter()
    session = _open(runtime, job)
    open_s = time.perf_counter() - begun
    answers = answers_of(session, job.head, inputs)
    gc.collect()
    after = resident_bytes()
    grown = None if before is None or after is None else max(0, after - before - answers.rows.nbytes)
    return Result(open_s=open_s, resident_bytes=grown), answers


def _open(runtime: Any, job: Job) -> Session:
    from compressbench.models.exports.reading import read_export
    from compressbench.models.load import load_model
    from compressbench.recipe.schema import ModelSpec
    from compressbench.runtimes.exported import MANIFEST

    if (Path(job.folder) / MANIFEST).is_file():
        opened: Session = runtime.open(Path(job.folder), job.device)
        return opened
    handle = read_export(Path(job.folder), job.head, job.device)
    if handle is None:
        handle = load_model(ModelSpec(id=job.folder), job.head, device=job.device)
    prepared: Session = runtime.prepare(handle, job.device)
    return prepared


def resident_bytes(status: Path = _STATUS) -> int | None:
    """What the process has in memory, files that it maps included; None where the system doesn't say."""
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("VmRSS:")]
    return int(found[0][1]) * 1024 if found and len(found[0]) == 3 and found[0][1].isdigit() else None


def main(job: str, result: str) -> None:
    from compressbench.measure.parity import write_answers

    asked = Job.model_validate_json(Path(job).read_text(encoding="utf-8"))
    found, answers = run_job(asked)
    write_answers(Path(asked.answers), answers)
    Path(result).write_text(found.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
