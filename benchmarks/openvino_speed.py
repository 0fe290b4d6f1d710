"""How fast is the runtime `openvino` against eager PyTorch in float32, and how much accuracy does its int8 cost?

    python benchmarks/openvino_speed.py encoder            # embedded MiniLM, 32 tokens, batch 1
    python benchmarks/openvino_speed.py encoder --batch 32
    python benchmarks/openvino_speed.py decoder            # embedded language model, 32 + 64 tokens
    python benchmarks/openvino_speed.py decoder --random   # random:llama-125m, a Llama of random weights
    python benchmarks/openvino_speed.py accuracy           # 3,080 questions of Banking77, test of equivalence at 0.5 points
    python benchmarks/openvino_speed.py disturbance        # does an engine slow down the eager arm that runs after it?

All arms are open in one process and take turns (forwards, then backwards). A round gives the ratio of the medians of its
calls; printed are the median ratio over rounds and Student's 95 % interval of the mean log ratio. `--only` chooses arms.
On a machine that others use too, `--threads 1 --cpu-time` counts the processor's seconds instead of the clock's: threads
that wait for each other lose most of theirs there, eager PyTorch's far more than the engine's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from compressbench.core.equivalence import tost_p
from compressbench.core.protocols import Session
from compressbench.core.statistics import log_ratio_interval, paired_proportion_error
from compressbench.models.handle import ModelHandle, Supplies
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.openvino import OpenVino
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.tasks.calibration import draw_calibration
from compressbench.tasks.text_classification import TextClassification

ARMS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bfloat16"},
    "int8": {"quantize": "int8"},
    "int8+bf16": {"quantize": "int8", "precision": "bfloat16"},
    "int8-weights": {"quantize": "int8-weights"},
    "int8-weights+rounded": {"quantize": "int8-weights", "activation_group": 32},
    "int8-weights+bf16": {"quantize": "int8-weights", "precision": "bfloat16"},
    "int4-weights": {"quantize": "int4-weights"},
    "int4-weights+rounded": {"quantize": "int4-weights", "activation_group": 32},
    "int8-streams": {"quantize": "int8", "hint": "throughput"},
    "int8-performance": {"quantize": "int8", "preset": "performance"},
    "int8-smooth-0.5": {"quantize": "int8", "smooth_quant": 0.5},
    "int8-not-smooth": {"quantize": "int8", "smooth_quant": None},
}
TASK = TextClassification(data="embedded:banking77", split="test")
BLOCK_S, LENGTH, NEW_TOKENS, MARGIN = 0.3, 32, 64, 0.005


class _Clock:
    """What times are read from, as `--cpu-time` says."""

    read: Callable[[], float] = staticmethod(time.perf_counter)


def clock() -> float:
    return _Clock.read()


def classifier() -> ModelHandle:
    handle = load_model(ModelSpec(id="embedded:minilm-banking77"), "sequence-classification")
    return handle.copy(Supplies(calibration=lambda wanted: draw_calibration(TASK, handle, wanted, 0)))


def questions(batch: int) -> dict[str, torch.Tensor]:
    """Random tokens, `LENGTH` in every row."""
    ids = torch.randint(1000, 20000, (batch, LENGTH), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def opened(handle: ModelHandle, names: list[str]) -> dict[str, Session]:
    sessions: dict[str, Session] = {"eager": TorchEager().prepare(handle, "cpu")}
    for name in names:
        begun = clock()
        sessions[name] = OpenVino(**ARMS[name]).prepare(handle, "cpu")
        deployed = sessions[name].deployed  # type: ignore[attr-defined]
        print(f"{name}: {deployed.precision}, weights {(deployed.weight_bytes or 0) / 1e6:.1f} MB,"
              f" made in {clock() - begun:.0f} s", flush=True)  # fmt: skip
    return sessions


def block(call: Callable[[], Any]) -> float:
    """The median call of one block, in seconds."""
    taken, begun = [], clock()
    while not taken or clock() - begun < BLOCK_S:
        before = clock()
        call()
        taken.append(clock() - before)
    return statistics.median(taken)


def race(calls: Mapping[str, Callable[[], Any]], rounds: int, units: float = 1) -> None:
    """Times of `calls`, the first of which is the baseline, printed in ms per unit, with ratios."""
    seen: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        block(call)
    for number in range(rounds):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            seen[name].append(block(calls[name]))
    base, *others = seen
    print(f"{base}: {statistics.median(seen[base]) / units * 1e3:.3f} ms, best {min(seen[base]) / units * 1e3:.3f}")
    for name in others:
        ratios = [ours / theirs for ours, theirs in zip(seen[base], seen[name], strict=True)]
        interval = log_ratio_interval(seen[name], seen[base])
        print(f"{name}: {statistics.median(seen[name]) / units * 1e3:.3f} ms, best {min(seen[name]) / units * 1e3:.3f},"
              f" {statistics.median(ratios):.2f} x [{interval.low:.2f}, {interval.high:.2f}],"
              f" of the best {min(seen[base]) / min(seen[name]):.2f} x")  # fmt: skip


def encoder(names: list[str], rounds: int, batch: int) -> None:
    handle = classifier()
    inputs, sessions = questions(batch), opened(handle, names)
    race({name: lambda s=session: s(inputs) for name, session in sessions.items()}, rounds)  # type: ignore[misc]


def decoder(names: list[str], rounds: int, is_random: bool) -> None:
    model = "random:llama-125m" if is_random else "embedded:shakespeare-lm"
    handle = load_model(ModelSpec(id=model), "causal-lm")
    ids = torch.randint(4, 1000, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    calls = {
        name: lambda s=session: s.generate(inputs, NEW_TOKENS)  # type: ignore[misc]
        for name, session in opened(handle, names).items()
    }
    race(calls, rounds, NEW_TOKENS)


def right(session: Session, handle: ModelHandle) -> list[bool]:
    from compressbench.core.progress import SilentProgress
    from compressbench.core.watching import Unwatched

    rows = TASK.evaluate(session, handle, TASK.load(), SilentProgress(), Unwatched())
    return [bool(row.score) for row in sorted(rows, key=lambda row: row.id)]


def accuracy(names: list[str]) -> None:
    handle = classifier()
    expected = right(TorchEager().prepare(handle, "cpu"), handle)
    print(f"eager: {100 * sum(expected) / len(expected):.3f} % of {len(expected)}")
    for name in names:
        session = OpenVino(**ARMS[name]).prepare(handle, "cpu")
        found = right(session, handle)
        lost = sum(a and not b for a, b in zip(expected, found, strict=True))
        won = sum(b and not a for a, b in zip(expected, found, strict=True))
        centre, error = paired_proportion_error(lost, won, len(found))
        difference = (won - lost) / len(found)
        print(f"{name}: {100 * difference:+.3f} points (won {won}, lost {lost}),"
              f" equivalence within 0.5: p = {tost_p(centre, error, MARGIN):.4f}", flush=True)  # fmt: skip
        session.close()


def disturbance(rounds: int) -> None:
    """Eager calls by themselves, and eager calls that alternate with those of an engine."""
    handle = classifier()
    inputs, sessions = questions(1), opened(handle, ["fp32"])
    eager, engine = sessions["eager"], sessions["fp32"]
    alone: list[float] = []
    after: list[float] = []
    for _ in range(rounds):
        alone.append(block(lambda: eager(inputs)))
        taken = []
        for _ in range(5):
            engine(inputs)
            before = clock()
            eager(inputs)
            taken.append(clock() - before)
        after.append(statistics.median(taken))
    interval = log_ratio_interval(alone, after)
    print(f"eager after the engine over eager alone: {interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["encoder", "decoder", "accuracy", "disturbance"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(ARMS))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    _Clock.read = time.process_time if given.cpu_time else time.perf_counter
    names = given.only or [name for name in ARMS if given.what != "decoder" or ARMS[name].get("quantize") != "int8"]
    if given.what == "encoder":
        encoder(names, given.rounds, given.batch)
    elif given.what == "decoder":
        decoder(names, given.rounds, given.random)
    elif given.what == "accuracy":
        accuracy(names)
    else:
        disturbance(given.rounds)


if __name__ == "__main__":
    main()
