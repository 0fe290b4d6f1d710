"""Records of made-up runs, with every number chosen by the test: what a run would have written, without the run."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from compressbench.core.protocols import Provenance
from compressbench.core.reading import Reading
from compressbench.measure.schedule import order_of
from compressbench.records.environment import Environment
from compressbench.records.measurement import Arm, Block, Measurement, WarmUp
from compressbench.records.record import AppliedStep, Failure, ModelSource, RecipeRef, Record
from compressbench.records.score import Paired, Score

RUN_ID = "20261122T074513.926665Z"
ORDERS: tuple[tuple[Arm, ...], ...] = (
    ("baseline", "candidate", "candidate", "baseline"),
    ("candidate", "baseline", "baseline", "candidate"),
)
SIZES = {"disk_bytes": 90e6, "num_parameters": 22.7e6, "sparsity": 0.0, "effective_bits": 32.0}
MEMORY = {"peak_memory_bytes": 95e6, "weights_memory_bytes": 90e6}


def environment(**changed: Any) -> Environment:
    fields: dict[str, Any] = {
        "device": "cpu",
        "os": "Linux",
        "os_release": "Example Linux 12",
        "kernel": "6.1",
        "machine": "x86_64",
        "python": "CPython 3.11.9",
        "cpu_model": "Example CPU",
        "cpu_flags": ("avx2", "avx512_vnni"),
        "num_logical_cores": 2,
        "num_usable_cores": 2,
        "cpu_quota_cores": None,
        "cpu_governor": None,
        "cpu_max_frequency_hz": None,
        "cpu_boost": None,
        "memory_bytes": 8 * 1024**3,
        "gpus": None,
        "packages": {"torch": "2.11.0"},
        "num_threads": 2,
        "speed_variables": {},
        "load_average_1min": 0.5,
        "psi_cpu_some_avg10": None,
        "extra": {},
    }
    return Environment(**{**fields, **changed})


def recipe(candidates: Sequence[str] = ("int8",), name: str = "example", **changed: Any) -> RecipeRef:
    text = {
        "name": name,
        "model": {"id": "embedded:minilm-banking77"},
        "tasks": [{"use": "text-classification", "data": "embedded:banking77", "split": "test"}],
        "workload": {"scenario": "single-stream", "batch_size": 1, "sequence_length": 32},
        "meters": [{"use": "latency"}, {"use": "energy"}, {"use": "memory"}, {"use": "size"}],
        "candidates": [{"name": each} for each in candidates],
        **changed,
    }
    return RecipeRef(name=name, hash=f"hash-of-{name}", text=text)


def accuracy(value: float = 0.93, *, num_samples: int = 3080, paired: Paired | None = None, **changed: Any) -> Score:
    fields: dict[str, Any] = {
        "task": "text-classification",
        "options": {"data": "embedded:banking77", "split": "test"},
        "version": 1,
        "protocol_id": "text-classification/v1:max_length=128,batch_size=64",
        "data": "embedded:banking77",
        "split": "test",
        "data_revision": "0123456789abcdef",
        "metric": "accuracy",
        "direction": "higher",
        "is_binary": True,
        "value": value,
        "num_samples": num_samples,
        "samples_file": "samples.parquet",
        "samples_sha256": "0" * 64,
        "seconds": 12.5,
        "paired": paired,
    }
    return Score(**{**fields, **changed})


def accuracy_after(num_harmful: int, num_beneficial: int, *, before: float = 0.93, num_samples: int = 3080) -> Score:
    """A candidate's accuracy where so many of the baseline's samples fell and rose."""
    paired = counts(num_harmful, num_beneficial, num_samples)
    return accuracy(before + paired.mean_difference, num_samples=num_samples, paired=paired)


def perplexity(value: float, *, paired: Paired | None = None, num_samples: int = 100, **changed: Any) -> Score:
    fields: dict[str, Any] = {
        "task": "perplexity",
        "options": {"data": "embedded:tinyshakespeare", "split": "test"},
        "protocol_id": "perplexity/v1:window=256",
        "data": "embedded:tinyshakespeare",
        "metric": "perplexity",
        "direction": "lower",
        "is_binary": False,
    }
    return accuracy(value, num_samples=num_samples, paired=paired, **{**fields, **changed})


def counts(num_harmful: int, num_beneficial: int, num_samples: int) -> Paired:
    """Paired accuracy with so many samples that fell and rose."""
    mean = (num_beneficial - num_harmful) / num_samples
    square = (num_beneficial + num_harmful) / num_samples - mean**2
    return Paired(
        num_samples=num_samples,
        num_harmful=num_harmful,
        num_beneficial=num_beneficial,
        mean_difference=mean,
        sd_difference=(square * num_samples / (num_samples - 1)) ** 0.5,
    )


def blocks(
    baseline_s: Callable[[int], float] | float,
    candidate_s: Callable[[int], float] | float,
    *,
    rounds: int = 6,
    calls: int = 20,
    energy_w: float | None = 4.0,
    num_blocks_without_energy: int = 0,
) -> tuple[Block, ...]:
    """A B B A, B A A B, ...: each call of an arm takes what its function of the call's number says."""
    of_arm = {"baseline": baseline_s, "candidate": candidate_s}
    seen = {"baseline": 0, "candidate": 0}
    found: list[Block] = []
    for number in range(rounds):
        for position, arm in enumerate(ORDERS[number % 2]):
            given, first = of_arm[arm], seen[arm]
            seen[arm] += calls
            seconds = [given(index) if callable(given) else given for index in range(first, first + calls)]
            has_energy = energy_w is not None and len(found) >= num_blocks_without_energy
            raw = {"energy_j": energy_w * sum(seconds)} if has_energy and energy_w is not None else {}
            nanoseconds = tuple(round(1e9 * each) for each in seconds)
            found.append(Block(round=number, position=position, arm=arm, latencies_ns=nanoseconds, raw=raw))
    return tuple(found)


