"""How wrong is the energy of a GPU in short windows, and what is reported when the meter fails? Ours, Zeus and codecarbon.

    python benchmarks/energy_peers.py [NUM_REPEATS]

All three read the same kind of fake NVML (compressbench.testing.FakeNvml, real time, an energy counter that ticks every
100 or 20 ms), each in a process of its own, at the same time. Windows begin at random; the truth is the fake's own
integral of its power over the time between the two marks: constant 400 W, or 200 W and 600 W in turns of 0.35 s. Then a
device is lost, comes back, is reset or stops counting in the middle of a window of 2 s.

Zeus has an environment of its own, because its amdsmi dependency can't be imported next to ours (left out here):

    python3.11 -m venv out/zeus
    out/zeus/bin/pip install --no-deps zeus
    out/zeus/bin/pip install nvidia-ml-py pydantic rich httpx python-dateutil scikit-learn pandas tyro

Elsewhere: ZEUS_PYTHON names its python. Without it the column is left out, and says so. Takes about 7 minutes.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol, cast

ROOT = Path(__file__).resolve().parent.parent
ZEUS_PYTHON = Path(os.environ.get("ZEUS_PYTHON", "out/zeus/bin/python"))
NUM_REPEATS = 20
# half a tick more than a multiple of it, as work is: of whole ticks the same number of edges falls into every window
WINDOWS_S = (0.15, 0.55, 1.05, 2.05, 5.05)
TICKS_S = (0.1, 0.02)
WAVES: dict[str, Any] = {
    "400 W": 400.0,
    "200/600 W": [(0.35 * number, 200.0 + 400.0 * (number % 2)) for number in range(4000)],
}
FAULT_WINDOW_S = 2.0
FAULTS = {
    "lost": {"lost_at_s": 0.5},
    "lost and back": {"lost_at_s": 0.5, "back_at_s": 1.0},
    "reset": {"reset_at_s": 1.0},
    "stuck": {"stuck_at_s": 0.7},
}


class Job(NamedTuple):
    """What one process of a tool is asked: errors over all windows, or what it says when this fault happens."""

    wave: str
    tick_s: float
    fault: str = ""
    num_repeats: int = 0


class Reader(Protocol):
    """One tool's way to read a window. `end` returns joules and, if the tool says one, their standard uncertainty;
    what it raises is its answer, too.
    """

    def begin(self) -> None: ...

    def end(self) -> tuple[float, float | None]: ...


class Void(Exception):
    """A window without a number."""


class Ours:
    def __init__(self) -> None:
        from compressbench.meters.energy_nvml import NvmlEnergy

        self._meter = NvmlEnergy(0)

    def begin(self) -> None:
        self._meter.start()

    def end(self) -> tuple[float, float | None]:
        self._meter.stop()
        [window] = self._meter.collect()
        if window.reason:
            raise Void(window.reason)
        return window.values["energy_j"], window.uncertainties["energy_j"]


class Zeus:
    def __init__(self) -> None:
        from zeus.monitor import ZeusMonitor  # type: ignore[import-not-found, unused-ignore]

        self._monitor = ZeusMonitor(gpu_indices=[0], cpu_indices=[])

    def begin(self) -> None:
        self._monitor.begin_window("window", sync_execution=False, restart=True)

    def end(self) -> tuple[float, None]:
        return float(self._monitor.end_window("window", sync_execution=False).total_energy), None


class Codecarbon:
    def __init__(self) -> None:
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.core import gpu

        gpu.is_nvidia_system = lambda: True  # it looks for the program nvidia-smi, which the fake hasn't
        self._tracker = OfflineEmissionsTracker(
            country_iso_code="USA", gpu_ids=[0], output_methods=[], allow_multiple_runs=True, log_level="critical"
        )
        self._count = 0

    def begin(self) -> None:
        self._count += 1
        self._tracker.start_task(f"window {self._count}")

    def end(self) -> tuple[float, None]:
        data = self._tracker.stop_task(f"window {self._count}")
        return float(data.gpu_energy) * 3.6e6, None


TOOLS: dict[str, Callable[[], Reader]] = {"ours": Ours, "zeus": Zeus, "codecarbon": Codecarbon}


class Answer(NamedTuple):
    """`joules` is a text if the tool raised something instead; `is_held` is whether truth lies in its 95 % interval."""

    joules: float | str
    truth_j: float
    is_held: bool | None = None


def read(reader: Reader, fake: Any, window_s: float, fault: dict[str, float]) -> Answer:
    """What the tool says of one window of sleep, and the true joules of it."""
    begin_ns = end_ns = time.perf_counter_ns()
    try:
        reader.begin()
        begin_ns = time.perf_counter_ns()
        for name, after_s in fault.items():
            setattr(fake.gpus[0], name, fake.seconds_at(begin_ns) + after_s)
        time.sleep(window_s)
        end_ns = time.perf_counter_ns()
        joules, uncertainty_j = reader.end()
    except Exception as error:  # noqa: BLE001 -- whatever a tool raises is what it has to say
        return Answer(f"{type(error).__name__}: {error}", fake.joules_between(begin_ns, end_ns))
    truth_j = fake.joules_between(begin_ns, end_ns)
    return Answer(joules, truth_j, None if uncertainty_j is None else abs(joules - truth_j) <= 1.96 * uncertainty_j)


def work(tool: str, job: Job) -> dict[str, Any]:
    """One tool, one fake GPU: by window its answers, or what it says of a fault."""
    from compressbench.testing.nvml import FakeGpu, FakeNvml

    fake = FakeNvml(time.perf_counter_ns, FakeGpu(power=WAVES[job.wave], tick_s=job.tick_s))
    chance, found = random.Random(0), dict[float, list[Answer]]()  # noqa: S311 -- not for secrets
    sys.modules.update({"pynvml": cast(ModuleType, fake)})  # for good: this process has no other purpose
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        reader = TOOLS[tool]()
        read(reader, fake, 0.5, {})  # codecarbon looks around for two seconds in its first task
        if job.fault:
            told = read(reader, fake, FAULT_WINDOW_S, FAULTS[job.fault])
            note = f"; warns: {said[-1].message}" if said else ""
            shown = told.joules if isinstance(told.joules, str) else f"{told.joules:,.1f} J"
            return {"said": f"{shown}{note}", "truth_j": told.truth_j}
        for window_s in WINDOWS_S:
            found[window_s] = []
            for _ in range(max(4, round(job.num_repeats / max(1.0, window_s)))):
                time.sleep(chance.uniform(0, 0.35))
                found[window_s].append(read(reader, fake, window_s, {}))
    return {"answers": found}


def run(tool: str, job: Job) -> subprocess.Popen[str]:
    python = str(ZEUS_PYTHON) if tool == "zeus" else sys.executable
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "0"}
    command = [python, __file__, "--worker", tool, json.dumps(job)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def answers(job: Job, tools: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each tool found, all at the same time."""
    running, found = {tool: run(tool, job) for tool in tools}, {}
    for tool, process in running.items():
        out, err = process.communicate()
        if process.returncode:
            sys.exit(f"{tool} failed:\n{err}")
        found[tool] = json.loads(out.splitlines()[-1])
    return found


