"""Is a verdict on a model of about 5 ms a call there within two minutes, with its interval and its control?

    python benchmarks/verdict_in_two_minutes.py [--tokens 12]

Runs the tier `standard` on the embedded classifier with short inputs: the baseline against a copy of itself, and against
bfloat16. Seconds are those of warm-up, blocks and idle readings, as the records have them; repeated rounds are in them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import yaml

from compressbench.core.statistics import median
from compressbench.records.measurement import Measurement
from compressbench.records.record import Record
from compressbench.report.rows import rows_of
from compressbench.run import run_recipe


def recipe(tokens: int) -> dict[str, object]:
    return {
        "name": "verdict",
        "model": "embedded:minilm-banking77",
        "tasks": [{"use": "text-classification", "data": "embedded:banking77", "limit": 64}],
        "workload": {"tier": "standard", "sequence_length": tokens},
        "meters": ["latency", "energy"],
        "device": "cpu",
        "noise_floor": False,
        "candidates": [{"name": "bf16", "compress": [{"use": "cast", "dtype": "bfloat16"}]}],
    }


def seconds(measurement: Measurement) -> dict[str, float]:
    return {
        "warm-up": sum(warm_up.seconds for warm_up in measurement.warm_up.values()),
        "blocks": sum(block.seconds or 0.0 for block in measurement.blocks),
        "idle": sum(idle.seconds for idle in measurement.idle),
    }


def line(record: Record, verdict: str) -> str:
    measured = record.measurement
    if measured is None:
        return f"| {record.candidate} | not measured |"
    own = [block for block in measured.blocks if block.arm == "baseline"]
    call_ms = median([latency for block in own for latency in block.latencies_ns]) / 1e6
    rounds = len(measured.blocks) // 6
    parts = seconds(measured)
    took = f"{sum(parts.values()):.0f} s: " + ", ".join(f"{name} {part:.0f}" for name, part in parts.items())
    return f"| {record.candidate} | {call_ms:.2f} ms | {rounds} | {took} | {verdict} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=12)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe(parser.parse_args().tokens)))
        records = list(run_recipe(path, Path(folder) / "out"))
    row = rows_of(records)[1]
    found = row.against_baseline["latency_p50_s"]
    noise = f"control {100 * (found.noise or 0):.1f} %"
    told = f"{found.verdict} {found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}], {noise} {found.reason}"
    print("| against the baseline | its call | rounds | measuring took | verdict |\n|---|---|---|---|---|")
    print(line(records[0], "its copy"))
    print(line(records[1], told.strip()))
    for reason in row.not_rankable:
        print(f"not ranked: {reason}")


if __name__ == "__main__":
    main()