def noisy(seconds: float, spread: float = 0.02, seed: int = 0) -> Callable[[int], float]:
    """A duration that scatters evenly within `spread` of `seconds`, the same for the same seed and number."""
    return lambda index: seconds * (1 + spread * (2 * random.Random(f"{seed}:{index}").random() - 1))


def measurement(
    baseline_s: Callable[[int], float] | float = 0.010,
    candidate_s: Callable[[int], float] | float = 0.010,
    *,
    batch_size: int = 1,
    steady: str = "yes",
    kind: str = "estimated",
    **schedule: Any,
) -> Measurement:
    run = blocks(baseline_s, candidate_s, **schedule)
    warm: Any = {
        arm: WarmUp(num_calls=50, seconds=0.5, first_call_s=0.04, steady_state=steady)
        for arm in ("baseline", "candidate")
    }
    source = Provenance(kind=kind, source="a made-up meter", boundary="cpu", relative_uncertainty=0.05)
    return Measurement(
        batch_size=batch_size,
        num_inputs=64,
        warm_up=warm,
        blocks=run,
        provenance={"energy_j": source} if any(block.raw for block in run) else {},
        harness_overhead_ns=120.0,
        calls_per_block={"baseline": len(run[0].latencies_ns), "candidate": len(run[0].latencies_ns)},
    )


def readings(**values: float) -> tuple[Reading, ...]:
    """Sizes and memory of the uncompressed model where nothing else is said."""
    found = {**SIZES, **MEMORY, **values}
    return tuple(
        Reading(name=name, value=value, kind="measured", source="counted", uncertainty_reason="counted, not sampled")
        for name, value in found.items()
    )


def step(use: str = "int8-dynamic", **options: Any) -> AppliedStep:
    return AppliedStep(use=use, options=options, seconds=1.5, notes={"num_modules": 37})


