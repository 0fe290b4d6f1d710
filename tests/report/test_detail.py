"""What a page of one record shows: for every schema, as plain data, with a recipe that is the same one again."""

from __future__ import annotations

import json
import random
import shlex
from pathlib import Path
from typing import Any

import numpy
import pytest
import record_builder as build

from compressbench.core.quantiles import summarize_quantile
from compressbench.plan import plan_file
from compressbench.recipe.load import load_recipe, parse_recipe
from compressbench.recipe.schema import canonical
from compressbench.records.evidence import DisturbanceRule, Evidence
from compressbench.records.measurement import Block
from compressbench.records.record import Record
from compressbench.records.store import RecordStore, read_record
from compressbench.report.detail import detail_of, notes_of, options_text
from compressbench.report.latency_histogram import block_medians, histogram, latencies, median_ns, shared_edges
from compressbench.report.reproduce import install_command, recipe_yaml, reproduce

DATA = Path(__file__).parent.parent / "data"
RESULTS = Path(__file__).parent.parent.parent / "results"
RECORDED = sorted(DATA.glob("records-v*/*.json"))
RUN = "20261127T010930.828612Z"
QUICKSTART = Path(__file__).parents[1] / "data" / "quickstart" / f"quickstart.int8-dynamic.{RUN}.json"
KEYS = {
    "file", "sha256", "schema_version", "recipe", "reproduce", "failure", "facts", "steps", "environment", "audit",
    "latency", "blocks", "scores", "flips",
}  # fmt: skip


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.name.split('.')[1]}")
def test_records_of_every_schema_have_a_detail_of_a_few_kilobytes(path: Path) -> None:
    record = read_record(path)
    found = detail_of(path, record)
    text = json.dumps(found, allow_nan=False)
    assert found.keys() == KEYS
    assert json.loads(text) == json.loads(json.dumps(json.loads(text)))
    assert len(text) < 8_000
    assert found["file"] == path.name
    assert found["sha256"] == json.loads(path.read_text())["sha256"]
    assert str(path.parent) not in text
    if record.measurement is not None:
        own = found["latency"]["arms"][record.role]
        assert own["num_calls"] == sum(len(b.latencies_ns) for b in record.measurement.blocks if b.arm == record.role)
    else:
        assert (found["latency"], found["blocks"]) == ({"reason": "no call was measured"}, None)


def test_the_schemas_of_the_recorded_records_are_all_there_are() -> None:
    assert {read_record(path).schema_version for path in RECORDED} == {1, 2, 3, 4, 5}


def yaml_of(record: Record, folder: Path) -> Path:
    path = folder / str(reproduce(record)["file"])
    path.write_text(recipe_yaml(record))
    return path


@pytest.mark.parametrize("folder", ["quickstart", "shakespeare-quality"])
def test_the_recipe_of_a_record_plans_with_the_hash_that_it_had(folder: str, tmp_path: Path) -> None:
    record = read_record(next((RESULTS / folder).glob("*.bf16.20261127*.json")))
    path = yaml_of(record, tmp_path)
    assert canonical(load_recipe(path).recipe) == dict(record.recipe.text)
    assert plan_file(str(path)).recipe_hash == record.recipe.hash


HOSTILE = [
    "2:4", "1e5", "0x10", "yes", "null", "~", "1_000", "12:30:45", "- x", "a: b", "#no", "'", '"', "\\", "{x}", "%", "@x",
    "!!python/object:os.system", "*x", "&x", "x\u202ey", "ключ", "=1+1", "<script>alert(1)</script>", "1.5", "2026-11-27",
    "a" * 120,
]  # fmt: skip


def test_whatever_stands_in_a_recipe_reads_back_as_it_was(tmp_path: Path) -> None:
    task = {"use": "text-classification", "data": "embedded:banking77", "labels": HOSTILE, **{t: t for t in HOSTILE}}
    text = {
        "name": "odd",
        "model": {"id": "<b>a model</b> # and: more"},
        "tasks": [task],
        "candidates": [{"name": "a", "compress": [{"use": "cast", "x": 1e-300, "y": 10**15, "z": None, "w": []}]}],
    }
    full = canonical(parse_recipe(text).recipe)
    record = build.record(recipe=build.recipe().model_copy(update={"text": full, "name": "odd"}))
    path = yaml_of(record, tmp_path)
    assert path.read_text().isascii(), "nothing in it may turn the direction of writing"
    assert canonical(load_recipe(path).recipe) == full


