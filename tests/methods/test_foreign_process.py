"""A tool in another environment gets model, samples and options, and whatever goes wrong there says so here."""

from __future__ import annotations

import ast
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from foreign_stand_in import write_stand_in
from safetensors.torch import load_file

import compressbench.methods.foreign.process as process
from compressbench.core.errors import CellError, CompressbenchError, MissingDependencyError
from compressbench.methods.foreign.process import Job, Tool, ToolOutput, find_python, run_tool
from compressbench.models.handle import ModelHandle
from compressbench.testing import tiny_causal_lm

TOOL = Tool(
    "some-tool", "some-dist", "some_module_that_nobody_has", "1.2", "worker_gptqmodel.py", {"SOME_DEFAULT": "7"}
)
JOB = Job({"bits": 4}, ("a.b", "a.c"), ("lm_head",), [[1, 2, 3], [4]], timeout_s=60.0)
WORKERS = sorted(Path(process.__file__).parent.glob("worker_*.py"))


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    return tiny_causal_lm(num_layers=1)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary folders are made in one that has to be empty again, whatever happened."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(body: str) -> None:
        monkeypatch.setenv(TOOL.variable, write_stand_in(tmp_path, body))

    return use


def run(handle: ModelHandle, job: Job = JOB) -> ToolOutput:
    with run_tool(TOOL, handle, job) as output:
        return output


def failure(handle: ModelHandle, job: Job = JOB) -> CompressbenchError:
    with pytest.raises(CompressbenchError) as caught:
        run(handle, job)
    return caught.value


WRITE_CONFIG = """
os.makedirs(job["output"])
open(job["output"] + "/config.json", "w").write("{}")
"""


