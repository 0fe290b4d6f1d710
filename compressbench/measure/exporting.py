"""A candidate that was kept, written for another engine, with inputs and answers beside it that prove it anywhere."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from compressbench.core import registry
from compressbench.core.deploying import facts_of
from compressbench.core.errors import CompressbenchError, ModelError, UnsupportedError
from compressbench.core.names import did_you_mean
from compressbench.core.protocols import Batch
from compressbench.core.registry import Resolved
from compressbench.measure.arm_process import read_inputs, write_inputs
from compressbench.measure.fresh_process import reopen
from compressbench.measure.parity import (
    ParityLimits,
    answers_of,
    compare,
    inputs_for_parity,
    limits_for,
    read_answers,
    write_answers,
)
from compressbench.records.deployment import Parity
from compressbench.records.record import Record

if TYPE_CHECKING:
    from compressbench.models.handle import ModelHandle

ENGINES = {"onnx": "onnxruntime", "openvino": "openvino"}
"""Formats that a runtime writes, and which one."""
WRITERS = {
    "safetensors": "compressbench.models.exports.safetensors:write",
    "compressed-tensors": "compressbench.models.exports.compressed_tensors:write",
    "gguf": "compressbench.models.exports.gguf:write",
}
"""Formats of files that other programs read: a function of a handle and a folder, which says what a reader should know."""
_PROOF = "parity.json"
_INPUTS, _ANSWERS = "parity-inputs.safetensors", "parity-answers.safetensors"


class Exported(NamedTuple):
    """`note` says what became of compressed layers, where the format decides that."""

    folder: Path
    num_bytes: int
    parity: Parity
    note: str = ""


def formats() -> list[str]:
    return [*ENGINES, *WRITERS]


def kept_folder(path: Path, record: Record) -> Path:
    """Where the record's candidate was kept. Raises ModelError if it was not, or is gone."""
    if record.artefact is None:
        raise ModelError(
            "the candidate was not kept", where=path.name, do="Run its recipe with --save, and export that record."
        )
    folder = path.parent / record.artefact.folder
    if not folder.is_dir():
        raise ModelError("the kept candidate is gone", where=str(folder), do="Run its recipe with --save.")
    return folder


def export(folder: Path, to: str, output: Path, *, options: Mapping[str, Any], inputs: Sequence[Batch]) -> Exported:
    """Write the artefact in `folder` to `output` in the format `to`, with the proof beside it, and prove it once.

    `options` are those of the runtime that writes the format. Raises UnsupportedError with the reason where the engine
    can't load such a model, ModelError if `output` has files already.
    """
    from compressbench.models.load import load_model
    from compressbench.recipe.schema import ModelSpec
    from compressbench.runtimes.torch_eager import TorchEager

    if to not in formats():
        raise UnsupportedError(f"unknown format '{to}'", do=did_you_mean(to, formats()))
    if output.exists() and any(output.iterdir()):
        raise ModelError("there are files already", where=str(output), do="Give a new folder with --output.")
    handle = load_model(ModelSpec(id=str(folder)), _head_of(folder), device="cpu")
    runtime, note = _write(handle, to, output, options)
    tried = inputs_for_parity(inputs)
    answers = answers_of(TorchEager().prepare(handle, "cpu"), handle.head, tried)
    is_exact = facts_of(runtime.value).is_exact
    proof = {"head": handle.head, "runtime": runtime.as_data(), "is_exact": is_exact, "weights": handle.weights}
    (output / _PROOF).write_text(json.dumps(proof, indent=1) + "\n", encoding="utf-8")
    write_inputs(output / _INPUTS, tried)
    write_answers(output / _ANSWERS, answers)
    files = [path for path in output.rglob("*") if path.is_file() and not path.name.startswith("parity")]
    return Exported(output, sum(path.stat().st_size for path in files), parity_of(output), note)


def parity_of(folder: Path, limits: ParityLimits | None = None) -> Parity:
    """Open an export in a fresh process and compare its answers with those that were written beside it.

    Raises ModelError without those, CellError if the process fails.
    """
    import torch

    try:
        proof = json.loads((folder / _PROOF).read_text(encoding="utf-8"))
        expected = read_answers(folder / _ANSWERS)
        inputs = read_inputs(folder / _INPUTS)
        head, runtime = str(proof["head"]), dict(proof["runtime"])
        fitting = limits_for(is_exact=bool(proof["is_exact"]), dtypes=[proof.get("weights", "float32")])
    except Exception as error:
        raise ModelError(
            "there is no proof beside the export, or it can't be read",
            where=str(folder),
            got=str(error)[:300],
            do="Export the candidate again with compressbench export.",
        ) from error
    with tempfile.TemporaryDirectory() as room:
        shape = (head, "cpu", torch.get_num_threads())
        found = reopen(folder, runtime, shape, inputs, Path(room))
    return compare(expected, found.answers, head, limits or fitting, "the candidate in PyTorch, when it was exported")


def _write(handle: ModelHandle, to: str, output: Path, options: Mapping[str, Any]) -> tuple[Resolved, str]:
    """The files; the runtime that opens them, and the writer's note."""
    output.mkdir(parents=True, exist_ok=True)
    if to not in ENGINES:
        if options:
            raise UnsupportedError(f"the format {to} has no options", got=", ".join(options))
        module, _, name = WRITERS[to].partition(":")
        note = getattr(importlib.import_module(module), name)(handle, output)
        return registry.resolve_use(registry.runtimes, {"use": "torch"}), note or ""
    from compressbench.runtimes.exported import export_whole

    name = ENGINES[to]
    kind = registry.runtimes.resolve(name)
    try:
        runtime = kind(**options)
    except ValueError as error:
        raise UnsupportedError(f"the runtime '{name}' doesn't take these options", got=str(error)) from error
    facts = facts_of(runtime)
    if missing := registry.missing_distributions(facts.requires):
        raise UnsupportedError(f"'{name}' needs {', '.join(missing)}", do=f'pip install "compressbench[{facts.extra}]"')
    if facts.accepts is not None and handle.weights not in facts.accepts:
        raise UnsupportedError(
            f"'{name}' loads {', '.join(sorted(facts.accepts))} weights",
            got=f"{handle.weights} weights",
            do="Export to safetensors, or leave the packing step out and let the engine quantize.",
        )
    export_whole(runtime, name, handle, output)
    return Resolved(name, runtime, runtime.model_dump(mode="json")), ""


def _head_of(folder: Path) -> str:
    from compressbench.models.artefact import read_manifest

    manifest = read_manifest(folder)
    if manifest is None:
        raise ModelError("this folder is no artefact of compressbench", where=str(folder), do="Run with --save.")
    return str(manifest["head"])


def inputs_of(record: Record) -> list[Batch]:
    """The inputs that the record's recipe times, made anew from its first task's data. Raises what loading them raises."""
    from compressbench.models.load import load_model
    from compressbench.recipe.load import parse_recipe
    from compressbench.tasks.ready_made import fill_in

    recipe = parse_recipe(record.recipe.text).recipe
    kind, options = fill_in(recipe.tasks[0])
    task = registry.tasks.resolve(kind)(**options)
    try:
        model = load_model(recipe.model, task.head, device="cpu")
        workload = recipe.workload
        batches: list[Batch] = task.workload_batches(model, task.load(), workload.batch_size, workload.sequence_length)
    except CompressbenchError as error:
        raise ModelError("the inputs of the recipe can't be made again", got=str(error)) from error
    return batches
