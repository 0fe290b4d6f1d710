"""Energy without a label is refused, wherever in a record it stands; records of older schemas are read as ever."""

from __future__ import annotations

from typing import Any

import pytest
import record_builder as build
from pydantic import ValidationError

from compressbench.core.protocols import Provenance, Window
from compressbench.core.reading import Reading
from compressbench.records.measurement import Block, Idle, Measurement, PhaseEnergy
from compressbench.records.record import Record

HOW = {"kind": "measured", "source": "a meter", "boundary": "device", "relative_uncertainty": 0.05, "tick_s": 0.02}
IDLE = {"when": "before", "seconds": 1.0, "raw": {"energy_j": 5.0}, "uncertainties": {"energy_j": 0.1}}
PHASES = {
    "prefill_s": 1.0, "decode_s": 2.0, "num_ticks": 20, "prefill_w": 300.0, "decode_w": 200.0,
    "prefill_uncertainty_w": 3.0, "decode_uncertainty_w": 2.0,
}  # fmt: skip
READING = {
    "name": "compress_energy_j", "value": 5.0, "kind": "measured", "source": "a meter", "boundary": "device",
    "window_s": 1.0, "tick_s": 0.02, "uncertainty_reason": "not stated",
}  # fmt: skip
BAD_NAMES = [
    "energy",
    "energy_kwh",
    "energy_wh",
    "energy_mj",
    "power",
    "power_mw",
    "total_kwh",
    "Energy_J",
    "gpu_watts",
]


def without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def refused(make: Any, saying: str, **fields: Any) -> None:
    with pytest.raises(ValidationError, match=saying):
        make(**fields)


def measured(how: dict[str, Any] | None, *, energy_w: float | None = 4.0, **changed: Any) -> Measurement:
    """With the provenance `how` of "energy_j", or none."""
    provenance = {} if how is None else {"energy_j": Provenance(**how)}
    return build.interleaved(energy_w=energy_w, rounds=1, provenance=provenance, **changed)


def test_energy_with_its_label_is_taken() -> None:
    found = measured(HOW, idle=(Idle(**IDLE),), phases={"baseline": PhaseEnergy(**PHASES)})
    record = build.record(measurement=found, readings=(Reading(**READING),))
    assert record.schema_version == 5
    assert Record.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(
    ("how", "saying"),
    [
        (None, "provenance with a boundary"),
        (without(HOW, "boundary"), "provenance with a boundary"),
        (without(HOW, "tick_s"), "needs the tick of its meter"),
        (without(HOW, "relative_uncertainty"), "relative_uncertainty, or an uncertainty_reason"),
    ],
)
@pytest.mark.parametrize("place", ["block", "idle", "phases"])
def test_joules_and_watts_of_every_place_say_how_they_were_read(
    place: str, how: dict[str, Any] | None, saying: str
) -> None:
    places: dict[str, dict[str, Any]] = {
        "block": {},
        "idle": {"energy_w": None, "idle": (Idle(**IDLE),)},
        "phases": {"energy_w": None, "phases": {"baseline": PhaseEnergy(**PHASES)}},
    }
    assert measured(HOW, **places[place])
    with pytest.raises(ValidationError, match=saying):
        measured(how, **places[place])


def test_idle_joules_have_their_uncertainty() -> None:
    bare = Idle(**{**IDLE, "uncertainties": {}})
    refused(measured, "its uncertainty", how=HOW, idle=(bare,))


def test_what_is_modelled_has_no_tick() -> None:
    assert measured({**without(HOW, "tick_s"), "kind": "modelled"})
    assert build.record(
        measurement=measured(HOW), readings=(Reading(**{**without(READING, "tick_s"), "kind": "modelled"}),)
    )


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_speaks_of_energy_says_joules_or_watts(name: str) -> None:
    block = {"round": 0, "position": 0, "arm": "baseline", "latencies_ns": (5,), "seconds": 1.0}
    both: dict[str, Any] = {"raw": {name: 1.0}, "uncertainties": {name: 0.1}}
    refused(Block, "speaks of energy", **block, **both)
    refused(Idle, "speaks of energy", **{**IDLE, **both})
    refused(Window, "speaks of energy", seconds=1.0, values={name: 1.0}, uncertainties={name: 0.1})
    reading = Reading(**{**READING, "name": name})
    refused(build.record, "speaks of energy", measurement=measured(HOW), readings=(reading,))


@pytest.mark.parametrize("missing", ["boundary", "window_s", "tick_s"])
@pytest.mark.parametrize("name", ["compress_energy_j", "idle_power_w", "energy_j_per_inference"])
def test_a_reading_of_energy_says_where_how_long_and_in_what_ticks(name: str, missing: str) -> None:
    reading = Reading(**{**without(READING, missing), "name": name})
    refused(build.record, "needs its boundary, window_s", measurement=measured(HOW), readings=(reading,))


@pytest.mark.parametrize(
    ("make", "changed"),
    [
        (Provenance, {**HOW, "source": ""}),
        (Provenance, {**HOW, "tick_s": 0.0}),
        (Provenance, {**HOW, "tick_s": -1.0}),
        (Provenance, {**HOW, "relative_uncertainty": -0.05}),
        (Window, {"seconds": 1.0, "values": {"energy_j": 1.0}, "uncertainties": {"energy_j": -0.1}}),
        (Idle, {**IDLE, "uncertainties": {"energy_j": -0.1}}),
        (
            Block,
            {"round": 0, "position": 0, "arm": "baseline", "latencies_ns": (5,), "uncertainties": {"energy_j": -0.1}},
        ),
        (PhaseEnergy, {**PHASES, "decode_uncertainty_w": -2.0}),
        (PhaseEnergy, without(PHASES, "decode_uncertainty_w")),
        (PhaseEnergy, without(PHASES, "prefill_w")),
        (PhaseEnergy, {**PHASES, "reason": "they can't be told apart"}),
        (PhaseEnergy, {"prefill_s": 1.0, "decode_s": 2.0, "num_ticks": 0}),
        (Reading, {**READING, "tick_s": 0.0}),
    ],
)
def test_a_label_that_can_not_be_is_refused(make: Any, changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make(**changed)


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_bare_measurement_of_protocol_1_is_of_old_schemas_only(version: int) -> None:
    old = build.measurement()
    assert old.protocol == 1
    assert build.record(measurement=old, schema_version=2).measurement == old
    refused(build.record, "measurements of protocol 2", measurement=old, schema_version=version)
