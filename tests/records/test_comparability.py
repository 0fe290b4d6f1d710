"""What must agree before rows may be ranked together: every condition makes another key, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import record_builder as build

from compressbench.records.comparability import comparability_key, conditions_of, differences, question_of
from compressbench.records.gpus import Gpu
from compressbench.records.record import ModelSource, Record
from compressbench.records.store import read_records

RECORDED = Path(__file__).parents[1] / "data"
WORKLOAD = {"scenario": "single-stream", "batch_size": 1, "sequence_length": 32}


def key(record: Record) -> str:
    return comparability_key(conditions_of(record))


def measured_by(boundary: str, kind: str = "estimated") -> dict[str, Any]:
    measurement = build.measurement(kind=kind)
    how = measurement.provenance["energy_j"].model_copy(update={"boundary": boundary})
    return {"measurement": measurement.model_copy(update={"provenance": {"energy_j": how}})}


def model(**changed: Any) -> ModelSource:
    found = build.record().model
    assert found is not None
    return found.model_copy(update=changed)


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"environment": build.environment(cpu_model="Another")}, ["hardware"]),
        ({"environment": build.environment(cpu_flags=("avx2",))}, ["hardware"]),
        ({"environment": build.environment(machine="aarch64")}, ["hardware"]),
        ({"environment": build.environment(num_threads=1)}, ["threads"]),
        ({"environment": build.environment(cpu_quota_cores=1.5)}, ["threads"]),
        ({"environment": build.environment(packages={"torch": "2.12.0"})}, ["runtime"]),
        ({"recipe": build.recipe(baseline={"runtime": {"use": "onnxruntime"}})}, ["runtime"]),
        ({"recipe": build.recipe(baseline={"runtime": {"use": "torch", "compile": True}})}, ["runtime"]),
        ({"model": model(dtype="bfloat16")}, ["baseline_precision"]),
        ({"recipe": build.recipe(baseline={"compress": [{"use": "cast"}]})}, ["baseline_precision"]),
        ({"scores": (build.accuracy(version=2),)}, ["tasks"]),
        ({"scores": (build.accuracy(num_samples=100),)}, ["tasks"]),
        ({"scores": (build.accuracy(data_revision="other"),)}, ["tasks"]),
        ({"scores": (build.accuracy(split="train"),)}, ["tasks"]),
        ({"scores": (build.accuracy(metric="f1"),)}, ["tasks"]),
        ({"scores": (build.accuracy(protocol_id="text-classification/v1:prompt=1"),)}, ["protocol"]),
        ({"workload": {**WORKLOAD, "sequence_length": 64}}, ["workload"]),
        ({"workload": {**WORKLOAD, "scenario": "offline"}}, ["workload"]),
        ({"workload": {**WORKLOAD, "tier": "audit"}}, ["workload"]),
        ({"measurement": build.interleaved(energy_w=None), "schema_version": 2}, ["measurement", "energy"]),
        (measured_by("gpu"), ["energy"]),
        (measured_by("cpu", "measured"), ["energy"]),
        ({"schema_version": 1}, ["schema"]),
    ],
)
def test_each_condition_makes_another_key(changed: dict[str, Any], names: list[str]) -> None:
    one, other = build.record(), build.record(**changed)
    assert list(differences(conditions_of(one), conditions_of(other))) == names
    assert key(one) != key(other)


@pytest.mark.parametrize(
    "changed",
    [
        {"run_id": "20261123T074513.926665Z"},
        {"environment": build.environment(load_average_1min=9.0, kernel="6.2", memory_bytes=1)},
        {"workload": {**WORKLOAD, "rounds": 12, "block_s": 0.5, "num_threads": 2, "isolation": "processes"}},
        {"workload": {**WORKLOAD, "output_tokens": None, "latency_quantile": 0.9}},
        {"steps": (build.step("rtn", bits=4),)},
        {"readings": build.readings(disk_bytes=1.0), "scores": (build.accuracy(0.5),)},
        {"recipe": build.recipe(name="another")},
        {"model": model(id="another", revision="sha256:other")},
    ],
)
def test_what_is_compared_is_no_condition(changed: dict[str, Any]) -> None:
    assert key(build.record()) == key(build.record(**changed))


def test_right_answers_of_another_tokenizer_can_be_compared_and_token_perplexities_not() -> None:
    protocols = [f"v1:window=256,tokenizer=T-{number},bos=none" for number in (1, 2)]
    of_answers = [build.accuracy(protocol_id=each) for each in protocols]
    of_tokens = [build.perplexity(3.0, protocol_id=each) for each in protocols]
    assert question_of(of_answers[0]) == question_of(of_answers[1])
    assert question_of(of_tokens[0]) != question_of(of_tokens[1])
    assert key(build.record(scores=of_answers[:1])) == key(build.record(scores=of_answers[1:]))
    assert key(build.record(scores=of_tokens[:1])) != key(build.record(scores=of_tokens[1:]))


def test_a_gpu_is_named_before_its_processor() -> None:
    gpu = Gpu.model_construct(name="Example GPU", memory_bytes=1, driver=None, uuid_hash=None)
    environment = build.environment().model_copy(update={"gpus": (gpu, gpu)})
    found = conditions_of(build.record(device="cuda:0", environment=environment))["hardware"]
    assert found.startswith("2 x Example GPU; Example CPU")
    unknown = conditions_of(build.record(device="cuda:0"))["hardware"]
    assert unknown.startswith("unknown GPU; ")
    on_cpu = conditions_of(build.record(environment=environment))["hardware"]
    assert "GPU" not in on_cpu


def test_a_server_is_asked_for_its_quantile() -> None:
    asked = {**WORKLOAD, "scenario": "server", "latency_limit_s": 0.1}
    keys = {key(build.record(workload={**asked, "latency_quantile": each})) for each in (0.9, 0.99)}
    assert len(keys) == 2


def test_what_a_failed_record_cannot_say_is_its_baselines() -> None:
    baseline, broken = build.run_of({"broken": build.failed("broken", model=None)})
    assert "tasks" not in conditions_of(broken)
    assert conditions_of(broken, baseline) == conditions_of(baseline)


def test_a_candidate_of_another_runtime_is_compared_with_its_run() -> None:
    asked = build.recipe(baseline={"runtime": {"use": "torch"}, "compress": []})
    other = build.record("int8", recipe=asked, runtime={"use": "onnxruntime"})
    assert key(other) == key(build.record(recipe=asked))


def test_a_candidate_without_energy_or_in_processes_of_its_own_stays_with_its_run() -> None:
    apart = build.interleaved(isolation="processes", energy_w=None)
    for baseline in (build.record(measurement=build.interleaved()), build.record(measurement=None)):
        odd = build.record("odd", measurement=apart)
        expected = conditions_of(baseline) if baseline.measurement else conditions_of(odd)
        assert conditions_of(odd, baseline) == expected
    assert "energy" in differences(conditions_of(build.record()), conditions_of(build.record("odd", measurement=apart)))


def test_differences_are_the_same_from_both_sides() -> None:
    ours, theirs = {"a": "1", "b": "2", "c": "3"}, {"b": "2", "c": "4", "d": "5"}
    assert differences(ours, theirs) == {"a": ("1", ""), "c": ("3", "4"), "d": ("", "5")}
    assert differences(theirs, ours) == {"c": ("4", "3"), "d": ("5", ""), "a": ("", "1")}
    assert differences(ours, ours) == {}


def test_the_key_does_not_depend_on_order() -> None:
    assert comparability_key({"a": "1", "b": "2"}) == comparability_key({"b": "2", "a": "1"})
    assert len(comparability_key({})) == 16


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_recorded_runs_of_every_schema_are_each_of_one_key(version: int) -> None:
    folder = RECORDED / f"records-v{version}"
    records, _ = read_records([folder])
    baselines = {(each.run_id, each.recipe.hash): each for each in records if each.role == "baseline"}
    keys: dict[tuple[str, str], set[str]] = {}
    for each in records:
        run = each.run_id, each.recipe.hash
        keys.setdefault(run, set()).add(comparability_key(conditions_of(each, baselines.get(run))))
    assert keys
    assert all(len(found) == 1 for found in keys.values())


def test_the_same_questions_in_another_order_are_the_same_questions() -> None:
    scores = (build.accuracy(), build.perplexity(20.0))
    assert key(build.record(scores=scores)) == key(build.record(scores=scores[::-1]))
