"""The CPU time of servers on this machine that are measured: what they use is the work itself, and nobody else's load."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from compressbench.core.protocols import Clock

if TYPE_CHECKING:
    import psutil


def clock_with_servers(runtimes: Iterable[Any]) -> Clock:
    """A process clock (ns) that also counts the servers on this machine, with the processes that they have started.

    Theirs comes in ticks of the kernel (10 ms as a rule). A server whose process this user can't see, as in a container,
    isn't counted, and is foreign load as before.
    """
    ports = {port for port in (getattr(runtime, "local_port", None) for runtime in runtimes) if port is not None}
    served = _family(listening(ports)) if ports else []
    if not served:
        return time.process_time_ns
    last = dict.fromkeys(range(len(served)), 0)

    def clock() -> int:
        for at, process in enumerate(served):
            last[at] = _cpu_ns(process, last[at])
        return time.process_time_ns() + sum(last.values())

    return clock


def listening(ports: Iterable[int]) -> list[psutil.Process]:
    """The processes, but this one, that listen on one of these TCP ports."""
    import psutil

    wanted = set(ports)
    try:
        sockets = [each for each in psutil.net_connections("tcp") if each.status == "LISTEN"]
    except psutil.Error:
        return []
    pids = {each.pid for each in sockets if each.pid is not None and each.laddr and each.laddr.port in wanted}
    return [psutil.Process(pid) for pid in sorted(pids - {os.getpid()}) if psutil.pid_exists(pid)]


def _family(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """They and what they have started: engines often run in a process of their own behind the one that listens."""
    import psutil

    found: dict[int, psutil.Process] = {}
    for process in processes:
        try:
            found |= {each.pid: each for each in (process, *process.children(recursive=True))}
        except psutil.Error:
            continue
    found.pop(os.getpid(), None)
    return list(found.values())


def _cpu_ns(process: psutil.Process, otherwise: int) -> int:
    """What it has used so far; what was known before once it has ended."""
    import psutil

    try:
        times = process.cpu_times()
    except psutil.Error:
        return otherwise
    return round((times.user + times.system) * 1e9)
