"""The scores of lm-evaluation-harness, on the same model and rows."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from compressbench.core.progress import SilentProgress
from compressbench.core.questions import SampleRow
from compressbench.core.watching import Unwatched
from compressbench.models.handle import ModelHandle
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks.last_word import LastWord
from compressbench.tasks.multiple_choice import MultipleChoice
from compressbench.tasks.perplexity import Perplexity

pytest.importorskip("lm_eval")
ConfigurableTask = pytest.importorskip("lm_eval.api.task").ConfigurableTask
evaluate = pytest.importorskip("lm_eval.evaluator").evaluate
HFLM = pytest.importorskip("lm_eval.models.huggingface").HFLM

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("COMPRESSBENCH_SHARED", ROOT.parent / "shared"))
CLEAN = (
    "{{endings | map('trim') | map('replace', ' [title]', '. ') | map('regex_replace', '\\\\[.*?\\\\]', '')"
    " | map('replace', '  ', ' ') | list}}"
)
BENCHMARKS: dict[str, dict[str, Any]] = {
    "hellaswag/validation": {
        "doc_to_text": "{{activity_label}}: {{ctx}}", "doc_to_choice": CLEAN, "doc_to_target": "{{label}}",
    },
    "piqa/validation": {
        "doc_to_text": "Question: {{goal}}\nAnswer:", "doc_to_choice": "{{[sol1, sol2]}}", "doc_to_target": "label",
    },
    "ai2_arc/ARC-Easy/test": {
        "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_choice": "{{choices.text}}",
        "doc_to_target": "{{choices.label.index(answerKey)}}",
    },
}  # fmt: skip
LOGPROBS = 1e-4


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def shakespeare() -> ModelHandle:
    return load_model(ModelSpec(id="embedded:shakespeare-lm"), "causal-lm")


@pytest.fixture(scope="module")
def random_llama(shakespeare: ModelHandle) -> ModelHandle:
    """Of two layers, with a real tokenizer, and 48 positions, so that contexts are cut."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(shakespeare.tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=48, initializer_range=0.3,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return dataclasses.replace(shakespeare, model=LlamaForCausalLM(config).eval())


@pytest.fixture(scope="module")
def stories() -> ModelHandle:
    folder = SHARED / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"needs the model in {folder}")
    return load_model(ModelSpec(id=str(folder)), "causal-lm")


class Seen(Unwatched):
    def __init__(self) -> None:
        self.shown: dict[str, list[float]] = {}

    def logits(self, ids: Any, logits: Any) -> None:
        self.shown |= zip(ids, logits.tolist(), strict=True)


