"""A recipe is checked as a whole before anything is loaded, and its hashes say what decides a result."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compressbench.core.errors import RecipeError
from compressbench.measure import estimate
from compressbench.plan import Plan, make_plan, plan_file
from compressbench.recipe.load import parse_recipe

LM: dict[str, Any] = {
    "name": "lm",
    "model": {"id": "embedded:shakespeare-lm"},
    "tasks": [{"use": "perplexity", "data": "embedded:tinyshakespeare", "window": 128}],
    "workload": {"scenario": "single-stream", "sequence_length": 32, "rounds": 2},
    "candidates": [
        {"name": "half", "compress": [{"use": "cast", "dtype": "bfloat16"}]},
        {"name": "quarter", "compress": [{"use": "int8-dynamic"}]},
    ],
}


def plan(data: dict[str, Any] | None = None, **changed: Any) -> Plan:
    return make_plan(parse_recipe({**copy.deepcopy(LM if data is None else data), **changed}))


def refused(**changed: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        plan(**changed)
    assert caught.value.exit_code == 2
    return str(caught.value)


def keys(found: Plan) -> list[str]:
    return [cell.key for cell in found.cells]


def one_candidate(*steps: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {"candidates": [{"name": "x", "compress": list(steps), **changed}]}


def shuffled(data: Any, draw: random.Random) -> Any:
    if isinstance(data, dict):
        items = [(key, shuffled(value, draw)) for key, value in data.items()]
        return dict(draw.sample(items, len(items)))
    return [shuffled(each, draw) for each in data] if isinstance(data, list) else data


def test_a_plan_has_the_baseline_first_and_the_candidates_in_their_order() -> None:
    found = plan()
    assert [(cell.name, cell.role) for cell in found.cells] == [
        ("baseline", "baseline"),
        ("half", "candidate"),
        ("quarter", "candidate"),
    ]
    assert found.head == "causal-lm"
    assert [meter.name for meter in found.meters] == ["latency", "energy", "memory", "size"]
    assert found.cells[1].steps[0].as_data() == {"use": "cast", "dtype": "bfloat16"}
    assert len(set(keys(found))) == 3


def test_the_order_of_keys_makes_no_difference() -> None:
    expected = plan()
    for seed in range(5):
        found = make_plan(parse_recipe(shuffled(LM, random.Random(seed))))
        assert (found.recipe_hash, keys(found)) == (expected.recipe_hash, keys(expected))


def test_a_default_that_is_written_out_makes_no_difference() -> None:
    written = copy.deepcopy(LM)
    written["seed"] = 0
    written["workload"]["batch_size"] = 1
    written["tasks"][0]["batch_size"] = 8
    written["candidates"][1] |= {"runtime": {"use": "torch"}}
    written["candidates"][1]["compress"] = ["int8-dynamic"]
    assert keys(plan(written)) == keys(plan())


def test_the_hashes_are_the_same_in_another_process() -> None:
    code = (
        "import sys, json; from compressbench.plan import make_plan; from compressbench.recipe.load import parse_recipe;"
        "plan = make_plan(parse_recipe(json.loads(sys.argv[1])));"
        "print(json.dumps([plan.recipe_hash, *[cell.key for cell in plan.cells]]))"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(LM)],
            capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert json.loads(done.stdout) == [plan().recipe_hash, *keys(plan())]


def test_a_new_name_changes_the_recipe_and_not_the_cell() -> None:
    renamed = copy.deepcopy(LM)
    renamed["candidates"][0]["name"] = "other"
    assert keys(plan(renamed)) == keys(plan())
    assert plan(renamed).recipe_hash != plan().recipe_hash


def test_another_candidate_does_not_change_the_keys_of_the_others() -> None:
    more = copy.deepcopy(LM)
    more["candidates"].insert(0, {"name": "new", "compress": [{"use": "magnitude", "sparsity": 0.3}]})
    assert keys(plan(more))[0] == keys(plan())[0]
    assert keys(plan(more))[2:] == keys(plan())[1:]
    assert plan(more).recipe_hash != plan().recipe_hash


@pytest.mark.parametrize(
    "changed",
    [
        {"model": {"id": "embedded:shakespeare-lm", "trust_remote_code": True}},
        {"tasks": [{"use": "perplexity", "data": "embedded:tinyshakespeare", "window": 64}]},
        {"tasks": [{"use": "perplexity", "data": "embedded:tinyshakespeare", "window": 128, "limit": 5}]},
        {"tasks": [{"use": "perplexity", "data": "embedded:tinyshakespeare", "window": 128, "split": "train"}]},
        {"workload": {"sequence_length": 16, "rounds": 2}},
        {"workload": {"sequence_length": 32, "rounds": 3}},
        {"workload": {"sequence_length": 32, "rounds": 2, "block_s": 0.2}},
        {"workload": {"sequence_length": 32, "rounds": 2, "num_threads": 1}},
        {"workload": {"sequence_length": 32, "rounds": 2, "output_tokens": 4}},
        {"workload": {"scenario": "offline", "sequence_length": 32, "rounds": 2}},
        {"meters": ["latency"]},
        {"device": "cpu"},
        {"seed": 1},
        {"baseline": {"compress": [{"use": "cast"}]}},
    ],
)
def test_what_decides_the_result_of_all_changes_all_keys(changed: dict[str, Any]) -> None:
    before, after = keys(plan()), keys(plan(**changed))
    assert all(a != b for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "step",
    [
        {"use": "magnitude", "sparsity": 0.5},
        {"use": "magnitude", "sparsity": 0.25},
        {"use": "magnitude", "mask_structure": "2:4"},
        {"use": "magnitude", "sparsity": 0.5, "ignore": ["q_proj"]},
        {"use": "magnitude", "sparsity": 0.5, "targets": ["q_proj"]},
        {"use": "depth-pruning", "num_layers": 3},
        {"use": "depth-pruning", "keep": [0, 1, 2]},
        {"use": "cast", "dtype": "float16"},
        {"use": "int8-dynamic", "reduce_range": True},
        {"use": "int8-weight-only"},
        {"use": "logit-distillation", "temperature": 3.0},
    ],
)
def test_an_option_of_a_step_changes_the_key_of_its_cell_alone(step: dict[str, Any]) -> None:
    before = plan(**one_candidate({"use": "cast", "dtype": "bfloat16"}))
    after = plan(**one_candidate(step))
    assert before.baseline.key == after.baseline.key
    assert before.cells[1].key != after.cells[1].key
    twice = plan(**one_candidate(step, step)) if step["use"] == "magnitude" else None
    assert twice is None or twice.cells[1].key != after.cells[1].key


def test_all_errors_come_at_once_with_their_lines_and_the_nearest_right_word(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "name: bad\n"
        "model: {id: embedded:shakespear-lm}\n"
        "tasks:\n"
        "  - {use: perplexty, data: embedded:tinyshakespeare}\n"
        "  - {use: perplexity, data: embedded:tinyshakespear}\n"
        "meters: [latency, enrgy]\n"
        "candidates:\n"
        "  - name: a\n"
        "    compress: [{use: magnitud}]\n"
        "  - name: b\n"
        "    runtime: torhc\n"
        "    compress: [{use: magnitude, sparsety: 0.5}]\n"
        "  - {name: c, compress: [{use: magnitude, sparsity: 1.5}]}\n"
    )
    with pytest.raises(RecipeError) as caught:
        plan_file(str(path))
    said = str(caught.value).replace(str(path), "bad.yaml").splitlines()
    assert said[0] == "bad.yaml: 8 errors"
    expected = [
        ("bad.yaml:2: model.id: ", "Did you mean 'shakespeare-lm'?"),
        ("bad.yaml:4: tasks[0].use: ", "Did you mean 'perplexity'?"),
        ("bad.yaml:5: tasks[1].data: ", "tinyshakespeare"),
        ("bad.yaml:6: meters[1]: ", "Did you mean 'energy'?"),
        ("bad.yaml:9: candidates[0].compress[0].use: ", "Did you mean 'magnitude'?"),
        ("bad.yaml:11: candidates[1].runtime: ", "Did you mean 'torch'?"),
        ("bad.yaml:12: candidates[1].compress[0].sparsety: ", "Did you mean 'sparsity'?"),
        ("bad.yaml:13: candidates[2].compress[0].sparsity: ", "1.5"),
    ]
    for place, words in expected:
        assert [line for line in said[1:] if line.startswith(place) and words in line], place


def test_the_line_of_a_second_task_is_its_own_when_the_first_is_unknown() -> None:
    said = refused(
        tasks=[{"use": "nothing-like-it", "data": "x"}, {"use": "text-classification", "data": "embedded:banking77"}]
    )
    assert "tasks[1]: the task 'text-classification' needs a model with the head ForSequenceClassification" in said


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (
            ["int8-dynamic", {"use": "magnitude", "sparsity": 0.5}],
            "'magnitude' can't follow int8-dynamic (got int8 weights",
        ),
        (["cast", "smoothquant"], "'smoothquant' can't follow cast (got bfloat16 weights where it needs float32)"),
        (["int8-weight-only", "cast"], "'cast' can't follow int8-weight-only"),
        (["int8-dynamic", "int8-dynamic"], "'int8-dynamic' can't follow int8-dynamic"),
        ([{"use": "depth-pruning", "num_layers": 12}], "the model has 4 layers (got num_layers 12)"),
        ([{"use": "depth-pruning", "keep": [0, 4]}], "the model has 4 layers (got keep up to index 4)"),
        ([{"use": "depth-pruning"}], "give either num_layers or keep"),
    ],
)
def test_steps_that_do_not_go_together_are_refused(steps: list[Any], said: str) -> None:
    message = refused(**one_candidate(*steps))
    assert said in message
    assert "candidates[0].compress[" in message


def test_a_model_that_loads_in_half_precision_is_known_to_the_first_step() -> None:
    said = refused(
        model={"id": "embedded:shakespeare-lm", "dtype": "bfloat16"}, **one_candidate({"use": "smoothquant"})
    )
    assert "'smoothquant' can't follow a model in bfloat16" in said


def test_steps_that_go_together_are_planned() -> None:
    found = plan(
        **one_candidate(
            {"use": "depth-pruning", "num_layers": 3}, {"use": "magnitude", "sparsity": 0.5}, {"use": "int8-dynamic"}
        )
    )
    assert [step.name for step in found.cells[1].steps] == ["depth-pruning", "magnitude", "int8-dynamic"]


def test_steps_of_the_baseline_are_checked_as_well() -> None:
    assert "baseline.compress[1]" in refused(baseline={"compress": ["cast", "smoothquant"]})


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the configuration of a classifier, which is all that a plan reads."""
    folder = tmp_path_factory.mktemp("classifier")
    config = {"architectures": ["BertForSequenceClassification"], "num_hidden_layers": 6}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_a_task_needs_a_model_with_its_head(classifier: str) -> None:
    assert (
        "the task 'perplexity' needs a model with the head ForCausalLM or LMHeadModel (got BertForSequenceClassification)"
        in refused(model=classifier)
    )
    task = {"use": "text-classification", "data": "embedded:banking77"}
    assert (
        "the task 'text-classification' needs a model with the head ForSequenceClassification (got LlamaForCausalLM)"
        in refused(tasks=[task])
    )
    assert plan(model=classifier, tasks=[task]).head == "sequence-classification"


