"""What goes wrong between a client and a server that streams tokens: one error, with the kind of failure in a word.

Kinds are counted in a load test, where a failure is a result. Nothing here ever holds a key or a header.
"""

from __future__ import annotations

from compressbench.core.errors import CellError
from compressbench.core.names import one_line

MAX_QUOTED = 200


class EndpointError(CellError):
    """`kind` is one of: connect, timeout, died, broken-stream, uncounted, wrong-count, redirect, or http-<status>.

    `retry_after_s` is what a server asked for that can't answer now.
    """

    kind: str = "broken-stream"
    retry_after_s: float | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return (*super().__reduce__(), dict(self.__dict__))


def failed(kind: str, what: str, *, where: str = "", got: str = "", do: str = "") -> EndpointError:
    """The error of that kind. `got` may come from a server: it is cut, and made one line."""
    error = EndpointError(what, where=where, got=one_line(got[:MAX_QUOTED]), do=do)
    error.kind = kind
    return error
