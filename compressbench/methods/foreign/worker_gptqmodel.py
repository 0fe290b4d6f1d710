"""Runs GPTQModel on a job of compressbench; started in the tool's own environment, and free of compressbench.

python -I worker_gptqmodel.py job.json
"""

from __future__ import annotations

import importlib
import json
import platform
import re
import sys
from typing import Any


def main(path: str) -> None:
    with open(path, encoding="utf-8") as stream:
        job = json.load(stream)
    torch = importlib.import_module("torch")
    tool = importlib.import_module("gptqmodel")
    torch.manual_seed(job["seed"])
    torch.set_num_threads(job["num_threads"])
    config = tool.QuantizeConfig(
        device=job["device"],
        # the first layout can't say that a zero point is 0
        format="gptq_v2",
        # or modules that few samples reach would be rounded to nearest without a word
        fallback=None,
        offload_to_disk=False,
        # everything that isn't named would be quantized
        dynamic={f"-:^{re.escape(name)}$": {} for name in job["left_out"]} or None,
        **job["options"],
    )
    # the tool's own choice on CPU is bfloat16, whatever the checkpoint holds
    model = tool.GPTQModel.load(job["model"], config, dtype=stored_dtype(torch, job["model"]))
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in job["rows"]]
    model.quantize(rows, batch_size=1, calibration_data_min_length=1)
    model.save(job["output"])
    versions = {"gptqmodel": tool.__version__, "torch": torch.__version__, "python": platform.python_version()}
    with open(job["result"], "w", encoding="utf-8") as stream:
        json.dump({"checkpoint": job["output"], "versions": versions}, stream)


def stored_dtype(torch: Any, folder: str) -> Any:
    with open(f"{folder}/config.json", encoding="utf-8") as stream:
        return getattr(torch, json.load(stream)["dtype"])


if __name__ == "__main__":
    main(sys.argv[1])