def test_one_model_cannot_have_two_heads() -> None:
    tasks = [LM["tasks"][0], {"use": "text-classification", "data": "embedded:banking77"}]
    assert "tasks[1]: one model can't have both heads (got perplexity and text-classification)" in refused(
        model="someone/somewhere", tasks=tasks
    )


def test_a_classifier_cannot_generate(classifier: str) -> None:
    task = {"use": "text-classification", "data": "embedded:banking77"}
    said = refused(model=classifier, tasks=[task], workload={"output_tokens": 4})
    assert "workload.output_tokens: only a language model can generate. Remove output_tokens." in said


def test_data_that_is_not_there_is_told_when_a_recipe_is_planned(tmp_path: Path) -> None:
    said = refused(tasks=[{"use": "perplexity", "data": str(tmp_path / "missing.txt")}])
    assert "tasks[0].data" in said
    assert "missing.txt" in said


@pytest.mark.parametrize(
    ("content", "said"), [("{broken", "config.json can't be read"), (None, "config.json is missing")]
)
def test_a_model_folder_that_is_none_is_told(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert said in refused(model=str(tmp_path))


def test_a_model_on_the_hub_is_planned_without_a_network() -> None:
    found = plan(model="owner/name")
    assert [cell.seconds for cell in found.cells] == [None] * 3
    assert found.seconds is None


def test_the_time_of_a_plan_is_that_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "matmul_rate", lambda: 1e11)
    found = plan()
    assert found.seconds is not None
    cells = [cell.seconds for cell in found.cells if cell.seconds is not None]
    assert found.seconds == pytest.approx(sum(cells) + estimate.start_up_seconds())
    rounds = found.schedule.rounds + 4
    longer = plan(workload={**found.recipe.workload.model_dump(mode="json"), "rounds": rounds})
    assert longer.seconds is not None
    assert longer.seconds - found.seconds == pytest.approx(3 * 4 * 6 * found.schedule.block_s)
    trained = plan(**one_candidate({"use": "logit-distillation", "num_epochs": 1}))
    twice = plan(**one_candidate({"use": "logit-distillation", "num_epochs": 2}))
    assert trained.cells[1].seconds is not None
    assert twice.cells[1].seconds is not None
    training = trained.cells[1].seconds - cells[0]
    assert training > 0
    assert twice.cells[1].seconds - cells[0] == pytest.approx(2 * training)


