"""What a page of one record shows beyond its row: recipe, steps, environment, audit, latencies, flipped samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compressbench.core.units import humanize
from compressbench.records.measurement import Measurement
from compressbench.records.record import AppliedStep, Record
from compressbench.records.score import Score
from compressbench.records.store import checksum_of
from compressbench.report.audit_lines import audit_lines
from compressbench.report.deployment_words import deployment_words
from compressbench.report.environment_words import environment_words
from compressbench.report.flips import flips as flips_between
from compressbench.report.latency_histogram import block_medians, latencies
from compressbench.report.reproduce import recipe_yaml, reproduce
from compressbench.report.rows import metric_names
from compressbench.report.score_facts import score_facts

Pair = tuple[str, str]


def detail_of(path: Path, record: Record, *, flips: bool = True) -> dict[str, Any]:
    """Plain data, ready for JSON. `flips` reads the per-sample rows of the record and of its baseline; else they are None.

    What isn't there is None or has a `reason`; no text holds a folder of this machine.
    """
    return {
        "file": path.name,
        "sha256": checksum_of(path),
        "schema_version": record.schema_version,
        "recipe": {"hash": record.recipe.hash, "yaml": recipe_yaml(record)},
        "reproduce": reproduce(record),
        "failure": None if record.failure is None else f"{record.failure.type}: {record.failure.message}",
        "facts": list(_facts(record)),
        "steps": [_step(step) for step in record.steps],
        "environment": environment_words(record.environment),
        "audit": None if record.audit is None else list(audit_lines(record.audit)),
        "latency": latency_of(record),
        "blocks": _blocks(record),
        "scores": [_score(name, score) for name, score in zip(metric_names(record), record.scores, strict=False)],
        "flips": flips_between(path, record) if flips else None,
    }


def _facts(record: Record) -> Iterator[Pair]:
    """What was measured and of what, apart from its numbers."""
    model = record.model
    if model is not None:
        yield "model", f"{model.id} ({model.architecture}, {model.dtype})"
        yield "revision", model.revision
    yield "device", record.device
    yield "runtime", options_text(record.runtime)
    yield "workload", options_text(record.workload)
    if record.measurement is not None:
        yield from measured(record, record.measurement)
    if record.artefact is not None:
        kept = record.artefact
        difference = f"loaded again, logits differ by at most {kept.max_difference:g}"
        yield "artefact", f"{kept.folder}, {humanize(kept.num_bytes, 'B')}; {difference}"
        yield "artefact SHA-256", kept.sha256
    if record.deployment is not None:
        yield from deployment_words(record.deployment)


def measured(record: Record, measurement: Measurement) -> Iterator[Pair]:
    """How long it was warmed up, how much was measured, and what the loop itself costs."""
    warm = measurement.warm_up.get(record.role)
    if warm is not None:
        reason = f" ({warm.reason})" if warm.reason else ""
        steady = f"steady: {warm.steady_state}{reason}"
        yield "warm-up", f"{warm.num_calls} calls, first {humanize(warm.first_call_s, 's')}, {steady}"
    calls = sum(len(block.latencies_ns) for block in measurement.blocks if block.arm == record.role)
    arms = "both arms" if len({block.arm for block in measurement.blocks}) == 2 else "all arms"
    yield "measured", f"{calls} calls in {len(measurement.blocks)} interleaved blocks of {arms}"
    yield "overhead", f"{measurement.harness_overhead_ns:.0f} ns per call"


def _step(step: AppliedStep) -> dict[str, Any]:
    return {
        "use": step.use,
        "options": options_text(step.options),
        "seconds": step.seconds,
        "notes": notes_of(step.notes),
    }


def options_text(options: Mapping[str, Any]) -> str:
    """`bits=4 group_size=32`; what is not set is left out."""
    said = {key: value for key, value in options.items() if value not in (None, [], (), {})}
    name = said.pop("use", None)
    words = [f"{key}={_plain(value)}" for key, value in said.items()]
    return " ".join(words if name is None else [str(name), *words])


def notes_of(notes: Mapping[str, Any]) -> str:
    """What a step said of itself, in the same way; what it computed has four digits, the record has them all."""
    return options_text(
        {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in notes.items()}
    )


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{options_text(value)}}}"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def latency_of(record: Record) -> dict[str, Any]:
    """The calls of the record's own arm and of the baseline's (or its copy's) in the same schedule; or a `reason`."""
    measurement = record.measurement
    if measurement is None or not measurement.blocks:
        return {"reason": "no call was measured"}
    arms = dict.fromkeys(block.arm for block in measurement.blocks)
    # a candidate stands beside its baseline; the baseline beside the copy of itself
    wanted = "candidate" if record.role == "baseline" else "baseline"
    other = [arm for arm in arms if arm == wanted]
    own = [record.role] if record.role in arms else []
    return latencies(measurement, [*own, *other])


def _blocks(record: Record) -> dict[str, Any] | None:
    measurement = record.measurement
    return None if measurement is None or not measurement.blocks else block_medians(measurement)


def _score(name: str, score: Score) -> dict[str, Any]:
    return {
        "metric": name,
        "task": score.label or score.task,
        "data": f"{score.data} {score.split} @ {score.data_revision}",
        "protocol": score.protocol_id,
        "num_samples": score.num_samples,
        "seconds": score.seconds,
        "facts": list(score_facts(score)),
        "samples": [score.samples_file, score.samples_sha256],
    }
