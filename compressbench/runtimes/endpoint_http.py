"""HTTP for requests whose answers are streams: connections that are kept, stamps of what arrives, and bounded everything.

The standard library's client, because nothing is then between a socket and a stamp: no redirect is followed, no proxy of
the environment used, and nothing is retried that nobody asked for. It may be used by several threads at once.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, NamedTuple

from compressbench.core.protocols import Clock
from compressbench.runtimes.endpoint_address import Address
from compressbench.runtimes.endpoint_errors import EndpointError, failed
from compressbench.runtimes.endpoint_stream import EventParser

_MAX_BODY = 2**16
_READ = 2**16
_MAX_JSON = 2**22
# a kept connection whose last answer isn't read to its end by then is given up
_DRAIN_S = 0.001


class Event(NamedTuple):
    """`at_ns` is when the bytes that completed it had been read."""

    at_ns: int
    data: str


@dataclass
class Http:
    """A server and the connections to it that are free. `timeout_s` bounds each request from sending to its end."""

    address: Address
    timeout_s: float
    key: str = field(default="", repr=False)
    clock: Clock = time.perf_counter_ns
    _free: list[_Kept] = field(default_factory=list, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def get(self, path: str) -> tuple[int, Any]:
        """Status, and the JSON there if the status is 200 (None for what is none). `path` is the whole path."""
        deadline = time.monotonic() + self.timeout_s
        with self.explained():
            kept = self._open()
            try:
                kept.connection.request("GET", path, headers=self._headers())
                kept.limit(deadline)
                response = kept.connection.getresponse()
                body = response.read(_MAX_JSON)
            finally:
                kept.close()
        if response.status != 200:
            return response.status, None
        try:
            return 200, json.loads(body)
        except (ValueError, RecursionError):
            return 200, None

    def stream(self, path: str, body: Mapping[str, Any]) -> Stream:
        """Send a request whose answer is a stream of events; `path` is that below the address.

        Raises EndpointError, of a kind that names the status for one that isn't 200.
        """
        data = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        headers = {**self._headers(), "Content-Type": "application/json", "Accept": "text/event-stream"}
        deadline = time.monotonic() + self.timeout_s
        with self.explained():
            kept, sent_ns = self._send(self.address.path + path, data, headers)
            try:
                kept.limit(deadline)
                response = kept.connection.getresponse()
                if response.status != 200:
                    raise self._refusal(response)
                if "text/event-stream" not in response.headers.get("Content-Type", ""):
                    raise failed("broken-stream", "the answer is no stream of events", where=str(self.address))
            except BaseException:
                kept.close()
                raise
        return Stream(self, kept, response, sent_ns, deadline)

    def close(self) -> None:
        with self._lock:
            free, self._free = self._free, []
        for kept in free:
            kept.close()

    def _send(self, path: str, data: bytes, headers: Mapping[str, str]) -> tuple[_Kept, int]:
        """On a kept connection, or on a new one where the server has closed that meanwhile."""
        while (kept := self._kept()) is not None:
            sent_ns = self.clock()
            try:
                kept.connection.request("POST", path, body=data, headers=dict(headers))
            except OSError:
                kept.close()
                continue
            return kept, sent_ns
        sent_ns = self.clock()  # connecting is part of what a user waits for
        kept = self._open()
        try:
            kept.connection.request("POST", path, body=data, headers=dict(headers))
        except BaseException:
            kept.close()
            raise
        return kept, sent_ns

    def _kept(self) -> _Kept | None:
        while True:
            with self._lock:
                if not self._free:
                    return None
                kept = self._free.pop()
            if kept.is_ready():
                return kept
            kept.close()

    def keep(self, kept: _Kept) -> None:
        with self._lock:
            self._free.append(kept)

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """Once for all connections: reading the certificates takes some 40 ms, which would be in a time to first token."""
        return ssl.create_default_context()

    def _open(self) -> _Kept:
        address = self.address
        if address.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                address.host, address.port, timeout=self.timeout_s, context=self._trust
            )
        else:
            connection = http.client.HTTPConnection(address.host, address.port, timeout=self.timeout_s)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            kind = "timeout" if isinstance(error, TimeoutError) else "connect"
            raise failed(
                kind, "the server can't be reached", where=str(address), got=str(error), do="Is it running?"
            ) from error
        return _Kept(connection, connection.sock)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity", "User-Agent": "compressbench"}
        return {**headers, "Authorization": f"Bearer {self.key}"} if self.key else headers

    def _refusal(self, response: http.client.HTTPResponse) -> EndpointError:
        status = response.status
        if 300 <= status < 400:
            target = response.headers.get("Location", "")
            return failed(
                "redirect",
                "the server sends its clients elsewhere, and that is not followed",
                where=str(self.address),
                got=self.without_key(target),
                do="Give the URL of the server that really answers.",
            )
        said = response.read(_MAX_BODY).decode("utf-8", "replace")
        error = failed(
            f"http-{status}", f"the server answered {status}", where=str(self.address), got=self.without_key(said)
        )
        error.retry_after_s = _retry_after(response.headers.get("Retry-After", ""))
        return error

    def without_key(self, text: str) -> str:
        """What a server said, should it repeat the key."""
        return text.replace(self.key, "***") if self.key else text

    @contextmanager
    def explained(self) -> Iterator[None]:
        """What sockets and the HTTP client raise, as EndpointError."""
        where = str(self.address)
        try:
            yield
        except TimeoutError as error:
            raise failed("timeout", f"no answer within {self.timeout_s:g} s", where=where) from error
        except (http.client.RemoteDisconnected, http.client.IncompleteRead, OSError) as error:
            raise failed("died", "the server ended the connection half-way", where=where, got=str(error)) from error
        except http.client.HTTPException as error:
            raise failed("broken-stream", "the answer isn't HTTP", where=where, got=repr(error)) from error


@dataclass
class _Kept:
    connection: http.client.HTTPConnection
    sock: socket.socket
    last: http.client.HTTPResponse | None = None

    def limit(self, deadline: float) -> None:
        """Let the next read wait no longer than that. Raises TimeoutError if it is over."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(left)

    def is_ready(self) -> bool:
        """Whether the end of its last answer has come: what follows the last event isn't waited for when it is due."""
        try:
            if self.last is not None and not self.last.isclosed():
                self.sock.settimeout(_DRAIN_S)
                if self.last.read1(_READ):
                    return False
            self.sock.settimeout(0)
            return not self._is_closed_there()
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            if self.sock.fileno() >= 0:
                self.sock.settimeout(None)

    def _is_closed_there(self) -> bool:
        if isinstance(self.sock, ssl.SSLSocket):
            return False  # its bytes can't be looked at; sending will tell
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False
        return True  # closed, or bytes that nobody asked for

    def close(self) -> None:
        if self.last is not None:
            self.last.close()
        self.connection.close()


