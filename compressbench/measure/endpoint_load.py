"""An open loop of many requests at once: each is sent when the schedule says, whatever the server does with those before.

A request waits for no other, so that a slow server gets ever more of them at once, as from users who don't know of each
other. Times count from the scheduled arrival. What arrives is stamped and kept, and read only when all is over: reading it
would take the time in which others' tokens are stamped. Everything that went wrong is kept as well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

from compressbench.core.garbage import no_garbage_collection
from compressbench.measure.open_loop import WaitUntil, sleep_then_spin
from compressbench.runtimes.endpoint_errors import EndpointError, failed
from compressbench.runtimes.endpoint_http import Event, Http
from compressbench.runtimes.endpoint_reading import Reply

MAX_IN_FLIGHT = 512


class Outcome(NamedTuple):
    """One request, in nanoseconds from the beginning of the run; `token_ns` has a stamp for each token.

    A request that failed has the kind of its failure and what was said; what it had brought until then is kept.
    `knows_gaps` is False where tokens came several at a time and nobody says how many: first and last are known then.
    `cached_tokens` are those of the prompt that the server says it had read before.
    """

    scheduled_ns: int
    sent_ns: int
    token_ns: tuple[int, ...]
    end_ns: int
    num_tokens: int = 0
    failure: str = ""
    said: str = ""
    knows_gaps: bool = True
    cached_tokens: int = 0

    @property
    def ttft_s(self) -> float | None:
        """From the scheduled arrival to the first token."""
        return (self.token_ns[0] - self.scheduled_ns) / 1e9 if self.token_ns else None

    @property
    def tpot_s(self) -> float | None:
        """(last - first) / (n - 1); None for fewer than two tokens."""
        return (self.token_ns[-1] - self.token_ns[0]) / (self.num_tokens - 1) / 1e9 if self.num_tokens > 1 else None

    @property
    def lateness_s(self) -> float:
        """How long after its arrival it was sent, which is this program's doing and not the server's."""
        return (self.sent_ns - self.scheduled_ns) / 1e9


class Load(NamedTuple):
    """All requests in the order of their arrival, and what the run took. `cpu_share` is of one core.

    `begun_ns` is the clock's reading that the times of all outcomes count from.
    """

    outcomes: tuple[Outcome, ...]
    begun_ns: int
    seconds: float
    cpu_share: float
    max_in_flight: int


class _Raw(NamedTuple):
    sent_ns: int
    events: list[Event]
    end_ns: int
    error: EndpointError | None


def send_load(
    http: Http,
    path: str,
    bodies: Sequence[Mapping[str, Any]],
    arrivals_ns: Sequence[int],
    num_tokens: int | None = None,
    wait_until: WaitUntil | None = None,
) -> Load:
    """Send bodies[i] at arrivals_ns[i] nanoseconds from now; return when all have ended, each within the client's time.

    With `num_tokens`, an answer of another length is a failure. Nothing is asked twice: a refusal is a result.
    """
    sender = _Sender(http, path, bodies)
    cpu_ns, begun = time.process_time_ns(), http.clock()
    # asleep and never spinning: a thread that looks at the clock keeps the others from their stamps
    wait = wait_until or sleep_then_spin(http.clock, time.sleep, spin_ns=0)
    with no_garbage_collection():
        for index, arrival in enumerate(arrivals_ns):
            wait(begun + arrival)
            sender.send(index)
        sender.wait()
        ended, cpu_ns = http.clock(), time.process_time_ns() - cpu_ns
    outcomes = tuple(
        _outcome(raw, begun, arrival, num_tokens) for raw, arrival in zip(sender.found(), arrivals_ns, strict=True)
    )
    return Load(outcomes, begun, (ended - begun) / 1e9, cpu_ns / max(1, ended - begun), sender.most)


class _Sender:
    """Threads that are there before the first request, one for each that may be in flight."""

    def __init__(self, http: Http, path: str, bodies: Sequence[Mapping[str, Any]]) -> None:
        self._http, self._path, self._bodies = http, path, bodies
        self._queue: SimpleQueue[int | None] = SimpleQueue()
        self._raw: list[_Raw | None] = [None] * len(bodies)
        self._lock = threading.Lock()
        self._in_flight = self.most = 0
        self._threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(min(MAX_IN_FLIGHT, len(bodies)))
        ]
        for thread in self._threads:
            thread.start()

    def send(self, index: int) -> None:
        with self._lock:
            self._in_flight += 1
            self.most = max(self.most, self._in_flight)
        self._queue.put(index)

    def wait(self) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def found(self) -> list[_Raw]:
        return [raw for raw in self._raw if raw is not None]

    def _work(self) -> None:
        while (index := self._queue.get()) is not None:
            self._raw[index] = _ask(self._http, self._path, self._bodies[index])
            with self._lock:
                self._in_flight -= 1


def _ask(http: Http, path: str, body: Mapping[str, Any]) -> _Raw:
    events: list[Event] = []
    error: EndpointError | None = None
    sent_ns = http.clock()
    try:
        stream = http.stream(path, body)
        sent_ns = stream.sent_ns
        events.extend(stream.events())
    except EndpointError as caught:
        error = caught
    except Exception as caught:  # noqa: BLE001 -- a thread that dies would leave its request out of the count
        error = failed("client", "this program failed", got=repr(caught))
    return _Raw(sent_ns, events, http.clock(), error)


def _outcome(raw: _Raw, begun: int, arrival: int, num_tokens: int | None) -> Outcome:
    stamps: list[int] = []
    reply, error, knows_gaps = Reply(), raw.error, True
    try:
        for event in raw.events:
            stamps += [event.at_ns - begun] * reply.take(event.data)
        if error is None:
            reply.check()
    except EndpointError as caught:
        error = error or caught
    count = reply.num_tokens
    if error is not None and error.kind == "uncounted" and reply.total is not None and len(stamps) > 1:
        error, knows_gaps, count = None, False, reply.total
    if error is None and num_tokens not in {None, count}:
        error = failed("wrong-length", f"{count} tokens where {num_tokens} were asked for")
    if error is None and not count:
        error = failed("no-tokens", "an answer without a token")
    return Outcome(
        scheduled_ns=arrival,
        sent_ns=raw.sent_ns - begun,
        token_ns=tuple(stamps),
        end_ns=raw.end_ns - begun,
        num_tokens=count,
        failure="" if error is None else error.kind,
        said="" if error is None else str(error),
        knows_gaps=knows_gaps,
        cached_tokens=reply.cached_tokens,
    )
