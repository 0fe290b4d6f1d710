"""CPU time of a server process, found by its port: against what the kernel says of the process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import psutil
import pytest

from compressbench.measure.server_process import clock_with_servers, listening
from compressbench.runtimes.endpoint import Endpoint

_BURNS = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
for line in sys.stdin:
    sum(range(int(line)))
    print("done", flush=True)
"""
_TICK_NS = 10_000_000


class Burner(NamedTuple):
    process: subprocess.Popen[str]
    port: int

    def burn(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("20000000\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture
def burner() -> Iterator[Burner]:
    with subprocess.Popen(
        [sys.executable, "-c", _BURNS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield Burner(process, int(process.stdout.readline()))
        process.kill()


def runtime(port: int) -> Endpoint:
    return Endpoint(url=f"http://127.0.0.1:{port}/v1", model="m")


def test_what_a_server_here_uses_is_counted_as_ours(burner: Burner) -> None:
    clock = clock_with_servers([runtime(burner.port), object()])
    theirs = psutil.Process(burner.process.pid)
    before, own, used = clock(), time.process_time_ns(), sum(theirs.cpu_times()[:2])
    burner.burn()
    grown, own = clock() - before, time.process_time_ns() - own
    expected = (sum(theirs.cpu_times()[:2]) - used) * 1e9
    assert expected > 5 * _TICK_NS
    assert grown - own == pytest.approx(expected, abs=2 * _TICK_NS)


def test_a_server_that_has_died_leaves_a_clock_that_does_not_go_back(burner: Burner) -> None:
    clock = clock_with_servers([runtime(burner.port)])
    burner.burn()
    before = clock()
    burner.process.kill()
    burner.process.wait()
    assert clock() >= before


def test_this_process_is_not_counted_twice_and_others_not_at_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
        assert listening([port]) == []
        assert clock_with_servers([runtime(port)]) is time.process_time_ns
    assert clock_with_servers([Endpoint(url="http://example.org/v1", model="m"), object()]) is time.process_time_ns


def test_the_process_that_listens_is_found(burner: Burner) -> None:
    assert [each.pid for each in listening([burner.port])] == [burner.process.pid]
    assert os.getpid() != burner.process.pid
