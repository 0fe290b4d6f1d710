"""Ready-made task files: each is right for the Hub and for the local copy, and nothing but their options counts."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
from shared_data import DATA, needs_data

from compressbench.core import registry
from compressbench.core.errors import DataError, RecipeError
from compressbench.data.data_root import reading_below
from compressbench.data.sources import HubSource, locate
from compressbench.plan import Plan, make_plan
from compressbench.recipe.load import parse_recipe
from compressbench.recipe.use import Use
from compressbench.tasks.answer_filters import filtered, is_match
from compressbench.tasks.ready_made import fill_in, ready_names, ready_task

ROWS = {
    "ag-news": 7600,
    "arc-challenge": 1172,
    "arc-easy": 2376,
    "banking77": 3080,
    "boolq": 3270,
    "fashion-mnist": 10_000,
    "gsm8k": 1319,
    "hellaswag": 10_042,
    "lambada": 5153,
    "mmlu": 14_042,
    "piqa": 1838,
    "rte": 277,
    "sst2": 872,
    "stsb": 1379,
    "trec": 500,
    "winogrande": 1267,
}
"""The rows of the split that is evaluated, as the data sets' papers and pages say."""

NUM_LABELS = {"ag-news": 4, "banking77": 77, "fashion-mnist": 10, "rte": 2, "sst2": 2, "trec": 6}
TRAINABLE = [*NUM_LABELS, "gsm8k"]
UNTRAINABLE = ["arc-easy", "boolq", "hellaswag", "lambada", "mmlu", "piqa", "winogrande"]
CHOICES = ["arc-challenge", "arc-easy", "boolq", "hellaswag", "mmlu", "piqa", "winogrande"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_socket: socket.socket, address: object) -> NoReturn:
        raise AssertionError(f"the network was asked: {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """As much of a model as planning looks at, of no architecture in particular."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with one data set, of the form of TREC."""
    folder = tmp_path / "root" / "trec"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text(f'{{"text": "Who {split} ?", "coarse_label": 0}}\n')
    return folder.parent


def plan(model: Path, *tasks: str | dict[str, Any], data_root: Path | None = None) -> Plan:
    data = {"name": "x", "model": {"id": str(model)}, "tasks": list(tasks), "candidates": []}
    return make_plan(parse_recipe(data), data_root=data_root)


def made(name: str, **given: Any) -> Any:
    """The task that a ready-made name stands for."""
    kind, options = fill_in(Use(name=name, options=given))
    return registry.tasks.resolve(kind)(**options)


def test_there_is_a_file_for_every_data_set() -> None:
    assert {*ROWS, "wikitext2"} == set(ready_names())
    assert not set(ready_names()) & set(registry.tasks.table), "a ready-made name would hide a kind of task"


@pytest.mark.parametrize("name", ready_names())
def test_a_file_says_what_it_is_whose_it_is_and_where_it_comes_from(name: str, model: Path) -> None:
    ready = ready_task(name)
    assert ready.about
    assert ready.licence
    assert ready.local["data"]
    task = plan(model, name).tasks[0]
    assert (task.name, task.kind) == (name, ready.use)
    assert isinstance(locate(task.value.data, task.value.split), HubSource)
    assert task.value.margin is None, "which difference matters is for the user to say"
    assert task.value.stratum or name == "fashion-mnist"
    # a branch is followed; a commit would be somebody's word for it
    assert task.value.revision in (None, "refs/convert/parquet")
    task.value.check(training=True)


@needs_data
@pytest.mark.parametrize("name", sorted(ROWS))
def test_the_local_copy_has_all_rows(name: str) -> None:
    with reading_below(DATA):
        task = made(name)
        samples = task.load()
    assert len(samples) == ROWS[name]
    assert samples.source == task.data == f"root:{ready_task(name).local['data']}"
    assert samples.revision.startswith("sha256:")


@needs_data
@pytest.mark.parametrize("name", sorted(NUM_LABELS))
def test_every_label_is_a_class_and_every_class_has_a_name(name: str) -> None:
    with reading_below(DATA):
        samples = made(name).load()
    assert len(samples.label_names) == NUM_LABELS[name]
    found = set(samples.columns["label"])
    assert found <= set(range(NUM_LABELS[name]))
    assert len(found) == NUM_LABELS[name]
    texts = samples.columns.get("text") or samples.columns["image"]
    assert all(texts)


@needs_data
@pytest.mark.parametrize("name", CHOICES)
def test_every_question_has_choices_of_which_one_is_right(name: str) -> None:
    with reading_below(DATA):
        task = made(name)
        rows = task.load().rows
    right = set()
    for row in rows:
        choices = task.choices(row)
        assert task.question(row)
        answer = task.question(row) if task.multiple_input else task.answer(row)
        right.add(choices.index(answer))
    assert right >= set(range(2 if name in ("boolq", "piqa", "winogrande") else 4))


@needs_data
def test_every_passage_of_lambada_ends_with_a_word() -> None:
    with reading_below(DATA):
        task = made("lambada")
        rows = task.load().rows
    assert all(task.question(row) + task.answer(row) == row["text"] for row in rows)
    # six passages have a line end before their last word; as in the harness, that isn't where they are cut
    assert [len(task.answer(row).split()) for row in rows].count(1) == len(rows) - 6


@needs_data
def test_an_answer_written_as_the_examples_of_gsm8k_are_is_right() -> None:
    with reading_below(DATA):
        task = made("gsm8k")
        rows = task.load().rows
        assert task.fewshot_prefix(rows[0]).count("####") == 5
    ignored, ignore_case = task.regexes_to_ignore, task.ignore_case
    for row in rows:
        target = task.answer(row)
        assert is_match(filtered(task.filter, target), target, ignored, ignore_case)
        assert not is_match(filtered(task.filter, "I can't."), target, ignored, ignore_case)


@needs_data
def test_five_examples_of_mmlu_are_from_the_same_subject() -> None:
    with reading_below(DATA):
        task = made("mmlu", num_fewshot=5)
        row = task.load().rows[-1]
        before = task.fewshot_prefix(row)
    assert row["subject"] == "world_religions"
    assert before.startswith("The following are multiple choice questions (with answers) about world religions.\n\n")
    assert before.count("\nAnswer: ") == 5


@needs_data
def test_the_similarities_of_stsb_go_from_none_to_the_same() -> None:
    with reading_below(DATA):
        gold = made("stsb").load().columns["gold"]
    assert (min(gold), max(gold)) == (0, 5)


@needs_data
def test_the_text_of_wikitext_is_the_usual_one() -> None:
    with reading_below(DATA):
        text = made("wikitext2").load().text
    assert len(text.split()) == 241_211
    assert text.count("\n\n") == 4358 - 1


@needs_data
@pytest.mark.parametrize("name", TRAINABLE)
def test_a_local_copy_with_a_training_split_can_be_trained_on(name: str) -> None:
    with reading_below(DATA):
        made(name).check(training=True)


@needs_data
@pytest.mark.parametrize("name", UNTRAINABLE)
def test_a_local_copy_without_a_training_split_says_so(name: str) -> None:
    with reading_below(DATA), pytest.raises(DataError, match="no file of that split"):
        made(name).check(training=True)


@needs_data
def test_a_local_copy_of_one_file_never_trains_on_the_evaluation() -> None:
    with reading_below(DATA), pytest.raises(DataError, match="training would see the evaluation data"):
        made("wikitext2").check(training=True)


def test_a_recipe_overrules_the_options_of_the_file(model: Path) -> None:
    task = plan(model, {"use": "trec", "label_column": "fine_label", "limit": 7, "margin": 0.01}).tasks[0].value
    assert (task.data, task.label_column, task.limit, task.margin) == ("CogComp/trec", "fine_label", 7, 0.01)


def test_other_data_are_not_read_under_the_configuration_and_revision_of_the_files(model: Path, root: Path) -> None:
    for given in (str(root / "trec"), "acme/other"):
        for name in ("rte", "trec"):
            task = fill_in(Use(name=name, options={"data": given}))
            assert task.options["data"] == given
            assert not {"config", "revision"} & task.options.keys()
    assert plan(model, {"use": "trec", "data": str(root / "trec")}, data_root=root).tasks[0].value.load().ids == ("0",)


def test_the_local_copy_is_read_where_there_is_one(root: Path) -> None:
    assert made("trec").data == "CogComp/trec"
    with reading_below(root):
        assert (made("trec").data, made("trec").revision) == ("root:trec", None)
        assert made("sst2").data == "stanfordnlp/sst2"


@pytest.mark.parametrize(
    ("given", "data"),
    [
        ({"revision": "main"}, "CogComp/trec"),
        ({"revision": "0" * 40}, "CogComp/trec"),
        ({"config": "default"}, "CogComp/trec"),
        ({"data": "acme/trec"}, "acme/trec"),
        ({"revision": "sha256:" + "0" * 64}, "root:trec"),
        ({"split": "train"}, "root:trec"),
    ],
)
def test_a_recipe_that_pins_the_hub_means_the_hub(given: dict[str, Any], data: str, root: Path) -> None:
    with reading_below(root):
        assert made("trec", **given).data == data


def test_the_local_options_yield_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "ag_news").mkdir()
    with reading_below(tmp_path):
        assert made("ag-news").train_split == "train_20k"
        assert made("ag-news", train_split="mine").train_split == "mine"
    assert made("ag-news").train_split == "train"


