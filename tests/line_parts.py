"""A small real model and data in a folder, and a recipe on them, for tests of the whole line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from compressbench.cli.main import call
from compressbench.core.protocols import Instrument
from compressbench.records.limits import Limits
from compressbench.testing import tiny_classifier

_TEXTS = [
    "the cat sat on the mat", "a dog ran home", "the dog is very good", "a cat is not bad", "the mat is bad",
    "a dog sat", "the cat ran on", "very good dog", "not a good home", "the home was very bad",
]  # fmt: skip


def write_model(folder: Path, num_labels: int = 3) -> Path:
    """A randomly initialised tiny BERT classifier with its tokenizer, as save_pretrained writes it."""
    handle = tiny_classifier(num_labels=num_labels)
    handle.model.save_pretrained(folder)
    handle.tokenizer.save_pretrained(folder)
    return folder


def write_data(folder: Path, num_test: int = 40, num_train: int = 30) -> Path:
    """train.jsonl and test.jsonl with three labels; texts differ by a number of repeated words."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count, shift in (("train", num_train, 1), ("test", num_test, 0)):
        rows = [
            {"text": " ".join([_TEXTS[(i + shift) % 10]] * (1 + i % 3)), "label": (i * 7 + shift) % 3}
            for i in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def recipe_data(model: Path, data: Path, candidates: list[dict[str, Any]], **sections: Any) -> dict[str, Any]:
    """A recipe that runs in a few seconds."""
    return {
        "name": "tiny",
        "model": {"id": str(model)},
        "tasks": [{"use": "text-classification", "data": str(data)}],
        "workload": {"tier": "smoke", "sequence_length": 8, "rounds": 2, "block_s": 0.01, "num_threads": 1},
        "meters": ["latency", "memory", "size"],
        "device": "cpu",
        "candidates": candidates,
        **sections,
    }


def write_recipe(path: Path, data: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(data))
    return path


def without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes two seconds of every run: measuring what the device can do."""
    limits = Limits(
        device="cpu",
        copy_bytes_per_s=1e12,
        copy_bytes=2**28,
        matmul_flops_per_s={"float32": 1e13},
        num_threads=1,
        seconds=0.0,
    )
    monkeypatch.setattr("compressbench.measure.device_limits.measure_limits", lambda device, num_threads: limits)


def open_with(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Instrument]) -> None:
    """The meter `energy` opens what this makes."""
    monkeypatch.setattr("compressbench.meters.energy.Energy.open", lambda self, device: make())


def called(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    """The exit code of a command line, and what it said beside its answer, as one line."""
    code = call([str(each) for each in arguments])
    return code, " ".join(capsys.readouterr().err.split())
