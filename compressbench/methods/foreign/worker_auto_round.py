"""Runs AutoRound on a job of compressbench; started in the tool's own environment, and free of compressbench.

python -I worker_auto_round.py job.json
"""

from __future__ import annotations

import importlib
import json
import pathlib
import platform
import sys


def main(path: str) -> None:
    with open(path, encoding="utf-8") as stream:
        job = json.load(stream)
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    tool = importlib.import_module("auto_round")
    torch.set_num_threads(job["num_threads"])
    # the tool takes samples of one length only: that which keeps most tokens
    lengths = [len(row) for row in job["rows"]]
    length = max(lengths, key=lambda each: each * sum(other >= each for other in lengths))
    rows = [torch.tensor([row[:length]]) for row in job["rows"] if len(row) >= length]
    worker = tool.AutoRound(
        transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype="auto"),
        transformers.AutoTokenizer.from_pretrained(job["model"]),
        dataset=[{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows],
        nsamples=len(rows),
        seqlen=length,
        batch_size=min(8, len(rows)),
        seed=job["seed"],
        device_map=job["device"],
        layer_config={name: {"bits": 16} for name in job["left_out"] if not name.endswith("lm_head")},
        **{name: value for name, value in job["options"].items() if value is not None},
    )
    worker.quantize_and_save(job["output"], format="auto_gptq")
    # into a folder of its own, whose name tells bits and group size
    written = next(pathlib.Path(job["output"]).rglob("config.json")).parent
    versions = {"auto-round": tool.__version__, "torch": torch.__version__, "python": platform.python_version()}
    remarks = {"sequence_length": length, "num_samples": len(rows)}
    with open(job["result"], "w", encoding="utf-8") as stream:
        json.dump({"checkpoint": str(written), "versions": versions, "remarks": remarks}, stream)


if __name__ == "__main__":
    main(sys.argv[1])
