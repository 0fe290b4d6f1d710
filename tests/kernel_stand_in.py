"""A /proc and a /sys of our own, on a clock that is set by hand: what the machine did is known, its files round it."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

from compressbench.measure.interference import Watcher
from compressbench.records.evidence import Evidence
from compressbench.testing import FakeClock

TICK_S = 0.01
FREQUENCY = "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq"
FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
HYPERVISOR = "processor : 0\nflags\t\t: fpu sse hypervisor avx\n"
BARE_METAL = "processor : 0\nflags\t\t: fpu sse avx\n"
ALL = ("foreign_share", "steal_share", "run_queue_wait_share", "pressure_share", "throttled_share", "cpu_frequency_hz")


class KernelStandIn:
    """A machine whose cores do what they are told; its files round as the kernel's do: down, the sum of all cores once."""

    def __init__(self, root: Path, num_cores: int = 2, allowed: str = "", seed: int = 0) -> None:
        self.root, self.clock, self.process = root, FakeClock(), FakeClock()
        self.tid = threading.get_native_id()
        draw = random.Random(seed)
        self.cores = [{name: draw.uniform(1000, 2000) for name in FIELDS} for _ in range(num_cores)]
        for core in self.cores:
            core["guest"] = core["guest_nice"] = 0.0
        self.waits = {self.tid: 5.0}
        self.broken: set[Path] = set()
        self.pressure_s, self.throttled_s = 100.0, 3.0
        self.write("proc/cpuinfo", HYPERVISOR)
        self.write("proc/self/cgroup", "0::/ours\n")
        listed = allowed or f"0-{num_cores - 1}"
        self.write("proc/self/task/TID/status", f"Name:\tx\nCpus_allowed_list:\t{listed}\n")
        self.write(f"proc/self/task/{self.tid}/stat", f"1 (a ) name) R {' '.join('0' for _ in range(35))} 1 0 0\n")
        self.write(FREQUENCY, "2600000\n")
        self.show()

    def path(self, name: str) -> Path:
        return self.root / name.replace("TID", str(self.tid))

    def write(self, name: str, text: str | bytes) -> None:
        path = self.path(name)
        if path in self.broken:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    def break_file(self, name: str, content: bytes | None) -> None:
        """From now on it has this content, or isn't there; until `repair`."""
        self.broken.add(self.path(name))
        if content is None:
            self.path(name).unlink()
        else:
            self.path(name).write_bytes(content)

    def repair(self) -> None:
        self.broken.clear()
        self.show()

    def show(self) -> None:
        """Write all counters as they are now."""
        sums = {name: sum(core[name] for core in self.cores) for name in FIELDS}
        lines = [_stat_line("cpu ", sums), *(_stat_line(f"cpu{at}", core) for at, core in enumerate(self.cores))]
        self.write("proc/stat", "\n".join(lines) + "\nintr 12345 0 0\nctxt 1\n")
        for tid, seconds in self.waits.items():
            self.write(f"proc/self/task/{tid}/schedstat", f"123456789 {round(seconds * 1e9)} 42\n")
        micro = round(self.pressure_s * 1e6)
        self.write("proc/pressure/cpu", f"some avg10=1.00 avg60=1.00 avg300=1.00 total={micro}\nfull avg10=0 total=0\n")
        self.write("sys/fs/cgroup/ours/cpu.stat", f"usage_usec 1\nthrottled_usec {round(self.throttled_s * 1e6)}\n")

    def run(
        self, seconds: float, *, own: float = 0.0, foreign: dict[int, float] | None = None, steal: float = 0.0
    ) -> None:
        """Time passes: our seconds of CPU are spread over all cores, `foreign` is by core, `steal` is on core 0."""
        self.clock.advance(seconds)
        self.process.advance(own)
        for at, core in enumerate(self.cores):
            mine, other, stolen = own / len(self.cores), (foreign or {}).get(at, 0.0), steal if at == 0 else 0.0
            core["user"] += mine + other
            core["steal"] += stolen
            core["idle"] += seconds - mine - other - stolen
        self.show()

    def watcher(self, **more: Any) -> Watcher:
        return Watcher(self.root, clock=self.clock, process_clock=self.process, **more)

    def block(self, watcher: Watcher, seconds: float = 1.0, **what: Any) -> None:
        watcher.before()
        self.run(seconds, **what)
        watcher.after()


def _stat_line(name: str, seconds: dict[str, float]) -> str:
    return f"{name} {' '.join(str(int(seconds[field] / TICK_S)) for field in FIELDS)}"


def one_block(kernel: KernelStandIn, seconds: float = 1.0, **what: Any) -> Evidence:
    watcher = kernel.watcher()
    kernel.block(watcher, seconds, **what)
    return watcher.evidence()