def test_a_second_use_of_a_task_is_numbered() -> None:
    found = plan(tasks=[LM["tasks"][0], {**LM["tasks"][0], "window": 64}])
    assert [label for label, _ in found.labelled_tasks()] == ["perplexity", "perplexity-2"]


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
}


@pytest.mark.parametrize(
    ("config", "count"),
    [
        # q and o are 256 x 256, k and v 256 x 128, three of 256 x 768, and the head
        (LLAMA, 4 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 768) + 1024 * 256),
        ({**LLAMA, "architectures": ["BertModel"], "num_key_value_heads": None}, 4 * (4 * 256 * 256 + 2 * 256 * 768)),
        ({}, None),
        ({**LLAMA, "hidden_size": None}, None),
        ({**LLAMA, "num_attention_heads": 0}, None),
    ],
)
def test_the_weights_of_a_matrix_product_are_counted_from_the_configuration(
    config: dict[str, Any], count: int | None
) -> None:
    assert estimate.matmul_parameters(config) == count


def test_a_forward_pass_is_two_operations_per_weight_and_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "matmul_rate", lambda: 2e9)
    assert estimate.forward_seconds(1_000_000, 500) == pytest.approx(1.0)
    assert estimate.training_seconds(1_000_000, 500) == pytest.approx(4.0)