def test_a_recipe_that_this_version_cannot_read_keeps_every_key() -> None:
    import yaml

    said = build.recipe(invented={"key": [1, {"a": None}]})
    assert yaml.safe_load(recipe_yaml(build.record(recipe=said))) == dict(said.text)


def test_comments_hold_the_revisions_and_nothing_that_ends_a_comment() -> None:
    model = build.record().model
    assert model is not None
    odd = model.model_copy(update={"id": "x\nname: stolen", "revision": "r\u2028candidates: []"})
    text = recipe_yaml(build.record(model=odd))
    import yaml

    assert yaml.safe_load(text)["name"] == "example"
    assert "# model: x name: stolen @ r candidates: []\n" in text


def test_commands_are_pinned_and_cannot_run_anything_else() -> None:
    packages = {"torch": "2.13.0+cpu", "compressbench": "0.1.0", "numpy": "2.4.6", "x": None, "evil": "1; rm -rf ~"}
    assert install_command(packages) == "pip install compressbench==0.1.0 torch==2.13.0 numpy==2.4.6"
    for name in ("a; rm -rf ~", "$(id)", "-rf", "a b", "../../x"):
        said = build.recipe().model_copy(update={"name": name})
        found = reproduce(build.record(recipe=said))
        assert shlex.split(found["run"]) == ["compressbench", "run", "recipe.yaml", "--out", "results/recipe"]


def test_a_reader_is_told_what_is_not_pinned() -> None:
    model = build.record().model
    assert model is not None
    commit = "a" * 40
    hub = model.model_copy(update={"id": "owner/name", "revision": commit})
    asked = {"id": "owner/name", "revision": None}
    found = reproduce(build.record(model=hub, recipe=build.recipe(model=asked)))["pins"]
    assert found[0] == [
        "model",
        f"owner/name @ {commit}",
        "not pinned in the recipe: set model.revision to this commit",
    ]
    assert found[1][2] == "comes with compressbench"
    pinned = reproduce(build.record(model=hub, recipe=build.recipe(model={**asked, "revision": commit})))["pins"]
    assert pinned[0][2] == "pinned in the recipe"


@pytest.mark.parametrize("spread", [0.02, 20.0])
def test_counts_are_those_of_numpy_and_sum_to_the_calls(spread: float) -> None:
    source = random.Random(7)
    slow = [round(1e6 * (1 + spread * source.random() ** 3)) for _ in range(1500)]
    fast = [round(2e5 * source.lognormvariate(1.0, 0.3)) for _ in range(777)]
    edges = shared_edges([sorted(slow), sorted(fast)])
    assert len(edges) <= 41
    assert edges == sorted(set(edges))
    assert edges[0] == min(*slow, *fast)
    for values in (slow, fast):
        found = histogram(sorted(values), edges)
        expected, _ = numpy.histogram(values, edges)
        assert found.counts == expected.tolist()
        assert found.above == sum(value > edges[-1] for value in values)
        assert sum(found.counts) + found.above == len(values)
        assert found.above <= 0.01 * len(values)


def test_one_call_and_equal_calls_have_a_bin() -> None:
    for values in ([5], [7, 7, 7]):
        edges = shared_edges([values])
        assert sum(histogram(values, edges).counts) == len(values)


def test_arms_share_bins_and_quantiles_are_those_of_the_table() -> None:
    measured = build.interleaved(build.noisy(0.010, seed=1), build.noisy(0.002, seed=2), rounds=12, calls=25)
    found = latencies(measured, ["candidate", "baseline"])
    assert list(found["arms"]) == ["candidate", "baseline"]
    for arm, each in found["arms"].items():
        values = [ns for block in measured.blocks if block.arm == arm for ns in block.latencies_ns]
        assert each["counts"] == numpy.histogram(values, found["edges_ns"])[0].tolist()
        assert sum(each["counts"]) + each["above"] == each["num_calls"] == len(values)
        assert each["slowest_ns"] == max(values)
        for name, probability in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            assert each["quantiles_ns"][name] == summarize_quantile(values, probability).value


