from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import mannwhitneyu

from compressbench.core.errors import DataError, ModelError, NotFiniteError
from compressbench.core.progress import SilentProgress
from compressbench.core.questions import SampleRow
from compressbench.core.watching import Unwatched
from compressbench.data.samples import load_samples
from compressbench.measure.fidelity import Compared, Remembered
from compressbench.models.handle import ModelHandle
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks.click_prediction import ClickPrediction, area_under_curve
from compressbench.testing import tiny_click_model

ROWS = [
    {
        "age": at % 50,
        "visits": at,
        "user": at * 7,
        "item": f"shoe {at % 23}",
        "device": at % 4,
        "label": int(at % 3 == 0),
    }
    for at in range(30)
]


def write(folder: Path, rows: list[dict[str, Any]], split: str = "test") -> Path:
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(write(tmp_path, ROWS), [{**row, "visits": int(str(row["visits"])) + 1} for row in ROWS], "train")


def evaluate(task: ClickPrediction, handle: ModelHandle, watch: Any = None) -> list[SampleRow]:
    samples = task.load()
    task.check_model(handle, samples)
    session = TorchEager().prepare(handle, "cpu")
    return task.evaluate(session, handle, samples, SilentProgress(), watch or Unwatched())


def brute_force_auc(values: list[float], clicks: list[int]) -> float:
    """Over all pairs of a click and none."""
    pairs = [(a, b) for a, c in zip(values, clicks, strict=True) for b, d in zip(values, clicks, strict=True) if c > d]
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def test_a_score_is_the_nats_of_what_happened(data: Path) -> None:
    handle, task = tiny_click_model(), ClickPrediction(data=str(data), batch_size=7)
    rows = evaluate(task, handle)
    inputs = handle.tokenizer({name: [row[name] for row in ROWS] for name in handle.tokenizer.columns})
    odds = torch.sigmoid(handle.model(**inputs).logits[:, 1].detach().double())
    clicks = torch.tensor([row["label"] for row in ROWS], dtype=torch.float64)
    wanted = torch.nn.functional.binary_cross_entropy(odds, clicks, reduction="none")
    torch.testing.assert_close(
        torch.tensor([row.score for row in rows]), wanted, rtol=1e-5, atol=1e-6, check_dtype=False
    )
    assert math.isclose(task.summarize(rows), float(wanted.mean()), rel_tol=1e-5)
    assert [row.target for row in rows] == [str(row["label"]) for row in ROWS]
    assert {row.prediction for row in rows} <= {"0", "1"}


def test_what_is_reported_equals_the_papers_formulas(data: Path) -> None:
    task = ClickPrediction(data=str(data))
    odds = [0.9, 0.2, 0.2, 0.6, 0.4, 0.05]
    clicks = [1, 0, 1, 0, 1, 0]
    rows = [
        SampleRow(
            id=str(at),
            prediction=str(int(p > 0.5)),
            target=str(click),
            score=-math.log(p if click else 1 - p),
            confidence=max(p, 1 - p),
        )
        for at, (p, click) in enumerate(zip(odds, clicks, strict=True))
    ]
    found = task.reported(rows)
    loss = -sum(c * math.log(p) + (1 - c) * math.log(1 - p) for p, c in zip(odds, clicks, strict=True)) / 6
    assert found["auc"] == pytest.approx(brute_force_auc(odds, clicks))
    assert found["normalized_entropy"] == pytest.approx(loss / math.log(2))
    assert found["calibration"] == pytest.approx(sum(odds) / 3)
    assert found["brier"] == pytest.approx(sum((p - c) ** 2 for p, c in zip(odds, clicks, strict=True)) / 6)


def test_where_all_or_none_are_clicks_no_auc_is_made_up(data: Path) -> None:
    rows = [SampleRow(id="0", prediction="0", target="0", score=0.1, confidence=0.9)]
    found = ClickPrediction(data=str(data)).reported(rows)
    assert not {"auc", "normalized_entropy", "calibration"} & found.keys()


