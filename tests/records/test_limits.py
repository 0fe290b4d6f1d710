from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from compressbench.core.roofline import Demand
from compressbench.records.deployment import Deployment, work_of
from compressbench.records.limits import Limits, Work

LIMITS: dict[str, Any] = {
    "device": "cpu", "copy_bytes_per_s": 30e9, "copy_bytes": 2**28, "matmul_flops_per_s": {"float32": 100e9},
    "num_threads": 2, "seconds": 1.5, "copy_median_bytes_per_s": 25e9, "matmul_median_flops_per_s": {"float32": 90e9},
    "matmul_sizes": {"float32": 512}, "cache_bytes": 2**25, "absent": {"float16": "too slow"}, "notes": ("one",),
}  # fmt: skip
WORK: dict[str, Any] = {
    "flops": 3e9, "flops_by_dtype": {"int8": 2e9, "float32": 1e9}, "weight_bytes": 1000, "compute_dtype": "int8",
    "decode_flops_by_dtype": {"int8": 20.0}, "decode_weight_bytes": 900, "kv_bytes": 50,
}  # fmt: skip


def test_limits_and_work_come_back_from_json_as_they_were() -> None:
    for given in (Limits(**LIMITS), Work(**WORK)):
        assert type(given).model_validate_json(given.model_dump_json()) == given


def test_limits_can_be_written_with_only_what_the_first_ones_had() -> None:
    names = ("device", "copy_bytes_per_s", "copy_bytes", "matmul_flops_per_s", "num_threads", "seconds")
    found = Limits(**{name: LIMITS[name] for name in names})
    assert found.ceilings == (30e9, {"float32": 100e9}, None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"copy_bytes_per_s": 0.0}, "copy_bytes_per_s"),
        ({"matmul_flops_per_s": {"float32": 0.0}}, "float32"),
        ({"matmul_flops_per_s": {"float32": float("nan")}}, "float32"),
        ({"absent": {"float32": "too slow"}}, "contradict"),
        ({"copy_median_bytes_per_s": 31e9}, "above the best"),
        ({"matmul_median_flops_per_s": {"float32": 101e9}}, "above the best"),
        ({"matmul_median_flops_per_s": {"int8": 1.0}}, "above the best"),
    ],
)
def test_limits_that_contradict_themselves_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Limits(**{**LIMITS, **change})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"flops": None, "flops_by_dtype": {}}, "needs a reason"),
        ({"weight_bytes": None}, "needs a reason"),
        ({"flops": 4e9}, "not the sum"),
        ({"kv_bytes": -1}, "kv_bytes"),
    ],
)
def test_work_that_contradicts_itself_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Work(**{**WORK, **change})


def test_a_pass_needs_its_weights_and_a_decode_step_its_cache_besides() -> None:
    work = Work(**WORK)
    assert work.forward == (1000.0, {"int8": 2e9, "float32": 1e9})
    assert work.decode == (950.0, {"int8": 20.0})


@pytest.mark.parametrize("name", ["decode_weight_bytes", "kv_bytes"])
def test_what_is_not_known_of_a_step_leaves_no_demand(name: str) -> None:
    assert Work(**{**WORK, name: None}).decode is None


def test_what_is_not_known_of_a_pass_leaves_no_demand() -> None:
    assert Work(reason="the operator x").forward is None
    assert Work(reason="the operator x").decode is None
    assert Work(**{**WORK, "weight_bytes": None, "reason": "packed"}).forward is None


def test_an_engine_asks_for_its_own_bytes_and_multiplies_in_its_own_type() -> None:
    counted = Work(
        flops=3e9, flops_by_dtype={"float32": 3e9}, weight_bytes=1000, compute_dtype="float32",
        decode_flops_by_dtype={"float32": 20.0}, decode_weight_bytes=900, kv_bytes=80,
    )  # fmt: skip
    engine = Deployment(engine="an engine", precision="int8, float32", weight_bytes=250, cache_item_bytes=1)
    found = work_of(counted, engine)
    assert found.forward == Demand(250.0, {"int8": 3e9})
    assert found.decode == Demand(250.0 + 20.0, {"int8": 20.0})


@pytest.mark.parametrize("engine", [None, Deployment(engine="torch inductor", precision="bfloat16")])
def test_what_runs_the_models_own_modules_asks_for_what_was_counted(engine: Deployment | None) -> None:
    assert work_of(Work(**WORK), engine) == Work(**WORK)


def test_work_that_was_not_counted_stays_unknown_whatever_the_engine_reads() -> None:
    engine = Deployment(engine="an engine", precision="int8", weight_bytes=250, cache_item_bytes=1)
    found = work_of(Work(reason="not counted: flex_attention"), engine)
    assert (found.forward, found.decode) == (None, None)
