"""Server-sent events: bytes as they come into the data of whole events (WHATWG HTML, section 9.2).

A line may end in CR, LF or CRLF, be split anywhere, within a character too, and be a comment. What isn't `data` is read
over: the APIs meant here say everything in data. Lines and events are bounded, so that a broken server can't fill memory.
"""

from __future__ import annotations

from compressbench.runtimes.endpoint_errors import failed

MAX_EVENT_BYTES = 4 * 2**20
_BOM = b"\xef\xbb\xbf"


class EventParser:
    """`feed` it what was read; after the last bytes `finish` says whether anything was cut."""

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._is_first, self._after_cr = True, False

    def feed(self, received: bytes) -> list[str]:
        """The data of events that are whole now, in order. Raises EndpointError for an endless line or what isn't UTF-8."""
        found: list[str] = []
        if self._after_cr and received.startswith(b"\n"):
            received = received[1:]
            self._after_cr = False
        elif received:
            self._after_cr = False
        # bytes.splitlines splits at CR, LF and CRLF and at nothing else
        for part in received.splitlines(keepends=True):
            is_whole = part.endswith((b"\r", b"\n"))
            self._extend(part.rstrip(b"\r\n") if is_whole else part)
            if is_whole:
                event = self._end_line()
                if event is not None:
                    found.append(event)
        self._after_cr = received.endswith(b"\r") or (self._after_cr and not received)
        return found

    def finish(self) -> None:
        """Raise EndpointError if the stream ended within an event."""
        if self._line or self._data:
            rest = bytes(self._line) or self._data[-1]
            raise failed("broken-stream", "the stream was cut within an event", got=rest.decode("utf-8", "replace"))

    def _extend(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._max_bytes:
            raise failed("broken-stream", f"an event of the stream has more than {self._max_bytes} bytes")
        self._line += part

    def _end_line(self) -> str | None:
        line = bytes(self._line)
        self._line.clear()
        if self._is_first:
            line, self._is_first = line.removeprefix(_BOM), False
        if not line:
            return self._end_event()
        if line.startswith(b"data"):
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
                return None
        if not self._data:
            self._size = 0  # a comment or another field, which is not kept
        return None

    def _end_event(self) -> str | None:
        data, self._data, self._size = self._data, [], 0
        if not data:
            return None
        try:
            return b"\n".join(data).decode("utf-8")
        except UnicodeDecodeError as error:
            raise failed("broken-stream", "an event of the stream isn't UTF-8", got=str(error)) from error