def test_a_quantile_that_the_table_refuses_is_refused_here_too() -> None:
    few = build.record("int8", measurement=build.measurement(rounds=1, calls=3))
    found = detail_of(Path("x.json"), few)["latency"]["arms"]["candidate"]["quantiles_ns"]
    assert found == {"p50": 10_000_000, "p95": None, "p99": None}


def test_medians_of_blocks_stand_in_the_order_they_ran_with_what_disturbed_them() -> None:
    measured = build.interleaved(0.010, 0.004, rounds=2, calls=4)
    shares: list[float | None] = [0.0] * len(measured.blocks)
    shares[3] = 0.5
    evidence = Evidence(foreign_share=tuple(shares), run_queue_wait_share=(0.0,) * len(shares))
    found = block_medians(measured.model_copy(update={"evidence": evidence, "rule": DisturbanceRule()}))
    assert [found["arms"][at] for at in found["arm"]] == [block.arm for block in measured.blocks]
    assert found["median_ns"] == [numpy.median(block.latencies_ns) for block in measured.blocks]
    assert (found["disturbed"], found["num_disturbed"]) == ({"3": "foreign load"}, 1)
    assert block_medians(measured)["num_disturbed"] is None, "nothing was read that could tell"


def test_a_long_schedule_is_shown_in_whole_rounds() -> None:
    measured = build.interleaved(0.010, 0.004, rounds=200, calls=1)
    found = block_medians(measured)
    assert (found["num_blocks"], found["every"]) == (1200, 4)
    assert len(found["arm"]) == len(found["median_ns"]) == 300
    assert found["arm"].count(0) == found["arm"].count(1) == found["arm"].count(2) == 100


def test_medians_are_whole_nanoseconds() -> None:
    assert [median_ns([3]), median_ns([1, 4]), median_ns([9, 1, 5])] == [3, 2, 5]


def test_what_could_not_be_read_of_a_machine_is_said_and_never_a_zero() -> None:
    odd = build.environment(cpu_model=None, memory_bytes=None, packages={"torch": "2", "hqq": None}, gpus=None)
    groups = dict(detail_of(Path("x.json"), build.record(environment=odd))["environment"])
    assert dict(groups["Machine"])["processor"] == dict(groups["Machine"])["memory"] == "not readable"
    assert dict(groups["Software"]) | {"torch": "2", "not installed": "hqq"} == dict(groups["Software"])
    assert dict(groups["GPU"]) == {"GPUs": "no NVML, so none could be seen"}


def test_options_read_as_words() -> None:
    said: dict[str, Any] = {
        "use": "wanda",
        "sparsity": 0.5,
        "targets": [],
        "keep": None,
        "data": {"n": 1, "x": ["a", "b"]},
    }
    assert options_text(said) == "wanda sparsity=0.5 data={n=1 x=a,b}"


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>\u2028\x1b[31m\u202e"
    said = build.recipe((evil,), model={"id": evil})
    step = build.step(evil, option=evil)
    record = build.record(evil, recipe=said, steps=(step,), environment=build.environment(cpu_model=evil))
    found = json.loads(json.dumps(detail_of(tmp_path / "x.json", record)))
    assert found["steps"][0]["use"] == evil
    assert dict(found["environment"][0][1])["processor"] == evil
    assert found["sha256"] is None, "there is no such file"


def test_a_record_that_was_appended_says_its_checksum(tmp_path: Path) -> None:
    path = RecordStore(tmp_path).append(build.record())
    assert detail_of(path, read_record(path))["sha256"] == path.read_text()[11:75]


def test_a_block_is_one_call_at_least() -> None:
    single = Block(round=0, position=0, arm="baseline", latencies_ns=(5,))
    found = latencies(build.measured_by((single,)), ["baseline", "candidate"])
    assert list(found["arms"]) == ["baseline"]


def test_what_a_step_computed_is_shown_with_four_digits() -> None:
    assert (
        notes_of({"last_loss": 0.3273310258984566, "num_steps": 125, "engine": None})
        == "last_loss=0.3273 num_steps=125"
    )