def splits(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The first two rows are few-shot examples. They'd be shown with their answers if they were asked about, too."""
    return {"train": rows[:2], "test": rows[2:]}


def theirs(handle: ModelHandle, rows: list[dict[str, Any]], **config: Any) -> tuple[dict[str, float], list[Any]]:
    """Their metrics, and the log-likelihoods of each row."""
    import datasets

    table = {name: datasets.Dataset.from_list(some) for name, some in splits(rows).items()}
    task = ConfigurableTask(config={"task": "t", "test_split": "test", "custom_dataset": lambda **_: table, **config})
    model = HFLM(pretrained=handle.model, tokenizer=handle.tokenizer, device="cpu", batch_size=4)
    found = evaluate(model, {"t": task}, bootstrap_iters=0)
    assert found is not None
    samples = sorted(found["samples"]["t"], key=lambda sample: sample["doc_id"])
    metrics = {name.removesuffix(",none"): value for name, value in found["results"]["t"].items()}
    return metrics, [[_number(answer[0]) for answer in sample["resps"]] for sample in samples]


def _number(answer: Any) -> float:
    return float(answer[0] if isinstance(answer, tuple | list) else answer)


def ours(task: Any, handle: ModelHandle, watch: Any = None) -> list[SampleRow]:
    session = TorchEager().prepare(handle, "cpu")
    rows: list[SampleRow] = task.evaluate(session, handle, task.load(), SilentProgress(), watch or Unwatched())
    return rows


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for split, some in splits(rows).items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return folder


def speeches() -> list[str]:
    from compressbench.data.text import load_text

    return [part for part in load_text("embedded:tinyshakespeare", split="test").text.split("\n\n") if part.strip()]


def made_up_choices(count: int) -> list[dict[str, Any]]:
    """Which line goes on? Lines of other speeches are the wrong answers; some end in spaces, some begin alike."""
    draw = random.Random(0)
    lines = [speech.split("\n") for speech in speeches() if speech.count("\n") >= 2]
    rows: list[dict[str, Any]] = []
    for speech in draw.sample(lines, count):
        endings = [speech[2], *(draw.choice(lines)[1] for _ in range(2)), speech[2] + " and more"]
        draw.shuffle(endings)
        right = endings.index(speech[2])
        rows.append({"q": "\n".join(speech[:2]) + draw.choice(["", " ", "\n"]), "endings": endings, "label": right})
    return rows


def check_choices(handle: ModelHandle, folder: Path, rows: list[dict[str, Any]], **options: Any) -> None:
    prompt = {name: value for name, value in options.items() if name != "description"}
    fewshot = {"fewshot_split": "train", "fewshot_config": {"sampler": "first_n"}} if "num_fewshot" in options else {}
    metrics = [{"metric": "acc"}, {"metric": "acc_norm"}]
    config = {"output_type": "multiple_choice", "metric_list": metrics, **prompt, **fewshot}
    found, scores = theirs(handle, rows, **config, description=options.get("description", ""))
    seen = Seen()
    task = MultipleChoice(data=str(write(folder, rows)), **options)
    mine = ours(task, handle, seen)
    for index, score in enumerate(scores):
        # they sum in float32, whose steps at a thousand nats are 1.2e-4
        assert seen.shown[str(index)] == pytest.approx(score, abs=LOGPROBS, rel=3e-7)
    assert task.summarize(mine) == pytest.approx(found["acc_norm"], abs=1e-4)
    assert sum(row.also["acc"] for row in mine) / len(mine) == pytest.approx(found["acc"], abs=1e-4)


@pytest.mark.parametrize("model", ["random_llama", "shakespeare"])
@pytest.mark.parametrize(
    "options", [{}, {"num_fewshot": 2, "description": "Which line?\n\n"}, {"target_delimiter": ""}]
)
def test_multiple_choice_scores_as_theirs(
    model: str, options: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    columns = {"doc_to_text": "q", "doc_to_choice": "endings", "doc_to_target": "label"}
    check_choices(request.getfixturevalue(model), tmp_path, made_up_choices(24), **columns, **options)


@pytest.mark.parametrize("model", ["random_llama", "shakespeare"])
def test_last_words_score_as_theirs(model: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    handle = request.getfixturevalue(model)
    rows = [{"text": " ".join(speech.split())} for speech in speeches()[:40] if len(speech.split()) > 3]
    check_last_words(handle, tmp_path, rows)


def check_last_words(handle: ModelHandle, folder: Path, rows: list[dict[str, Any]]) -> None:
    task = LastWord(data=str(write(folder, rows)))
    prompt = {"doc_to_text": task.doc_to_text, "doc_to_target": task.doc_to_target}
    metrics = [{"metric": "perplexity"}, {"metric": "acc"}]
    found, scores = theirs(handle, rows, output_type="loglikelihood", metric_list=metrics, **prompt)
    mine = ours(task, handle)
    assert [row.also["log_likelihood"] for row in mine] == pytest.approx([s for [s] in scores], abs=LOGPROBS)
    assert task.summarize(mine) == pytest.approx(found["acc"], abs=1e-4)
    perplexity = task.model_copy(update={"metric": "perplexity"})
    assert perplexity.summarize(ours(perplexity, handle)) == pytest.approx(found["perplexity"], rel=1e-4)


@pytest.mark.parametrize("model", ["random_llama", "shakespeare"])
def test_rolling_perplexity_is_theirs(model: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    texts = speeches()[:22]
    rows = [{"text": text} for text in [*texts[:12], "\n\n".join(texts[12:]), "  one\n\n more line \n"]]
    check_rolling(request.getfixturevalue(model), tmp_path, rows)


def check_rolling(handle: ModelHandle, folder: Path, rows: list[dict[str, Any]]) -> None:
    metrics = [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")]
    config = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"}
    found, scores = theirs(handle, rows, metric_list=metrics, **config)
    data = str(write(folder, rows))
    for unit in ("word", "byte"):
        task = Perplexity(data=data, windows="rolling", documents="each", unit=unit)
        mine = ours(task, handle)
        assert task.summarize(mine) == pytest.approx(found[f"{unit}_perplexity"], rel=1e-4)
        assert [-row.score * row.weight for row in mine] == pytest.approx([s for [s] in scores], rel=1e-5, abs=LOGPROBS)


def shared_rows(name: str, count: int) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    path = SHARED / "data" / f"{name}.parquet"
    if not path.is_file():
        pytest.skip(f"needs the data in {path}")
    rows: list[dict[str, Any]] = pq.read_table(path).slice(0, count).to_pylist()
    return rows


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_benchmarks_score_as_theirs_on_a_trained_model(
    name: str, count: int, stories: ModelHandle, tmp_path: Path
) -> None:
    check_choices(stories, tmp_path, shared_rows(name, count), **BENCHMARKS[name])


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_lambada_scores_as_theirs_on_a_trained_model(count: int, stories: ModelHandle, tmp_path: Path) -> None:
    check_last_words(stories, tmp_path, shared_rows("lambada_openai/test", count))


@pytest.mark.parametrize("count", [120, pytest.param(1000, marks=pytest.mark.slow)])
def test_wikitext_scores_as_theirs_on_a_trained_model(count: int, stories: ModelHandle, tmp_path: Path) -> None:
    check_rolling(stories, tmp_path, [{"text": page} for page in ["", "", *pages(count)]])


def pages(num_lines: int) -> list[str]:
    """Articles of WikiText-2, each from its title on."""
    joined = "".join(row["text"] for row in shared_rows("wikitext-2/test.raw", num_lines))
    return [page for page in re.split(r"(?m)^(?= = [^=].*[^=] = $)", joined) if page.strip()]
