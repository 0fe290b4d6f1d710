"""A compiled function that counts what torch.compile did for it: seconds, graphs, recompilations, parts left eager.

Every function gets a code object and a region of its own (`isolate_recompiles`), because dynamo keeps its compiled
graphs, and its limit of eight of them, by code object: two compiled models alive at once neither evict each other nor
share the limit, and what a session compiled goes when the session goes. `torch._dynamo.reset` isn't needed for that, and
must not be called while another compiled session lives: it would compile everything anew within its timed calls.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from compressbench.core.errors import UnsupportedError
from compressbench.models.quiet_logs import errors_only

_LOGGER = "torch._dynamo"
_SEARCH = "torch._inductor.select_algorithm"
_LIMIT = "recompile limit"


class Settings(NamedTuple):
    """Arguments of torch.compile, and settings of inductor that have to hold while dynamo traces."""

    arguments: Mapping[str, Any]
    while_tracing: Mapping[str, Any]


class Compiled:
    """Calls `function` compiled. A shape is the sizes of all tensors among the arguments.

    `seconds` are those that dynamo's own metrics give each compilation. `reasons` has for every recompilation the guard
    that failed. Raises UnsupportedError where the backend can't compile the model.
    """

    def __init__(self, function: Callable[..., Any], settings: Settings) -> None:
        self.seconds, self.num_graphs, self.num_graph_breaks = 0.0, 0, 0
        self.reasons = list[str]()
        self.num_threads: int | None = None
        self._settings = settings
        self._by_shape = dict[tuple[Any, ...], int]()
        self._left_eager = set[tuple[Any, ...]]()
        self._call = _compile(_with_code_of_its_own(function), settings.arguments)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        from torch._dynamo.utils import get_compilation_metrics

        shape, before = shape_of(arguments, named), _newest(get_compilation_metrics())
        found = self._call(*arguments, **named) if shape in self._by_shape else self._first(shape, arguments, named)
        if _newest(get_compilation_metrics()) is not before:
            self._take(shape, _since(before, get_compilation_metrics()))
        return found

    def fallbacks(self) -> Iterator[str]:
        """What the calls so far ran in another way than compiled once for each shape."""
        again = sum(number - 1 for number in self._by_shape.values() if number > 1)
        if again:
            yield f"shapes that had been compiled were compiled again {again} times: {self.reasons[-1]}"
        if self.num_graph_breaks:
            yield f"{self.num_graph_breaks} graph breaks left parts of the model to eager PyTorch"
        if self._left_eager:
            yield f"dynamo's limit of recompilations was reached: {len(self._left_eager)} shapes ran in eager PyTorch"

    def _first(self, shape: tuple[Any, ...], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """A call at a new shape, at which dynamo may trace."""
        import torch
        import torch._inductor.config as inductor

        self._by_shape[shape] = 0
        self.num_threads = torch.get_num_threads()
        breaks = _num_breaks()
        try:
            with inductor.patch(dict(self._settings.while_tracing)), _quiet():
                return self._call(*arguments, **named)
        except _compiler_errors() as error:
            text = " ".join(str(error).split()).partition(" Set TORCHDYNAMO_VERBOSE")[0][:300]
            raise UnsupportedError("torch.compile failed", got=text, do="Try backend: aot_eager or eager.") from error
        finally:
            self.num_graph_breaks += _num_breaks() - breaks

    def _take(self, shape: tuple[Any, ...], records: list[Any]) -> None:
        for record in records:
            self.seconds += record.duration_us / 1e6 if record.duration_us else 0.0
            if _LIMIT in (record.fail_reason or ""):
                self._left_eager.add(shape)
            elif record.has_guarded_code:
                self.num_graphs += 1
                if record.recompile_reason:
                    self.reasons.append(_short(record.recompile_reason))
        self._by_shape[shape] += 1


@contextmanager
def _quiet() -> Iterator[None]:
    """What dynamo would say of its limit of recompilations is told by `fallbacks`. That a kernel among dozens doesn't fit
    the device is no error, and float32 stays float32.
    """
    with warnings.catch_warnings(), errors_only(_LOGGER), errors_only(_SEARCH, level=logging.CRITICAL):
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
        warnings.filterwarnings("ignore", "TypedStorage is deprecated", UserWarning)
        yield


def shape_of(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """The sizes of all tensors among the arguments."""
    return tuple(each.shape for each in (*arguments, *named.values()) if hasattr(each, "shape"))


def _compile(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Callable[..., Any]:
    import torch

    known = inspect.signature(torch.compile).parameters
    apart = {"isolate_recompiles": True} if "isolate_recompiles" in known else {}
    return torch.compile(function, **arguments, **apart)  # type: ignore[no-any-return, call-overload]


def _with_code_of_its_own(function: Callable[..., Any]) -> Callable[..., Any]:
    function.__code__ = function.__code__.replace()
    return function


def _newest(records: list[Any]) -> Any:
    return records[-1] if records else None


def _since(before: Any, records: list[Any]) -> list[Any]:
    """Those after `before`; dynamo keeps the last 64."""
    found = list[Any]()
    for record in reversed(records):
        if record is before:
            break
        found.append(record)
    return found[::-1]


def _num_breaks() -> int:
    from torch._dynamo.utils import counters

    return sum(counters["graph_break"].values())


def _short(reason: str) -> str:
    """The guard that failed, without the number of the graph it belongs to."""
    return " ".join(reason.split()).partition(": ")[2][:160] or reason[:160]


def _compiler_errors() -> tuple[type[Exception], ...]:
    from torch._dynamo.exc import BackendCompilerFailed
    from torch._inductor import exc

    names = ("InductorError", "CppCompileError", "InvalidCxxCompiler")
    found: list[type[Exception]] = [getattr(exc, name) for name in names if hasattr(exc, name)]
    return (BackendCompilerFailed, *found)