@pytest.mark.parametrize("seed", range(5))
def test_the_area_equals_all_pairs_and_scipys_statistic(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values, clicks = generator.integers(0, 12, 60).tolist(), generator.integers(0, 2, 60).tolist()
    found = area_under_curve(values, clicks)
    of_clicks, others = ([v for v, c in zip(values, clicks, strict=True) if c == kind] for kind in (1, 0))
    assert found == pytest.approx(brute_force_auc(values, clicks))
    assert found == pytest.approx(mannwhitneyu(of_clicks, others).statistic / (len(of_clicks) * len(others)))


def test_the_divergence_from_the_baseline_is_that_of_the_two_outcomes(data: Path) -> None:
    task, before, after = ClickPrediction(data=str(data)), tiny_click_model(), tiny_click_model(seed=1)
    remembered = Remembered()
    theirs = evaluate(task, before, remembered)
    compared = Compared(remembered)
    ours = evaluate(task, after, compared)
    assert remembered.num_classes == 2

    def odds(row: SampleRow) -> float:
        assert row.confidence is not None
        return row.confidence if row.prediction == "1" else 1 - row.confidence

    wanted = [
        p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        for p, q in zip(map(odds, theirs), map(odds, ours), strict=True)
    ]
    assert compared.summary(theirs, ours).kl_mean == pytest.approx(sum(wanted) / len(wanted), rel=1e-3, abs=1e-6)


def test_training_batches_hold_each_training_row_once_and_never_the_evaluation(data: Path) -> None:
    task = ClickPrediction(data=str(data))
    batches = task.training_batches(tiny_click_model(), 8, None, 3)
    assert sum(len(batch["labels"]) for batch in batches) == 30
    visits = sorted(float(value) for batch in batches for value in batch["dense_features"][:, 1])
    np.testing.assert_allclose(visits, np.log1p(np.arange(1, 31)), rtol=1e-6)
    with pytest.raises(DataError):
        ClickPrediction(data=str(data), train_split="test").training_batches(tiny_click_model(), 8, None, 3)


def test_workload_batches_have_the_batch_size_and_their_targets(data: Path) -> None:
    task, handle = ClickPrediction(data=str(data)), tiny_click_model()
    samples = task.load()
    batches = task.workload_batches(handle, samples, 8, 32)
    targets = task.workload_targets(handle, samples, 8, 32)
    assert targets is not None
    assert [len(batch["sparse_ids"]) for batch in batches] == [len(each) for each in targets] == [8, 8, 8]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"label": 2}, "a click is 1 or 0"), ({"label": None}, "missing"), ({"label": -1}, "must be an integer")],
)
def test_a_label_that_is_no_click_is_refused(change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    write(tmp_path, [*ROWS, {**ROWS[0], **change}])
    with pytest.raises(DataError, match=complaint):
        ClickPrediction(data=str(tmp_path)).load()


def test_names_of_labels_are_refused_because_the_alphabet_would_say_which_is_a_click(tmp_path: Path) -> None:
    write(tmp_path, [{**row, "label": "click" if row["label"] else "no click"} for row in ROWS])
    with pytest.raises(DataError, match="a click is 1 or 0"):
        ClickPrediction(data=str(tmp_path)).load()


@pytest.mark.parametrize("is_first", [True, False])
def test_another_column_of_the_name_label_does_not_stand_in_for_the_clicks(is_first: bool, tmp_path: Path) -> None:
    clicked = [int(str(row["label"])) for row in ROWS]
    write(tmp_path, [{"label": 0, "clicked": c} if is_first else {"clicked": c, "label": 0} for c in clicked])
    found = ClickPrediction(data=str(tmp_path), label_column="clicked").load()
    assert found.columns == {"label": clicked}


def test_a_column_of_clicks_must_be_there_and_rows_in_it(tmp_path: Path) -> None:
    write(tmp_path, ROWS)
    with pytest.raises(DataError, match=r"no column 'lable' for the label.*label"):
        ClickPrediction(data=str(tmp_path), label_column="lable").load()
    empty = pa.table({"label": pa.array([], pa.int8())})
    pq.write_table(empty, tmp_path / "none.parquet")
    with pytest.raises(DataError, match="the data set is empty"):
        ClickPrediction(data=str(tmp_path), split="none").load()


def test_a_column_that_the_model_reads_must_be_there(tmp_path: Path) -> None:
    write(tmp_path, [{name: value for name, value in row.items() if name != "item"} for row in ROWS])
    with pytest.raises(ModelError, match="reads a column 'item'"):
        evaluate(ClickPrediction(data=str(tmp_path)), tiny_click_model())


def test_logits_that_are_no_numbers_are_refused(data: Path) -> None:
    handle = tiny_click_model()
    with torch.no_grad():
        handle.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(NotFiniteError):
        evaluate(ClickPrediction(data=str(data)), handle)


def test_the_embedded_model_is_far_better_than_the_click_rate_and_not_better_than_the_oracle() -> None:
    handle = load_model(ModelSpec(id="embedded:dlrm-synthetic-clicks"), "click-prediction")
    task = ClickPrediction(data="embedded:synthetic-clicks")
    rows = evaluate(task, handle)
    columns = {name: name for name in ("probability", "label")}
    truth = load_samples(task.data, split="test", columns=columns).columns
    chances = zip(truth["probability"], truth["label"], strict=True)
    oracle = [-math.log(p if click else 1 - p) for p, click in chances]
    differences = np.array([row.score for row in rows]) - np.array(oracle)
    assert differences.mean() > 3 * differences.std() / math.sqrt(len(rows))
    assert task.summarize(rows) == pytest.approx(0.3863, abs=2e-4)
    assert task.reported(rows)["auc"] == pytest.approx(0.8184, abs=2e-4)
    assert float(task.reported(rows)["normalized_entropy"]) < 0.8
