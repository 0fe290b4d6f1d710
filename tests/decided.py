"""A run whose right decision is known: candidates that differ in one thing each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import record_builder as build

from compressbench.records.audit import Audit, DiskAudit, Finding
from compressbench.records.record import Record
from compressbench.records.store import dump
from compressbench.report.catalog import Catalog, open_catalog

BASELINE_S = 0.010


def candidate(name: str, seconds: float = BASELINE_S, lost: int = 5, won: int = 5, **changed: Any) -> Record:
    """So many times as slow, so many of 3,080 answers lost and won; 4 W whatever it does."""
    sizes = {key: changed.pop(key) for key in ("disk_bytes", "peak_memory_bytes") if key in changed}
    fields: dict[str, Any] = {
        "scores": (build.accuracy_after(lost, won),),
        "measurement": build.interleaved(build.noisy(BASELINE_S, seed=1), build.noisy(seconds, seed=2)),
        "readings": build.readings(**sizes),
        "steps": (build.step(name),),
    }
    return build.record(name, **{**fields, **changed})


def run(*candidates: Record, **baseline: Any) -> list[Record]:
    steady = build.interleaved(build.noisy(BASELINE_S, seed=3), build.noisy(BASELINE_S, seed=4))
    return build.run_of({each.candidate: each for each in candidates}, **{"measurement": steady, **baseline})


def stored(folder: Path, *records: Record) -> Path:
    """Under names of their own, because a hostile candidate's name is no file name."""
    folder.mkdir(parents=True, exist_ok=True)
    for at, record in enumerate(records):
        (folder / f"r{at}.{record.run_id}.json").write_bytes(dump(record))
    return folder


def catalog(folder: Path, *records: Record) -> Catalog:
    return open_catalog([stored(folder, *records)])


def false_claim(message: str = "8 bits are stored per weight where 4 are claimed") -> Audit:
    return Audit(
        modules=(),
        num_parameters=None,
        effective_bits_compressed=None,
        effective_bits_all=None,
        dtypes={},
        disk=DiskAudit(implied_bytes=None, disk_bytes=None, tolerance_bytes=0, ratio=None),
        claims=(),
        kernels={},
        findings=(Finding(code="wider-than-claimed", message=message, is_false_claim=True, step="gptq"),),
        not_checked=(),
        claim_ok=False,
    )
