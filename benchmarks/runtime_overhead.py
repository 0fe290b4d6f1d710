"""What does compressbench's session path add to what a runtime does by itself?

    python benchmarks/runtime_overhead.py                          # onnxruntime, about 3 minutes
    python benchmarks/runtime_overhead.py --runtime openvino
    python benchmarks/runtime_overhead.py --runtime torch --rounds 10

Two loops take turns (A B, B A, ...) in one process on one engine: `bare` calls the engine's own interface as a script
would, and `session` is what is measured: `measure.calls.caller` around the runtime's session. Encoders at batch 1 and
32 tokens, and a generation of 32 tokens after 16. Ratios of medians have Student's 95 % intervals over rounds; `bare`
against itself is what the machine alone makes of nothing. The target is 2 %. Another runtime plugs in by an entry of
BARE: what a script without compressbench would call, made from the session.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from compressbench.core.garbage import no_garbage_collection
from compressbench.core.protocols import Batch
from compressbench.core.registry import runtimes
from compressbench.core.statistics import log_ratio_interval
from compressbench.measure.calls import caller
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.device import prepare_device

NUM_ROUNDS, BLOCK_S, NUM_TOKENS, NUM_PROMPT = 30, 0.25, 32, 16
Call = Callable[[], object]


class Bare(NamedTuple):
    """A forward pass and a generation of `NUM_TOKENS` by the engine alone, given a session and its input."""

    forward: Callable[[Any, Batch], Call]
    generate: Callable[[Any, Batch], Call]


def torch_forward(session: Any, batch: Batch) -> Call:
    model, inputs = session.module, dict(batch)

    def call() -> object:
        with torch.inference_mode():
            return model(**inputs).logits

    return call


def torch_generate(session: Any, batch: Batch) -> Call:
    from transformers import GenerationConfig

    model, inputs = session.module, dict(batch)
    config = GenerationConfig(do_sample=False, min_new_tokens=NUM_TOKENS, max_new_tokens=NUM_TOKENS, eos_token_id=0)

    def call() -> object:
        with torch.inference_mode():
            return model.generate(**inputs, generation_config=config)

    return call


def onnx_forward(session: Any, batch: Batch) -> Call:
    engine, feeds = session._engine, {name: tensor.numpy() for name, tensor in batch.items()}
    return lambda: engine.run(None, feeds)


def onnx_generate(session: Any, batch: Batch) -> Call:
    """Greedy decoding in NumPy with one bound cache: what a careful script would do."""
    import numpy
    import onnxruntime  # type: ignore[import-untyped]

    engine, shape = session._engine, session._opened.facts.cache
    prompt, caches = batch["input_ids"].numpy(), [each.name for each in engine.get_inputs() if "past." in each.name]
    total = prompt.shape[1] + NUM_TOKENS
    empty = numpy.zeros((len(prompt), shape.num_heads, total, shape.head_size), dtype=numpy.float32)
    buffers = [onnxruntime.OrtValue.ortvalue_from_numpy(empty.copy()) for _ in caches]
    binding = engine.io_binding()
    for name, buffer in zip(caches, buffers, strict=True):
        binding.bind_ortvalue_input(name, buffer)
        binding.bind_ortvalue_output(name.replace("past", "present"), buffer)
    never = list(session._special.end)

    def call() -> object:
        ids, begun, found = prompt, 0, [prompt]
        for _ in range(NUM_TOKENS):
            length = begun + ids.shape[1]
            binding.bind_cpu_input("input_ids", ids)
            binding.bind_cpu_input("attention_mask", numpy.ones((len(ids), length), dtype=numpy.int64))
            binding.bind_cpu_input("position_ids", numpy.arange(begun, length)[None].repeat(len(ids), 0))
            binding.bind_cpu_input("kept", numpy.array([ids.shape[1] - 1]))
            binding.bind_output("logits", "cpu")
            engine.run_with_iobinding(binding)
            logits = binding.get_outputs()[-1].numpy()[:, 0]
            logits[:, never] = -numpy.inf
            ids, begun = logits.argmax(-1)[:, None], length
            found.append(ids)
        return numpy.concatenate(found, axis=1)

    return call


def _own_engine(session: Any) -> Any:
    """The same files compiled once more: requests of one model share its graph, and with it where inputs lie."""
    from pathlib import Path

    from compressbench.runtimes.openvino import OpenVino

    return OpenVino().open(Path(session.owned_folder.name), "cpu")._compiled.model


def openvino_forward(session: Any, batch: Batch) -> Call:
    from compressbench.runtimes.openvino_feeding import as_array, encoder_inputs

    request = _own_engine(session).create_infer_request()
    feeds = [as_array(tensor) for tensor in encoder_inputs(batch, session._compiled.about.inputs)]
    return lambda: request.infer(feeds)[0]


def openvino_generate(session: Any, batch: Batch) -> Call:
    """Greedy decoding in NumPy with the engine's own state: what a careful script would do."""
    import numpy

    request = _own_engine(session).create_infer_request()
    prompt, never = batch["input_ids"].numpy(), list(session._special.end)
    rows, length = prompt.shape
    hidden = numpy.triu(numpy.full((rows, 1, length, length), -numpy.inf, dtype=numpy.float32), 1)
    nothing = numpy.zeros((rows, 1, 1, length + NUM_TOKENS), dtype=numpy.float32)
    beams, first = numpy.arange(rows, dtype=numpy.int32), numpy.zeros(1, dtype=numpy.int64)

    def call() -> object:
        request.reset_state()
        ids, mask, positions = prompt, hidden, numpy.arange(length)[None].repeat(rows, 0)
        wanted, found = numpy.array([length - 1]), [prompt]
        for at in range(length, length + NUM_TOKENS):
            logits = request.infer([ids, mask, positions, wanted, beams], share_outputs=True)[0][:, 0].copy()
            logits[:, never] = -numpy.inf
            ids = logits.argmax(-1)[:, None]
            mask, positions, wanted = nothing[..., : at + 1], numpy.full((rows, 1), at), first
            found.append(ids)
        return numpy.concatenate(found, axis=1)

    return call


