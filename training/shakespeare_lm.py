"""Train `embedded:shakespeare-lm`, a small Llama on TinyShakespeare (public domain).

    python training/shakespeare_lm.py [--steps N] [--out FOLDER]

The first 90 % of the characters train the tokenizer and the model; nothing is learned from the last 10 %. Weights are
stored as float16, and the published perplexity is that of the stored file.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import pathlib
import time

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXT = ROOT / "compressbench/data/embedded/tinyshakespeare/input.txt.gz"
OUT = ROOT / "compressbench/models/embedded/shakespeare_lm"
VOCABULARY, CONTEXT, BATCH, SEED = 1024, 256, 24, 0
PEAK_RATE, WEIGHT_DECAY, DROPOUT, WARMUP_STEPS = 3e-3, 0.01, 0.05, 60


def read_splits() -> tuple[str, str]:
    text = gzip.decompress(TEXT.read_bytes()).decode()
    cut = int(len(text) * 0.9)
    return text[:cut], text[cut:]


def train_tokenizer(text: str) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    core.train_from_iterator([text], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|endoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>",
        model_max_length=2 * CONTEXT,
    )  # fmt: skip


def make_model() -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=2 * CONTEXT, tie_word_embeddings=True,
            bos_token_id=0, eos_token_id=0, pad_token_id=0, rope_theta=10000.0,
        )
    )  # fmt: skip


def add_dropout(model: LlamaForCausalLM) -> list[torch.utils.hooks.RemovableHandle]:
    """Llama has no residual dropout; hooks add it for training only, so that the saved model is a plain Llama."""

    def drop(module: torch.nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(output, DROPOUT, module.training)

    targets = [m for n, m in model.named_modules() if n.endswith(("embed_tokens", "o_proj", "down_proj"))]
    return [module.register_forward_hook(drop) for module in targets]


@torch.inference_mode()
def held_out_loss(model: LlamaForCausalLM, tokens: torch.Tensor) -> float:
    """Mean negative log-likelihood per token in nats over non-overlapping windows of CONTEXT tokens."""
    model.eval()
    windows = tokens[: len(tokens) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    losses = [model(input_ids=part, labels=part).loss.item() * len(part) for part in windows.split(BATCH)]
    model.train()
    return sum(losses) / len(windows)


def learning_rate(step: int, steps: int) -> float:
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / (steps - WARMUP_STEPS)))


def train(model: LlamaForCausalLM, tokens: torch.Tensor, held_out: torch.Tensor, steps: int) -> list[dict[str, float]]:
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps))
    curve, recent, started = [], [], time.perf_counter()
    for step in range(1, steps + 1):
        starts = torch.randint(0, len(tokens) - CONTEXT, (BATCH,), generator=generator)
        batch = torch.stack([tokens[s : s + CONTEXT] for s in starts])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
        if step % 100 == 0 or step == steps:
            row = {
                "step": step,
                "train_loss": sum(recent) / len(recent),
                "held_out_loss": held_out_loss(model, held_out),
            }
            curve.append({key: round(value, 4) for key, value in row.items()})
            recent = []
            print(curve[-1], f"{time.perf_counter() - started:.0f} s", flush=True)
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    train_text, held_out_text = read_splits()
    tokenizer = train_tokenizer(train_text)
    encode = lambda text: torch.tensor(tokenizer(text, verbose=False)["input_ids"])  # noqa: E731
    tokens, held_out = encode(train_text), encode(held_out_text)
    model = make_model()
    print(f"{model.num_parameters():,} parameters, {len(tokens):,} + {len(held_out):,} tokens")
    hooks = add_dropout(model)
    curve = train(model, tokens, held_out, options.steps)
    for hook in hooks:
        hook.remove()
    model.half().save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    stored = LlamaForCausalLM.from_pretrained(options.out, dtype=torch.float32)
    loss = held_out_loss(stored, held_out)
    report = {
        "data": "TinyShakespeare, first 90 % of the characters", "seed": SEED, "steps": options.steps, "batch": BATCH,
        "context": CONTEXT, "num_parameters": model.num_parameters(), "held_out_tokens": len(held_out),
        "held_out_loss_nats_per_token": round(loss, 4), "held_out_perplexity": round(math.exp(loss), 3),
        "torch": torch.__version__, "curve": curve,
    }  # fmt: skip
    (options.out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    prompt = tokenizer("ROMEO:\n", return_tensors="pt")
    sample = stored.generate(**prompt, do_sample=True, temperature=0.8, max_new_tokens=120)
    print(f"held-out perplexity {math.exp(loss):.2f}\n{tokenizer.decode(sample[0])}")


if __name__ == "__main__":
    main()