def test_a_cell_that_the_recipes_device_cannot_do_says_so_and_the_others_go_on() -> None:
    candidates = [
        {"name": "eight", "compress": ["fp8"]},
        {"name": "half", "compress": [{"use": "cast"}]},
    ]
    found = plan(device="cpu", candidates=candidates)
    assert [cell.unsupported for cell in found.cells] == ["", "'fp8' needs cuda and the recipe says cpu", ""]


def test_a_cell_whose_library_is_missing_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from compressbench.core import registry

    monkeypatch.setattr(registry, "installed_version", lambda name: None if name == "bitsandbytes" else "1.0")
    found = plan(**one_candidate({"use": "bnb-nf4"}))
    assert found.cells[1].unsupported == "'bnb-nf4' needs bitsandbytes: pip install bitsandbytes"


@pytest.mark.parametrize(
    ("calibration", "said"),
    [
        ({"data": "embedded:tinyshakespeare", "split": "test"}, "training would see the evaluation data"),
        ({"data": "no/such/folder/x.jsonl"}, "no such file"),
        ({"num_samples": 0}, "num_samples"),
    ],
)
def test_calibration_is_checked_when_the_recipe_is_planned(calibration: dict[str, Any], said: str) -> None:
    assert said in refused(**one_candidate({"use": "gptq", "calibration": calibration}))


def test_what_an_artefact_is_made_of_decides_which_steps_can_follow(tmp_path: Path) -> None:
    from compressbench.methods.quantization.rtn import Rtn
    from compressbench.models.artefact import save_artefact
    from compressbench.testing import tiny_causal_lm

    save_artefact(Rtn(group_size=32).apply(tiny_causal_lm()), tmp_path, {})
    model = {"id": str(tmp_path)}
    task = {"use": "perplexity", "data": "embedded:tinyshakespeare", "window": 32}
    assert "'rtn' can't follow a model in packed" in refused(model=model, tasks=[task], **one_candidate({"use": "rtn"}))
    assert plan(model=model, tasks=[task], candidates=[]).cells[0].name == "baseline"


@pytest.mark.parametrize(
    ("steps", "runtime", "message"),
    [
        ([{"use": "int8-dynamic"}], "onnxruntime", "the runtime 'onnxruntime' runs bfloat16, float16, float32 weights"),
        (
            [{"use": "cast", "dtype": "bfloat16"}],
            {"use": "endpoint", "url": "http://127.0.0.1:1/v1", "model": "x"},
            "runs its own weights",
        ),
    ],
)
def test_what_an_engine_can_not_load_is_refused_when_it_is_planned(
    steps: list[dict[str, Any]], runtime: Any, message: str
) -> None:
    said = refused(**one_candidate(*steps, runtime=runtime))
    assert message in said
    assert "candidates[0].runtime" in said
