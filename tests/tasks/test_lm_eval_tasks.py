from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from harness_tasks import SENTENCES, reader, write_task

from compressbench.core.errors import (
    CellError,
    DataError,
    MissingDependencyError,
    NotFiniteError,
    RecipeError,
    UnknownNameError,
    UnsupportedError,
)
from compressbench.core.progress import SilentProgress
from compressbench.core.questions import SampleRow
from compressbench.core.watching import Unwatched
from compressbench.plan import Plan, make_plan
from compressbench.recipe.load import parse_recipe
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks.lm_eval import LmEval
from compressbench.tasks.lm_eval_rows import rows_of, summary
from compressbench.tasks.lm_eval_tasks import Metric, find_definition, require_harness

pytest.importorskip("lm_eval")


def task_file(folder: Path, name: str, text: str) -> str:
    (folder / f"{name}.yaml").write_text(text)
    return str(folder)


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("arc_easy", {"acc,none": True, "acc_norm,none": True}),
        ("mmlu_anatomy", {"acc,none": True}),
        ("gsm8k", {"exact_match,strict-match": True, "exact_match,flexible-extract": True}),
        ("lambada_openai", {"perplexity,none": False, "acc,none": True}),
        ("wikitext", {"word_perplexity,none": False, "byte_perplexity,none": False, "bits_per_byte,none": False}),
        ("cola", {"mcc,none": True}),
    ],
)
def test_a_task_of_the_harness_is_known_without_its_data(name: str, metrics: dict[str, bool]) -> None:
    task = LmEval(task=name)
    task.check()
    found = find_definition(name, None)
    assert {key: metric.is_higher_better for key, metric in found.metrics.items()} == metrics
    assert task.metric == next(iter(metrics))
    assert (task.direction == "higher") == metrics[task.metric]
    assert task.estimated_work() is None


@pytest.mark.slow
def test_every_task_and_group_of_the_harness_is_found_where_the_harness_finds_it() -> None:
    from lm_eval.tasks import TaskManager

    from compressbench.tasks.lm_eval_tasks import _names_in_harness

    tasks, groups = _names_in_harness(require_harness())
    manager = TaskManager()
    index = manager.task_index
    assert {name: path.resolve() for name, path in tasks.items()} == {
        name: index[name].yaml_path.resolve() for name in manager.all_subtasks
    }
    assert sorted(groups) == manager.all_groups
    for name in sorted(tasks)[::500]:
        config = index[name].cfg
        found = find_definition(name, None)
        assert found.config == config
        listed = [each["metric"] for each in config.get("metric_list") or ()]
        assert {metric.name for metric in found.metrics.values()} >= {each for each in listed if "/" not in each}


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("arc_eazy", UnknownNameError, "no task 'arc_eazy'. Did you mean 'arc_easy'?"),
        ("qqqqqqqqqqqqq", UnknownNameError, "lm-eval ls tasks lists them"),
        ("mmlu", UnknownNameError, "'mmlu' is a group of tasks.* one by one, such as mmlu_stem, mmlu_other"),
        ("glue", UnknownNameError, "'glue' is a group of tasks.* one by one, such as cola, mnli, mrpc"),
        ("humaneval", UnsupportedError, "runs code that the model wrote"),
        ("mmmu_val_accounting", UnsupportedError, "images or sounds"),
        ("squadv2", DataError, "known to its code alone. Name one"),
    ],
)
def test_what_can_not_be_asked_is_refused_before_anything_is_loaded(
    name: str, error: type[Exception], said: str
) -> None:
    task = LmEval(task=name)
    assert task.metric == ""
    with pytest.raises(error, match=said):
        task.check()


def test_a_metric_that_the_task_does_not_have_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"no metric 'acc_norm'. It has acc,none, acc_norm,none\."):
        LmEval(task="arc_easy", metric="acc_norm").check()
    LmEval(task="squadv2", metric="exact,none").check()
    with pytest.raises(UnknownNameError):
        LmEval(task="squadv2", metric="exact").check()


def test_without_the_harness_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(
        "compressbench.tasks.lm_eval_tasks.find_spec", lambda name: None if name == "lm_eval" else find(name)
    )
    with pytest.raises(MissingDependencyError, match=r'pip install "compressbench\[lm-eval\]"'):
        LmEval(task="arc_easy").check()


