"""Records of made-up models that think: how often each of their samples is right, and how dear their tokens are."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import record_builder as build

from compressbench.core.questions import SampleRow
from compressbench.records.idle_power import OF_THIS_PROCESS
from compressbench.records.measurement import Measurement
from compressbench.records.record import Record
from compressbench.records.store import RecordStore
from compressbench.tasks.selection import Sampled, chosen, expected

NUM_QUESTIONS, NUM_SAMPLES, NUM_TOKENS = 200, 16, 20
WORKLOAD = {"scenario": "offline", "batch_size": 1, "sequence_length": 16, "output_tokens": 10}


class Model(NamedTuple):
    """`chances` by question that a sample is right; `factor` is what a token costs, the baseline's being 1."""

    chances: Sequence[float]
    factor: float = 1.0
    written: int = NUM_TOKENS


def even(chance: float) -> list[float]:
    return [chance] * NUM_QUESTIONS


def rows_of(model: Model, seed: int, select: str = "majority") -> list[SampleRow]:
    """Wrong answers are five different ones."""
    draw = random.Random(seed)
    rows = []
    for number, chance in enumerate(model.chances):
        is_right = [draw.random() < chance for _ in range(NUM_SAMPLES)]
        answers = ["right" if right else f"wrong {draw.randrange(5)}" for right in is_right]
        sampled = Sampled(answers, is_right)
        at = chosen("majority", sampled)
        also = {"unfinished": 0.0, "prompt_tokens": 8.0}
        also |= expected("majority", sampled) if select == "majority" else {"pass@1": sum(is_right) / NUM_SAMPLES}
        rows.append(
            SampleRow(
                id=str(number), prediction=answers[at], target="right", score=float(is_right[at]), also=also,
                num_tokens=model.written * NUM_SAMPLES,
            )
        )  # fmt: skip
    return rows


def measured(factor: float, seed: int = 0, share: float | None = None) -> Measurement:
    """Ten tokens a call; with `share` the meter tells prefill from decode."""
    found = build.interleaved(build.noisy(0.010, seed=seed), build.noisy(0.010 * factor, seed=seed + 1))
    tokens = {"num_tokens": (10,) * 20, "token_gaps_ns": (900_000,) * 180, "first_token_ns": (1_000_000,) * 20}
    blocks = tuple(each.model_copy(update={**tokens, "prefill_cpu_share": share}) for each in found.blocks)
    how = {name: each.model_copy(update={"boundary": OF_THIS_PROCESS}) for name, each in found.provenance.items()}
    return found.model_copy(update={"blocks": blocks, "provenance": found.provenance if share is None else how})


def write(folder: Path, models: Mapping[str, Model], *, name: str = "thinking", **changed: Any) -> str:
    """The first is the baseline."""
    store, names = RecordStore(folder), list(models)
    select = changed.pop("select", "majority")
    said = build.recipe(names[1:], name=name, workload=WORKLOAD)
    for at, (label, model) in enumerate(models.items()):
        rows = rows_of(model, seed=at, select=select)
        file, sha256 = store.write_samples(f"{name}.{label}", "generation", rows)
        record = build.record(
            "baseline" if at == 0 else label,
            **{
                "recipe": said,
                "workload": WORKLOAD,
                "scores": (_score(rows, file, sha256, select),),
                "measurement": measured(model.factor, seed=10 * at),
                **changed,
            },
        )
        store.append(record)
    return str(folder)


def _score(rows: Sequence[SampleRow], file: str, sha256: str, select: str) -> Any:
    return build.accuracy(
        sum(row.score for row in rows) / len(rows),
        num_samples=len(rows),
        task="generation",
        metric="exact_match",
        protocol_id=f"generation/v1:select={select}",
        options={"num_samples": NUM_SAMPLES, "select": select, "temperature": 0.8},
        samples_file=file,
        samples_sha256=sha256,
    )


def failed_too(folder: str) -> Record:
    record = build.failed("broken", recipe=build.recipe(("broken",), name="thinking", workload=WORKLOAD))
    RecordStore(Path(folder)).append(record)
    return record
