"""Records of a made-up family: accuracy that rises with size and levels out, and rivals of other models."""

from __future__ import annotations

from typing import Any

import record_builder as build

from compressbench.records.record import ModelSource, Record

# name: parts of the size, answers that fell and rose of 3080
FAMILY = {
    "two": (0.1, 400, 10),
    "three": (0.2, 150, 10),
    "four": (0.3, 14, 8),
    "eight": (0.5, 12, 10),
    "slow": (0.6, 90, 5),
}


def family(**changed: Any) -> list[Record]:
    """`four` is where returns stop: what `eight` and the baseline have over it is less than can be shown."""
    said = build.recipe(tuple(FAMILY), name="family")
    baseline = build.record(recipe=said, **changed)
    return [
        baseline,
        *(
            build.record(
                name,
                recipe=said,
                readings=build.readings(disk_bytes=90e6 * size, effective_bits=32 * size),
                scores=(build.accuracy_after(fell, rose),),
                **changed,
            )
            for name, (size, fell, rose) in FAMILY.items()
        ),
    ]


def rival(name: str, model: str, accuracy: float, size: float, parameters: float, **changed: Any) -> list[Record]:
    """A baseline of another model, alone in its recipe."""
    text = {"id": model}
    return [
        build.record(
            recipe=build.recipe((), name=name, model=text),
            run_id="20261122T084513.926665Z",
            model=ModelSource(
                id=model, revision="sha256:def", architecture="BertForSequenceClassification", dtype="float32"
            ),
            scores=(build.accuracy(accuracy),),
            readings=build.readings(disk_bytes=90e6 * size, num_parameters=parameters),
            **changed,
        )
    ]
