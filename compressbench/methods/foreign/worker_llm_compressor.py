"""Runs llm-compressor on a job of compressbench; started in the tool's own environment, and free of compressbench.

python -I worker_llm_compressor.py job.json
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
from typing import Any


def main(path: str) -> None:
    with open(path, encoding="utf-8") as stream:
        job = json.load(stream)
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    tool = importlib.import_module("llmcompressor")
    torch.manual_seed(job["seed"])
    torch.set_num_threads(job["num_threads"])
    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype="auto").to(job["device"])
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in job["rows"]]
    batches = [{name: torch.tensor([values]) for name, values in row.items()} for row in rows]
    tool.oneshot(
        model=model,
        # a batch of its own for every sample: the tool would cut those of a batch to the shortest
        dataset=torch.utils.data.DataLoader(batches, batch_size=None),
        recipe=modifiers(job),
        num_calibration_samples=len(rows),
        max_seq_length=max(len(row) for row in job["rows"]),
    )
    model.save_pretrained(job["output"], save_compressed=True)
    versions = {"llm-compressor": tool.__version__, "torch": torch.__version__, "python": platform.python_version()}
    with open(job["result"], "w", encoding="utf-8") as stream:
        json.dump({"checkpoint": job["output"], "versions": versions}, stream)


def modifiers(job: dict[str, Any]) -> list[Any]:
    """The recipe. Modules are named one by one, because the pruning modifiers don't heed what they are to ignore."""
    options = job["options"]
    targets, kind = job["modules"], options["modifier"]
    quantization = importlib.import_module("llmcompressor.modifiers.quantization")
    pruning = importlib.import_module("llmcompressor.modifiers.pruning")
    columnwise = {"block_size": options["block_size"], "dampening_frac": options["dampening_frac"]}
    sparse = {"targets": targets, "sparsity": options["sparsity"], "mask_structure": options["mask_structure"]}
    if kind == "wanda":
        return [pruning.WandaPruningModifier(**sparse)]
    if kind == "sparsegpt":
        return [pruning.SparseGPTModifier(**sparse, **columnwise)]
    if kind == "rtn":
        return [quantization.QuantizationModifier(targets=targets, scheme=options["scheme"])]
    rounding = quantization.GPTQModifier(targets=targets, scheme=options["scheme"], **columnwise)
    if kind == "gptq":
        return [rounding]
    smoothing = importlib.import_module("llmcompressor.modifiers.transform.smoothquant")
    return [smoothing.SmoothQuantModifier(smoothing_strength=options["smoothing_strength"]), rounding]


if __name__ == "__main__":
    main(sys.argv[1])
