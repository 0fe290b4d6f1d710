from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness_tasks import KINDS, SENTENCES, reader, write_task

from compressbench.core.errors import DataError, ModelError, NotFiniteError, UnsupportedError
from compressbench.core.progress import SilentProgress
from compressbench.core.questions import SampleRow, Task
from compressbench.core.registry import tasks
from compressbench.core.watching import Unwatched
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks.generation import Generation
from compressbench.tasks.lm_eval import LmEval
from compressbench.testing.fakes import FakeClock, FakeSession

pytest.importorskip("lm_eval")


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    return reader()


class Seen:
    """A watch that keeps what it is shown."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}

    def logits(self, ids: Sequence[str], logits: Any) -> None:
        for id_, row in zip(ids, logits, strict=True):
            assert id_ not in self.found
            self.found[id_] = row.tolist()

    def vectors(self, ids: Sequence[str], vectors: Any) -> None:
        raise AssertionError


def evaluate(task: LmEval, handle: ModelHandle, watch: Any = None) -> list[SampleRow]:
    session = TorchEager().prepare(handle, "cpu")
    return task.evaluate(session, handle, task.load(), SilentProgress(), watch or Unwatched())


def by_the_harness(folder: str, task: str, handle: ModelHandle, iters: int = 100, **options: Any) -> dict[str, Any]:
    """What lm_eval.simple_evaluate reports, and its samples. It also looks at the whole machine, which takes seconds."""
    from unittest import mock

    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=folder, include_defaults=False)
    model = HFLM(pretrained=handle.model, tokenizer=handle.tokenizer, batch_size=2)
    with mock.patch("lm_eval.evaluator.add_env_info"):
        found = simple_evaluate(model, tasks=[task], task_manager=manager, bootstrap_iters=iters, **options)
    return {**found["results"][task], "samples": found["samples"][task]}


def test_the_word_lm_eval_is_this_task(tmp_path: Path) -> None:
    task: Task = LmEval(task="choice", include_path=write_task(tmp_path, "choice"))
    assert tasks.resolve("lm-eval") is LmEval
    assert (task.metric, task.direction, task.is_binary, task.is_log) == ("acc,none", "higher", True, False)


ALL = [
    ("choice", "acc,none"), ("choice", "acc_norm,none"), ("choice", "mcc,none"), ("choice", "brier_score,none"),
    ("pair", "f1,none"), ("pair", "acc,none"), ("last-word", "perplexity,none"), ("last-word", "acc,none"),
    ("rolling", "word_perplexity,none"), ("rolling", "byte_perplexity,none"), ("rolling", "bits_per_byte,none"),
    ("writing", "exact_match,whole"), ("writing", "exact_match,first"),
]  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, handle: ModelHandle) -> dict[str, tuple[str, dict[str, Any]]]:
    """The folder and the harness's own results of every kind of task."""
    found = {}
    for kind in KINDS:
        folder = write_task(tmp_path_factory.mktemp(kind), kind)
        iters = 1 if kind in {"rolling", "writing"} else 0
        found[kind] = folder, by_the_harness(folder, kind, handle, iters)
    return found


@pytest.mark.parametrize(("kind", "metric"), ALL)
def test_every_metric_is_the_harnesss_to_the_last_digits(
    results: dict[str, tuple[str, dict[str, Any]]], handle: ModelHandle, kind: str, metric: str
) -> None:
    folder, expected = results[kind]
    task = LmEval(task=kind, include_path=folder, metric=metric, batch_size=2)
    rows = evaluate(task, handle)
    assert task.summarize(rows) == pytest.approx(float(expected[metric]), rel=1e-12, abs=1e-15)
    doubled = task.summarize([*rows, *rows])
    if not metric.startswith("f1"):
        assert doubled == pytest.approx(float(expected[metric]), rel=1e-12, abs=1e-15)
    reported = task.reported(rows)
    assert metric in reported
    for name, value in reported.items():
        if "," in name and "_stderr" not in name:
            assert value == pytest.approx(float(expected[name]), rel=1e-12, abs=1e-15), name


@pytest.mark.parametrize(("kind", "metric"), ALL)
def test_direction_and_kind_of_a_metric_are_the_harnesss(
    results: dict[str, tuple[str, dict[str, Any]]], kind: str, metric: str
) -> None:
    task = LmEval(task=kind, include_path=results[kind][0], metric=metric)
    assert task.direction == ("lower" if any(word in metric for word in ("perplexity", "brier", "bits")) else "higher")
    assert task.is_log == ("perplexity" in metric)
    assert task.is_binary == metric.startswith(("acc", "exact_match"))