def test_a_split_that_the_local_copy_lacks_is_an_error_and_not_a_reason_to_ask_the_hub(model: Path, root: Path) -> None:
    with pytest.raises(RecipeError, match=r"tasks\[0\]\.data: .*trec: no file of that split.*'validation'"):
        plan(model, {"use": "trec", "split": "validation"}, data_root=root)


def test_a_local_copy_that_is_a_link_out_of_the_root_is_refused(model: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (root / "sst2").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecipeError, match=r"tasks\[0\]: root:sst2: a link leaves the data root"):
        plan(model, "sst2", data_root=root)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("sst3", r"tasks\[0\]: unknown task 'sst3'\. Did you mean 'sst2'\?"),
        ("perplexty", r"unknown task 'perplexty'\. Did you mean 'perplexity'\?"),
        ("xyz", r"unknown task 'xyz'\. Known: .*ag-news.*perplexity.*sst2"),
        ({"use": "sst2", "lmit": 5}, r"tasks\[0\]\.lmit: unknown key\. Did you mean 'limit'\?"),
        ({"use": "sst2", "limit": 0}, r"tasks\[0\]\.limit: must be at least 1"),
        ({"use": "wikitext2", "label_column": "x"}, r"tasks\[0\]\.label_column: unknown key"),
        ({"use": "sst2", "data": "root:x"}, r"root:x: there is no data root"),
    ],
)
def test_a_wrong_name_or_option_is_an_error_with_the_nearest_right_word(
    task: str | dict[str, Any], message: str, model: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        plan(model, task)


def test_no_method_or_meter_has_a_ready_made_name(model: Path) -> None:
    data = {"name": "x", "model": {"id": str(model)}, "tasks": ["trec"], "meters": ["trec"], "candidates": []}
    with pytest.raises(RecipeError, match="unknown meter 'trec'"):
        make_plan(parse_recipe(data))


def test_asking_for_a_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DataError, match=r"no ready-made task 'sst3'\. Did you mean 'sst2'\?"):
        ready_task("sst3")


