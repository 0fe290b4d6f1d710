"""One completion from a server: asked for, waited for where the server says so, read to its end, and counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from compressbench.runtimes.endpoint_errors import EndpointError, failed
from compressbench.runtimes.endpoint_http import Http, Stream
from compressbench.runtimes.endpoint_reading import Reply

PATHS = {"completions": "/completions", "chat": "/chat/completions"}
_BUSY = {"http-429", "http-503"}
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0


class Retries(NamedTuple):
    """How often a server that is busy (429, 503) is asked again. It is waited for as long as it says, or 0.5 s, 1 s, ...

    The waiting is part of what a request took: nothing that was asked twice counts as fast.
    """

    most: int = 0
    sleep: Callable[[float], None] = time.sleep


@dataclass
class Tally:
    """What happened to the requests of a session so far."""

    requests: int = 0
    retries: int = 0
    waited_s: float = 0.0
    events: int = 0
    tokens: int = 0
    cached_tokens: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, reply: Reply) -> None:
        with self._lock:
            self.requests += 1
            self.events += len(reply.counts)
            self.tokens += reply.num_tokens
            self.cached_tokens += reply.cached_tokens

    def add_retry(self, waited_s: float) -> None:
        with self._lock:
            self.retries += 1
            self.waited_s += waited_s


def complete(
    http: Http,
    path: str,
    body: Mapping[str, Any],
    retries: Retries,
    tally: Tally,
    on_tokens: Callable[[int], None] | None = None,
) -> Reply:
    """Stream one completion; `on_tokens` is told of each event that brings tokens, when it is read.

    Raises EndpointError; a request that was begun to be answered is never asked again.
    """
    stream = _begun(http, path, body, retries, tally)
    reply = Reply()
    for event in stream.events():
        count = reply.take(event.data)
        if count and on_tokens is not None:
            on_tokens(count)
    reply.check()
    tally.add(reply)
    return reply


def _begun(http: Http, path: str, body: Mapping[str, Any], retries: Retries, tally: Tally) -> Stream:
    deadline = time.monotonic() + http.timeout_s
    for number in range(retries.most + 1):
        try:
            return http.stream(path, body)
        except EndpointError as error:
            if error.kind not in _BUSY or number == retries.most:
                raise
            wait_s = _wait_s(error, number)
            if time.monotonic() + wait_s > deadline:
                raise failed(
                    error.kind,
                    f"the server is busy, and would have to be waited for longer than {http.timeout_s:g} s",
                    where=str(http.address),
                    got=f"{wait_s:g} s more after {number + 1} tries",
                    do="Raise timeout_s, or send less.",
                ) from error
            tally.add_retry(wait_s)
            retries.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def _wait_s(error: EndpointError, number: int) -> float:
    backoff = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**number)
    return backoff if error.retry_after_s is None else error.retry_after_s
