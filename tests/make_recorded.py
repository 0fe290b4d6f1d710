"""Writes tests/data/records-v1 anew. Run it only for a new schema version, into a new folder: old records stay."""

from __future__ import annotations

import sys
from pathlib import Path

import record_builder as build

from compressbench.records.store import RecordStore


def write_recorded(folder: Path) -> None:
    """One run: a baseline, three candidates of which one is faster and one worse, and one that failed."""
    store = RecordStore(folder)
    for record in build.run_of(
        {
            "bf16": build.record(
                "bf16",
                steps=(build.step("cast", dtype="bfloat16"),),
                scores=(build.accuracy_after(4, 3),),
                measurement=build.measurement(build.noisy(0.0100, seed=11), build.noisy(0.0101, seed=12)),
                readings=build.readings(disk_bytes=45e6, effective_bits=16.0, peak_memory_bytes=50e6),
            ),
            "int8-dynamic": build.record(
                "int8-dynamic",
                scores=(build.accuracy_after(22, 18),),
                measurement=build.measurement(build.noisy(0.0100, seed=21), build.noisy(0.0040, seed=22)),
                readings=build.readings(disk_bytes=23e6, effective_bits=8.1, peak_memory_bytes=28e6),
            ),
            "half-the-layers": build.record(
                "half-the-layers",
                steps=(build.step("depth-pruning", num_layers=3),),
                scores=(build.accuracy_after(400, 30),),
                measurement=build.measurement(
                    build.noisy(0.0100, seed=31), build.noisy(0.0052, seed=32), energy_w=None, rounds=2, calls=5
                ),
                readings=build.readings(disk_bytes=68e6, num_parameters=17.1e6),
                absent={"energy": "the instrument was unplugged"},
            ),
            "broken": build.failed("broken"),
        },
        scores=(build.accuracy(0.93),),
    ):
        store.append(record)


if __name__ == "__main__":
    write_recorded(Path(sys.argv[1]))