def test_standard_errors_are_the_harnesss(tmp_path: Path, handle: ModelHandle) -> None:
    rows = [{"text": text, "label": at % 3} for at, text in enumerate(SENTENCES * 2)]
    changes = {"metric_list": [{"metric": name} for name in ("acc", "acc_norm")], "task_alias": "three choices"}
    folder = write_task(tmp_path, "choice", rows, **changes)
    task = LmEval(task="choice", include_path=folder)
    expected = by_the_harness(folder, "choice", handle)
    reported = task.reported(evaluate(task, handle))
    for name in ("acc,none", "acc_stderr,none", "acc_norm,none", "acc_norm_stderr,none"):
        assert reported[name] == pytest.approx(expected[name], rel=1e-12), name
    assert expected["acc_stderr,none"] > 0
    assert (reported["alias"], reported["version"], reported["n-shot"]) == ("three choices", "2.0", 0)


def test_rows_are_the_harnesss_samples(results: dict[str, tuple[str, dict[str, Any]]], handle: ModelHandle) -> None:
    folder, expected = results["choice"]
    watch = Seen()
    rows = evaluate(LmEval(task="choice", include_path=folder), handle, watch)
    for row, sample in zip(rows, expected["samples"], strict=True):
        log_likelihoods = [value for value, _ in sample["filtered_resps"]]
        likeliest = int(np.argmax(log_likelihoods))
        assert row.id == f"{sample['doc_id']}:{sample['doc_hash']}"
        assert (row.prediction, row.target) == (str(likeliest), str(sample["target"]))
        assert (row.score, row.also["acc_norm,none"]) == (sample["acc"], sample["acc_norm"])
        assert row.confidence == pytest.approx(float(np.exp(log_likelihoods).max() / np.exp(log_likelihoods).sum()))
        assert watch.found[row.id] == pytest.approx(log_likelihoods, rel=1e-5)
    assert len({row.prediction for row in rows}) > 1


def test_a_row_says_what_was_written_and_which_documents_it_is_about(
    results: dict[str, tuple[str, dict[str, Any]]], handle: ModelHandle
) -> None:
    folder, expected = results["writing"]
    rows = evaluate(LmEval(task="writing", include_path=folder), handle)
    samples = [sample for sample in expected["samples"] if sample["filter"] == "whole"]
    assert [row.prediction for row in rows] == [sample["filtered_resps"][0] for sample in samples]
    assert all(row.target == "cat" and set(row.also) == {"exact_match,first"} for row in rows)
    assert rows[0].id.startswith("0:")
    assert len(rows[0].id) == 2 + 64


def test_the_task_generation_writes_what_the_harness_writes(
    results: dict[str, tuple[str, dict[str, Any]]], handle: ModelHandle
) -> None:
    folder, expected = results["writing"]
    options: dict[str, Any] = {"doc_to_text": "text", "doc_to_target": "answer", "until": ["home"], "max_new_tokens": 6}
    ours = Generation(data=f"{folder}/writing.jsonl", **options)
    session = TorchEager().prepare(handle, "cpu")
    rows = ours.evaluate(session, handle, ours.load(), SilentProgress(), Unwatched())
    samples = [sample for sample in expected["samples"] if sample["filter"] == "whole"]
    assert [row.prediction for row in rows] == [sample["filtered_resps"][0] for sample in samples]
    assert ours.summarize(rows) == expected["exact_match,whole"]
    assert len({row.prediction for row in rows}) > 1


@pytest.mark.parametrize(
    ("kind", "longest"), [("choice", 63), ("last-word", 65), ("writing", 58), ("rolling", math.inf)]
)
def test_a_document_that_the_model_can_not_see_all_of_says_so(
    tmp_path: Path, handle: ModelHandle, kind: str, longest: float
) -> None:
    """The model has 64 positions, of which the harness uses the last: for a choice of two words, 65 - 2 are left."""
    counts = [57, 58, 59, 63, 64, 65, 66, 80]
    rows = [{"text": " ".join(["cat"] * count), "label": 0, "answer": "cat"} for count in counts]
    found = evaluate(LmEval(task=kind, include_path=write_task(tmp_path, kind, rows)), handle)
    assert [row.is_truncated for row in found] == [count > longest for count in counts]


