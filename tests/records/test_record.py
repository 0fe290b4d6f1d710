"""What a record can't say: contradictions, zeros in the place of failures, numbers that are none."""

from __future__ import annotations

from typing import Any

import pytest
import record_builder as build
from pydantic import ValidationError

from compressbench.records.measurement import Block
from compressbench.records.record import Failure, Record
from compressbench.records.score import Paired


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "failed"},
        {"status": "unsupported"},
        {"failure": Failure(type="CellError", message="broken")},
        {"status": "skipped"},
        {"schema_version": 6},
        {"recipe": build.recipe().model_copy(update={"text": {"tasks": []}})},
        {"workload": {"batch_size": 1}},
    ],
)
def test_a_record_that_contradicts_itself_or_lacks_what_was_asked_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        build.record(**changed)


@pytest.mark.parametrize("latencies", [(), (0,), (-5,), (1.5,)])
def test_a_block_has_at_least_one_call_and_none_of_zero_time(latencies: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError):
        Block(round=0, position=0, arm="baseline", latencies_ns=latencies)


@pytest.mark.parametrize(
    "changed", [{"raw": {"energy_j": float("nan")}}, {"position": 6}, {"round": -1}, {"arm": "teacher"}]
)
def test_a_block_that_makes_no_sense_is_refused(changed: dict[str, Any]) -> None:
    good = {"round": 0, "position": 0, "arm": "baseline", "latencies_ns": (5,)}
    with pytest.raises(ValidationError):
        Block(**{**good, **changed})


def test_nothing_can_be_paired_over_no_samples() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        Paired(num_samples=0, num_harmful=0, num_beneficial=0, mean_difference=0, sd_difference=0)


def test_a_position_is_where_the_recipe_has_the_candidate() -> None:
    said = build.recipe(("b", "a"))
    positions = [build.record(name, recipe=said).position for name in ("baseline", "b", "a")]
    assert positions == [0, 1, 2]


def test_a_record_comes_back_from_its_own_json() -> None:
    for record in (build.record(), build.record("int8"), build.failed("int8")):
        assert Record.model_validate_json(record.model_dump_json()) == record