def keys(found: Plan) -> list[str]:
    return [cell.key for cell in found.cells]


def test_a_key_depends_on_the_kind_and_its_options_and_not_on_what_the_task_is_called(model: Path) -> None:
    kind, options = fill_in(Use(name="sst2"))
    assert keys(plan(model, "sst2")) == keys(plan(model, {"use": kind, **options}))
    assert plan(model, "sst2").tasks[0].as_data() == plan(model, {"use": kind, **options}).tasks[0].as_data()
    assert keys(plan(model, "sst2")) != keys(plan(model, {"use": "sst2", "limit": 5}))
    assert keys(plan(model, "sst2")) != keys(plan(model, "ag-news"))


def test_a_key_does_not_depend_on_where_the_data_root_lies(model: Path, root: Path, tmp_path: Path) -> None:
    before = plan(model, "trec", data_root=root)
    root.rename(tmp_path / "moved")
    after = plan(model, "trec", data_root=tmp_path / "moved")
    assert (before.recipe_hash, keys(before)) == (after.recipe_hash, keys(after))
    assert keys(before) != keys(plan(model, "trec"))


def test_tasks_are_labelled_with_their_ready_made_names(model: Path, root: Path) -> None:
    found = plan(model, "trec", {"use": "trec", "limit": 1}, data_root=root).labelled_tasks()
    assert [label for label, _ in found] == ["trec", "trec-2"]
    assert {task.registered_name for _, task in found} == {"text-classification"}


def test_planning_leaves_no_data_root_behind(model: Path, root: Path) -> None:
    plan(model, "trec", data_root=root)
    with pytest.raises(DataError, match="no data root"):
        locate("root:trec", "test")
    with pytest.raises(DataError, match="the data root is no folder"):
        plan(model, "trec", data_root=root / "nowhere")
