"""Train `embedded:arithmetic-lm`, a very small Llama that adds and subtracts in writing.

    python training/arithmetic_lm.py [--goal SHARE] [--out FOLDER]

It learns from questions that are drawn without end; none of them is in the test split of `embedded:arithmetic`. Training
stops at the first check at which GOAL of the held-out questions are answered: before it is perfect, so that several
samples find more than one. Weights are stored as float16.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import pathlib
import random
import time
from collections.abc import Sequence

import torch
from arithmetic_questions import Terms, question_of, solution_of, splits, stream
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

OUT = pathlib.Path(__file__).resolve().parent.parent / "compressbench/models/embedded/arithmetic_lm"
VOCABULARY = ["<pad>", ".", *"0123456789+-="]
MAX_STEPS, CHECK_EVERY = 6000, 200
GOAL = 0.7
BATCH, SEED, PEAK_RATE, WEIGHT_DECAY, WARMUP_STEPS = 64, 0, 3e-3, 0.01, 100
TEMPERATURE, NUM_HELD_OUT = 0.8, 200


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each character; the full stop ends a text."""
    core = Tokenizer(models.WordLevel({token: at for at, token in enumerate(VOCABULARY)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=".", pad_token="<pad>", model_max_length=128)


def make_model() -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(VOCABULARY), num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
            tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=0, rope_theta=10000.0,
            hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        )
    )  # fmt: skip


def batch_of(tokenizer: PreTrainedTokenizerFast, questions: Sequence[Terms]) -> dict[str, torch.Tensor]:
    """Questions with their solutions; only the solutions are labels."""
    texts = [question_of(terms) + solution_of(terms) for terms in questions]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    for row, terms in enumerate(questions):
        labels[row, : len(question_of(terms))] = -100
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}


def learning_rate(step: int) -> float:
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / (MAX_STEPS - WARMUP_STEPS)))


@torch.inference_mode()
def pass_at_1(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Terms]) -> float:
    """The share of questions whose result is right in one sample at TEMPERATURE."""
    model.eval()
    inputs = tokenizer(list(map(question_of, questions)), return_tensors="pt", padding=True, padding_side="left")
    inputs.pop("token_type_ids", None)
    found = model.generate(**inputs, do_sample=True, temperature=TEMPERATURE, top_k=0, max_new_tokens=40)
    texts = tokenizer.batch_decode(found[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    model.train()
    results = [solution_of(terms).rstrip(".").split("=")[-1] for terms in questions]
    return sum(text.split("=")[-1] == right for text, right in zip(texts, results, strict=True)) / len(questions)


def train(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, goal: float, held_out: Sequence[Terms]
) -> list[dict[str, float]]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate)
    questions = stream(SEED + 2, set(splits()["test"]) | set(held_out))
    curve, recent, started = [], [], time.perf_counter()
    for step in range(1, MAX_STEPS + 1):
        drawn = sorted(itertools.islice(questions, BATCH), key=len)
        optimizer.zero_grad(set_to_none=True)
        losses = []
        for half in (drawn[: BATCH // 2], drawn[BATCH // 2 :]):  # short and long ones apart: less padding
            loss = model(**batch_of(tokenizer, half)).loss / 2
            loss.backward()
            losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(sum(losses))
        if step % CHECK_EVERY == 0:
            right = pass_at_1(model, tokenizer, held_out)
            curve.append({"step": step, "train_loss": round(sum(recent) / len(recent), 4), "pass_at_1": right})
            recent = []
            print(curve[-1], f"{time.perf_counter() - started:.0f} s", flush=True)
            if right >= goal:
                break
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--goal", type=float, default=GOAL)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    options = parser.parse_args()
    out, goal = options.out, options.goal
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    tokenizer, model = make_tokenizer(), make_model()
    chance = random.Random(SEED + 3)
    held_out = list(itertools.islice(stream(chance.randrange(2**32), set(splits()["test"])), NUM_HELD_OUT))
    print(f"{model.num_parameters():,} parameters")
    curve = train(model, tokenizer, goal, held_out)
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    stored = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32)
    report = {
        "data": "drawn by arithmetic_questions.stream, without the test split of embedded:arithmetic",
        "seed": SEED, "goal": goal, "steps": curve[-1]["step"], "batch": BATCH, "num_parameters": model.num_parameters(),
        "temperature": TEMPERATURE, "num_held_out": NUM_HELD_OUT,
        "held_out_pass_at_1": pass_at_1(stored, tokenizer, held_out),
        "torch": torch.__version__, "curve": curve,
    }  # fmt: skip
    (out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"pass@1 at temperature {TEMPERATURE}: {report['held_out_pass_at_1']:.3f}")


if __name__ == "__main__":
    main()
