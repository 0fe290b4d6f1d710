"""The kernel's powercap tree, true in time: packages with their parts, counters that tick and wrap, and what goes wrong.

    clock = EventClock()
    tree = FakePowercap(tmp_path, [FakeDomain("intel-rapl:0", "package-0", power=120.0)], clock)
    meter = RaplEnergy(tree.machine)
    meter.start(); clock.advance(2.0); meter.stop()
    tree["package-0"].true_joules(begin_s, end_s)

It is a real folder with the kernel's layout, so that other programs can read it too: give them `tree.root`, and call
`refresh` before they read. Times are seconds of the clock.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from compressbench.meters.edges import REAL_TIME, Timing
from compressbench.meters.powercap import Machine, open_file
from compressbench.testing.event_clock import EventClock
from compressbench.testing.fakes import FakeClock
from compressbench.testing.nvml_device import Power, PowerCurve

INTEL_RANGE_UJ = 262_143_328_850  # 2**32 counts of 61 microjoules
SMALL_RANGE_UJ = 65_532_610_987  # 2**32 counts of 15.3 microjoules
Fault = Literal["", "denied", "garbage", "empty", "stuck", "unreadable", "vanished"]
_CODES: dict[str, int] = {"denied": errno.EACCES, "unreadable": errno.EIO, "vanished": errno.ENODEV}
_TEXTS: dict[str, bytes] = {"garbage": b"<unknown>\n", "empty": b""}


class FakeDomain:
    """One counter, e.g. FakeDomain("intel-rapl:0:0", "dram", power=12.0), whose increments come every `tick_s`.

    `start_uj` is what it shows when its tree is made.
    """

    def __init__(
        self,
        folder: str,
        name: str,
        power: Power = 100.0,
        *,
        range_uj: int = INTEL_RANGE_UJ,
        start_uj: int = 1_000_000_000,
        tick_s: float = 1e-3,
    ) -> None:
        self.folder, self.name, self.range_uj, self.start_uj, self.tick_s = folder, name, range_uj, start_uj, tick_s
        self.curve = PowerCurve(power)
        self.fault: Fault = ""
        self._unit_uj = (range_uj + 1) / 2**32
        self._base_uj, self._base_s, self._fault_s = start_uj, 0.0, 0.0

    def set_power(self, now_s: float, watts: float) -> None:
        self.curve.set(now_s, watts)

    def true_joules(self, begin_s: float, end_s: float) -> float:
        return self.curve.joules(end_s) - self.curve.joules(begin_s)

    def reset(self, now_s: float, to_uj: int = 0) -> None:
        """From now on it goes on from `to_uj`, as after a suspension."""
        self._base_uj, self._base_s = to_uj, now_s

    def fail(self, now_s: float, fault: Fault) -> None:
        """From now on it shows what `fault` says; "" ends that."""
        self.fault, self._fault_s = fault, now_s

    def raw_uj(self, now_s: float) -> int:
        """What the counter holds: whole units up to its last tick, modulo its range."""
        tick_at_s = max(self._base_s, int(now_s / self.tick_s + 1e-9) * self.tick_s)
        num_units = int(self.true_joules(self._base_s, tick_at_s) * 1e6 / self._unit_uj)
        return (self._base_uj + int(num_units * self._unit_uj)) % (self.range_uj + 1)

    def text(self, now_s: float) -> bytes:
        """What its energy_uj file shows. Raises OSError where the kernel would."""
        if self.fault in _CODES:
            raise OSError(_CODES[self.fault], os.strerror(_CODES[self.fault]))
        if self.fault in _TEXTS:
            return _TEXTS[self.fault]
        return b"%d\n" % self.raw_uj(self._fault_s if self.fault == "stuck" else now_s)


class FakePowercap:
    """The tree in `folder`. Domains by name: `tree["package-0"]`; two with one name by folder: `tree["intel-rapl:1:0"]`."""

    def __init__(
        self, folder: Path, domains: Sequence[FakeDomain], clock: FakeClock, *, read_cost_s: float = 3e-6
    ) -> None:
        """Each reading of a counter advances the clock by `read_cost_s`."""
        self.root = folder / "class" / "powercap"
        self.clock, self.domains, self.read_cost_s = clock, list(domains), read_cost_s
        self.suspended_s = 0.0
        self._by_inode: dict[int, FakeDomain] = {}
        self._make(folder / "devices" / "virtual" / "powercap")

    def __getitem__(self, name: str) -> FakeDomain:
        return next(domain for domain in self.domains if name in (domain.name, domain.folder))

    @property
    def now_s(self) -> float:
        return self.clock() * 1e-9

    @property
    def machine(self) -> Machine:
        """Pass it to RaplEnergy. An EventClock runs its polls; with another clock nothing polls."""
        timing = self.clock.timing if isinstance(self.clock, EventClock) else _no_background(self.clock)
        return Machine(self.root, timing, lambda: round(self.suspended_s * 1e9), self._open, self._pread)

    def set_power(self, watts: float) -> None:
        """The power of all domains from now on."""
        for domain in self.domains:
            domain.set_power(self.now_s, watts)

    def reset(self, to_uj: int = 0) -> None:
        """All counters go on from `to_uj`: that is what a suspension does."""
        for domain in self.domains:
            domain.reset(self.now_s, to_uj)

    def fail(self, name: str, fault: Fault) -> None:
        """From now on this counter shows what `fault` says; "" ends that."""
        self[name].fail(self.now_s, fault)

    def suspend(self, seconds: float, to_uj: int | None = 0) -> None:
        """The monotonic clock stands still, energy isn't counted, and the counters are reset (not if None)."""
        self.suspended_s += seconds
        if to_uj is not None:
            self.reset(to_uj)

    def refresh(self) -> None:
        """Write what every counter shows now into its file, for programs that read the tree by themselves."""
        for domain in self.domains:
            path = self._energy_file(domain)
            if domain.fault == "vanished":
                path.unlink(missing_ok=True)
                continue
            mode = 0 if domain.fault in _CODES else 0o600  # 0 stops everybody but root
            if path.stat().st_mode & 0o777 != mode:
                path.chmod(mode)
            if mode:
                path.write_bytes(domain.text(self.now_s))

    def _make(self, devices: Path) -> None:
        self._devices = devices
        self.root.mkdir(parents=True)
        for domain in sorted(self.domains, key=lambda one: one.folder.count(":")):
            domain.reset(self.now_s, domain.start_uj)
            at = self._device(domain)
            at.mkdir(parents=True)
            (at / "name").write_text(f"{domain.name}\n")
            (at / "max_energy_range_uj").write_text(f"{domain.range_uj}\n")
            energy = at / "energy_uj"
            energy.write_bytes(domain.text(self.now_s))
            self._by_inode[energy.stat().st_ino] = domain
            (self.root / domain.folder).symlink_to(at)
        for control in {domain.folder.split(":")[0] for domain in self.domains}:
            (self.root / control).symlink_to(devices / control)

    def _device(self, domain: FakeDomain) -> Path:
        """As in the kernel: intel-rapl/intel-rapl:0/intel-rapl:0:1."""
        parts = domain.folder.split(":")
        return self._devices.joinpath(*(":".join(parts[: end + 1]) for end in range(len(parts))))

    def _energy_file(self, domain: FakeDomain) -> Path:
        return self._device(domain) / "energy_uj"

    def _open(self, path: Path) -> int:
        domain = self._by_inode[path.stat().st_ino]
        if domain.fault == "denied":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return open_file(path)

    def _pread(self, fd: int, size: int, offset: int) -> bytes:
        domain = self._by_inode[os.fstat(fd).st_ino]
        self.clock.advance(self.read_cost_s)
        return domain.text(self.now_s)[offset : offset + size]


def _no_background(clock: FakeClock) -> Timing:
    return REAL_TIME._replace(clock=clock, sleep=clock.advance, background=lambda step: lambda: None)