@dataclass
class Stream:
    """An answer that is coming in. Read `events` once; if it isn't read to its end, the connection is closed."""

    _client: Http
    _kept: _Kept
    _response: http.client.HTTPResponse
    sent_ns: int
    _deadline: float

    def events(self, is_last: str = "[DONE]") -> Iterator[Event]:
        """Events with stamps, up to the one whose data is `is_last`, or to the end. Raises EndpointError."""
        parser, clock = EventParser(), self._client.clock
        is_whole = False
        try:
            with self._client.explained():
                while True:
                    self._kept.limit(self._deadline)
                    received = self._response.read1(_READ)
                    at_ns = clock()
                    if not received:
                        parser.finish()
                        is_whole = True
                        return
                    for data in parser.feed(received):
                        is_whole = data.strip() == is_last
                        yield Event(at_ns, self._client.without_key(data))
                        if is_whole:
                            return
        finally:
            self._let_go(is_whole)

    def _let_go(self, is_whole: bool) -> None:
        if is_whole and not self._response.will_close:
            self._kept.last = self._response
            self._client.keep(self._kept)
        else:
            self._response.close()
            self._kept.close()


def _retry_after(given: str) -> float | None:
    """Seconds, from a number or a date; None for anything else."""
    given = given.strip()
    if given.isdecimal() and len(given) < 10:
        return float(given)
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
