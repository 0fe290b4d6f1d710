"""Write `embedded:synthetic-clicks` and train `embedded:dlrm-synthetic-clicks` on the process that makes it.

    python training/dlrm_synthetic_clicks.py [--rows N] [--out FOLDER] [--data FOLDER]

Training sees more impressions than are shipped (the shipped training rows are the first of them) and none of the test
split, which has draws of its own. Weights are stored as float16, and the published scores are those of the stored file.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from compressbench.data import synthetic_clicks
from compressbench.data.synthetic_clicks import COUNTS, SEED, SIZES, VERSION, Clicks, generate
from compressbench.models.click_features import ClickFeatures
from compressbench.models.dlrm import DlrmConfig, DlrmForClickPrediction
from compressbench.tasks.click_prediction import area_under_curve

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "compressbench/data/embedded/synthetic-clicks"
OUT = ROOT / "compressbench/models/embedded/dlrm_synthetic_clicks"
SHIPPED = {"train": 8_000, "test": 8_000}
BATCH, TABLE_RATE, RATE = 2048, 1e-2, 1e-3


def write_data(folder: pathlib.Path) -> None:
    """Both splits as Parquet; the test split with the true probabilities, which no model is shown."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"process": "compressbench.data.synthetic_clicks", "version": str(VERSION), "seed": str(SEED)}
    for split, num_rows in SHIPPED.items():
        clicks = generate(split, num_rows)
        columns = {name: _narrow(values) for name, values in clicks.columns.items()}
        columns["label"] = pa.array(clicks.label)
        if split == "test":
            columns["probability"] = pa.array(clicks.probability.astype(np.float32))
        table = pa.table(columns).replace_schema_metadata(about)
        pq.write_table(table, folder / f"{split}.parquet", compression="zstd", compression_level=19)


def _narrow(values: np.ndarray) -> pa.Array:
    return pa.array(values.astype(np.int16 if values.max() < 2**15 else np.int32))


def inputs(features: ClickFeatures, clicks: Clicks) -> dict[str, torch.Tensor]:
    """What `features` makes of these columns, without a loop over rows: every id is below its table's size."""
    dense = np.stack([clicks.columns[name] for name in features.dense_columns], axis=1)
    ids = np.stack([clicks.columns[name] for name in features.categorical_columns], axis=1)
    return {
        "dense_features": torch.from_numpy(dense).float().clamp_min(0).log1p(),
        "sparse_ids": torch.from_numpy(ids).long(),
        "labels": torch.from_numpy(clicks.label).long(),
    }


def train(model: DlrmForClickPrediction, data: dict[str, torch.Tensor], held_out: dict[str, torch.Tensor]) -> list:
    """One pass: click models overfit at the second (Zhang et al. 2022, arXiv:2209.06053)."""
    order = torch.randperm(len(data["labels"]), generator=torch.Generator().manual_seed(SEED)).split(BATCH)
    tables = [p for name, p in model.named_parameters() if name.startswith("tables.")]
    rest = [p for name, p in model.named_parameters() if not name.startswith("tables.")]
    optimizer = torch.optim.Adam([{"params": tables, "lr": TABLE_RATE}, {"params": rest, "lr": RATE}])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - 0.95 * step / len(order))
    curve, recent, started = [], [], time.perf_counter()
    for step, rows in enumerate(order, start=1):
        loss = model(**{name: values[rows] for name, values in data.items()}).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
        if step % (len(order) // 8) == 0:
            held_out_loss = scores(model, held_out)["log_loss"]
            row = {"step": step, "train_loss": sum(recent) / len(recent), "held_out_loss": held_out_loss}
            curve.append({key: round(value, 4) for key, value in row.items()})
            recent = []
            print(curve[-1], f"{time.perf_counter() - started:.0f} s", flush=True)
    return curve


@torch.inference_mode()
def scores(model: DlrmForClickPrediction, data: dict[str, torch.Tensor]) -> dict[str, float]:
    logits = model(**{name: values for name, values in data.items() if name != "labels"}).logits.double()
    labels = data["labels"]
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    return {"log_loss": loss, "auc": area_under_curve((logits[:, 1] - logits[:, 0]).tolist(), labels.tolist())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    write_data(options.data)
    features = ClickFeatures(COUNTS, list(SIZES), list(SIZES.values()))
    test = generate("test", SHIPPED["test"])
    development = inputs(features, generate("train", options.rows + 20_000))
    data, held_out = (
        {name: values[part] for name, values in development.items()}
        for part in (slice(options.rows), slice(options.rows, None))
    )
    config = DlrmConfig(
        num_dense=len(COUNTS),
        table_sizes=list(SIZES.values()),
        embedding_dim=16,
        bottom_sizes=(64,),
        top_sizes=(64, 32),
    )
    model = DlrmForClickPrediction(config)
    started = time.perf_counter()
    curve = train(model, data, held_out)
    seconds = time.perf_counter() - started
    model.eval().half().save_pretrained(options.out)
    features.save_pretrained(options.out)
    stored = DlrmForClickPrediction.from_pretrained(options.out, dtype=torch.float32)
    expected, reached = synthetic_clicks.log_loss_bounds(test)
    oracle_auc = area_under_curve(test.probability.tolist(), test.label.tolist())
    found = scores(stored, inputs(features, test))
    in_tables = sum(table.weight.numel() for table in stored.tables)
    report = {
        "data": f"synthetic_clicks version {VERSION}, seed {SEED}", "training_rows": options.rows, "batch": BATCH,
        "num_parameters": stored.num_parameters(), "parameters_in_tables": in_tables,
        "click_rate": round(float(test.label.mean()), 4), "test_log_loss": round(found["log_loss"], 4),
        "test_auc": round(found["auc"], 4), "oracle_log_loss": round(reached, 4),
        "oracle_expected_log_loss": round(expected, 4), "oracle_auc": round(oracle_auc, 4),
        "seconds": round(seconds), "torch": torch.__version__, "curve": curve,
    }  # fmt: skip
    (options.out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    print({name: value for name, value in report.items() if name != "curve"})


if __name__ == "__main__":
    main()
