"""Runs with per-sample rows on disk, for what compares records."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import record_builder as build

from compressbench.core.questions import SampleRow
from compressbench.records.score import Score
from compressbench.records.store import RecordStore, stem_of

SECOND_RUN = "20261123T074513.926665Z"


def flips(count: int, wrong: Sequence[int]) -> list[float]:
    """Right answers but for those at the places."""
    return [0.0 if at in set(wrong) else 1.0 for at in range(count)]


def rows(scores: Sequence[float], **changed: Sequence[Any]) -> list[SampleRow]:
    given = [{name: values[at] for name, values in changed.items()} for at in range(len(scores))]
    return [
        SampleRow(**{"id": f"s{at}", "prediction": "p", "target": "t", "score": score, **more})
        for at, (score, more) in enumerate(zip(scores, given, strict=True))
    ]


def accuracy(before: Sequence[float], after: Sequence[float], **changed: Any) -> Score:
    pairs = list(zip(before, after, strict=True))
    lost, won = sum(b > a for b, a in pairs), sum(b < a for b, a in pairs)
    paired = build.counts(lost, won, len(pairs))
    return build.accuracy(sum(after) / len(after), num_samples=len(after), paired=paired, **changed)


def written(
    folder: Path, answers: Mapping[str, Sequence[float]], *, run_id: str = build.RUN_ID, **changed: Any
) -> dict[str, Path]:
    """A run whose models answered so; the first is the baseline. `changed` by candidate's name, or for all."""
    store = RecordStore(folder)
    names = list(answers)
    before = answers[names[0]]
    said = build.recipe(tuple(names[1:]))
    paths = {}
    for number, (name, after) in enumerate(answers.items()):
        own = {**{k: v for k, v in changed.items() if k not in answers}, **changed.get(name, {})}
        score = accuracy(before, after) if number else build.accuracy(sum(after) / len(after), num_samples=len(after))
        file, sha256 = store.write_samples(stem_of("example", name, run_id), "text-classification", rows(after))
        score = score.model_copy(update={"samples_file": file, "samples_sha256": sha256})
        fields = {
            "recipe": said,
            "run_id": run_id,
            "scores": (score,),
            "measurement": build.interleaved(
                build.noisy(0.010, seed=2 * number), build.noisy(0.010, seed=2 * number + 1)
            ),
        }
        paths[name] = store.append(build.record(name, **{**fields, **own}))
    return paths


def answers_of(seed: int, count: int = 400, right: float = 0.8) -> list[float]:
    draw = random.Random(seed)
    return [float(draw.random() < right) for _ in range(count)]


def log_likelihoods(seed: int, count: int = 60, around: float = 3.0) -> list[float]:
    draw = random.Random(seed)
    return [around + draw.gauss(0, 0.3) for _ in range(count)]


def perplexity(scores: Sequence[float], **changed: Any) -> Score:
    return build.perplexity(math.exp(sum(scores) / len(scores)), num_samples=len(scores), **changed)
