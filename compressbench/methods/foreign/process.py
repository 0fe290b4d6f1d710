"""Running a compression tool in a Python environment of its own, where its pinned dependencies don't meet ours.

The tool's interpreter is named by an environment variable such as COMPRESSBENCH_GPTQMODEL_PYTHON; without it, a tool that
is installed beside compressbench runs in this interpreter's environment. Model, calibration samples and options go
through files of a temporary folder, and so does what the tool made of them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compressbench.core.errors import CellError, MissingDependencyError
from compressbench.models.handle import ModelHandle

_TAIL_LINES, _TAIL_CHARACTERS = 12, 1500
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "NO_COLOR": "1"}
# another interpreter must not find the packages of this one
_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


@dataclass(frozen=True)
class Tool:
    """`name` is the word in a recipe, `distribution` what pip installs, `module` what is imported, `version` the one that
    was tried; `worker` is the script beside this file that the tool's interpreter runs, and `environment` what it finds
    set if it isn't yet.
    """

    name: str
    distribution: str
    module: str
    version: str
    worker: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def variable(self) -> str:
        return f"COMPRESSBENCH_{self.name.upper().replace('-', '_')}_PYTHON"

    @property
    def how_to_install(self) -> str:
        folder = f"{self.name}-env"
        pip = f"{folder}/bin/pip install torch==2.13.0"
        return (
            f"Make an environment for it: python -m venv {folder} && {pip} && {pip} {self.distribution}=={self.version} "
            f"&& export {self.variable}=$PWD/{folder}/bin/python"
        )


@dataclass(frozen=True)
class Job:
    """What a tool is to do: `options` and `modules` (the linear modules to work on) and `left_out` (those to leave) are
    the worker's business, `rows` are the token ids of the calibration samples, without padding.
    """

    options: Mapping[str, Any]
    modules: Sequence[str]
    left_out: Sequence[str]
    rows: Sequence[Sequence[int]]
    timeout_s: float


@dataclass(frozen=True)
class ToolOutput:
    """The folder of the checkpoint that the tool wrote, and what it said of itself: versions, and remarks by name."""

    checkpoint: Path
    versions: Mapping[str, str]
    remarks: Mapping[str, Any]


def find_python(tool: Tool) -> str:
    """The interpreter to run `tool` with. Raises MissingDependencyError with the commands that make one."""
    named = os.environ.get(tool.variable)
    if named:
        path = shutil.which(named)
        if path is None:
            raise MissingDependencyError(f"{tool.variable} names no program", got=named, do=tool.how_to_install)
        return path
    found = importlib.util.find_spec(tool.module)
    # a folder that happens to have the tool's name is a spec without an origin
    if found is None or found.origin is None:
        raise MissingDependencyError(
            f"{tool.name} is not installed, and {tool.variable} names no interpreter that has it",
            do=tool.how_to_install,
        )
    return sys.executable


@contextmanager
def run_tool(tool: Tool, handle: ModelHandle, job: Job) -> Iterator[ToolOutput]:
    """Give the model and the job to the tool, and what it wrote back for as long as the context lasts.

    Raises MissingDependencyError if there is no such tool, CellError with the end of its log if it fails, is killed,
    takes longer than `job.timeout_s` or writes no result.
    """
    python = find_python(tool)
    with tempfile.TemporaryDirectory(prefix=f"compressbench-{tool.name}-") as name:
        folder = Path(name)
        _write(folder, handle, job)
        handle.supplies.progress.say(f"{tool.name} runs in {python}")
        _run(tool, python, folder, job.timeout_s)
        yield _read_result(tool, folder)


def _write(folder: Path, handle: ModelHandle, job: Job) -> None:
    import torch

    from compressbench.models.quiet import quiet

    with quiet():
        handle.model.save_pretrained(folder / "model")
        handle.tokenizer.save_pretrained(folder / "model")
    (folder / "scratch").mkdir()
    told = {
        "model": str(folder / "model"), "output": str(folder / "output"), "result": str(folder / "result.json"),
        "scratch": str(folder / "scratch"), "options": dict(job.options), "modules": list(job.modules),
        "left_out": list(job.left_out), "rows": [list(row) for row in job.rows], "seed": handle.supplies.seed,
        "device": handle.device, "num_threads": torch.get_num_threads(),
    }  # fmt: skip
    (folder / "job.json").write_text(json.dumps(told), encoding="utf-8")


def _run(tool: Tool, python: str, folder: Path, timeout_s: float) -> None:
    is_other = python != sys.executable
    # -I and -P keep the worker's own folder, whose modules are ours, off its path
    command = [python, "-I" if is_other else "-P", str(Path(__file__).with_name(tool.worker)), str(folder / "job.json")]
    log = folder / "log.txt"
    with log.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603 -- the interpreter is the one that the user names
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=folder / "scratch",
            env=_environment(tool, folder, is_other),
            start_new_session=True,
        )
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise CellError(
                f"{tool.name} was not done after {timeout_s:g} s",
                got=_tail(log),
                do="Raise timeout_s, or use fewer or shorter calibration samples.",
            ) from None
        finally:
            _kill(process)
    if code != 0:
        raise _failure(tool, code, _tail(log))


def _environment(tool: Tool, folder: Path, is_other: bool) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not (is_other and name in _OURS)}
    return {**tool.environment, **inherited, **_OFFLINE, "TMPDIR": str(folder / "scratch")}


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The tool and whatever it started; nothing to do if it is done."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _failure(tool: Tool, code: int, tail: str) -> CellError | MissingDependencyError:
    if f"No module named '{tool.module}'" in tail:
        return MissingDependencyError(
            f"{tool.variable} names an interpreter without {tool.module}", do=tool.how_to_install
        )
    if code < 0:
        name = signal.Signals(-code).name
        do = "A tool that is killed has often run out of memory: use a smaller model or fewer calibration samples."
        return CellError(f"{tool.name} was killed by {name}", got=tail, do=do)
    return CellError(f"{tool.name} failed with exit code {code}", got=tail, do="See its message; try other options.")


def _tail(log: Path) -> str:
    """The last lines of a log, as they would stand on a terminal: bars drawn once, and no colours."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 50_000))
        text = stream.read().decode("utf-8", "replace")
    lines = [line.rstrip().rsplit("\r", 1)[-1] for line in re.sub(r"\x1b\[[0-9;]*m", "", text).split("\n")]
    end = "\n".join([line for line in lines if line][-_TAIL_LINES:])
    return end[-_TAIL_CHARACTERS:] or "an empty log"


def _read_result(tool: Tool, folder: Path) -> ToolOutput:
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        checkpoint = Path(result["checkpoint"])
        versions = {str(name): str(version) for name, version in result["versions"].items()}
        output = ToolOutput(checkpoint, versions, dict(result.get("remarks", {})))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CellError(
            f"{tool.name} wrote no result that can be read",
            got=f"{type(error).__name__}: {error}; log: {_tail(folder / 'log.txt')}",
        ) from error
    if not (checkpoint / "config.json").is_file():
        raise CellError(f"{tool.name} wrote no checkpoint", got=f"log: {_tail(folder / 'log.txt')}")
    return output
