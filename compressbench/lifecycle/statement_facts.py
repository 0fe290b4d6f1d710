"""What a statement says in words of what was measured, and where in the record each thing stands (JSONPath, RFC 9535)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from compressbench.core.protocols import Provenance
from compressbench.core.reading import Reading
from compressbench.core.units import humanize
from compressbench.records.record import AppliedStep, Record

OWN, BASELINE, RUN = 0, 1, 2
_ENERGY = "energy_j"


class Place(NamedTuple):
    """A path in the model's own record (OWN), in its baseline's, or in all records of its run."""

    record: int
    path: str


class Fact(NamedTuple):
    """`text` is "" where `reason` says why it isn't stated."""

    name: str
    text: str
    places: tuple[Place, ...]
    reason: str = ""


class Places:
    """Where a record has what numbers are computed from: the raw blocks if it has them, else a reading."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def joules(self) -> list[Place]:
        """Joules of the model's own blocks, and the calls that they are divided by."""
        arm = self._record.role
        if self._has_blocks(_ENERGY):
            return [*_paths(_block(arm, f"raw.{_ENERGY}"), _block(arm, "latencies_ns"))]
        return self.reading("energy_j_per_inference")

    def seconds(self) -> list[Place]:
        if self._record.measurement is None:
            return self.reading("throughput_per_s")
        return _paths(_block(self._record.role, "latencies_ns"))

    def tokens(self) -> list[Place]:
        measured = self._record.measurement
        if measured is None or not any(block.num_tokens for block in measured.blocks):
            return []
        return _paths(_block(self._record.role, "num_tokens"))

    def correct(self) -> list[Place]:
        """Right answers among the timed outputs, else the task's score."""
        measured = self._record.measurement
        if measured is not None and self._record.role in measured.outputs:
            of = f"$.measurement.outputs.{self._record.role}"
            return _paths(f"{of}.num_correct", f"{of}.num_scored")
        return self.score(0)

    def reading(self, name: str) -> list[Place]:
        return _paths(f"$.readings[?@.name=='{name}']") if self._record.reading(name) is not None else []

    def score(self, at: int, part: str = "value") -> list[Place]:
        if at >= len(self._record.scores) or getattr(self._record.scores[at], part) is None:
            return []
        return _paths(f"$.scores[{at}].{part}")

    def both_arms(self, what: str) -> list[Place]:
        """Blocks of baseline and candidate in turns: all in the candidate's record."""
        name = f"raw.{_ENERGY}" if what == "joules" else "latencies_ns"
        if what == "joules" and not self._has_blocks(_ENERGY):
            return []
        return [] if self._record.measurement is None else _paths(f"$.measurement.blocks[*].{name}")

    def _has_blocks(self, name: str) -> bool:
        measured = self._record.measurement
        return measured is not None and any(
            name in block.raw for block in measured.blocks if block.arm == self._record.role
        )


def _paths(*paths: str) -> list[Place]:
    return [Place(OWN, path) for path in paths]


def _block(arm: str, name: str) -> str:
    return f"$.measurement.blocks[?@.arm=='{arm}'].{name}"


def facts_of(record: Record, hardware: str, conditions: Mapping[str, str]) -> Iterator[Fact]:
    """Model, artefact, task, workload, hardware and meter, in that order."""
    model = record.model
    asked = str(record.recipe.text["model"]["id"])
    revision = "" if model is None else f", revision {model.revision}, {model.dtype}"
    path = "$.recipe.text.model.id" if model is None else "$.model"
    yield _fact("model", f"{asked if model is None else model.id}{revision}", path)
    if record.role == "candidate":
        steps = ", ".join(map(_step, record.steps)) or "nothing here: it was loaded as it is"
        yield _fact("compressed by", steps, "$.steps")
    artefact = record.artefact
    if artefact is None:
        yield Fact("artefact", "", (), "the record has no hash of a saved artefact")
    else:
        size = humanize(float(artefact.num_bytes), "B")
        yield _fact("artefact", f"SHA-256 {artefact.sha256} ({size})", "$.artefact")
    yield from _tasks(record)
    yield _fact("workload", conditions.get("workload", "unknown"), "$.workload")
    runs = f"{hardware}; threads {conditions.get('threads', 'unknown')}; {conditions.get('runtime', '')}".rstrip("; ")
    yield _fact("hardware", runs, "$.environment")
    yield from _meter(record)
    yield _fact("measured", _when(record), "$.created_utc")


def _fact(name: str, text: str, *paths: str) -> Fact:
    return Fact(name, text, tuple(_paths(*paths)))


def _step(step: AppliedStep) -> str:
    """Its options that say how much: numbers and names, no lists."""
    said = [f"{name} {value:g}" for name, value in step.options.items() if _is_number(value)]
    return f"{step.use} ({', '.join(said[:3])})" if said else step.use


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _tasks(record: Record) -> Iterator[Fact]:
    if not record.scores:
        yield Fact("task", "", (), "no task was scored")
        return
    told = [
        f"{score.label or score.task} ({score.metric}), {score.num_samples:,} samples of {score.data} {score.split}"
        f" at {score.data_revision.removeprefix('sha256:')[:12]}"
        for score in record.scores
    ]
    yield _fact("task", "; ".join(told), "$.scores[*].task", "$.scores[*].data_revision")


def _meter(record: Record) -> Iterator[Fact]:
    how = None if record.measurement is None else record.measurement.provenance.get(_ENERGY)
    if how is None:
        reading = record.reading("energy_j_per_inference")
        if reading is None:
            yield Fact("meter", "", (), _why_no_meter(record))
        else:
            yield _fact("meter", _meter_text(reading), "$.readings[?@.name=='energy_j_per_inference']")
    else:
        yield _fact("meter", _meter_text(how), f"$.measurement.provenance.{_ENERGY}")


def _why_no_meter(record: Record) -> str:
    found = [reason for name, reason in record.absent.items() if "energy" in name]
    return found[0] if found else "no meter of energy is in the record"


def _meter_text(how: Provenance | Reading) -> str:
    """`measured: a counter; boundary device; tick 20 ms; gain known to 5 %`."""
    gain = how.relative_uncertainty if isinstance(how, Provenance) else None
    said = [
        f"{how.kind}: {how.source}",
        f"boundary {how.boundary or 'not said'}",
        f"tick {humanize(how.tick_s, 's')}" if how.tick_s else "tick not said",
        f"gain known to {100 * gain:.2g} %" if gain else how.uncertainty_reason,
    ]
    return "; ".join(filter(None, said))


def _when(record: Record) -> str:
    measured = record.measurement
    if measured is None:
        return record.created_utc
    own = [block for block in measured.blocks if block.arm == record.role]
    calls = sum(len(block.latencies_ns) for block in own)
    how = f"{calls:,} calls in {len(own)} blocks, in turns with its baseline, tier {measured.tier}"
    return f"{record.created_utc}, {how}"
