"""Records into rows of a table: every number with its interval, kind and source, or a reason for its absence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from compressbench.core.equivalence import Direction
from compressbench.core.reading import Reading
from compressbench.core.spec import Spec, content_hash
from compressbench.core.units import unit_of
from compressbench.records.comparability import comparability_key, conditions_of
from compressbench.records.name_plausibility import implausible_names
from compressbench.records.plausibility import implausible
from compressbench.records.record import Record
from compressbench.records.score import Fidelity, Score
from compressbench.report import numbers, rankable
from compressbench.report.against import Reference, costs_against_baseline, reference
from compressbench.report.judged import Judged, StratumRow, judge
from compressbench.report.number_plausibility import implausible_numbers
from compressbench.report.one_by_one import baseline_of, rows_of_run
from compressbench.report.verdict import Verdict

_METER_OF = {
    "latency_p50_s": "latency",
    "latency_p95_s": "latency",
    "latency_p99_s": "latency",
    "ttft_p50_s": "latency",
    "ttft_p99_s": "latency",
    "tpot_p50_s": "latency",
    "itl_p50_s": "latency",
    "itl_p99_s": "latency",
    "throughput_per_s": "latency",
    "output_tokens_per_s": "latency",
    "max_rate_per_s": "latency",
    "energy_j_per_inference": "energy",
    "energy_net_j_per_inference": "energy",
    "energy_j_per_output_token": "energy",
    "energy_j_per_total_token": "energy",
    "energy_j_per_correct": "energy",
    "energy_prefill_j_per_inference": "energy",
    "energy_decode_j_per_output_token": "energy",
    "energy_wh_per_1000_queries": "energy",
    "mbu": "latency",
    "mfu": "latency",
    "peak_memory_bytes": "memory",
    "peak_reserved_memory_bytes": "memory",
    "weights_memory_bytes": "memory",
    "kv_cache_memory_bytes": "memory",
    "disk_bytes": "size",
    "num_parameters": "size",
    "sparsity": "size",
    "effective_bits": "size",
    "load_seconds": "",
    "first_call_seconds": "latency",
    "compress_seconds": "",
    "compress_energy_j": "energy",
    "compress_peak_memory_bytes": "",
    "resident_memory_bytes": "",
    "export_seconds": "",
    "compile_seconds": "",
    "open_seconds": "",
}
CELL_NAMES = tuple(_METER_OF)


NOT_ASKED = "the recipe does not ask for"


class Cell(Spec):
    """One number. `value` is None where there is none, and then `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    kind: str = ""
    source: str = ""
    reason: str = ""


class Row(Spec):
    """One baseline or candidate. `against_baseline` has a verdict for every cell that could be paired; `false_claims` are
    the audit's, None where there was no audit; `implausible` is why nothing of it, `not_rankable` why its costs must not be
    ranked. `fidelity` and `calibration_error` are by metric; `strata` begin with the capability that lost most. Rows of one
    `comparability_key` may be ranked together, `conditions` say under which conditions; those of one `baseline_id` were
    measured against the same baseline, in whichever run.
    """

    recipe: str
    candidate: str
    role: str
    status: str
    key: str
    run_id: str
    created_utc: str = ""
    model: str = ""
    baseline_id: str = ""
    comparability_key: str = ""
    conditions: Mapping[str, str] = {}
    steps: str
    scenario: str
    metrics: tuple[str, ...]
    directions: Mapping[str, Direction] = {}
    cells: Mapping[str, Cell]
    against_baseline: Mapping[str, Verdict]
    fidelity: Mapping[str, Fidelity] = {}
    calibration_error: Mapping[str, float] = {}
    strata: tuple[StratumRow, ...] = ()
    false_claims: tuple[str, ...] | None = None
    implausible: tuple[str, ...] = ()
    not_rankable: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def rows_of(records: Iterable[Record]) -> list[Row]:
    """A row per record, in the order given. Baselines are found by run: a candidate is only compared within its own."""
    records = list(records)
    runs: dict[tuple[str, str], list[int]] = {}
    for at, record in enumerate(records):
        runs.setdefault((record.run_id, record.recipe.hash), []).append(at)
    found: dict[int, Row] = {}
    for places in runs.values():
        found |= zip(places, rows_of_run([records[at] for at in places], _computed, _refused), strict=True)
    return [found[at] for at in range(len(records))]


def _computed(records: Sequence[Record]) -> list[Row]:
    """The rows of one run. Its scores are judged together, for their tests are one family."""
    baseline = baseline_of(records)
    compared_with = None if baseline is None else reference(baseline)
    judged = judge(records, baseline)
    return [_row(record, compared_with, each) for record, each in zip(records, judged, strict=True)]


def _row(record: Record, baseline: Reference | None, judged: Judged) -> Row:
    reference_record = None if baseline is None else baseline.record
    metrics = metric_names(record, reference_record)
    conditions = conditions_of(record, reference_record)
    cells = {name: _score_cell(record, index) for index, name in enumerate(metrics)}
    found = numbers.numbers_of(record)
    cells |= {name: _cell(record, name, found.get(name)) for name in CELL_NAMES}
    is_candidate = record.role == "candidate" and record.status == "ok"
    costs = _costs(record, baseline) if is_candidate and baseline is not None else {}
    scores = list(zip(metrics, record.scores, strict=False))
    odd = (*implausible(record.scores), *implausible_names(record), *implausible_numbers(record, found))
    return Row(
        **_head(record, reference_record, conditions),
        metrics=tuple(metrics),
        directions={name: score.direction for name, score in scores},
        cells=cells,
        against_baseline={**{metrics[at]: verdict for at, verdict in judged.scores.items()}, **costs},
        fidelity={name: score.fidelity for name, score in scores if score.fidelity is not None},
        calibration_error={
            name: score.calibration_error for name, score in scores if score.calibration_error is not None
        },
        strata=judged.strata,
        false_claims=None if record.audit is None else tuple(each.message for each in record.audit.false_claims),
        implausible=odd,
        not_rankable=(*(f"implausible: {reason}" for reason in odd), *rankable.not_rankable(record)),
        warnings=rankable.warnings(record),
    )


def _costs(record: Record, baseline: Reference) -> dict[str, Verdict]:
    beside = numbers.baseline_beside(record)
    found = costs_against_baseline(record, baseline)
    told = {name: {"baseline_value": beside[name]} for name in found if name in beside}
    return {name: each.model_copy(update=told.get(name)) for name, each in found.items()}


def _refused(record: Record, why: str) -> Row:
    """A row without any number, and why."""
    metrics = metric_names(record)
    as_read = {each.name: each for each in record.readings}
    odd = (*implausible(record.scores), *implausible_names(record), *implausible_numbers(record, as_read)) or (why,)
    reason = f"implausible: {'; '.join(odd)}"
    return Row(
        **_head(record, None, conditions_of(record)),
        metrics=tuple(metrics),
        directions={name: score.direction for name, score in zip(metrics, record.scores, strict=False)},
        cells={name: Cell(value=None, unit=unit_of(name), reason=reason) for name in (*metrics, *CELL_NAMES)},
        against_baseline={},
        implausible=odd,
        not_rankable=tuple(f"implausible: {each}" for each in odd),
    )


def _head(record: Record, baseline: Record | None, conditions: Mapping[str, str]) -> dict[str, Any]:
    return {
        "recipe": record.recipe.name,
        "candidate": record.candidate,
        "role": record.role,
        "status": record.status,
        "key": record.key,
        "run_id": record.run_id,
        "created_utc": record.created_utc,
        "model": record.recipe.text["model"]["id"],
        "baseline_id": _baseline_id(record, baseline, conditions),
        "comparability_key": comparability_key(conditions),
        "conditions": conditions,
        "steps": " + ".join(step.use for step in record.steps),
        "scenario": record.workload["scenario"],
    }


def _baseline_id(record: Record, baseline: Record | None, conditions: Mapping[str, str]) -> str:
    """Equal where candidates were compared with the same model, made and run in the same way."""
    asked = record.recipe.text
    model = record.model or (baseline and baseline.model)  # one that failed early has none of its own
    revision = model.revision if model else asked["model"].get("revision")
    made = [asked.get("baseline"), asked["model"].get("id"), revision, conditions.get("baseline_precision")]
    return content_hash([*made, comparability_key(conditions)])


def metric_names(record: Record, baseline: Record | None = None) -> list[str]:
    """The metrics of the record's tasks; one that stands twice is told apart by its task or data, if need be by a number.

    A record that failed before it was asked has the metrics of its baseline.
    """
    scores = record.scores or (baseline.scores if baseline is not None else ())
    asked = [_asked(use) for use in record.recipe.text["tasks"]]
    pairs = [(score.metric, _place_of(score)) for score in scores] or asked
    names = [name for name, _ in pairs]
    placed = [f"{name}@{place}" if names.count(name) > 1 else name for name, place in pairs]
    seen = [placed[:index].count(name) for index, name in enumerate(placed)]
    return [f"{name}#{count + 1}" if count else name for name, count in zip(placed, seen, strict=True)]


def _asked(use: Mapping[str, Any]) -> tuple[str, str]:
    metric = {"text-classification": "accuracy"}.get(use["use"], use["use"])
    return metric, str(use.get("data", ""))


def _place_of(score: Score) -> str:
    """A ready-made task has a name of its own; another one is known by its data."""
    is_ready_made = score.label and not score.label.startswith(score.task)
    return score.label if is_ready_made else score.data


def _score_cell(record: Record, index: int) -> Cell:
    if index >= len(record.scores):
        return Cell(value=None, reason=_why_failed(record) or "the task was not evaluated")
    score = record.scores[index]
    unit = "fraction" if is_fraction(score) else ""
    if score.value is None:
        return Cell(value=None, unit=unit, reason=f"implausible: {'; '.join(score.implausible)}")
    source = f"{score.num_samples} samples of {score.data} {score.split}, {score.protocol_id}"
    if len(score.draws) > 1:
        mean = sum(draw.value for draw in score.draws) / len(score.draws)
        return Cell(value=mean, unit=unit, kind="measured", source=f"mean of {len(score.draws)} draws, {source}")
    low, high = numbers.score_interval(score)
    return Cell(value=score.value, low=low, high=high, unit=unit, kind="measured", source=source)


def is_fraction(score: Score) -> bool:
    """Whether a metric reads as a percentage."""
    return score.is_binary or score.metric == "wer" or score.metric.startswith("pass@")


def _cell(record: Record, name: str, reading: Reading | None) -> Cell:
    unit = unit_of(name)
    if reading is None:
        return Cell(value=None, unit=unit, reason=_why_absent(record, name))
    return Cell(
        value=reading.value, low=reading.low, high=reading.high, unit=unit, kind=reading.kind, source=reading.source
    )


def _why_absent(record: Record, name: str) -> str:
    meter = _METER_OF.get(name, "")
    asked = [use["use"] for use in record.recipe.text["meters"]]
    if meter == "energy":  # any of its instruments will do
        meter = next((name for name in asked if name.startswith("energy")), meter)
    if record.status != "ok":
        return _why_failed(record)
    if name.startswith("compress_") and not record.steps:
        return "nothing was compressed"
    if meter and meter not in asked:
        return f"{NOT_ASKED} {meter}"
    specific = record.absent.get(name) or record.absent.get(f"compress_{meter}" if name == "compress_energy_j" else "")
    return specific or record.absent.get(meter) or numbers.why_refused(record, name) or "it was not recorded"


def _why_failed(record: Record) -> str:
    return "" if record.failure is None else f"{record.status}: {record.failure.message}"
