"""GPTQ, SparseGPT and Wanda layer by layer, against GPTQModel's and llm-compressor's own code: seconds and results.

    COMPRESSBENCH_GPTQMODEL_PYTHON=... COMPRESSBENCH_LLM_COMPRESSOR_PYTHON=... python benchmarks/layerwise_peers.py

The layers are those of the embedded MiniLM (30 of 384 inputs, 6 of 1536), the inputs real ones: Banking77 sentences.
Every tool runs in its own environment as a process that waits for its turn, so that turns can be interleaved (A B C, C B A)
while nothing else runs; all use one thread unless OMP_NUM_THREADS says otherwise. Ratios are medians over turns. Where
codes differ, a value lay so near the middle of two that float32 decides: float64 changes as many of ours.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NUM_ROWS, NUM_ROUNDS, DAMPING, MARK = 4096, 3, 0.01, "RESULT "
VARIABLES = {
    "gptqmodel": "COMPRESSBENCH_GPTQMODEL_PYTHON",
    "llm-compressor": "COMPRESSBENCH_LLM_COMPRESSOR_PYTHON",
}
BOTH = ("gptqmodel", "llm-compressor")
GPTQ = {"method": "gptq", "bits": 4, "group_size": -1, "sym": True, "desc_act": False, "static_groups": False}
TASKS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "gptq 4 bit per channel": (GPTQ, BOTH),
    "gptq 4 bit g128": ({**GPTQ, "group_size": 128}, ("gptqmodel",)),
    "gptq 4 bit g128 static groups": ({**GPTQ, "group_size": 128, "static_groups": True}, BOTH),
    "gptq 4 bit g128 asym desc_act": ({**GPTQ, "group_size": 128, "sym": False, "desc_act": True}, ("gptqmodel",)),
    "sparsegpt 50 %": ({"method": "sparsegpt", "n": 0, "m": 0}, ("llm-compressor",)),
    "sparsegpt 2:4": ({"method": "sparsegpt", "n": 2, "m": 4}, ("llm-compressor",)),
    "wanda 50 %": ({"method": "wanda", "n": 0, "m": 0}, ("llm-compressor",)),
    "wanda 2:4": ({"method": "wanda", "n": 2, "m": 4}, ("llm-compressor",)),
}


def with_compressbench(task: dict[str, Any], weight: Any, rows: Any, hessian: Any) -> tuple[float, float, Any]:
    """As the other sides: seconds for the statistics of the inputs, seconds for the rest, and the new weight."""
    from compressbench.methods.maths import gptq, inverse_hessian, masks, sparsegpt, uniform, wanda

    torch = importlib.import_module("torch")
    begun = time.perf_counter()
    if task["method"] == "wanda":
        norms = wanda.ColumnNorms(rows.shape[1])
        norms.add(rows)
        between = time.perf_counter()
        scores = wanda.wanda_scores(weight, norms.norms())
        kept = masks.keep_n_of_m(scores, task["n"], task["m"]) if task["m"] else masks.keep_largest_per_row(scores, 0.5)
        return between - begun, time.perf_counter() - between, weight * kept
    if hessian is None:
        statistics_of = inverse_hessian.Hessian(rows.shape[1])
        statistics_of.add(rows)
        hessian = statistics_of.take()
    between = time.perf_counter()
    if task["method"] == "sparsegpt":
        amount = {"num_zeros": task["n"], "group": task["m"]} if task["m"] else {"sparsity": 0.5}
        sparse = sparsegpt.sparsegpt(weight, hessian, sparsegpt.SparseGptOptions(damp_percent=DAMPING, **amount))
        return between - begun, time.perf_counter() - between, sparse.weight
    grid = uniform.Grid(task["bits"], task["group_size"], sym=task["sym"], scale_dtype=torch.float32)
    options = gptq.GptqOptions(DAMPING, desc_act=task["desc_act"], static_groups=task["static_groups"])
    quantized = gptq.gptq(weight, hessian, grid, options).quantized
    done = time.perf_counter()
    return between - begun, done - between, quantized.dequantize()


def with_gptqmodel(task: dict[str, Any], weight: Any, rows: Any, hessian: Any) -> tuple[float, float, Any]:
    torch = importlib.import_module("torch")
    core = importlib.import_module("gptqmodel.quantization.gptq")
    names = ("bits", "group_size", "sym", "desc_act", "static_groups")
    config = importlib.import_module("gptqmodel").QuantizeConfig(
        device="cpu", damp_percent=DAMPING, act_group_aware=False, fallback=None, offload_to_disk=False,
        **{name: task[name] for name in names},
    )  # fmt: skip
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data.copy_(weight)
    worker = core.GPTQ(linear, config)
    worker.quantizer.configure(perchannel=True)
    begun = time.perf_counter()
    worker.add_batch(rows[None], None)
    worker.finalize_hessian()
    between = time.perf_counter()
    if hessian is not None:
        hessian.copy_(worker.H)
    again = time.perf_counter()
    found = worker.quantize(blocksize=128)[0]
    return between - begun, time.perf_counter() - again, found


def with_llm_compressor(task: dict[str, Any], weight: Any, rows: Any, _: Any) -> tuple[float, float, Any]:
    torch = importlib.import_module("torch")
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data.copy_(weight)
    if task["method"] == "gptq":
        return _gptq_of_llm_compressor(task, linear, rows)
    name = {"sparsegpt": "sparsegpt.sgpt_sparsify", "wanda": "wanda.wanda_sparsify"}[task["method"]]
    core = importlib.import_module(f"llmcompressor.modifiers.pruning.{name}")
    is_wanda = task["method"] == "wanda"
    begun = time.perf_counter()
    empty = (core.make_empty_row_scalars if is_wanda else core.make_empty_hessian)(linear)
    found, _ = (core.accumulate_row_scalars if is_wanda else core.accumulate_hessian)(rows, linear, empty, 0)
    between = time.perf_counter()
    if is_wanda:
        pruned = core.sparsify_weight(linear, {linear: found}, 0.5, task["n"], task["m"])
    else:
        _, pruned = core.sparsify_weight(linear, {linear: found}, 0.5, task["n"], task["m"], 128, DAMPING, False)
    return between - begun, time.perf_counter() - between, pruned


def _gptq_of_llm_compressor(task: dict[str, Any], linear: Any, rows: Any) -> tuple[float, float, Any]:
    torch = importlib.import_module("torch")
    core = importlib.import_module("llmcompressor.modifiers.gptq.gptq_quantize")
    helpers = importlib.import_module("llmcompressor.modifiers.gptq.helpers")
    quantization = importlib.import_module("compressed_tensors.quantization")
    ranges = importlib.import_module("compressed_tensors.quantization.utils")
    size = task["group_size"]
    strategy = {"strategy": "channel"} if size == -1 else {"strategy": "group", "group_size": size}
    arguments = quantization.QuantizationArgs(num_bits=task["bits"], symmetric=True, **strategy)
    begun = time.perf_counter()
    empty, count = helpers.make_empty_hessian(linear), torch.zeros(())
    hessian, count = helpers.accumulate_hessian(rows, linear, empty, count)
    between = time.perf_counter()
    groups = linear.weight.detach().unflatten(1, (-1, linear.in_features if size == -1 else size))
    scale, zero = ranges.calculate_qparams(groups.amin(2), groups.amax(2), arguments)
    found = core.quantize_weight(
        linear.weight.detach().clone()[None],
        (hessian / count)[None],
        scale[None],
        zero[None],
        None,
        arguments,
        128,
        DAMPING,
    )
    return between - begun, time.perf_counter() - between, found[0][0]


SIDES = {"compressbench": with_compressbench, "gptqmodel": with_gptqmodel, "llm-compressor": with_llm_compressor}


def serve(side: str, folder: str) -> None:
    """Answer one line of JSON after the other: a task for all layers, done one after the other."""
    torch = importlib.import_module("torch")
    files = importlib.import_module("safetensors.torch")
    layers = files.load_file(f"{folder}/layers.safetensors")
    names = sorted({name.rpartition(".")[0] for name in layers})
    for line in sys.stdin:
        task = json.loads(line)
        hessians = files.load_file(task["hessians"]) if task.get("hessians") else {}
        seconds, weights = [0.0, 0.0], {}
        with torch.no_grad():
            for name in names:
                rows, hessian = layers[f"{name}.rows"], hessians.get(name)
                if task.get("keep_hessians"):
                    hessian = hessians[name] = torch.empty(rows.shape[1], rows.shape[1])
                first, second, weights[name] = SIDES[side](task, layers[f"{name}.weight"], rows, hessian)
                seconds = [seconds[0] + first, seconds[1] + second]
        if task.get("output"):
            files.save_file({name: each.float().contiguous() for name, each in weights.items()}, task["output"])
        if task.get("keep_hessians"):
            files.save_file(hessians, task["keep_hessians"])
        print(MARK + json.dumps(seconds), flush=True)


class Side:
    def __init__(self, name: str, python: str, folder: Path) -> None:
        self.name, self._log = name, (folder / f"{name}.log").open("w+")
        command = [python, __file__, "--serve", name, str(folder)]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "GPTQMODEL_CPU_WORKERS": "1",
        }
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment
        )

    def ask(self, **task: Any) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(MARK):
                return list(json.loads(line.removeprefix(MARK)))
        self._log.seek(0)
        raise SystemExit(f"{self.name} stopped:\n{self._log.read()[-3000:]}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


def write_layers(folder: Path) -> None:
    """Weights and inputs of every linear layer of MiniLM's six blocks; the same sentences for all."""
    import torch
    from safetensors.torch import save_file

    from compressbench.models.load import load_model
    from compressbench.models.parts import target_linears
    from compressbench.recipe.schema import ModelSpec
    from compressbench.tasks.text_classification import TextClassification

    handle = load_model(ModelSpec(id="embedded:minilm-banking77"), "sequence-classification")
    batches = TextClassification(data="embedded:banking77").training_batches(handle, 32, 512, 0)
    linears = {name: each for name, each in target_linears(handle.model).items() if each.in_features in (384, 1536)}
    rows: dict[str, list[Any]] = {name: [] for name in linears}
    mask = [torch.empty(0)]
    hooks = [
        module.register_forward_pre_hook(lambda _, given, name=name: rows[name].append(given[0][mask[0]]))
        for name, module in linears.items()
    ]
    with torch.no_grad():
        for batch in batches:
            mask[0] = batch["attention_mask"].bool()
            handle.model(**{name: each for name, each in batch.items() if name != "labels"})
    for hook in hooks:
        hook.remove()
    kept = {f"{name}.rows": torch.cat(each)[:NUM_ROWS].contiguous() for name, each in rows.items()}
    weights = {f"{name}.weight": each.weight.detach().contiguous() for name, each in linears.items()}
    save_file({**kept, **weights}, folder / "layers.safetensors")


