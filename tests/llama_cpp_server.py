"""A real llama.cpp server, in a process of its own: its wheel is xllamacpp, which has the server's API and HTTP in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SERVE = """
import sys, xllamacpp
asked = xllamacpp.CommonParams()
asked.model.path, asked.model_alias = sys.argv[1], {"m"}
asked.n_ctx, asked.n_parallel, asked.port, asked.verbosity = 2048, 4, 0, -1
asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = 1
asked.warmup = False
server = xllamacpp.Server(asked)
print("listening", server.listening_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def serving(model: Path) -> Iterator[str]:
    """The URL of its API, while the process lives. It ends with its standard input."""
    arguments = [sys.executable, "-c", _SERVE, str(model)]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            address = next((line.split()[1] for line in process.stdout if line.startswith("listening ")), None)
            assert address is not None, f"llama.cpp ended with {process.wait()}"
            yield f"{address}/v1"
        finally:
            process.kill()
