"""The verbs `export` and `parity`: a kept candidate into files of other programs, and the exit codes of the proof."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import record_builder as build

from compressbench.cli.main import call
from compressbench.core import registry
from compressbench.measure.arm_process import write_inputs
from compressbench.measure.fresh_process import Job, Reopened, run_job
from compressbench.models.artefact import save_artefact
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.records.record import Artefact, RecipeRef
from compressbench.records.store import dump

RECIPE = {
    "name": "lm",
    "model": {"id": "embedded:shakespeare-lm"},
    "tasks": [{"use": "perplexity", "data": "embedded:tinyshakespeare", "split": "test", "window": 64}],
    "workload": {"scenario": "single-stream", "batch_size": 1, "sequence_length": 128},
    "meters": [{"use": "latency"}],
    "candidates": [{"name": "rtn4", "compress": [{"use": "rtn", "bits": 4, "group_size": 32, "sym": True}]}],
}


def record_of(step: dict[str, Any], room: Path) -> Path:
    """The record of a run with --save, and the candidate that it kept beside it."""
    handle = load_model(ModelSpec(id="embedded:shakespeare-lm"), "causal-lm", device="cpu")
    made = registry.methods.resolve(step["use"])(**{k: v for k, v in step.items() if k != "use"}).apply(handle)
    save_artefact(made, room / "artefacts" / "kept", {})
    kept = Artefact(folder="artefacts/kept", num_bytes=1, sha256="0" * 64, max_difference=0.0)
    ref = RecipeRef(name="lm", hash="of-lm", text=RECIPE)
    path = room / "lm.rtn4.json"
    path.write_bytes(dump(build.record("rtn4", recipe=ref, artefact=kept)))
    return path


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_of({"use": "rtn", "bits": 4, "group_size": 32, "sym": True}, tmp_path_factory.mktemp("sym"))


@pytest.fixture(scope="module")
def exported(record: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The candidate in a format, exported once."""
    room, done = tmp_path_factory.mktemp("exported"), set()

    def folder(to: str) -> Path:
        if to not in done:
            assert call(["export", str(record), "--to", to, "--output", str(room / to)]) == 0
            done.add(to)
        return room / to

    return folder


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same job without a process of its own, which takes seconds to import everything; it has its own tests."""

    def run(folder: Path, runtime: Any, shape: tuple[str, str, int], inputs: Any, room: Path) -> Reopened:
        write_inputs(room / "inputs", inputs)
        head, device, num_threads = shape
        job = Job(
            folder=str(folder), head=head, device=device, num_threads=num_threads, runtime=runtime,
            inputs=str(room / "inputs"), answers="",
        )  # fmt: skip
        result, answers = run_job(job)
        return Reopened(answers, result.open_s, result.resident_bytes)

    monkeypatch.setattr("compressbench.measure.exporting.reopen", run)


def test_a_fresh_process_proves_compressed_tensors(exported: Callable[[str], Path]) -> None:
    folder = exported("compressed-tensors")
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization_config"]["format"] == "pack-quantized"
    assert not (folder / "compressbench.json").exists()


def test_a_fresh_process_proves_gguf(exported: Callable[[str], Path]) -> None:
    assert (exported("gguf") / "model.gguf").is_file()


@pytest.mark.usefixtures("in_this_process")
def test_the_verb_says_what_was_kept(record: Path, tmp_path: Path, capsys: Any) -> None:
    assert call(["export", str(record), "--to", "gguf", "--output", str(tmp_path / "x"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["note"] == "28 layers with the candidate's own codes (Q4_0)"
    assert said["parity"]["broken"] == []
    assert said["parity"]["num_equal_texts"] == said["parity"]["num_texts"] > 0
    assert said["num_bytes"] == (tmp_path / "x" / "model.gguf").stat().st_size


@pytest.mark.usefixtures("in_this_process")
def test_zero_points_pass_too_though_the_library_multiplies_in_float16(tmp_path: Path, capsys: Any) -> None:
    record = record_of({"use": "rtn", "bits": 4, "group_size": 32}, tmp_path)
    assert call(["export", str(record), "--to", "compressed-tensors", "-o", str(tmp_path / "x")]) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    assert "28 layers with the candidate's own codes" in said
    assert "equal within limits" in said


@pytest.mark.usefixtures("in_this_process")
def test_parity_says_that_nothing_changed_and_that_codes_did(
    exported: Callable[[str], Path], tmp_path: Path, capsys: Any
) -> None:
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(exported("compressed-tensors"), tmp_path / "copy")
    capsys.readouterr()
    assert call(["parity", str(copy), "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["broken"] == []
    assert said["mean_kl"] < 1e-6

    tensors = load_file(copy / "model.safetensors")
    name = next(each for each in tensors if each.endswith("down_proj.weight_packed"))
    tensors[name] = tensors[name].roll(1, 0)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert call(["parity", str(copy)]) == 1
    assert "BEYOND ITS LIMITS" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.usefixtures("in_this_process")
def test_changed_bits_of_a_gguf_file_are_noticed(exported: Callable[[str], Path], tmp_path: Path, capsys: Any) -> None:
    copy = shutil.copytree(exported("gguf"), tmp_path / "copy")
    capsys.readouterr()
    path = copy / "model.gguf"
    data = bytearray(path.read_bytes())
    # one bit of every byte in the last tenth of the file, where weights are
    for place in range(len(data) * 9 // 10, len(data)):
        data[place] ^= 4
    path.write_bytes(data)
    assert call(["parity", str(copy)]) == 1
    assert capsys.readouterr().out.startswith("differs")


@pytest.mark.slow
@pytest.mark.parametrize("to", ["compressed-tensors", "gguf"])
def test_a_cut_file_has_exit_code_1(to: str, exported: Callable[[str], Path], tmp_path: Path, capsys: Any) -> None:
    copy = shutil.copytree(exported(to), tmp_path / "copy")
    path = next(each for each in copy.iterdir() if each.name in ("model.safetensors", "model.gguf"))
    path.write_bytes(path.read_bytes()[:100_000])
    assert call(["parity", str(copy)]) == 1
    assert "can't be used by a fresh process" in capsys.readouterr().err


def test_what_can_not_be_exported_has_exit_code_2(record: Path, tmp_path: Path, capsys: Any) -> None:
    three_bits = record_of({"use": "rtn", "bits": 3}, tmp_path)
    new = str(tmp_path / "new")
    assert call(["export", str(three_bits), "--to", "compressed-tensors", "-o", new]) == 2
    assert "take 4 and 8 bits, this layer has 3" in capsys.readouterr().err
    assert call(["export", str(record), "--to", "ggfu", "-o", new]) == 2
    assert "gguf" in capsys.readouterr().err
    assert call(["export", str(record), "--to", "gguf", "-o", new, "--option", "bits=4"]) == 2
    assert "has no options" in capsys.readouterr().err
    assert call(["export", str(record), "--to", "gguf", "-o", str(record.parent)]) == 2
    assert "files already" in capsys.readouterr().err
    assert call(["export", str(record), "--to", "gguf", "-o", new, "--option", "bits"]) == 2


def test_a_record_without_a_kept_candidate_has_exit_code_2(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "lm.rtn4.json"
    path.write_bytes(dump(build.record("rtn4")))
    assert call(["export", str(path), "--to", "gguf", "-o", str(tmp_path / "x")]) == 2
    assert "--save" in capsys.readouterr().err


def test_parity_without_anything_to_compare(record: Path, tmp_path: Path, capsys: Any) -> None:
    assert call(["parity", str(record)]) == 4
    assert "no comparison" in capsys.readouterr().err
    assert call(["parity", str(tmp_path)]) == 2
    assert "no proof beside the export" in capsys.readouterr().err
