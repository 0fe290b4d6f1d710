"""What the cells of one run share, and how one of them is made and measured."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressbench.core.calibration import Calibration, CalibrationSet
from compressbench.core.deploying import RunsFiles
from compressbench.core.errors import MissingDependencyError, UnsupportedError
from compressbench.core.progress import Progress
from compressbench.core.protocols import Batch, Session
from compressbench.core.reading import Reading
from compressbench.core.registry import Resolved
from compressbench.measure.apart import Conditions, Deployed, compare_apart
from compressbench.measure.compress import apply_steps
from compressbench.measure.deployed import Subject, prove_deployed
from compressbench.measure.instruments import Opened, read_probes
from compressbench.measure.quality import Question
from compressbench.measure.remote import absent_probes, is_remote, needs_weights, only_what_sees, unknown_work
from compressbench.measure.saved import keep, prove
from compressbench.measure.scenario import Measured
from compressbench.measure.scored import Quality, draws_anything
from compressbench.measure.timing import Timing
from compressbench.plan import Cell, Plan
from compressbench.recipe.schema import canonical
from compressbench.records.audit import Audit
from compressbench.records.environment import Environment, read_environment
from compressbench.records.measurement import Arm, Measurement
from compressbench.records.record import Failure, RecipeRef, Record, Role
from compressbench.records.score import Score
from compressbench.records.store import RecordStore, stem_of
from compressbench.report.against import costs_against_baseline, reference

if TYPE_CHECKING:
    from compressbench.models.handle import ModelHandle, Supplies

NOT_TIMED = "not measured: the model's answers are no numbers"


@dataclass
class Bench:
    """What the cells of one run share; `record`, `baseline` and `session` are the baseline's once it has run."""

    plan: Plan
    store: RecordStore
    progress: Progress
    run_id: str
    device: str
    environment: Environment
    model: ModelHandle
    quality: Quality
    timing: Timing
    load_seconds: float
    saves: bool = False
    record: Record | None = None
    baseline: ModelHandle | None = None
    session: Session | None = None
    _drawn: dict[tuple[Calibration, int], CalibrationSet] = field(default_factory=dict)

    @classmethod
    def load(cls, plan: Plan, store: RecordStore, progress: Progress, *, saves: bool = False) -> Bench:
        recipe, workload = plan.recipe, plan.recipe.workload
        with progress.bar("load", 3) as bar:
            # torch and transformers, several seconds
            from compressbench.models.load import load_model
            from compressbench.runtimes.device import prepare_device

            bar.advance()
            device, num_threads = prepare_device(recipe.device, workload.num_threads)
            begun = time.perf_counter()
            weights = needs_weights(cell.runtime.value for cell in plan.cells)
            model = load_model(recipe.model, plan.head, device=device, weights=weights)
            load_seconds = time.perf_counter() - begun
            bar.advance()
            questions = [
                Question(task, task.value.load(), label, model.tokenizer_id) for label, task in plan.labelled_tasks()
            ]
            for question in questions:
                question.task.value.check_model(model, question.samples)
            timing = Timing.of(recipe, plan.schedule, questions[0], model, num_threads)
            environment = read_environment(device=device, num_threads=num_threads)
            bar.advance()
        quality = Quality(questions, store, recipe.seed, progress, has_floor=recipe.noise_floor)
        run_id = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        return cls(plan, store, progress, run_id, device, environment, model, quality, timing, load_seconds, saves)

    @property
    def batch(self) -> Batch:
        """One input at the shapes of the workload."""
        return self.timing.inputs[0]

    def run(self, cell: Cell, meters: Opened) -> Record:
        try:
            if cell.unsupported:
                raise UnsupportedError(cell.unsupported)
            arms = (self.plan.baseline.runtime.value, cell.runtime.value)
            return self._measure(cell, only_what_sees(meters, arms))
        except Exception as error:  # noqa: BLE001 -- whatever a method raises becomes a record that says so
            is_known = isinstance(error, UnsupportedError | MissingDependencyError)
            status, message = ("unsupported", str(error)) if is_known else ("failed", _with_place(error))
            return self._record(cell, status=status, failure=Failure(type=type(error).__name__, message=message))

    def _measure(self, cell: Cell, meters: Opened) -> Record:
        made = apply_steps(self._start(cell), cell.steps, meters.instruments, self.progress)
        # before anything runs: some kernels repack weights at their first call
        folder = self._keep(cell, made.handle) if self.saves and cell.role == "candidate" else None
        session = cell.runtime.value.prepare(made.handle, self.device)
        scores = self.quality.scores(session, made.handle, self._stem(cell))
        if cell.role == "baseline":
            self.baseline, self.session = made.handle, session
        elif self.plan.recipe.repeats > 1 and draws_anything(cell.steps):
            scores = self._repeat(cell, meters, scores)
        is_sound = all(score.value is not None for score in scores)
        measured = self._compare(cell, session, made.handle, meters) if is_sound else None
        batch, tokens = self.timing.batch_of(measured, _role(cell)), self.timing.workload.output_tokens
        is_elsewhere = is_remote(cell.runtime.value)
        if is_elsewhere:
            readings, absent = list[Reading](), absent_probes(self.plan.meters)
        else:
            readings, absent = read_probes(self.plan.meters, made.handle, session, batch, tokens)
        artefact = folder and prove(made.handle, folder, cell.runtime.value, session, self.batch)
        subject = Subject(made.handle, cell.runtime, session, self.timing.inputs, self.environment.num_threads or 1)
        proof = prove_deployed(
            subject, weighs=any(isinstance(each.runtime.value, RunsFiles) for each in self.plan.cells)
        )
        unmeasured = {} if is_sound else dict.fromkeys(("latency", "energy"), NOT_TIMED)
        record = self._record(
            cell,
            status="ok",
            steps=made.steps,
            scores=scores,
            measurement=measured and self._with_outputs(cell, measured),
            readings=(*made.readings, *readings, *self._load_reading(cell), *proof.readings),
            absent={**meters.absent, **(measured.failed if measured else {}), **absent, **made.absent, **unmeasured},
            artefact=artefact,
            deployment=proof.deployment,
            limits=self.timing.limits,
            work=unknown_work() if is_elsewhere else self.timing.work(made.handle, batch),
        )
        if not is_elsewhere:
            record = record.model_copy(update={"audit": self._audit(record, made.handle, session)})
        if cell.role == "baseline":
            self.record = record
        else:
            session.close()
        return record

    def _repeat(self, cell: Cell, meters: Opened, first: tuple[Score, ...]) -> tuple[Score, ...]:
        """The candidate made anew with other seeds and calibration draws, to be scored and let go."""
        for number in range(1, self.plan.recipe.repeats):
            self.progress.say(f"{cell.name}, draw {number + 1} of {self.plan.recipe.repeats}")
            made = apply_steps(self._start(cell, number), cell.steps, meters.instruments, self.progress)
            session = cell.runtime.value.prepare(made.handle, self.device)
            self.quality.draw(session, made.handle, self._stem(cell), number)
            session.close()
        return self.quality.over_draws(first)

    def _audit(self, record: Record, handle: ModelHandle, session: Session) -> Audit:
        """What the candidate really is, held against what its steps claim and what was measured of it."""
        from compressbench.measure.audited import audit
        from compressbench.measure.claim_checks import Evidence

        disk = _disk_bytes(record)
        if self.record is None:
            return audit(handle, None, session, self.batch, Evidence(disk), record.deployment)
        found = costs_against_baseline(record, reference(self.record)).get("latency_p50_s")
        evidence = Evidence(disk, _disk_bytes(self.record), None if found is None else found.verdict)
        return audit(handle, self.baseline, session, self.batch, evidence, record.deployment)

    def _start(self, cell: Cell, draw: int = 0) -> ModelHandle:
        """A copy of the loaded model with what its steps may ask for. The teacher is the baseline as it was measured."""
        import torch

        torch.manual_seed(self.plan.recipe.seed + draw)
        return self.model.copy(self._supplies(cell, draw))

    def _supplies(self, cell: Cell, draw: int) -> Supplies:
        from compressbench.models.handle import Supplies
        from compressbench.models.load import load_model

        teacher, task = self.baseline, self.plan.tasks[0].value
        folder = self.store.checkpoints / (f"{cell.key}-{draw}" if draw else cell.key)
        return Supplies(
            teacher=None if teacher is None else lambda: teacher,
            training_batches=partial(task.training_batches, self.model),
            calibration=partial(self._calibration, draw),
            load_model=partial(load_model, head=self.plan.head, device=self.device),
            checkpoints=folder,
            seed=self.plan.recipe.seed + draw,
            progress=self.progress,
        )

    def _calibration(self, draw: int, wanted: Calibration) -> CalibrationSet:
        """Drawn once for all candidates that ask for the same."""
        from compressbench.tasks.calibration import draw_calibration

        if (wanted, draw) not in self._drawn:
            task, seed = self.plan.tasks[0].value, self.plan.recipe.seed
            own = wanted if wanted.seed is None else wanted.model_copy(update={"seed": wanted.seed + draw})
            self._drawn[wanted, draw] = draw_calibration(task, self.model, own, seed + draw)
        return self._drawn[wanted, draw]

    def _compare(self, cell: Cell, session: Session, handle: ModelHandle, meters: Opened) -> Measured | None:
        """The interleaved blocks. The baseline's partner is a copy of itself: what differs there is where it lies."""
        if not any(meter.value.scope == "call" for meter in self.plan.meters):
            return None
        if self.timing.is_apart:
            return self._compare_apart(cell, handle)
        baseline = self.session
        assert baseline is not None  # noqa: S101 -- a run ends when its baseline fails
        if cell.role == "baseline":
            assert self.baseline is not None  # noqa: S101 -- set just before
            session = cell.runtime.value.prepare(self.baseline.copy(), self.device)
        try:
            arms: dict[Arm, tuple[Session, Resolved]] = {
                "baseline": (baseline, self.plan.baseline.runtime),
                "candidate": (session, cell.runtime),
            }
            return self.timing.compare(arms, meters, self.progress)
        except (RuntimeError, MemoryError) as error:
            if not self.timing.may_be_apart(error):
                raise
        return self._compare_apart(cell, handle)

    def _compare_apart(self, cell: Cell, handle: ModelHandle) -> Measured:
        """Every block in a process of its own, for models that don't fit on the device together."""
        assert self.baseline is not None  # noqa: S101 -- a run ends when its baseline fails
        arms: dict[Arm, Deployed] = {
            "baseline": Deployed(self.baseline, self.plan.baseline.runtime),
            "candidate": Deployed(handle, cell.runtime),
        }
        conditions = Conditions(self.timing.inputs, self.plan.schedule, self.plan.meters, self.environment.num_threads)
        return compare_apart(arms, conditions, self.progress)

    def _with_outputs(self, cell: Cell, measured: Measured) -> Measurement:
        stem = self._stem(cell)
        return self.timing.with_outputs(
            measured, _role(cell), lambda columns: self.store.write_columns(stem, "timed-outputs", columns)[0]
        )

    def _load_reading(self, cell: Cell) -> list[Reading]:
        """Of the baseline only: a candidate is made in memory, and only what was saved can be loaded."""
        if cell.role != "baseline" or is_remote(cell.runtime.value):
            return []
        source = "monotonic clock (perf_counter), files to weights on the device, page cache as it was"
        return [
            Reading(
                name="load_seconds",
                value=self.load_seconds,
                kind="measured",
                source=source,
                uncertainty_reason="done once",
            )
        ]

    def _keep(self, cell: Cell, handle: ModelHandle) -> Path:
        steps = [step.as_data() for step in cell.steps]
        about = {"recipe": canonical(self.plan.recipe), "candidate": cell.name, "key": cell.key, "steps": steps}
        return keep(handle, self.store.folder, self._stem(cell), about)

    def _stem(self, cell: Cell) -> str:
        return stem_of(self.plan.recipe.name, cell.name, self.run_id)

    def _record(self, cell: Cell, **result: Any) -> Record:
        recipe = self.plan.recipe
        return Record(
            run_id=self.run_id,
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            recipe=RecipeRef(name=recipe.name, hash=self.plan.recipe_hash, text=canonical(recipe)),
            candidate=cell.name,
            role=_role(cell),
            key=cell.key,
            model=self.model.source,
            runtime=cell.runtime.as_data(),
            device=self.device,
            workload=recipe.workload.model_dump(mode="json"),
            environment=self.environment,
            **result,
        )


def _role(cell: Cell) -> Role:
    return "baseline" if cell.role == "baseline" else "candidate"


def _with_place(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{str(error) or type(error).__name__} [{Path(place.filename).name}:{place.lineno}]"


def _disk_bytes(record: Record) -> int | None:
    reading = record.reading("disk_bytes")
    return None if reading is None else int(reading.value)