def test_few_shot_examples_are_the_same_for_every_model(tmp_path: Path, handle: ModelHandle) -> None:
    folder = write_task(tmp_path, "last-word", fewshot_split="test", fewshot_config={"sampler": "default"})
    task = LmEval(task="last-word", include_path=folder, num_fewshot=2, limit=3, batch_size=2)
    samples = task.load()
    session = TorchEager().prepare(handle, "cpu")
    first, again = (task.evaluate(session, handle, samples, SilentProgress(), Unwatched()) for _ in range(2))
    assert first == again
    assert (len(samples), len(first)) == (3, 3)
    expected = by_the_harness(folder, "last-word", handle, 0, num_fewshot=2, limit=3)
    assert task.summarize(first) == pytest.approx(expected["perplexity,none"], rel=1e-12)
    without = LmEval(task="last-word", include_path=folder, limit=3)
    assert without.summarize(evaluate(without, handle)) != task.summarize(first)


def test_a_number_of_examples_that_the_harness_would_ignore_is_refused(tmp_path: Path) -> None:
    folder = write_task(tmp_path, "last-word", num_fewshot=0)
    with pytest.raises(DataError, match="defined without examples"):
        LmEval(task="last-word", include_path=folder, num_fewshot=2).load()
    assert len(LmEval(task="last-word", include_path=folder, num_fewshot=0).load()) == 5


def test_other_documents_have_another_revision_and_other_ids(tmp_path: Path) -> None:
    folder = write_task(tmp_path, "rolling")
    before = LmEval(task="rolling", include_path=folder).load()
    assert before.revision == LmEval(task="rolling", include_path=folder).load().revision
    assert before.revision.startswith("sha256:")
    assert (before.source, before.split) == ("lm-eval:rolling", "test")
    write_task(tmp_path, "rolling", [{"text": text} for text in SENTENCES[::-1]])
    assert LmEval(task="rolling", include_path=folder).load().revision != before.revision


def test_evaluating_leaves_no_trace(tmp_path: Path, handle: ModelHandle, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write_task(tmp_path, "choice")
    untied = handle.copy()
    untied.model.config.tie_word_embeddings = True
    head = untied.model.lm_head.weight
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    environment = dict(os.environ)
    evaluate(LmEval(task="choice", include_path=folder), untied)
    assert untied.model.lm_head.weight is head, "the harness would tie it to the embeddings"
    assert "tie_weights" not in vars(untied.model)
    assert not untied.model._forward_hooks
    assert random.getstate() == states[0]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[1], strict=True))
    assert torch.equal(torch.get_rng_state(), states[2])
    assert dict(os.environ) == environment
    assert capfd.readouterr() == ("", "")


def test_progress_is_told_in_documents(tmp_path: Path, handle: ModelHandle) -> None:
    class Counting(SilentProgress):
        done = 0.0

        def bar(self, description: str, total: float) -> Any:
            counter = self

            class Bar:
                def __enter__(self) -> Bar:
                    return self

                def __exit__(self, *_: object) -> None:
                    pass

                def advance(self, amount: float = 1, note: str = "") -> None:
                    counter.done += amount

            return Bar()

    progress = Counting()
    task = LmEval(task="choice", include_path=write_task(tmp_path, "choice"))
    task.evaluate(TorchEager().prepare(handle, "cpu"), handle, task.load(), progress, Unwatched())
    assert progress.done == pytest.approx(5)


@pytest.mark.parametrize("kind", ["choice", "rolling", "writing"])
def test_logits_that_are_not_numbers_end_the_cell(tmp_path: Path, handle: ModelHandle, kind: str) -> None:
    broken = handle.copy()
    broken.model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(NotFiniteError):
        evaluate(LmEval(task=kind, include_path=write_task(tmp_path, kind)), broken)


def test_only_the_model_in_memory_can_be_asked(tmp_path: Path, handle: ModelHandle) -> None:
    task = LmEval(task="choice", include_path=write_task(tmp_path, "choice"))
    other = TorchEager().prepare(handle.copy(), "cpu")
    for session in (FakeSession(FakeClock(), [1.0]), other):
        with pytest.raises(UnsupportedError, match="asks models in PyTorch"):
            task.evaluate(session, handle, task.load(), SilentProgress(), Unwatched())


def test_a_tokenizer_without_beginning_and_end_is_a_model_error(tmp_path: Path, handle: ModelHandle) -> None:
    from compressbench.testing import tiny_causal_lm

    task = LmEval(task="choice", include_path=write_task(tmp_path, "choice"))
    task.check_model(handle, task.load())
    with pytest.raises(ModelError, match="neither a token for the beginning"):
        task.check_model(tiny_causal_lm(num_layers=1), task.load())