def record(candidate: str = "baseline", **changed: Any) -> Record:
    """A record with status ok; the baseline's if nothing else is said."""
    is_baseline = candidate == "baseline"
    fields: dict[str, Any] = {
        "run_id": RUN_ID,
        "created_utc": "2026-11-22T07:45:13+00:00",
        "recipe": recipe(),
        "candidate": candidate,
        "role": "baseline" if is_baseline else "candidate",
        "key": f"key-of-{candidate}",
        "status": "ok",
        "model": ModelSource(
            id="embedded:minilm-banking77",
            revision="sha256:abc",
            architecture="BertForSequenceClassification",
            dtype="float32",
        ),
        "steps": () if is_baseline else (step(),),
        "runtime": {"use": "torch"},
        "device": "cpu",
        "workload": {"scenario": "single-stream", "batch_size": 1, "sequence_length": 32},
        "scores": (accuracy(),),
        "measurement": measurement(noisy(0.010, seed=1), noisy(0.010, seed=2)),
        "readings": readings(),
        "environment": environment(),
    }
    said = {**fields, **changed}
    if said["measurement"] is not None and said["measurement"].protocol == 1:
        said.setdefault("schema_version", 2)  # the last that had it
    return Record(**said)


def failed(candidate: str, message: str = "CUDA ran out of memory [step.py:12]", **changed: Any) -> Record:
    failure = Failure(type="CellError", message=message)
    fields: dict[str, Any] = {
        "status": "failed",
        "failure": failure,
        "steps": (),
        "scores": (),
        "measurement": None,
        "readings": (),
    }
    return record(candidate, **{**fields, **changed})


def run_of(candidates: Mapping[str, Record], **baseline: Any) -> list[Record]:
    """A baseline and its candidates, all of one run and one recipe."""
    said = recipe(tuple(candidates))
    first = record(**{"recipe": said, **baseline})
    # one that failed says nothing that any version would refuse
    version = {"schema_version": first.schema_version}
    return [
        first,
        *(
            each.model_copy(update={"recipe": said, **(version if each.measurement is None else {})})
            for each in candidates.values()
        ),
    ]


def interleaved(
    baseline_s: Callable[[int], float] | float = 0.010,
    candidate_s: Callable[[int], float] | float = 0.010,
    control_s: Callable[[int], float] | float | None = None,
    *,
    rounds: int = 6,
    calls: int = 20,
    energy_w: float | None = 4.0,
    **changed: Any,
) -> Measurement:
    """A measurement of protocol 2: A B C C B A rounds in rotating order, the control as long as the baseline."""
    of_arm: dict[Arm, Any] = {
        "baseline": baseline_s,
        "candidate": candidate_s,
        "control": baseline_s if control_s is None else control_s,
    }
    seen: dict[Arm, int] = dict.fromkeys(of_arm, 0)
    found: list[Block] = []
    for number in range(rounds):
        for position, arm in enumerate(order_of(number)):
            given, first = of_arm[arm], seen[arm]
            seen[arm] += calls
            seconds = [given(index) if callable(given) else given for index in range(first, first + calls)]
            joules = {} if energy_w is None else {"energy_j": energy_w * sum(seconds)}
            found.append(
                Block(
                    round=number,
                    position=position,
                    arm=arm,
                    latencies_ns=tuple(round(1e9 * each) for each in seconds),
                    seconds=sum(seconds),
                    raw=joules,
                    uncertainties=dict.fromkeys(joules, 0.0),
                )
            )
    return measured_by(tuple(found), **changed)


def measured_by(run: tuple[Block, ...], *, kind: str = "estimated", **changed: Any) -> Measurement:
    """A measurement of protocol 2 with these blocks; energy by a made-up meter of `kind`."""
    warm = WarmUp(num_calls=50, seconds=0.5, first_call_s=0.04, steady_state="yes")
    source = Provenance(kind=kind, source="a made-up meter", boundary="device", relative_uncertainty=0.05, tick_s=0.02)
    fields: dict[str, Any] = {
        "protocol": 2,
        "tier": "smoke",
        "batch_size": 1,
        "num_inputs": 64,
        "warm_up": {"baseline": warm, "candidate": warm},
        "blocks": run,
        "provenance": {"energy_j": source} if any(block.raw for block in run) else {},
        "harness_overhead_ns": 120.0,
        "calls_per_block": {block.arm: len(block.latencies_ns) for block in run},
        "num_planned_rounds": len({block.round for block in run}),
    }
    return Measurement(**{**fields, **changed})