def compare(folder: Path, first: str, second: str) -> str:
    """Relative output errors of both, summed over layers, and how many weights are the same."""
    from safetensors.torch import load_file

    layers = load_file(folder / "layers.safetensors")
    ours, theirs = load_file(folder / first), load_file(folder / second)
    whole, errors, same, total = 0.0, [0.0, 0.0], 0, 0
    for name in ours:
        rows, weight = layers[f"{name}.rows"], layers[f"{name}.weight"]
        whole += float((rows @ weight.t()).square().sum())
        for at, found in enumerate((ours[name], theirs[name])):
            errors[at] += float((rows @ (found - weight).t()).square().sum())
        step = (ours[name] - theirs[name]).abs() <= 1e-3 * weight.abs().amax(dim=1, keepdim=True)
        same, total = same + int(step.sum()), total + weight.numel()
    mine, other = ((error / whole) ** 0.5 for error in errors)
    return f"relative output error {mine:.5f} against {other:.5f}; {same / total:.4%} of the weights the same"


def main() -> None:
    sides = {"compressbench": sys.executable, **{name: os.environ.get(key, "") for name, key in VARIABLES.items()}}
    absent = [f"{VARIABLES[name]} (for {name})" for name, python in sides.items() if not python]
    if absent:
        raise SystemExit(f"set {' and '.join(absent)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_layers(folder)
        open_sides = {name: Side(name, python, folder) for name, python in sides.items()}
        try:
            for title, (task, peers) in TASKS.items():
                measure(title, task, [open_sides[name] for name in ("compressbench", *peers)], folder)
        finally:
            for side in open_sides.values():
                side.close()


def measure(title: str, task: dict[str, Any], sides: list[Side], folder: Path) -> None:
    print(f"\n{title} (load {os.getloadavg()[0]:.1f})", flush=True)
    for side in sides:  # once to warm up, and to see what comes out
        side.ask(**task, output=str(folder / f"{side.name}.out"))
    turns = [side for _ in range(NUM_ROUNDS) for order in (sides, sides[::-1]) for side in order]
    found: dict[str, list[list[float]]] = {side.name: [] for side in sides}
    for side in turns:
        found[side.name].append(side.ask(**task))
    ours = found["compressbench"]
    for name, times in found.items():
        statistics_s, rest_s = (statistics.median(each[at] for each in times) for at in (0, 1))
        ratios = [sum(each) / sum(mine) for each, mine in zip(times, ours, strict=True)]
        print(
            f"  {name:15} {statistics_s + rest_s:7.2f} s (statistics {statistics_s:.2f}, rest {rest_s:.2f}); "
            f"{statistics.median(ratios):.2f} times ours ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    for side in sides[1:]:
        print(f"  against {side.name}: {compare(folder, 'compressbench.out', f'{side.name}.out')}")
    if task["method"] == "gptq" and sides[1].name == "gptqmodel":
        kept = str(folder / "hessians")
        sides[1].ask(**task, output=str(folder / "theirs.out"), keep_hessians=kept)
        sides[0].ask(**task, output=str(folder / "ours.out"), hessians=kept)
        print(f"  with gptqmodel's Hessians: {compare(folder, 'ours.out', 'theirs.out')}")


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve(*sys.argv[2:4])
    else:
        main()
