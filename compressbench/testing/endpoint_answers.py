"""How the server of `compressbench.testing.endpoint` answers: tokens on a schedule, in every broken way it is asked for."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

from compressbench.core.spec import Spec


class Behaviour(Spec):
    """`gaps_s` are repeated to the end. `fault` happens before the event number `at` (from 0)."""

    first_s: float = 0.0
    gaps_s: tuple[float, ...] = (0.0,)
    per_event: int = 1
    told: str = "ids"
    """How tokens are counted: ids, log-probs, running, usage (in all), asked (in all, where include_usage is), nothing."""
    off_by: int = 0
    """Added to the count in usage."""
    ends_at: int | None = None
    """A text of so many tokens, whatever was asked for."""
    line_end: str = "\n"
    comments: bool = False
    pieces: int = 0
    """Send the stream in pieces of so many bytes; 0: an event at a time."""
    fault: str = ""
    """cut-line, garbage, no-done, die, close, error, huge-line, stall, trickle, bad-utf8, not-a-stream, not-http."""
    at: int = 2
    status: int = 200
    retry_after: str = ""
    times: int = 1_000_000
    """So many requests with this `mark` get the status, later ones an answer."""
    mark: str = ""
    location: str = ""
    refuses: tuple[str, ...] = ()
    """Fields that are answered with 400."""
    ignores_length: bool = False
    echoes_key: bool = False
    caches: bool = False
    """Prompts that were seen with the same cache_salt are said to have been cached."""


class Sent(NamedTuple):
    """Clock readings of one answer: when the request was read, and when each event with tokens was handed over."""

    mark: str
    received_ns: int
    sent_ns: list[int]
    due_ns: list[int]


class Token(NamedTuple):
    id: int
    text: str
    finish: str = ""


Source = Callable[[Mapping[str, Any]], Iterator[Token]]
"""The tokens of a completion, as they are made."""


class Scripted:
    """Tokens without a model. The text of number i is " w<i>", its id 100 + i."""

    engine = "scripted"

    def __call__(self, request: Mapping[str, Any]) -> Iterator[Token]:
        behave = Behaviour(**request.get("behave", {}))
        asked = int(request.get("max_tokens", 16))
        count = asked if behave.ends_at is None else behave.ends_at
        for index in range(count):
            yield Token(
                100 + index, f" w{index}é", ("stop" if count < asked else "length") if index + 1 == count else ""
            )


def _wait_until(due_ns: int) -> None:
    """Asleep, and awake for the last 0.2 ms."""
    while (left := due_ns - time.perf_counter_ns()) > 0:
        if left > 200_000:
            time.sleep((left - 200_000) / 1e9)


class Answering:
    """One stream of events."""

    def __init__(self, handler: BaseHTTPRequestHandler, request: Mapping[str, Any], sent: Sent) -> None:
        self._handler, self._request, self._sent = handler, request, sent
        self._behave = Behaviour(**request.get("behave", {}))
        self._is_chat = "messages" in request
        self._num_sent = 0
        known: set[str] = handler.server.known  # type: ignore[attr-defined]  # of endpoint.Server
        seen = f"{request.get('prompt')} {request.get('cache_salt')}"
        self._is_cached = self._behave.caches and seen in known
        known.add(seen)

    def run(self, source: Source) -> None:
        handler, behave = self._handler, self._behave
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        held: list[Token] = []
        for token in source(self._request):
            held.append(token)
            if len(held) < behave.per_event and not token.finish:
                continue
            if behave.fault and len(self._sent.sent_ns) == behave.at and self._fail():
                return
            self._wait_for_turn()
            self._send_tokens(held)
            held = []
        self._end()

    def _wait_for_turn(self) -> None:
        behave, number = self._behave, len(self._sent.due_ns)
        if number == 0:
            due = self._sent.received_ns + round(behave.first_s * 1e9)
        else:
            due = self._sent.due_ns[-1] + round(behave.gaps_s[(number - 1) % len(behave.gaps_s)] * 1e9)
        self._sent.due_ns.append(due)
        _wait_until(due)

    def _send_tokens(self, tokens: list[Token]) -> None:
        behave = self._behave
        self._num_sent += len(tokens)
        text = "".join(token.text for token in tokens)
        choice: dict[str, Any] = {"index": 0, "finish_reason": tokens[-1].finish or None}
        choice |= {"delta": {"content": text}} if self._is_chat else {"text": text}
        if behave.told == "ids" and self._request.get("return_token_ids"):
            choice["token_ids"] = [token.id for token in tokens]
        if behave.told == "log-probs" and self._request.get("logprobs"):
            choice["logprobs"] = {"tokens": [token.text for token in tokens], "token_logprobs": [0.0] * len(tokens)}
        event: dict[str, Any] = {"choices": [choice]}
        if behave.told == "running":
            event["usage"] = self._usage()
        data = self._event(event)
        self._sent.sent_ns.append(time.perf_counter_ns())
        self._write(data)

    def _usage(self) -> dict[str, Any]:
        prompt = self._request.get("prompt", "")
        num_prompt = len(prompt) if isinstance(prompt, list) else len(prompt.split())
        found: dict[str, Any] = {
            "prompt_tokens": num_prompt,
            "completion_tokens": self._num_sent + self._behave.off_by,
        }
        if self._is_cached:
            found["prompt_tokens_details"] = {"cached_tokens": num_prompt}
        return found

    def _event(self, event: Any) -> bytes:
        end = self._behave.line_end
        comment = f": keep-alive{end}{end}" if self._behave.comments else ""
        text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
        return f"{comment}data: {text}{end}{end}".encode()

    def _end(self) -> None:
        wants = (self._request.get("stream_options") or {}).get("include_usage")
        if self._behave.told != "nothing" and (wants or self._behave.told != "asked"):
            self._write(self._event({"choices": [], "usage": self._usage()}))
        if self._behave.fault != "no-done":
            self._write(self._event("[DONE]"))
        self._handler.wfile.write(b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        size = self._behave.pieces or len(data)
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            self._handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def _fail(self) -> bool:
        """True if the answer is over."""
        handler, fault = self._handler, self._behave.fault
        whole = self._event({"choices": [{"index": 0, "text": "cut off"}]})
        if fault == "die":
            self._write(whole[: len(whole) // 2])
            os._exit(3)
        if fault == "close":
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return True
        if fault == "cut-line":
            self._write(whole[: len(whole) // 2])
            handler.wfile.write(b"0\r\n\r\n")
            return True
        if fault in {"garbage", "bad-utf8", "error", "huge-line"}:
            self._write(_WRONG[fault]())
            return False
        if fault == "stall":
            time.sleep(30)
            return True
        if fault == "trickle":
            for _ in range(300):
                self._write(b": still here\n\n")
                time.sleep(0.1)
            return True
        return False


_WRONG: dict[str, Callable[[], bytes]] = {
    "garbage": lambda: b'data: {"choices": [{"te\n\n',
    "bad-utf8": lambda: b'data: {"choices": [{"text": "\xff\xfe"}]}\n\n',
    "error": lambda: b'data: {"error": {"message": "out of memory"}}\n\n',
    "huge-line": lambda: b"data: " + b"x" * (5 * 2**20),
}
