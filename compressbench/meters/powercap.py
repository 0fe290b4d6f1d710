"""The energy counters of the kernel's powercap tree: which there are, what they count, how they are read.

On Intel and on AMD (since Linux 5.11) the domains are called `intel-rapl:N` (a package, or the platform `psys`) and
`intel-rapl:N:M` (its parts). `core` and `uncore` are contained in their package, `dram` is not, and `psys` contains
packages. `intel-rapl-mmio` is a second way to the same counters.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Clock
from compressbench.meters.edges import REAL_TIME, Timing

Role = Literal["package", "dram", "witness"]
ROOT = Path("/sys/class/powercap")

NO_TREE = (
    "It needs an x86 processor and the kernel module intel_rapl_msr; virtual machines mostly have none, and containers "
    "hide it (GHSA-jq35-85cj-fj4p): start them with -v /sys/devices/virtual/powercap:/sys/devices/virtual/powercap:ro."
)
NO_PERMISSION = (
    "Since Linux 5.10 only root may read it (CVE-2020-8694). Run as root, or allow it until the next boot with: "
    "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
)
_GONE = frozenset({errno.ENODEV, errno.ENOENT, errno.ENXIO, errno.EBADF})


def suspended_ns() -> int:
    """Nanoseconds since boot in which the machine was suspended: what the monotonic clock leaves out."""
    boot = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(boot) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def open_file(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class Machine(NamedTuple):
    """All that the meter touches, so that a fake can stand in for it (compressbench.testing.powercap)."""

    root: Path = ROOT
    timing: Timing = REAL_TIME
    suspended_ns: Clock = suspended_ns
    open: Callable[[Path], int] = open_file
    pread: Callable[[int, int, int], bytes] = os.pread


class Domain(NamedTuple):
    """One open counter: its name such as "package-0", its largest value in microjoules, its file descriptor."""

    name: str
    role: Role
    largest_uj: int
    fd: int
    where: str

    def __str__(self) -> str:
        return f"{self.name} ({self.where})"


class Reading(NamedTuple):
    """All counters in microjoules, read one after the other between two times; a text says why one could not be read."""

    before_s: float
    after_s: float
    suspended_s: float
    raws: tuple[int | str, ...]
    is_gone: bool

    @property
    def middle_s(self) -> float:
        return (self.before_s + self.after_s) / 2

    @property
    def failures(self) -> list[str]:
        return [raw for raw in self.raws if isinstance(raw, str)]


def read(machine: Machine, domains: Sequence[Domain]) -> Reading:
    """Read every counter, about 3 microseconds each."""
    before_ns = machine.timing.clock()
    suspended = machine.suspended_ns()
    raws: list[int | str] = []
    is_gone = False
    for domain in domains:
        try:
            text = machine.pread(domain.fd, 64, 0).strip()
        except OSError as error:
            is_gone = is_gone or error.errno in _GONE
            raws.append(f"{domain} could not be read: {error.strerror}")
        else:
            # int() would take "1_0" and "+1"
            raws.append(int(text) if text.isdigit() else f"{domain} gave no number: {text[:20]!r}")
    return Reading(before_ns * 1e-9, machine.timing.clock() * 1e-9, suspended * 1e-9, tuple(raws), is_gone)


def open_domains(machine: Machine) -> list[Domain]:
    """Every package, every DRAM domain, and the parts that witness a reset, with their files opened.

    Raises MeterError if there is no package domain, or one that can't be read.
    """
    for control in ("intel-rapl", "intel-rapl-mmio"):
        with contextlib.ExitStack() as undo:
            domains: list[Domain] = []
            for folder in _folders(machine.root, control):
                domain = _open(machine, folder)
                if domain is not None:
                    undo.callback(os.close, domain.fd)
                    domains.append(domain)
            if any(domain.role == "package" for domain in domains):
                undo.pop_all()
                return domains
    raise MeterError("no RAPL energy counter of a processor package was found", where=str(machine.root), do=NO_TREE)


def close_domains(domains: list[Domain]) -> None:
    while domains:
        os.close(domains.pop().fd)


def _folders(root: Path, control: str) -> Iterator[Path]:
    """The folders of one way to the counters, packages before their parts."""
    with contextlib.suppress(OSError):
        found = [path for path in root.iterdir() if path.name.startswith(f"{control}:") and path.is_dir()]
        yield from sorted(found, key=lambda path: (path.name.count(":"), path.name))


def _open(machine: Machine, folder: Path) -> Domain | None:
    """None for `psys`, and for a part that can't be opened: the packages are complete without it."""
    name = _text(folder / "name")
    role = _role(name)
    if role is None:
        return None
    try:
        largest_uj = _range_uj(folder)
        return Domain(name, role, largest_uj, machine.open(folder / "energy_uj"), folder.name)
    except OSError as error:
        if role != "package":
            return None
        do = NO_PERMISSION if isinstance(error, PermissionError) else NO_TREE
        got = f"{name}: {error.strerror}"
        raise MeterError("a RAPL energy counter can't be opened", where=str(folder), got=got, do=do) from error
    except MeterError:
        if role != "package":
            return None
        raise


def _range_uj(folder: Path) -> int:
    text = _text(folder / "max_energy_range_uj")
    if not text.isdigit() or int(text) == 0:
        raise MeterError("the range of a RAPL energy counter is no number", where=str(folder), got=repr(text[:20]))
    return int(text)


def _role(name: str) -> Role | None:
    if name.startswith("package"):
        return "package"
    if name == "dram":
        return "dram"
    return "witness" if name in ("core", "uncore") else None


def _text(path: Path) -> str:
    """The start of a small file, stripped; "" if it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(64).decode("ascii", "replace").strip()
    except OSError:
        return ""
