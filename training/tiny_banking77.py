"""Train `embedded:tiny-banking77` from nothing: a small BERT that knows the 77 intents of Banking77 and nothing else.

    python training/tiny_banking77.py [--held-out N] [--out FOLDER]

The training split gives the WordPiece vocabulary, the labels, and sentences whose logits by `embedded:minilm-banking77`
are learned too. `--held-out N` trains without every N-th sentence and scores those, to choose settings; nothing is
stored then. The test split chooses nothing; it is scored at the end, from the stored file. All is seeded but the choice
among pieces of the same count, which the library's WordPiece trainer makes at random.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import platform
import time
from collections.abc import Iterator

import safetensors
import tokenizers
import torch
import transformers
from minilm_banking77 import read_split
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "compressbench/models/embedded/tiny_banking77"
TEACHER = "embedded:minilm-banking77"
VOCABULARY, HIDDEN, LAYERS, INNER, MAX_TOKENS, SEED = 2000, 128, 1, 512, 64, 0
EPOCHS, BATCH, PEAK_RATE, WEIGHT_DECAY, DROPOUT, MASKED = 60, 64, 2e-3, 0.05, 0.1, 0.15
TEMPERATURE, TEACHER_SHARE, WARMUP = 2.0, 0.7, 0.05
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, MASK = 0, 4
REACH = 128
"""Tokens that the stored model reads: places after the last one that was trained repeat it."""
IN_REACH = 16
"""Batches whose sentences are sorted by length together, so that few places are padding."""


def train_tokenizer(sentences: list[str]) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.train_from_iterator(
        sentences, trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False)
    )
    core.post_processor = processors.BertProcessing(
        ("[SEP]", SPECIAL.index("[SEP]")), ("[CLS]", SPECIAL.index("[CLS]"))
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=REACH, **names)


def make_model(names: list[str]) -> BertForSequenceClassification:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=4,
            intermediate_size=INNER, max_position_embeddings=MAX_TOKENS, type_vocab_size=1, pad_token_id=PAD,
            hidden_dropout_prob=DROPOUT, id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
        )
    )  # fmt: skip


def with_longer_reach(model: BertForSequenceClassification) -> BertForSequenceClassification:
    """The same model, which reads REACH tokens: the task's limit, though few sentences have so many."""
    longer = BertForSequenceClassification(BertConfig(**{**model.config.to_dict(), "max_position_embeddings": REACH}))
    weights = model.state_dict()
    name = "bert.embeddings.position_embeddings.weight"
    weights[name] = torch.cat([weights[name], weights[name][-1:].expand(REACH - MAX_TOKENS, -1)])
    longer.load_state_dict(weights)
    return longer


@torch.inference_mode()
def teach(sentences: list[str]) -> Tensor:
    """The teacher's logits (num_sentences, num_classes)."""
    teacher = load_model(ModelSpec(id=TEACHER), "sequence-classification")
    return predict(teacher.model, teacher.tokenizer, sentences)


@torch.inference_mode()
def predict(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, sentences: list[str]) -> Tensor:
    """Logits (num_sentences, num_classes) in the order given; sentences of like length share a batch."""
    model.eval()
    ids = tokenizer(sentences, truncation=True, max_length=REACH)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
    found: list[Tensor] = [torch.empty(0)] * len(ids)
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        batch = tokenizer.pad({"input_ids": [ids[i] for i in part]}, return_tensors="pt")
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        for i, row in zip(part, logits, strict=True):
            found[i] = row
    return torch.stack(found)


def masked(ids: Tensor, generator: torch.Generator) -> Tensor:
    """Some pieces hidden, never the special ones."""
    is_hidden = (torch.rand(ids.shape, generator=generator) < MASKED) & (ids >= len(SPECIAL))
    return torch.where(is_hidden, MASK, ids)


