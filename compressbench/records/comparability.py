"""What must agree before two records may stand in one ranking, and a key that is the same exactly if it does.

A ranking holds under conditions: another machine, another prompt or another meter gives other numbers of the same model.
The model itself and what was done to it are no conditions, they are what is compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from compressbench.core.spec import canonical_json, content_hash
from compressbench.records.environment import Environment
from compressbench.records.record import Record
from compressbench.records.score import Score

Conditions = Mapping[str, str]
"""By name, in the order in which a reader asks for them."""

# precision of a measurement, not its object: rows of the same tier may have other numbers of rounds
_NOT_A_CONDITION = ("rounds", "block_s", "num_threads", "isolation")
_NO_ENERGY = "none"
# versions that only add fields
_MEANS_THE_SAME = {5: 4}
_TOKENIZER = re.compile(r",?tokenizer=[^,]*")


def conditions_of(record: Record, baseline: Record | None = None) -> dict[str, str]:
    """Under which conditions the record's numbers hold; what it can't say itself (it failed) is its baseline's.

    A candidate without energy, or measured in processes of its own because memory ran out, stays with its run: its
    baseline was measured in the same blocks.
    """
    own = dict(_conditions(record))
    if baseline is None:
        return own
    of_run = dict(_conditions(baseline))
    shared = [name for name in of_run if name == "measurement" or own.get(name) == _NO_ENERGY]
    return {**of_run, **own, **{name: of_run[name] for name in shared}}


def comparability_key(conditions: Conditions) -> str:
    """16 hexadecimal digits, equal exactly for equal conditions."""
    return content_hash(dict(conditions))


def differences(ours: Conditions, theirs: Conditions) -> dict[str, tuple[str, str]]:
    """The conditions that disagree, each as it is here and there; "" where one side has none."""
    names = dict.fromkeys([*ours, *theirs])
    both = {name: (ours.get(name, ""), theirs.get(name, "")) for name in names}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def question_of(score: Score) -> str:
    """Equal where two scores are answers to the same question, asked in the same way of the same samples."""
    return f"{_task(score)}; {_protocol(score)}"


def _conditions(record: Record) -> Iterator[tuple[str, str]]:
    yield "hardware", hardware_of(record)
    yield "threads", _threads(record.environment)
    yield "runtime", _runtime(record)
    if record.model is not None:
        yield "baseline_precision", _precision(record, record.model.dtype)
    if record.scores:
        # two recipes may ask the same questions in another order
        scores = sorted(record.scores, key=_task)
        yield "tasks", "; ".join(_task(score) for score in scores)
        yield "protocol", "; ".join(_protocol(score) for score in scores)
    yield "workload", _workload(record.workload)
    measurement = record.measurement
    if measurement is not None:
        yield "measurement", f"protocol {measurement.protocol}, {measurement.isolation}"
        how = measurement.provenance.get("energy_j")
        yield "energy", _NO_ENERGY if how is None else f"{how.kind}, {how.boundary}"
    yield "schema", str(_MEANS_THE_SAME.get(record.schema_version, record.schema_version))


def hardware_of(record: Record) -> str:
    """Processors by name; of a CPU also what it can do, because virtual machines hide its name."""
    environment = record.environment
    flags = " ".join(environment.cpu_flags or ())
    cpu = f"{environment.cpu_model or 'unknown processor'}, {environment.machine} ({flags or 'flags unknown'})"
    gpus = environment.gpus or ()
    if not record.device.startswith("cuda"):
        return cpu
    return f"{len(gpus)} x {gpus[0].name}; {cpu}" if gpus else f"unknown GPU; {cpu}"


def _threads(environment: Environment) -> str:
    quota = "" if environment.cpu_quota_cores is None else f", quota {environment.cpu_quota_cores:g}"
    return f"{environment.num_threads or '?'} on {environment.num_usable_cores or '?'} cores{quota}"


def _runtime(record: Record) -> str:
    """Of the baseline: candidates of one recipe may be measured each in its own."""
    use = _baseline(record).get("runtime", record.runtime)
    name = str(use.get("use", "torch"))
    options = {key: value for key, value in use.items() if key != "use"}
    library = "torch" if name.startswith("torch") else name.partition("-")[0]
    version = (record.environment.packages or {}).get(library) or "unknown version"
    return f"{name} {version}" + (f" {canonical_json(options)}" if options else "")


def _precision(record: Record, dtype: str) -> str:
    steps = _baseline(record).get("compress") or ()
    return " + ".join([dtype, *(str(step.get("use", "?")) for step in steps if isinstance(step, Mapping))])


def _baseline(record: Record) -> Mapping[str, Any]:
    found = record.recipe.text.get("baseline")
    return found if isinstance(found, Mapping) else {}


def _task(score: Score) -> str:
    """The question: its version, its metric and the very samples."""
    name = score.label or score.task
    what = name if name == score.task else f"{name} ({score.task})"
    data = f"{score.data} {score.split} @ {score.data_revision}"
    return f"{what} v{score.version}: {score.metric}, {score.num_samples} of {data}"


def _protocol(score: Score) -> str:
    """Prompt, windows and batches. Right and wrong answers may be those of another tokenizer, token perplexities not."""
    return _TOKENIZER.sub("", score.protocol_id) if score.is_binary else score.protocol_id


def _workload(workload: Mapping[str, object]) -> str:
    asked = {name: value for name, value in workload.items() if name not in _NOT_A_CONDITION and value is not None}
    if asked.get("scenario") != "server":
        asked.pop("latency_quantile", None)
    return ", ".join(f"{name} {_listed(value)}" for name, value in asked.items())


def _listed(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "/".join(str(each) for each in value)
    return str(value)
