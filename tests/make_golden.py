"""Writes tests/data/golden anew: small folders of records with a documented answer of every verb (README.md there)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import record_builder as build
from make_recorded import WIDER, an_audit

from compressbench.records.measurement import Measurement
from compressbench.records.record import Record
from compressbench.records.score import Score, Stratum
from compressbench.records.store import RecordStore

SECONDS = 0.010
NUM_SAMPLES = 3080


def measured(seconds: float, seed: int = 2, *, energy_w: float | None = 4.0, rounds: int = 4) -> Measurement:
    """A candidate's calls beside those of a baseline that takes 10 ms, all within 2 % of their middle."""
    return build.interleaved(
        build.noisy(SECONDS, seed=7),
        build.noisy(seconds, seed=seed),
        build.noisy(SECONDS, seed=3),
        rounds=rounds,
        calls=12,
        energy_w=energy_w,
    )


def baseline(**changed: Any) -> dict[str, Any]:
    return {"measurement": measured(SECONDS), "audit": None, "readings": build.readings(), **changed}


def candidate(name: str, seconds: float, lost: int, won: int, **changed: Any) -> Record:
    """`lost` and `won` are how many of 3080 answers became wrong and right; half the size unless said otherwise."""
    readings = build.readings(
        disk_bytes=45e6, peak_memory_bytes=60e6, weights_memory_bytes=45e6, effective_bits=16.0, compress_seconds=1.5
    )
    fields: dict[str, Any] = {
        "scores": (build.accuracy_after(lost, won),),
        "measurement": measured(seconds),
        "audit": an_audit(),
        "readings": readings,
    }
    return build.record(name, **{**fields, **changed})


def tie() -> list[Record]:
    """Two candidates that take the same time, and of which one answers one sample more than the other."""
    return build.run_of(
        {
            "one": candidate("one", 0.006, 10, 10, measurement=measured(0.006, seed=4)),
            "other": candidate("other", 0.006, 10, 11, measurement=measured(0.006, seed=5)),
        },
        **baseline(),
    )


def clear_winner() -> list[Record]:
    """One candidate is the fastest and loses nothing; the other is slower, and as good."""
    return build.run_of(
        {"fast": candidate("fast", 0.004, 9, 10), "middling": candidate("middling", 0.008, 10, 9)}, **baseline()
    )


def impossible() -> list[Record]:
    """The nearest to 1 ms is `near`, at 4 ms."""
    return build.run_of(
        {"near": candidate("near", 0.004, 10, 10), "far": candidate("far", 0.008, 10, 10)}, **baseline()
    )


def keep_the_baseline() -> list[Record]:
    """The only candidate is slower and answers 200 samples less."""
    return build.run_of({"worse": candidate("worse", 0.014, 210, 10)}, **baseline())


def false_claim() -> list[Record]:
    """`in-name-only` would be the best, but stores 8 bits where 4 are claimed."""
    audit = an_audit(WIDER, bits=8.0)
    return build.run_of(
        {
            "in-name-only": candidate("in-name-only", 0.003, 9, 10, audit=audit),
            "honest": candidate("honest", 0.006, 10, 10),
        },
        **baseline(),
    )


def missing_energy() -> list[Record]:
    """The machine has no meter that works."""
    absent = {"energy": "no counter can be read"}
    return build.run_of(
        {"int8": candidate("int8", 0.006, 10, 10, measurement=measured(0.006, energy_w=None), absent=absent)},
        **baseline(measurement=measured(SECONDS, energy_w=None), absent=absent),
    )


def degraded_stratum() -> list[Record]:
    """As good on the whole, but 60 of 500 samples of `reasoning` became wrong, and 60 of `knowledge` right."""
    strata = {
        "knowledge": Stratum(num_samples=2580, value=0.9532, paired=build.counts(0, 60, 2580)),
        "reasoning": Stratum(num_samples=500, value=0.81, paired=build.counts(60, 0, 500)),
    }
    whole = build.accuracy_after(60, 60).model_copy(update={"strata": strata})
    asked = {"knowledge": Stratum(num_samples=2580, value=0.93), "reasoning": Stratum(num_samples=500, value=0.93)}
    return build.run_of(
        {"int8": candidate("int8", 0.006, 0, 0, scores=(whole,))}, **baseline(scores=(build.accuracy(strata=asked),))
    )


def mixed_keys() -> list[Record]:
    """One recipe on two machines, and with another prompt: three groups, of which none may be ranked with another."""
    desk, rack = build.environment(), build.environment(cpu_model="Another CPU")
    return [
        *_elsewhere("desk", "20261122T080000.000000Z", 0.006, environment=desk),
        *_elsewhere("rack", "20261122T090000.000000Z", 0.003, environment=rack),
        *_elsewhere("prompt", "20261122T100000.000000Z", 0.004, environment=desk, protocol="prompt=another"),
    ]


def _elsewhere(name: str, run_id: str, seconds: float, protocol: str = "", **changed: Any) -> list[Record]:
    def asked(score: Score) -> Score:
        return score.model_copy(update={"protocol_id": f"{score.protocol_id},{protocol}"}) if protocol else score

    said = {**changed, "run_id": run_id, "recipe": build.recipe(("int8",), name=name)}
    compressed = candidate("int8", seconds, 10, 10)
    return [
        build.record(**baseline(scores=(asked(build.accuracy()),), **said)),
        compressed.model_copy(update={**said, "scores": tuple(map(asked, compressed.scores))}),
    ]


FOLDERS = {
    "tie": tie,
    "clear-winner": clear_winner,
    "impossible": impossible,
    "keep-the-baseline": keep_the_baseline,
    "false-claim": false_claim,
    "missing-energy": missing_energy,
    "degraded-stratum": degraded_stratum,
    "mixed-keys": mixed_keys,
}


def write_golden(root: Path) -> None:
    for name, records in FOLDERS.items():
        store = RecordStore(root / name)
        for record in records():
            store.append(record)


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
