"""The prompts of ready-made tasks are those of lm-evaluation-harness, by its own files, for rows as the Hub has them."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from compressbench.core import registry
from compressbench.recipe.use import Use
from compressbench.tasks.ready_made import fill_in

pytest.importorskip("lm_eval", reason="lm-evaluation-harness isn't installed")

from lm_eval.utils import apply_template

Row = dict[str, Any]

HELLASWAG: Row = {
    "ind": 24, "activity_label": "Cutting the grass", "source_id": "wikihow~1", "split": "val", "split_type": "indomain",
    "ctx_a": "  [header] How to cut it [title] Get a mower. [step] Any  one will do.", "ctx_b": "then YOU",
    "ctx": "  [header] How to cut it [title] Get a mower. [step] Any  one will do. then YOU",
    "endings": [" push it. [substeps] Go on.", "sleep", "eat [title] the grass", "it's \"fine\""], "label": "3",
}  # fmt: skip
PIQA: Row = {"goal": "How to boil an egg?", "sol1": "In water.", "sol2": "In the fridge, 'cold'.", "label": 1}
ARC: Row = {
    "id": "x", "question": "What falls?", "answerKey": "2",
    "choices": {"text": ["A {{stone}}", "The sky", "It's \\ none"], "label": ["1", "2", "3"]},
}  # fmt: skip
MMLU: Row = {"question": " What is 2 + 2? ", "subject": "high_school_mathematics", "choices": list("3456"), "answer": 1}
LAMBADA: Row = {"text": 'He gave it to  her,\nand she said "thank you'}
GSM8K: Row = {"question": "1 + 1?", "answer": "It is <<1+1=2>>2\n#### 2"}
WINOGRANDE: Row = {"sentence": "Ann thanked Bo because _ had helped _ a lot.", "option1": "Ann", "option2": "Bo"}


class _Loader(yaml.SafeLoader):
    """Reads the harness's files; a function is the name of it."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))


def harness(file: str) -> Any:
    """The module or the task file of that name in the harness."""
    import lm_eval

    path = Path(str(lm_eval.__file__)).parent / "tasks" / file
    if path.suffix != ".py":
        return yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506 -- a safe loader
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(name: str) -> Any:
    kind, options = fill_in(Use(name=name))
    return registry.tasks.resolve(kind)(**options)


@pytest.mark.parametrize(
    ("name", "file", "row"),
    [
        ("piqa", "piqa/piqa.yaml", PIQA),
        ("arc-easy", "arc/arc_easy.yaml", ARC),
        ("arc-challenge", "arc/arc_easy.yaml", ARC),
        ("mmlu", "mmlu/default/_default_template_yaml", MMLU),
    ],
)
def test_a_choice_is_asked_as_the_harness_asks_it(name: str, file: str, row: Row) -> None:
    task, theirs = made(name), harness(file)
    choices = theirs["doc_to_choice"]
    choices = ast.literal_eval(apply_template(choices, row)) if isinstance(choices, str) else choices
    target = theirs["doc_to_target"]
    gold = row[target] if target in row else int(apply_template(target, row))
    assert task.question(row) == apply_template(theirs["doc_to_text"], row)
    assert task.choices(row) == choices
    assert task.answer(row) == choices[gold]
    assert task.split == (theirs.get("test_split") or theirs["validation_split"])
    assert task.data == theirs["dataset_path"]


def test_hellaswag_is_cleaned_as_the_harness_cleans_it() -> None:
    class Rows(list[Row]):
        def map(self, function: Any) -> list[Row]:
            return [function(row) for row in self]

    [theirs] = harness("hellaswag/utils.py").process_docs(Rows([HELLASWAG]))
    task = made("hellaswag")
    assert task.question(HELLASWAG) == theirs["query"]
    assert "[" not in theirs["query"]
    assert task.choices(HELLASWAG) == theirs["choices"]
    assert task.answer(HELLASWAG) == theirs["choices"][theirs["gold"]]


def test_a_copy_of_hellaswag_that_was_cleaned_before_is_asked_by_the_same_template() -> None:
    row = {"activity_label": "Roofing", "ctx": "A man sits. he", "endings": ["a", "b", "c", "d"], "label": 2}
    task = made("hellaswag")
    assert (task.question(row), task.answer(row)) == ("Roofing: A man sits. he", "c")


@pytest.mark.parametrize("answer", ["1", "2"])
def test_winogrande_is_scored_by_what_follows_two_beginnings(answer: str) -> None:
    theirs, task = harness("winogrande/preprocess_winogrande.py"), made("winogrande")
    row = {**WINOGRANDE, "answer": answer}
    assert task.choices(row) == theirs.doc_to_choice(row)
    assert task.question(row) == theirs.doc_to_choice(row)[theirs.doc_to_text(row)]
    assert task.answer(row) == theirs.doc_to_target(row)
    assert (task.data, task.config) == ("allenai/winogrande", harness("winogrande/default.yaml")["dataset_name"])


def test_the_last_word_of_lambada_is_cut_where_the_harness_cuts_it() -> None:
    theirs, task = harness("lambada/lambada_openai.yaml"), made("lambada")
    assert task.question(LAMBADA) == apply_template(theirs["doc_to_text"], LAMBADA)
    assert task.answer(LAMBADA) == apply_template(theirs["doc_to_target"], LAMBADA)
    assert (task.data, task.config, task.split) == tuple(
        theirs[key] for key in ("dataset_path", "dataset_name", "test_split")
    )


@pytest.mark.parametrize("subject", ["abstract_algebra", "high_school_us_history", "us_foreign_policy"])
def test_mmlu_is_introduced_as_in_the_harness(subject: str) -> None:
    theirs = harness(f"mmlu/default/mmlu_{subject}.yaml")
    assert made("mmlu").context({**MMLU, "subject": theirs["dataset_name"]}).startswith(theirs["description"])


def test_gsm8k_is_asked_and_compared_as_in_the_harness() -> None:
    theirs, task = harness("gsm8k/gsm8k.yaml"), made("gsm8k")
    assert task.question(GSM8K) == apply_template(theirs["doc_to_text"], GSM8K)
    assert task.answer(GSM8K) == apply_template(theirs["doc_to_target"], GSM8K)
    [metric] = theirs["metric_list"]
    assert (task.regexes_to_ignore, task.ignore_case) == (tuple(metric["regexes_to_ignore"]), metric["ignore_case"])
    assert list(task.until) == theirs["generation_kwargs"]["until"]
    assert (task.num_fewshot, task.data, task.config) == (5, theirs["dataset_path"], theirs["dataset_name"])


def test_boolq_is_asked_as_in_the_harness_from_the_authors_own_form_of_the_data() -> None:
    theirs, task = harness("super_glue/boolq/default.yaml"), made("boolq")
    for answer in (True, False):
        row = {"passage": "Water is wet.", "question": "is water wet", "answer": answer}
        assert task.question(row) == apply_template(theirs["doc_to_text"], row)
        assert task.answer(row) == theirs["doc_to_choice"][int(answer)]
