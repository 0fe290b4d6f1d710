"""Write `embedded:synthetic-shapes` and train `embedded:vit-synthetic-shapes` on the process that makes it.

    python training/vit_synthetic_shapes.py [--pictures N] [--epochs N] [--out FOLDER] [--data FOLDER]

Training sees more pictures than are shipped (the shipped training pictures are the first of them), none of the test split.
Weights are stored as float16, and the published accuracy is that of the stored file.
"""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from compressbench.data.synthetic_shapes import SEED, SHAPES, SIZE, VERSION, generate

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "compressbench/data/embedded/synthetic-shapes"
OUT = ROOT / "compressbench/models/embedded/vit_synthetic_shapes"
SHIPPED = {"train": 400, "test": 1_000}
BATCH, PEAK_RATE = 128, 2e-3


def write_data(folder: pathlib.Path) -> None:
    """PNG files with class names, as `datasets` stores pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    label = {"names": list(SHAPES), "_type": "ClassLabel"}
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    about = {"process": "compressbench.data.synthetic_shapes", "version": str(VERSION), "seed": str(SEED)}
    for split, count in SHIPPED.items():
        pictures, labels = generate(split, count)
        columns = {"image": [{"bytes": png(each), "path": None} for each in pictures], "label": labels}
        table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(features), **about})
        pq.write_table(table, folder / f"{split}.parquet", compression="zstd", compression_level=19)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def make_model() -> ViTForImageClassification:
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96, image_size=SIZE,
            patch_size=4, num_channels=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            initializer_range=0.1, id2label=dict(enumerate(SHAPES)), label2id={name: at for at, name in enumerate(SHAPES)},
        )
    )  # fmt: skip


def pixels_of(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).float().div(127.5).sub(1)[:, None]


def train(model: ViTForImageClassification, pixels: torch.Tensor, labels: torch.Tensor, epochs: int) -> list[float]:
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.01)
    total = epochs * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=total, pct_start=0.1)
    losses = []
    for _ in range(epochs):
        recent = []
        for rows in torch.randperm(len(labels), generator=generator).split(BATCH):
            loss = model(pixel_values=pixels[rows], labels=labels[rows]).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            recent.append(loss.item())
        losses.append(round(sum(recent) / len(recent), 4))
        print(len(losses), losses[-1], flush=True)
    return losses


@torch.inference_mode()
def accuracy(model: ViTForImageClassification, pixels: torch.Tensor, labels: torch.Tensor) -> float:
    return float((model(pixel_values=pixels).logits.argmax(dim=1) == labels).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=6_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    write_data(options.data)
    pictures, labels = generate("train", options.pictures)
    model, started = make_model(), time.perf_counter()
    losses = train(model, pixels_of(pictures), torch.from_numpy(labels), options.epochs)
    seconds = time.perf_counter() - started
    model.eval().half().save_pretrained(options.out)
    processor = ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}, image_mean=[0.5], image_std=[0.5])
    processor.save_pretrained(options.out)
    stored = ViTForImageClassification.from_pretrained(options.out, dtype=torch.float32)
    test, test_labels = generate("test", SHIPPED["test"])
    report = {
        "data": f"synthetic_shapes version {VERSION}, seed {SEED}", "training_pictures": options.pictures,
        "epochs": options.epochs, "batch": BATCH, "num_parameters": stored.num_parameters(),
        "test_accuracy": round(accuracy(stored, pixels_of(test), torch.from_numpy(test_labels)), 4),
        "seconds": round(seconds), "torch": torch.__version__, "training_loss_by_epoch": losses,
    }  # fmt: skip
    (options.out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    print(report)


if __name__ == "__main__":
    main()