def in_short(found: list[Answer]) -> str:
    """Largest error and standard deviation in percent; of how many windows the interval holds the truth; how many void."""
    errors = [each.joules / each.truth_j - 1 for each in found if not isinstance(each.joules, str)]
    held = [each.is_held for each in found if each.is_held is not None]
    if len(errors) < 2:
        return f"no number ({len(found)} void)"
    holds = f", holds {sum(held)}/{len(held)}" if held else ""
    void = f", {len(found) - len(errors)} void" if len(errors) < len(found) else ""
    return f"{max(map(abs, errors)):.1%} / {statistics.stdev(errors):.1%}{holds}{void}"


def main() -> None:
    num_repeats = int(sys.argv[1]) if len(sys.argv) > 1 else NUM_REPEATS
    tools = [tool for tool in TOOLS if tool != "zeus" or ZEUS_PYTHON.exists()]
    if "zeus" not in tools:
        print(f"Zeus is left out: there is no {ZEUS_PYTHON}. How to make its environment stands in {__file__}.")
    print("max |error| / standard deviation of windows at random moments; how often the stated 95 % interval holds")
    print(f"{'tick':>6} {'power':>10} {'window':>7} {'n':>3} " + " ".join(f"{tool:>28}" for tool in tools), flush=True)
    for wave in WAVES:
        for tick_s in TICKS_S:
            found = answers(Job(wave, tick_s, "", num_repeats), tools)
            for window_s in map(str, WINDOWS_S):
                told = {tool: [Answer(*each) for each in found[tool]["answers"][window_s]] for tool in tools}
                cells = " ".join(f"{in_short(told[tool]):>28}" for tool in tools)
                head = f"{tick_s * 1e3:4.0f}ms {wave:>10} {window_s:>6}s {len(told['ours']):>3}"
                print(f"{head} {cells}", flush=True)
    print(f"\nfaults in a window of {FAULT_WINDOW_S:g} s at 400 W, tick 100 ms")
    for fault in FAULTS:
        for tool, said in answers(Job("400 W", 0.1, fault), tools).items():
            print(f"{fault:>14} {tool:>11}: {said['said']} (truth {said['truth_j']:.1f} J)", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(work(sys.argv[2], Job(*json.loads(sys.argv[3])))))
    else:
        main()
