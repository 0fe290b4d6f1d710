"""Stand-ins for codecarbon's hardware objects, and a meter around them whose time and children are set by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from compressbench.core.protocols import Window
from compressbench.meters.cpu_time import Moment
from compressbench.meters.energy_estimate import EstimatedEnergy


class CPU:
    """codecarbon's hardware object with a given answer; named like the original. As `cpu_load` it is asked for its rate
    with made-up CPU times, and gives `factor` times watts per thread x CPU-seconds.
    """

    def __init__(self, kilowatt_hours: object = 1e-6, mode: str = "cpu_load", factor: float = 1.0) -> None:
        self.kilowatt_hours, self._mode, self._tdp, self._cpu_count = kilowatt_hours, mode, 8, 2
        self._intel_interface = SimpleNamespace(_rapl_files=[SimpleNamespace(sample_skipped=False)])
        self.factor, self.num_asked = factor, 0

    def start(self) -> None:
        pass

    def _get_process_cpu_times(self) -> dict[int, float]:
        raise AssertionError("the marks must not look for processes")

    def measure_power_and_energy(self, last_duration: float) -> Any:
        assert last_duration > 0
        self.num_asked += 1
        if isinstance(self.kilowatt_hours, Exception):
            raise self.kilowatt_hours
        found = self.kilowatt_hours
        if self._mode == "cpu_load":
            found = self.factor * sum(self._get_process_cpu_times().values()) * 4.0 / 3.6e6
        return (None, SimpleNamespace(kWh=found))


class RAM(CPU):
    def __init__(self, kilowatt_hours: object) -> None:
        super().__init__(kilowatt_hours, "RAM")


START = Moment(monotonic_s=10.0, own_cpu_s=1.0, ended_children_cpu_s=0.0)
STOP = Moment(monotonic_s=11.0, own_cpu_s=1.9, ended_children_cpu_s=0.0)


class Watch:
    """Moments that are set by hand; while nobody has set one, each reading is a millisecond later."""

    def __init__(self) -> None:
        self.now: Moment | None = None
        self.probing_s = 0.0

    def __call__(self) -> Moment:
        if self.now is not None:
            return self.now
        self.probing_s += 0.001
        return Moment(self.probing_s, 0.0, 0.0)


class Bench:
    """A meter around one CPU object, and what it sees of the time and of the children."""

    def __init__(self, cpu: CPU, ram: RAM | None = None) -> None:
        self.cpu, self.watch = cpu, Watch()
        self.children: dict[tuple[int, float], float] = {}
        hardware = [cpu] if ram is None else [ram, cpu]
        self.meter = EstimatedEnergy(SimpleNamespace(_hardware=hardware), self.watch, lambda: dict(self.children))

    def mark(self, begin: Moment = START, end: Moment = STOP) -> None:
        self.watch.now = begin
        self.meter.start()
        self.watch.now = end
        self.meter.stop()

    def window(self, begin: Moment = START, end: Moment = STOP) -> Window:
        self.mark(begin, end)
        [window] = self.meter.collect()
        return window


def why_void(bench: Bench, begin: Moment = START, end: Moment = STOP) -> str:
    window = bench.window(begin, end)
    assert window.values == {}
    return window.reason
