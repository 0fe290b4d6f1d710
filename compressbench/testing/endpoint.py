"""A server that speaks enough of OpenAI's API to test a client: a schedule of tokens, faults on demand, and a log of sends.

`python -m compressbench.testing.endpoint` serves on a free port of the loopback address and prints it. What a request's
field `behave` says decides how it is answered (`Behaviour`). GET /log has the clock readings of everything that was sent,
by time.perf_counter_ns, which on Linux all processes share (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from compressbench.testing.endpoint_answers import Answering, Behaviour, Scripted, Sent


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, source: Any, key: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.source, self.key = source, key
        self.log: list[Sent] = []
        self.seen: dict[str, int] = {}
        self.known: set[str] = set()
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is nothing to talk about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the name in the standard library
        """Quiet."""

    def do_GET(self) -> None:
        answers: dict[str, Any] = {
            "/v1/models": {"data": [{"id": "m", "owned_by": self.server.source.engine}]},
            "/version": {"version": "1.2.3"},
            "/log": [sent._asdict() for sent in self.server.log],
        }
        found = answers.get(self.path)
        self._answer(200 if found is not None else 404, found)

    def do_POST(self) -> None:
        received_ns = time.perf_counter_ns()
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        behave = Behaviour(**request.get("behave", {}))
        refusal = self._refusal(request, behave)
        if refusal is not None:
            status, said = refusal
            self._answer(status, {"error": {"message": said}}, behave)
        elif behave.fault == "not-http":
            self.connection.sendall(b"hello\r\n\r\n")
            self.close_connection = True
        elif behave.fault == "not-a-stream":
            self._answer(200, {"choices": [{"text": "all at once"}]})
        else:
            with contextlib.suppress(OSError):
                sent = Sent(behave.mark, received_ns, [], [])
                with self.server.lock:
                    self.server.log.append(sent)
                Answering(self, request, sent).run(self.server.source)

    def _refusal(self, request: Mapping[str, Any], behave: Behaviour) -> tuple[int, str] | None:
        given = self.headers.get("Authorization", "")
        if self.server.key and given != f"Bearer {self.server.key}":
            return 401, f"Incorrect API key provided: {given}" if behave.echoes_key else "no"
        if behave.echoes_key and behave.status != 200:
            return behave.status, f"your header was {given}"
        refused = [name for name in behave.refuses if name in request]
        if refused:
            return 400, f"unknown field {refused[0]}"
        if "tokens" in behave.refuses and isinstance(request.get("prompt"), list):
            return 400, "prompt must be a string"
        with self.server.lock:
            seen = self.server.seen[behave.mark] = self.server.seen.get(behave.mark, 0) + 1
        if behave.status != 200 and seen <= behave.times:
            return behave.status, "as you wish"
        return None

    def _answer(self, status: int, found: Any, behave: Behaviour | None = None) -> None:
        body = json.dumps(found).encode()
        self.send_response(status)
        if behave is not None and behave.retry_after:
            self.send_header("Retry-After", behave.retry_after)
        if behave is not None and behave.location:
            self.send_header("Location", behave.location)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Running(NamedTuple):
    """A server process of this module."""

    url: str
    process: subprocess.Popen[str]

    def log(self) -> list[Sent]:
        import urllib.request

        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/log", timeout=10) as answer:  # noqa: S310
            return [Sent(**each) for each in json.loads(answer.read())]


@contextlib.contextmanager
def server_process(*arguments: str, key: str = "", **more: Any) -> Iterator[Running]:
    """A server in a process of its own, for as long as the block runs. `arguments` as in `main`."""
    environment = {**os.environ, **({"ENDPOINT_KEY": key} if key else {})}
    command = [sys.executable, "-m", "compressbench.testing.endpoint", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **more)  # noqa: S603
    try:
        assert process.stdout is not None  # noqa: S101 -- piped
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError("the server did not start")
        yield Running(url, process)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextlib.contextmanager
def server_thread(source: Any) -> Iterator[str]:
    """A server in this process, which loads no model a second time: its URL. No times are to be read off it."""
    server = Server(source)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main(arguments: list[str]) -> None:
    """Without arguments a scripted server; with a model's id (embedded:shakespeare-lm) that model behind the same API."""
    source: Any = Scripted()
    if arguments:
        import torch

        from compressbench.models.load import load_model
        from compressbench.recipe.schema import ModelSpec
        from compressbench.testing.endpoint_model import ModelTokens

        torch.set_num_threads(1)
        source = ModelTokens(load_model(ModelSpec(id=arguments[0]), "causal-lm"))
    server = Server(source, os.environ.get("ENDPOINT_KEY", ""))
    print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main(sys.argv[1:])
