"""Arms in alternating processes, for models that don't fit on a device together.

Every block has a process of its own, which loads the arm's saved model, warms up and measures: expensive, and free of
whatever a neighbour leaves behind. The order of the arms is that of the rounds in one process.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from compressbench.core.errors import CellError
from compressbench.core.progress import Progress
from compressbench.core.protocols import Provenance
from compressbench.core.spec import Spec
from compressbench.measure.arm_process import Job, Result
from compressbench.measure.blocks import Comparison, without
from compressbench.measure.schedule import Schedule, positions
from compressbench.records.evidence import DisturbanceRule, Evidence
from compressbench.records.measurement import Arm, Block, Measurement, WarmUp

RunJob = Callable[[Job], Result]
_LAST_LINES = 5


def compare_in_processes(
    jobs: Mapping[Arm, Job], shape: Mapping[str, Any], schedule: Schedule, progress: Progress, run_job: RunJob
) -> Comparison:
    """The schedule with a process per block. `jobs` has the baseline's and the candidate's; the control is the baseline's.

    `run_job` is `in_a_process` with a folder. Raises CellError if a process fails.
    """
    every = {**jobs, "control": jobs["baseline"]}
    visits = _Visits()
    with progress.bar("measure", schedule.rounds) as bar:
        for number in range(schedule.rounds):
            for position, arm in positions(number):
                job = every[arm].model_copy(update={"num_calls": visits.lengths.get(arm)})
                visits.add(number, position, arm, run_job(job))
            bar.advance()
    return Comparison(visits.as_measurement(shape, schedule), visits.failed)


def in_a_process(folder: Path) -> RunJob:
    """Runs a job with this interpreter; its job and its result pass through files in `folder`."""

    def run(job: Job) -> Result:
        ended = run_module("compressbench.measure.arm_process", job, folder)
        if ended.result is None:
            last = " / ".join(ended.last_words[-_LAST_LINES:])
            raise CellError(f"the process of an arm ended with exit code {ended.exit_code}", got=last)
        return Result.model_validate_json(ended.result)

    return run


class Ended(NamedTuple):
    """How a process ended: `result` is what it wrote, None if it failed, and then its `last_words` say why."""

    exit_code: int
    last_words: list[str]
    result: str | None


def run_module(module: str, job: Spec, folder: Path) -> Ended:
    """Run a module of this package with this interpreter; its job and its result pass through files in `folder`."""
    told, found = folder / "job.json", folder / "result.json"
    told.write_text(job.model_dump_json(), encoding="utf-8")
    found.unlink(missing_ok=True)
    command = [sys.executable, "-m", module, str(told), str(found)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- our own module
    is_good = done.returncode == 0 and found.exists()
    return Ended(
        done.returncode, done.stderr.strip().splitlines(), found.read_text(encoding="utf-8") if is_good else None
    )


@dataclass
class _Visits:
    """What the processes found so far, in their order."""

    blocks: list[Block] = field(default_factory=list)
    results: list[tuple[Arm, Result]] = field(default_factory=list)
    lengths: dict[Arm, int] = field(default_factory=dict)

    def add(self, number: int, position: int, arm: Arm, result: Result) -> None:
        self.results.append((arm, result))
        self.blocks.append(result.block.model_copy(update={"round": number, "position": position, "arm": arm}))
        self.lengths.setdefault(arm, len(result.block.latencies_ns))
        if arm in ("baseline", "control"):
            self.lengths = {"baseline": self.lengths[arm], "control": self.lengths[arm], **self.lengths}

    @property
    def failed(self) -> dict[str, str]:
        """Meters that couldn't be opened or broke in some process."""
        return {name: why for _, each in self.results for name, why in {**each.absent, **each.failed}.items()}

    def as_measurement(self, shape: Mapping[str, Any], schedule: Schedule) -> Measurement:
        results = [result for _, result in self.results]
        mixed = mixed_labels([result.provenance for result in results])
        evidence = merged([result.evidence for result in results])
        return Measurement(
            protocol=2,
            tier=schedule.tier,
            warm_up={arm: self._warm_up(arm) for arm in ("baseline", "candidate")},
            blocks=tuple(_void(block, mixed) for block in self.blocks),
            provenance={
                name: how for result in results for name, how in result.provenance.items() if name not in mixed
            },
            harness_overhead_ns=max(result.harness_overhead_ns for result in results),
            calls_per_block=self.lengths,
            num_planned_rounds=schedule.rounds,
            isolation="processes",
            evidence=evidence,
            rule=None if evidence is None else DisturbanceRule(),
            **shape,
        )

    def _warm_up(self, arm: Arm) -> WarmUp:
        """Of all processes of an arm together: steady if each of them was."""
        found = [result.warm_up for of, result in self.results if of == arm]
        unsteady = [each.reason for each in found if each.steady_state != "yes"]
        return WarmUp(
            num_calls=sum(each.num_calls for each in found),
            seconds=sum(each.seconds for each in found),
            first_call_s=found[0].first_call_s,
            steady_state="not-reached" if unsteady else "yes",
            reason=f"{len(unsteady)} of {len(found)} processes: {unsteady[0]}" if unsteady else "",
        )


def mixed_labels(parts: Sequence[Mapping[str, Provenance]]) -> dict[str, str]:
    """The values that aren't of one kind, source and boundary in all processes that read them, and how often which was.

    A meter may be there for one process and gone for the next, and an estimate take its place: their joules are no sample
    of one quantity.
    """
    labels: dict[str, Counter[str]] = {}
    for part in parts:
        for name, how in part.items():
            labels.setdefault(name, Counter())[f"{how.kind}, {how.source}, {how.boundary}"] += 1
    return {
        name: f"not the same in all processes: {'; '.join(f'{label} in {count}' for label, count in found.items())}"
        for name, found in labels.items()
        if len(found) > 1
    }


def _void(block: Block, mixed: Mapping[str, str]) -> Block:
    """Without these values; each has its reason in the place of a meter's."""
    void = {name: reason for name, reason in mixed.items() if name in block.raw}
    if not void:
        return block
    return without(block, void).model_copy(update={"void": {**block.void, **void}})


def merged(parts: Sequence[Evidence | None]) -> Evidence | None:
    """One value per block from processes that each saw one; None where a process couldn't read it."""
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    names = [name for name in Evidence.model_fields if name not in ("unread", "notes")]
    columns = {name: [_only(getattr(part, name)) for part in found] for name in names}
    read = {name: tuple(column) for name, column in columns.items() if any(value is not None for value in column)}
    unread = {name: why for part in found for name, why in part.unread.items()}
    return Evidence(**read, unread=unread, notes=tuple(dict.fromkeys(note for part in found for note in part.notes)))


def _only(column: Iterable[float | None]) -> float | None:
    return next(iter(column), None)
