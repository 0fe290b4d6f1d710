from __future__ import annotations

import json
import subprocess
import sys

import pytest

WALK = """
import importlib, json, pkgutil, sys

room = importlib.import_module("compressbench." + sys.argv[1])
modules = pkgutil.walk_packages(room.__path__, room.__name__ + ".")
found = [module.name for module in modules if ".maths." not in module.name]  # pure tensor functions
if sys.argv[1] == "runtimes":  # beside the words stand what they export and trace with
    from compressbench.core.registry import runtimes
    found = [place.partition(":")[0] for place in runtimes.table.values()]
for name in found:
    importlib.import_module(name)
heavy = sorted({"torch", "transformers", "datasets", "codecarbon", "pynvml"} & set(sys.modules))
print(json.dumps({"found": found, "heavy": heavy}))
"""


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        ("methods", "compressbench.methods.distillation.logit_distillation"),
        ("tasks", "compressbench.tasks.perplexity"),
        ("runtimes", "compressbench.runtimes.torch_eager"),
        ("meters", "compressbench.meters.memory"),
    ],
)
def test_a_recipe_can_be_checked_without_importing_torch(room: str, expected: str) -> None:
    done = subprocess.run([sys.executable, "-c", WALK, room], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert expected in told["found"]
    assert told["heavy"] == []
    assert done.stderr == ""
