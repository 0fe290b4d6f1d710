"""The proof that what a runtime runs is the candidate: against its model in PyTorch, and again in a fresh process."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from compressbench.core.deploying import RunsFiles, SaysWhatItRuns, facts_of
from compressbench.core.errors import CellError
from compressbench.core.protocols import Batch, Session
from compressbench.core.reading import Reading
from compressbench.core.registry import Resolved
from compressbench.measure.fresh_process import Reopened, reopen
from compressbench.measure.parity import SAME_FILES, Answers, answers_of, compare, inputs_for_parity, limits_for
from compressbench.records.deployment import Deployment, FreshProcess, Parity

if TYPE_CHECKING:
    from compressbench.measure.parity import ParityLimits
    from compressbench.models.handle import ModelHandle

TORCH, ITSELF = "the model in PyTorch", "the same files in the run's own process"
_RESIDENT = (
    "resident set of a fresh process after some calls, less what it was before the model was opened: libraries that are "
    "loaded for it are in it"
)
_STAGES = {
    "export_seconds": ("export_s", "convert_s", "quantize_s"),
    "compile_seconds": ("compile_s",),
    "open_seconds": ("open_s",),
}


class Subject(NamedTuple):
    """A session, what it was made from, and the inputs that it is tried on."""

    handle: ModelHandle
    runtime: Resolved
    session: Session
    inputs: Sequence[Batch]
    num_threads: int

    @property
    def shape(self) -> tuple[str, str, int]:
        return self.handle.head, self.handle.device, self.num_threads


class Proof(NamedTuple):
    """`deployment` is None for a session that runs PyTorch's modules as they are."""

    deployment: Deployment | None
    readings: tuple[Reading, ...] = ()


def prove_deployed(subject: Subject, *, weighs: bool) -> Proof:
    """Compare what is deployed with its model and with itself in a fresh process. `weighs` asks for the memory of such a
    process also where no files are run, because another arm of the recipe runs some.

    Raises CellError if an engine that is meant to be exact isn't, or the files give other answers when opened again.
    """
    inputs, session = inputs_for_parity(subject.inputs), subject.session
    if not isinstance(session, SaysWhatItRuns):
        return Proof(None, tuple(_weighed(subject, inputs) if weighs else ()))
    deployed, facts = session.deployed, facts_of(subject.runtime.value)
    known = dict(deployed)
    if facts.is_remote:
        return Proof(Deployment(**known, not_compared="the model runs in a server, out of this process's sight"))
    answers = answers_of(session, subject.handle.head, inputs)
    limits = limits_for(is_exact=facts.is_exact, dtypes=(subject.handle.weights, deployed.precision))
    to_torch = _against_torch(subject, inputs, answers, limits)
    found = Deployment(**known, to_torch=to_torch)
    readings = list(_stages(deployed.seconds))
    if isinstance(subject.runtime.value, RunsFiles):
        folder = Path(session.owned_folder.name)  # type: ignore[attr-defined]  # runtimes/exported.py keeps it there
        reopened = _reopened(subject, folder, inputs)
        fresh = FreshProcess(
            open_s=reopened.open_s,
            resident_bytes=reopened.resident_bytes,
            parity=compare(answers, reopened.answers, subject.handle.head, SAME_FILES, ITSELF),
        )
        found = found.model_copy(update={"fresh": fresh, "sha256": digest(folder)})
        readings += _resident(reopened)
    elif weighs:
        readings += _weighed(subject, inputs)
    _refuse(found, is_exact=facts.is_exact)
    return Proof(found, tuple(readings))


def _refuse(found: Deployment, *, is_exact: bool) -> None:
    """What an engine's own rounding does is a result; a wrong export or a broken file is none."""
    if is_exact and found.to_torch is not None and found.to_torch.broken:
        raise CellError("what was deployed is not the candidate", where=TORCH, got="; ".join(found.to_torch.broken))
    if found.fresh is not None and found.fresh.parity.broken:
        raise CellError(
            "the exported files give other answers in a fresh process", got="; ".join(found.fresh.parity.broken)
        )


def _against_torch(subject: Subject, inputs: Sequence[Batch], answers: Answers, limits: ParityLimits) -> Parity:
    from compressbench.runtimes.torch_eager import TorchEager

    handle = subject.handle
    reference = answers_of(TorchEager().prepare(handle, handle.device), handle.head, inputs)
    return compare(reference, answers, handle.head, limits, TORCH)


def _reopened(subject: Subject, folder: Path, inputs: Sequence[Batch]) -> Reopened:
    with tempfile.TemporaryDirectory() as room:
        return reopen(folder, subject.runtime.as_data(), subject.shape, inputs, Path(room))


def _weighed(subject: Subject, inputs: Sequence[Batch]) -> Iterator[Reading]:
    """The memory of a process that loads the model as an artefact."""
    from compressbench.models.artefact import save_artefact

    with tempfile.TemporaryDirectory() as room:
        save_artefact(subject.handle, Path(room) / "artefact", {})
        yield from _resident(_reopened(subject, Path(room) / "artefact", inputs))


def _resident(found: Reopened) -> Iterator[Reading]:
    if found.resident_bytes is not None:
        yield Reading(
            name="resident_memory_bytes",
            value=float(found.resident_bytes),
            kind="measured",
            source=_RESIDENT,
            uncertainty_reason="done once; pages of the size that the system hands out",
        )


def _stages(seconds: Mapping[str, float]) -> Iterator[Reading]:
    for name, stages in _STAGES.items():
        if any(stage in seconds for stage in stages):
            yield Reading(
                name=name,
                value=sum(seconds.get(stage, 0.0) for stage in stages),
                kind="measured",
                source="monotonic clock (perf_counter) around the engine's own call",
                uncertainty_reason="done once",
            )


def digest(folder: Path) -> str:
    """SHA-256 over names and contents of all files, in order of name."""
    found = hashlib.sha256()
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        found.update(path.name.encode())
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                found.update(chunk)
    return found.hexdigest()
