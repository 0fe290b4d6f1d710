"""A run that was compressed and metered here, flags for its statement, and a statement's data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import record_builder as build
from reading_verbs import say

from compressbench.core.reading import Reading
from compressbench.records.record import Record
from compressbench.records.store import RecordStore

EXAMPLE = Path(__file__).parent / "data" / "records-v4"
FLAGS = (
    *("--grid-g-per-kwh", "381", "--pue", "1.2", "--embodied-kg", "900", "--share", "0.01", "--lifetime-years", "4"),
    *("--utilisation", "0.5", "--wue-site", "0.2", "--wue-grid", "3", "--price-per-hour", "2"),
)


def write(folder: Path, *candidates: Record, **baseline: Any) -> str:
    named = {each.candidate: each for each in candidates}
    store = RecordStore(folder)
    for record in build.run_of(named, **{"measurement": build.interleaved(build.noisy(0.010)), **baseline}):
        store.append(record)
    return str(folder)


def int8(name: str = "int8", **changed: Any) -> Record:
    measured = build.interleaved(build.noisy(0.010, seed=1), build.noisy(0.006, seed=2), rounds=12)
    used = Reading(
        name="compress_energy_j", value=7200.0, low=7000.0, high=7400.0, kind="measured", source="a made-up meter",
        boundary="device", window_s=100.0, tick_s=0.02,
    )  # fmt: skip
    fields = {"measurement": measured, "readings": (*build.readings(compress_seconds=100.0), used)}
    return build.record(name, **{**fields, **changed})


def stated(capsys: pytest.CaptureFixture[str], *line: str, code: int = 0) -> dict[str, Any]:
    said = say(capsys, "statement", *line, "--json")
    assert said.code == code, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def numbers(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in found["numbers"]}