def batches(ids: list[list[int]], generator: torch.Generator) -> Iterator[list[int]]:
    """Places of the sentences of each batch, in random order, those of like length together."""
    order = torch.randperm(len(ids), generator=generator).tolist()[: len(ids) // BATCH * BATCH]
    for start in range(0, len(order), IN_REACH * BATCH):
        near = sorted(order[start : start + IN_REACH * BATCH], key=lambda i: len(ids[i]))
        parts = [near[at : at + BATCH] for at in range(0, len(near), BATCH)]
        yield from (parts[at] for at in torch.randperm(len(parts), generator=generator).tolist())


def learning_rate(step: int, steps: int) -> float:
    warm = WARMUP * steps
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def train(
    model: BertForSequenceClassification, ids: list[list[int]], labels: Tensor, goal: Tensor
) -> list[dict[str, float]]:
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    steps = EPOCHS * (len(ids) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps))
    curve, started = [], time.perf_counter()
    for epoch in range(1, EPOCHS + 1):
        model.train()
        total = 0.0
        for part in batches(ids, generator):
            batch = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids[i]) for i in part], batch_first=True)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(input_ids=masked(batch, generator), attention_mask=(batch != PAD).long()).logits
            loss = lesson(logits.float(), labels[part], goal[part])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        if epoch % 10 == 0 or epoch == EPOCHS:
            curve.append({"epoch": epoch, "loss": round(total / (len(ids) // BATCH), 4)})
            print(curve[-1], f"{time.perf_counter() - started:.0f} s", flush=True)
    return curve


def lesson(logits: Tensor, labels: Tensor, goal: Tensor) -> Tensor:
    """Cross-entropy with the labels, and T^2 times the divergence from the teacher at temperature T."""
    student, teacher = (functional.log_softmax(each / TEMPERATURE, dim=-1) for each in (logits, goal))
    soft = functional.kl_div(student, teacher, log_target=True, reduction="batchmean") * TEMPERATURE**2
    hard = functional.cross_entropy(logits, labels, label_smoothing=0.05)
    return TEACHER_SHARE * soft + (1 - TEACHER_SHARE) * hard


def score(out: pathlib.Path) -> dict[str, float]:
    """Right answers of the stored model on the test split."""
    sentences, labels, _ = read_split("test")
    stored = BertForSequenceClassification.from_pretrained(out, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
    right = int((predict(stored, tokenizer, sentences).argmax(dim=1) == labels).sum())
    return {"num_correct": right, "num_total": len(labels), "accuracy": round(right / len(labels), 6)}


def main(out: pathlib.Path, held_out: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    sentences, labels, names = read_split("train")
    is_held = torch.tensor([bool(held_out) and i % held_out == 0 for i in range(len(sentences))])
    own = [sentences[i] for i in (~is_held).nonzero().ravel().tolist()]
    tokenizer, model = train_tokenizer(own), make_model(names)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} pieces", flush=True)
    ids = tokenizer(own, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    curve = train(model, ids, labels[~is_held], teach(own))
    if held_out:
        kept = [sentences[i] for i in is_held.nonzero().ravel().tolist()]
        right = predict(model, tokenizer, kept).argmax(dim=1) == labels[is_held]
        raise SystemExit(f"held out: {int(right.sum())} of {len(kept)}, {float(right.float().mean()):.4f}")
    store(model, tokenizer, curve, out)


def store(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerFast, curve: list[dict[str, float]],
    out: pathlib.Path,
) -> None:  # fmt: skip
    """Weights in float16, the tokenizer, and what was done, with the score of the stored file."""
    longer = with_longer_reach(model).half()
    longer.save_pretrained(out)
    # the last call's truncation and padding would be stored too
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(out)
    report = {
        "data": "Banking77, training split", "teacher": TEACHER, "seed": SEED,
        "epochs": EPOCHS, "batch": BATCH, "peak_rate": PEAK_RATE, "weight_decay": WEIGHT_DECAY, "dropout": DROPOUT,
        "masked": MASKED, "temperature": TEMPERATURE, "teacher_share": TEACHER_SHARE,
        "max_tokens": MAX_TOKENS, "reach": REACH, "num_parameters": longer.num_parameters(),
        "test": score(out), "curve": curve,
        "versions": {"python": platform.python_version()}
        | {module.__name__: module.__version__ for module in (torch, transformers, tokenizers, safetensors)},
    }  # fmt: skip
    (out / "training.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    options = parser.parse_args()
    main(options.out, options.held_out)
