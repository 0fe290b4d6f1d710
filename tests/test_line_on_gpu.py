"""The line on a CUDA device: `pytest -m gpu`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from line_parts import recipe_data, write_data, write_model, write_recipe

from compressbench.models.int8_linear import int8_rows_matmul
from compressbench.report.rows import rows_of
from compressbench.run import run_recipe

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]

CANDIDATES: list[dict[str, Any]] = [
    {"name": "bf16", "compress": [{"use": "cast"}]},
    {"name": "int8", "compress": [{"use": "int8-dynamic"}]},
    {"name": "weights", "compress": [{"use": "cast"}, {"use": "int8-weight-only"}]},
    {"name": "short", "compress": [{"use": "depth-pruning", "num_layers": 1}, {"use": "logit-distillation"}]},
]


def test_the_line_runs_on_the_device_and_its_counter_measures_energy(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"device": "cuda", "meters": ["latency", "energy", "memory", "size"]}
    sections["workload"] = {"tier": "smoke", "sequence_length": 8, "rounds": 1, "block_s": 0.1}
    data = recipe_data(write_model(tmp_path / "m"), write_data(tmp_path / "d"), CANDIDATES, **sections)
    records = list(run_recipe(write_recipe(tmp_path / "r.yaml", data), tmp_path / "out"))
    assert [record.failure for record in records] == [None] * 5
    baseline = rows_of(records)[0]
    energy = baseline.cells["energy_j_per_inference"]
    assert energy.kind == "measured" or energy.reason
    assert baseline.cells["peak_memory_bytes"].source == "PyTorch CUDA allocator"


@pytest.mark.parametrize("num_rows", [1, 16, 17, 100])
def test_the_int8_product_on_cuda_is_that_of_the_cpu(num_rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_rows, 64, generator=generator)
    weight = torch.randint(-127, 128, (32, 64), generator=generator, dtype=torch.int8)
    scale = torch.rand(32, generator=generator)
    on_cuda = int8_rows_matmul(x.cuda(), weight.cuda(), scale.cuda()).cpu()
    torch.testing.assert_close(on_cuda, int8_rows_matmul(x, weight, scale), rtol=1e-5, atol=1e-5)


ON_CUDA: dict[str, list[dict[str, Any]]] = {
    "rtn": [{"use": "rtn", "group_size": 32}],
    "gptq": [{"use": "gptq", "group_size": 32}],
    "awq": [{"use": "awq", "group_size": 32, "n_grid": 4}],
    "hqq": [{"use": "hqq", "group_size": 32}],
    "smoothquant": [{"use": "smoothquant"}],
    "int4-weight-only": [{"use": "int4-weight-only", "group_size": 32}],
    "bnb-int8": [{"use": "bnb-int8"}],
    "bnb-nf4": [{"use": "bnb-nf4"}],
    "fp8": [{"use": "cast"}, {"use": "fp8"}],
    "wanda": [{"use": "wanda", "sparsity": 0.5}],
    "sparsegpt": [{"use": "sparsegpt", "mask_structure": "2:4"}],
    "semi-structured": [{"use": "cast"}, {"use": "magnitude", "mask_structure": "2:4"}, {"use": "semi-structured"}],
    "low-rank": [{"use": "low-rank", "ratio": 0.3}],
    "width-pruning": [{"use": "width-pruning", "ffn_ratio": 0.25, "importance": "taylor"}],
    "recover": [{"use": "magnitude", "sparsity": 0.5}, {"use": "recover", "num_epochs": 0.5}],
}


def test_every_method_runs_on_the_device_and_its_claims_hold(tmp_path: Path) -> None:
    candidates = [{"name": name, "compress": steps} for name, steps in ON_CUDA.items()]
    data = recipe_data(write_model(tmp_path / "m"), write_data(tmp_path / "d"), candidates, device="cuda")
    train = tmp_path / "d" / "train.jsonl"
    train.write_text(train.read_text().replace('"text": "', '"text": "not on '))
    records = list(run_recipe(write_recipe(tmp_path / "r.yaml", data), tmp_path / "out", save=True))
    failed = {record.candidate: record.failure.message for record in records if record.failure is not None}
    assert failed == {}
    for record in records:
        assert record.audit is not None
        assert record.audit.claim_ok, (record.candidate, [each.message for each in record.audit.false_claims])