def test_nothing_is_trained_or_calibrated_on_an_evaluation(tmp_path: Path, handle: ModelHandle) -> None:
    task = LmEval(task="choice", include_path=write_task(tmp_path, "choice"))
    for call in (
        lambda: task.check(training=True),
        lambda: task.training_batches(handle, 1, None, 0),
        lambda: task.model_inputs(handle, "train"),
    ):
        with pytest.raises(DataError, match="for evaluation"):
            call()


def test_calibration_samples_are_kept_apart_from_the_requests(tmp_path: Path, handle: ModelHandle) -> None:
    from compressbench.core.calibration import Calibration
    from compressbench.tasks.calibration import check_calibration, draw_calibration

    task = LmEval(task="choice", include_path=write_task(tmp_path, "choice"))
    inputs, revision = task.model_inputs(handle, task.split)
    assert revision == task.load().revision
    assert len(inputs) == 3 * 5
    assert handle.tokenizer.decode(inputs[1]["input_ids"]) == SENTENCES[0] + " very bad"
    train = tmp_path / "calibration"
    train.mkdir()
    for text, is_refused in [("a good dog", False), (SENTENCES[1] + " good", True)]:
        (train / "train.jsonl").write_text(f'{{"text": "{text}"}}\n')
        calibration = Calibration(data=str(train))
        check_calibration(task, calibration)
        if is_refused:
            with pytest.raises(DataError, match="also stands in the evaluation data"):
                draw_calibration(task, handle, calibration, 0)
        else:
            assert draw_calibration(task, handle, calibration, 0).num_samples == 1


@pytest.mark.parametrize(("batch_size", "length", "count"), [(1, 4, 25), (7, 2, 7), (3, 3, 11)])
def test_workload_batches_have_the_exact_shape(
    tmp_path: Path, handle: ModelHandle, batch_size: int, length: int, count: int
) -> None:
    task = LmEval(task="choice", include_path=write_task(tmp_path, "choice"))
    tokens = sum(len(row["input_ids"]) for row in task.model_inputs(handle, "test")[0])
    batches = task.workload_batches(handle, task.load(), batch_size, length)
    assert len(batches) == min(tokens // (batch_size * length), math.ceil(64 / batch_size))
    assert len(batches) >= min(count, 7)
    assert {tensor.shape for batch in batches for tensor in batch.values()} == {(batch_size, length)}
    with pytest.raises(DataError, match="one batch of the workload needs 6400"):
        task.workload_batches(handle, task.load(), 100, 64)


def test_the_protocol_changes_with_what_changes_the_number(tmp_path: Path) -> None:
    folder = write_task(tmp_path, "choice")
    variants: list[dict[str, Any]] = [
        {},
        {"num_fewshot": 0},
        {"num_fewshot": 1},
        {"batch_size": 1},
        {"metric": "mcc,none"},
    ]
    ids = {LmEval(task="choice", include_path=folder, **options).protocol_id for options in variants}
    write_task(tmp_path, "choice", doc_to_text="Q: {{text}}")
    ids.add(LmEval(task="choice", include_path=folder).protocol_id)
    assert len(ids) == len(variants) + 1


SHARED = Path(os.environ.get("COMPRESSBENCH_SHARED", Path(__file__).parents[3] / "shared"))


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason=f"no trained models at {SHARED}")
def test_a_trained_model_writes_the_same_stories_here_and_there(tmp_path: Path) -> None:
    """With a tokenizer of pieces, and a stop string that ends some texts within them."""
    from compressbench.models.load import load_model
    from compressbench.recipe.schema import ModelSpec

    handle = load_model(ModelSpec(id=str(SHARED / "models" / "stories260K")), "causal-lm")
    beginnings = [
        "Once upon a time",
        "Tom and Lily went",
        "She had a big",
        "In the",
        "He wanted to play with the ball but",
    ]
    rows = [{"text": text, "answer": "x"} for text in beginnings]
    kwargs = {"until": [". ", "day"], "do_sample": False, "max_gen_toks": 9}
    folder = write_task(tmp_path, "writing", rows, generation_kwargs=kwargs)
    theirs = evaluate(LmEval(task="writing", include_path=folder), handle)
    options: dict[str, Any] = {"doc_to_text": "text", "doc_to_target": "answer", "max_new_tokens": 9}
    task = Generation(data=f"{folder}/writing.jsonl", until=kwargs["until"], **options)
    session = TorchEager().prepare(handle, "cpu")
    ours = task.evaluate(session, handle, task.load(), SilentProgress(), Unwatched())
    assert [row.prediction for row in ours] == [row.prediction for row in theirs]
    assert {row.also["unfinished"] for row in ours} == {0.0, 1.0}