BARE = {
    "torch": Bare(torch_forward, torch_generate),
    "onnxruntime": Bare(onnx_forward, onnx_generate),
    "openvino": Bare(openvino_forward, openvino_generate),
}
WORKLOADS = (
    ("embedded:minilm-banking77", "sequence-classification", None),
    ("embedded:shakespeare-lm", "causal-lm", NUM_TOKENS),
)


def measure(name: str, options: dict[str, Any], num_rounds: int) -> None:
    for model_id, head, num_tokens in WORKLOADS:
        handle = load_model(ModelSpec(id=model_id), head, device="cpu")
        session = runtimes.resolve(name)(**options).prepare(handle, "cpu")
        batch = _input(num_tokens)
        around = caller(session, [batch], num_tokens)
        bare = (BARE[name].forward if num_tokens is None else BARE[name].generate)(session, batch)

        def through(around: Any = around) -> object:
            return around(0)

        blocks = _blocks(bare, through, num_rounds)
        around.take()
        _print(f"{name} {options or ''} {model_id}", *blocks)
        session.close()


def _input(num_tokens: int | None) -> Batch:
    length = 32 if num_tokens is None else NUM_PROMPT
    ids = torch.randint(5, 1000, (1, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _blocks(bare: Call, session: Call, num_rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Medians of calls in seconds by round: of the bare loop, of the session, and of the bare loop again.

    Calls alternate one by one, so that a slow second of a shared machine meets all three.
    """
    calls = (bare, session, bare)
    for call in calls:
        for _ in range(3):
            call()
    begun = time.perf_counter()
    bare()
    count = max(3, round(BLOCK_S / (time.perf_counter() - begun)))
    found: tuple[list[float], list[float], list[float]] = ([], [], [])
    with no_garbage_collection():
        for number in range(num_rounds):
            taken: tuple[list[float], ...] = ([], [], [])
            for turn in range(count):
                for at in (0, 1, 2) if (number + turn) % 2 else (2, 1, 0):
                    begun = time.perf_counter()
                    calls[at]()
                    taken[at].append(time.perf_counter() - begun)
            for each, times in zip(found, taken, strict=True):
                each.append(statistics.median(times))
    return found


def _print(what: str, bare: list[float], session: list[float], again: list[float]) -> None:
    ours, nothing = log_ratio_interval(bare, session), log_ratio_interval(bare, again)
    print(f"{what}: bare {statistics.median(bare) * 1e3:.3f} ms", flush=True)
    for name, ratio in (("session / bare", ours), ("bare / bare", nothing)):
        print(f"  {name:16} {ratio.value:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runtime", choices=sorted(BARE), default="onnxruntime")
    parser.add_argument("--option", action="append", default=[], help="an option of the runtime: quantize=int8-dynamic")
    parser.add_argument("--rounds", type=int, default=NUM_ROUNDS)
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args()
    prepare_device("cpu", given.threads)
    measure(given.runtime, dict(each.split("=", 1) for each in given.option), given.rounds)


if __name__ == "__main__":
    main()