def test_a_folder_of_ones_own_comes_first_and_its_changes_are_seen(tmp_path: Path) -> None:
    folder = write_task(tmp_path, "choice", task="arc_easy")
    assert find_definition("arc_easy", folder).path == tmp_path / "choice.yaml"
    assert LmEval(task="arc_easy", include_path=folder).load().source == "lm-eval:arc_easy"
    assert find_definition("piqa", folder).name == "piqa", "the harness's own are still there"
    write_task(tmp_path, "choice", task="arc_easy", metric_list=[{"metric": "mcc"}])
    assert LmEval(task="arc_easy", include_path=folder).metric == "mcc,none"
    task_file(tmp_path, "mine", "group: my_group\ntask: [arc_easy, {task: piqa, num_fewshot: 1}]\n")
    with pytest.raises(UnknownNameError, match=r"'my_group' is a group of tasks.* arc_easy, piqa\."):
        LmEval(task="my_group", include_path=folder).check()
    with pytest.raises(UnknownNameError, match="Did you mean 'my_choice'"):
        find_definition("my_choise", task_file(tmp_path, "other", "task: my_choice\n"))


def test_a_folder_or_file_that_can_not_be_read_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder of task files"):
        LmEval(task="x", include_path=str(tmp_path / "nowhere")).check()
    with pytest.raises(DataError, match=r"can't be read .*FileNotFoundError"):
        LmEval(task="x", include_path=task_file(tmp_path, "x", "task: x\ninclude: nothing.yaml\n")).check()


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"dataset_kwargs": {"data_files": "nowhere.jsonl"}}, DataError, "'choice' can't be loaded .*FileNotFound"),
        ({"test_split": "dev"}, DataError, "'choice' can't be loaded"),
        ({"doc_to_text": "{{nothing.at.all}}"}, DataError, "'choice' can't be loaded .*undefined"),
    ],
)
def test_a_task_that_can_not_be_loaded_says_why(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    task = LmEval(task="choice", include_path=write_task(tmp_path, "choice", **changes))
    with pytest.raises(error, match=said):
        task.load()


def test_a_library_that_a_task_needs_and_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_task(tmp_path, "choice")
    (tmp_path / "needs.py").write_text("import no_such_library\n")
    with (tmp_path / "choice.yaml").open("a") as file:
        file.write("process_docs: !function needs.anything\n")
    with pytest.raises(MissingDependencyError, match=r"needs a library of its own .*no_such_library"):
        LmEval(task="choice", include_path=folder).load()


CODE = """
def process_results(doc, results):
    best = max(range(len(results)), key=lambda at: results[at][0])
    return {"right": float(best == doc["label"]), "share": best / 4, "parts": 1 + 2j}

def largest(items):
    return max(items)
"""


def own_task(folder: Path) -> str:
    """A task that brings code along, and one of whose metrics aggregates in its own way."""
    (folder / "own.py").write_text(CODE)
    write_task(folder, "choice", metric_list=[{"metric": "right", "aggregation": "mean", "higher_is_better": True}])
    with (folder / "choice.yaml").open("a") as file:
        file.write("process_results: !function own.process_results\n")
    text = (folder / "choice.yaml").read_text()
    listed = "- {metric: share, aggregation: !function own.largest, higher_is_better: false}\n"
    (folder / "choice.yaml").write_text(text.replace("metric_list:\n", "metric_list:\n" + listed))
    return str(folder)


def evaluate(task: LmEval) -> list[SampleRow]:
    handle = reader()
    session = TorchEager().prepare(handle, "cpu")
    return task.evaluate(session, handle, task.load(), SilentProgress(), Unwatched())


def test_a_task_may_score_and_aggregate_by_code_of_its_own(tmp_path: Path) -> None:
    folder = own_task(tmp_path)
    task = LmEval(task="choice", include_path=folder)
    assert (task.metric, task.direction, task.is_binary) == ("share,none", "lower", False)
    rows = evaluate(task)
    assert task.summarize(rows) == max(row.score for row in rows) == 0.5
    assert task.summarize(rows[:1]) == rows[0].score
    right = LmEval(task="choice", include_path=folder, metric="right,none")
    assert not right.is_binary, "the code may have given anything"
    scores = [row.score for row in evaluate(right)]
    assert right.summarize(rows) == pytest.approx(sum(row.score for row in rows) / 5)
    assert scores == [row.also["right,none"] for row in rows]
    with pytest.raises(
        UnsupportedError, match=r"no 'left,none' for this task\. It has parts,none, right,none, share,none"
    ):
        evaluate(LmEval(task="choice", include_path=folder, metric="left,none"))


def test_a_value_that_does_not_follow_from_the_rows_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = LmEval(task="choice", include_path=write_task(tmp_path, "choice"))
    monkeypatch.setattr("compressbench.tasks.lm_eval.summary", lambda *_: 0.123)
    with pytest.raises(CellError, match="acc,none doesn't follow from its samples"):
        evaluate(task)


class Fixed:
    """A task of which only the kind of output is asked."""

    OUTPUT_TYPE = "generate_until"


def samples_with(values: list[Any]) -> list[dict[str, Any]]:
    said = {"doc_hash": "h", "filter": "none", "metrics": ["m"], "filtered_resps": ["x"], "target": "y"}
    return [{**said, "doc_id": at, "m": value} for at, value in enumerate(values)]


@pytest.mark.parametrize("value", [[1, 2, 3], {"a": 1}, 1 + 2j])
def test_a_value_that_is_neither_a_number_nor_a_pair_is_refused(value: Any) -> None:
    with pytest.raises(UnsupportedError, match="'m,none' has values that can't be kept"):
        rows_of(find_definition("arc_easy", None), Metric("m", "none", "mean", True), Fixed(), samples_with([value]))


def test_a_score_that_is_no_number_ends_the_cell() -> None:
    with pytest.raises(NotFiniteError, match="doc_id 1: a sample has no finite m,none"):
        rows_of(
            find_definition("arc_easy", None), Metric("m", "none", "mean", True), Fixed(), samples_with([1.0, math.nan])
        )


@pytest.mark.parametrize(
    ("aggregation", "values", "expected"),
    [
        ("nanmean", [0.5, math.nan, 1.0], 0.75),
        ("median", [3.0, 1.0, 2.0], 2.0),
        ("perplexity", [-1.0, -2.0, -6.0], math.exp(3.0)),
        ("weighted_perplexity", [(-4.0, 2), (-8.0, 4), (0.0, 0)], math.exp(2.0)),
        ("bits_per_byte", [(-4.0, 2), (-8.0, 4)], 2.0 / math.log(2)),
        ("bleu", [(["the cat sat on it"], ["the cat sat on it"])] * 2, 100.0),
    ],
)
def test_rows_aggregate_as_the_harness_does(aggregation: str, values: list[Any], expected: float) -> None:
    logged = samples_with(values)
    definition, metric = find_definition("arc_easy", None), Metric("m", "none", aggregation, True)
    rows = rows_of(definition, metric, Fixed(), logged)
    assert summary(definition, metric, rows) == pytest.approx(expected)
    if aggregation != "nanmean":
        from lm_eval.api.registry import get_aggregation

        assert summary(definition, metric, rows) == pytest.approx(get_aggregation(aggregation)(values), rel=1e-12)


def plan(folder: Path, **options: Any) -> Plan:
    recipe = {
        "name": "harness",
        "model": {"id": "embedded:shakespeare-lm"},
        "tasks": [{"use": "lm-eval", "task": "choice", "include_path": write_task(folder, "choice"), **options}],
        "candidates": [{"name": "half", "compress": [{"use": "cast", "dtype": "bfloat16"}]}],
    }
    return make_plan(parse_recipe(recipe))


def test_a_recipe_with_a_task_of_the_harness_is_planned(tmp_path: Path) -> None:
    found = plan(tmp_path, margin=0.01, stratum="reasoning")
    (task,) = found.tasks
    assert (found.head, task.name) == ("causal-lm", "lm-eval")
    assert task.options["metric"] == "acc,none", "a record says which metric it was"
    assert (task.value.margin, task.value.stratum) == (0.01, "reasoning")
    assert LmEval(**task.options) == task.value
    assert plan(tmp_path, metric="mcc,none").cells[0].key != found.cells[0].key


def test_a_recipe_with_a_task_that_the_harness_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no task 'choise'. Did you mean 'choice'"):
        plan(tmp_path, task="choise")
    with pytest.raises(RecipeError, match="no metric 'f1,none'"):
        plan(tmp_path, metric="f1,none")


def test_the_model_of_a_cell_is_the_one_that_is_asked(tmp_path: Path) -> None:
    """A candidate whose head was changed in memory gets other scores than its baseline."""
    handle = reader()
    task = LmEval(task="last-word", include_path=write_task(tmp_path, "last-word"))
    samples = task.load()
    before = task.evaluate(TorchEager().prepare(handle, "cpu"), handle, samples, SilentProgress(), Unwatched())
    changed = handle.copy()
    with torch.no_grad():
        changed.model.lm_head.weight.zero_()
    after = task.evaluate(TorchEager().prepare(changed, "cpu"), changed, samples, SilentProgress(), Unwatched())
    assert [row.id for row in before] == [row.id for row in after]
    assert task.summarize(after) == pytest.approx(19.0, rel=1e-5), "it knows nothing of 19 words"
    assert len(SENTENCES) == len(after)
    assert task.summarize(before) != pytest.approx(19.0, rel=1e-2)