def test_the_tool_finds_the_model_and_the_job_and_its_answer_is_read(
    handle: ModelHandle, stand_in: Any, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    stand_in(f"""
        shutil.copytree(os.path.dirname(path), {str(seen)!r})
        json.dump([flags, worker, os.getcwd()], open({str(seen / "told.json")!r}, "w"))
        shutil.copytree(job["model"], job["output"])
        answer(remarks={{"num_samples": 2}})
    """)
    with run_tool(TOOL, handle, JOB) as output:
        assert (output.checkpoint / "model.safetensors").is_file()
        assert output.versions == {"tool": "1.2", "python": "3.99"}
        assert output.remarks == {"num_samples": 2}
    told = json.loads((seen / "job.json").read_text())
    assert told["options"] == {"bits": 4}
    assert (told["modules"], told["left_out"]) == (["a.b", "a.c"], ["lm_head"])
    assert told["rows"] == [[1, 2, 3], [4]]
    assert (told["seed"], told["device"]) == (0, "cpu")
    weights = load_file(seen / "model" / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert weights[name].equal(handle.model.get_parameter(name))
    assert (seen / "model" / "tokenizer.json").is_file()
    flags, worker, folder = json.loads((seen / "told.json").read_text())
    assert flags == ["-I"], "neither our packages nor the worker's folder may be on its path"
    assert worker == str(WORKERS[0].with_name("worker_gptqmodel.py"))
    assert folder == told["scratch"]


def test_the_tool_works_offline_and_without_our_packages(
    handle: ModelHandle, stand_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "ours")
    monkeypatch.setenv("KEPT", "yes")
    stand_in(f"""{WRITE_CONFIG}
json.dump(dict(os.environ), open({str(tmp_path / "env.json")!r}, "w"))
answer()
""")
    run(handle)
    found = json.loads((tmp_path / "env.json").read_text())
    assert "PYTHONPATH" not in found
    assert (found["HF_HUB_OFFLINE"], found["KEPT"], found["SOME_DEFAULT"]) == ("1", "yes", "7")
    assert found["TMPDIR"].endswith("/scratch")
    monkeypatch.setenv("SOME_DEFAULT", "8")
    run(handle)
    assert json.loads((tmp_path / "env.json").read_text())["SOME_DEFAULT"] == "8"


def test_a_failure_shows_the_end_of_the_log_as_a_terminal_would(handle: ModelHandle, stand_in: Any) -> None:
    stand_in(r"""
        for line in range(50): print("line", line)
        sys.stdout.flush()
        sys.stderr.write("\r  0%\r 50%\r100% done\n\x1b[31mValueError: group_size must divide 100\x1b[0m\n")
        sys.exit(3)
    """)
    error = failure(handle)
    assert isinstance(error, CellError)
    assert "some-tool failed with exit code 3" in str(error)
    assert error.got.endswith("line 49\n100% done\nValueError: group_size must divide 100")
    assert error.got.startswith("line 40\n")


def test_a_tool_that_takes_too_long_is_stopped_with_all_its_processes(
    handle: ModelHandle, stand_in: Any, tmp_path: Path
) -> None:
    noted = tmp_path / "child"
    stand_in(f"""
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(300)"])
        open({str(noted)!r}, "w").write(str(child.pid))
        print("still at it", flush=True)
        time.sleep(300)
    """)
    error = failure(handle, Job({}, (), (), [], timeout_s=1.0))
    assert "some-tool was not done after 1 s" in str(error)
    assert "still at it" in error.got
    assert "timeout_s" in error.do
    assert is_gone(int(noted.read_text()))


def test_ctrl_c_stops_the_tool_too(handle: ModelHandle, stand_in: Any, tmp_path: Path) -> None:
    noted = tmp_path / "tool"
    stand_in(f"""
        open({str(noted)!r}, "w").write(str(os.getpid()))
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(300)
    """)
    with pytest.raises(KeyboardInterrupt):
        run(handle)
    assert is_gone(int(noted.read_text()))


def is_gone(pid: int) -> bool:
    """Whether a process ends: one whose parent was killed may stay a zombie until init reaps it."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_tool_that_is_killed_names_the_signal_and_hints_at_memory(handle: ModelHandle, stand_in: Any) -> None:
    stand_in("print('loading', flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    error = failure(handle)
    assert isinstance(error, CellError)
    assert "killed by SIGKILL" in str(error)
    assert error.got == "loading"
    assert "memory" in error.do


@pytest.mark.parametrize(
    "body",
    [
        "print('nothing')",
        "open(job['result'], 'w').write('not json')",
        "open(job['result'], 'w').write('[1, 2]')",
        "open(job['result'], 'w').write('null')",
        "json.dump({'versions': {}}, open(job['result'], 'w'))",
        "json.dump({'checkpoint': 5, 'versions': {}}, open(job['result'], 'w'))",
        "json.dump({'checkpoint': 'x', 'versions': 'y'}, open(job['result'], 'w'))",
    ],
)
def test_a_result_that_makes_no_sense_is_an_error(handle: ModelHandle, stand_in: Any, body: str) -> None:
    stand_in(body)
    error = failure(handle)
    assert isinstance(error, CellError)
    assert "wrote no result that can be read" in str(error)


def test_a_result_without_a_checkpoint_is_an_error(handle: ModelHandle, stand_in: Any) -> None:
    stand_in("print('all is well'); answer()")
    error = failure(handle)
    assert "some-tool wrote no checkpoint" in str(error)
    assert "all is well" in error.got


def test_an_interpreter_without_the_tool_says_how_to_install_it(handle: ModelHandle, stand_in: Any) -> None:
    stand_in("import some_module_that_nobody_has")
    error = failure(handle)
    assert isinstance(error, MissingDependencyError)
    assert "names an interpreter without some_module_that_nobody_has" in str(error)
    assert "pip install torch==2.13.0 some-dist==1.2" in error.do


def test_without_a_tool_the_error_gives_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOOL.variable, raising=False)
    with pytest.raises(MissingDependencyError) as caught:
        find_python(TOOL)
    assert "python -m venv some-tool-env && some-tool-env/bin/pip install" in caught.value.do
    assert "export COMPRESSBENCH_SOME_TOOL_PYTHON=" in caught.value.do
    monkeypatch.setenv(TOOL.variable, "/no/such/python")
    with pytest.raises(MissingDependencyError, match="COMPRESSBENCH_SOME_TOOL_PYTHON names no program") as caught:
        find_python(TOOL)
    assert caught.value.got == "/no/such/python"


def test_a_folder_of_the_tools_name_is_not_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOOL.variable, raising=False)
    (tmp_path / TOOL.module).mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingDependencyError):
        find_python(TOOL)
    (tmp_path / TOOL.module / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))  # forgets what was found there before
    assert find_python(TOOL) == sys.executable


def test_a_tool_beside_compressbench_runs_with_our_own_packages(
    handle: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real worker of GPTQModel, and a package of that name that only notes how it is called."""
    package = tmp_path / "path" / "gptqmodel.py"
    package.parent.mkdir()
    package.write_text(FAKE_GPTQMODEL)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    tool = Tool("gptqmodel", "gptqmodel", "gptqmodel", "0", "worker_gptqmodel.py")
    monkeypatch.delenv(tool.variable, raising=False)
    job = Job({"bits": 4}, ("a",), ("m.x[1]",), [[1, 2]], timeout_s=120)
    with run_tool(tool, handle, job) as output:
        told = json.loads((output.checkpoint / "config.json").read_text())
        assert output.versions["gptqmodel"] == "0.fake"
    assert told["config"]["dynamic"] == {r"-:^m\.x\[1\]$": {}}, "modules that are left out are named, as patterns"
    assert told["config"]["fallback"] is None, "rounding in silence would be the tool's default"
    assert told["config"]["bits"] == 4
    assert told["dtype"] == "torch.float32", "and not the tool's bfloat16"
    assert told["rows"] == [{"input_ids": [1, 2], "attention_mask": [1, 1]}]
    assert not told["path"].endswith("foreign"), "the worker's own folder holds modules of ours"


FAKE_GPTQMODEL = """
import json, os, sys
__version__ = "0.fake"
def QuantizeConfig(**options):
    return options
class GPTQModel:
    @staticmethod
    def load(path, config, dtype):
        model = GPTQModel()
        model.told = {"config": config, "dtype": str(dtype), "path": sys.path[0]}
        return model
    def quantize(self, rows, **options):
        self.told["rows"] = rows
    def save(self, folder):
        os.makedirs(folder)
        json.dump(self.told, open(folder + "/config.json", "w"))
"""


@pytest.mark.parametrize("path", WORKERS, ids=lambda path: path.stem)
def test_workers_need_nothing_of_compressbench(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
    ]
    lazily = {ast.literal_eval(call.args[0]).partition(".")[0] for call in calls}
    assert imported <= {"__future__", *sys.stdlib_module_names} | {"typing"}
    assert lazily <= {"torch", "transformers", "gptqmodel", "llmcompressor", "auto_round"}
    assert lazily & {"gptqmodel", "llmcompressor", "auto_round"}
