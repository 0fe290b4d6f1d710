"""Keeping libraries' messages off the terminal: those of torchao about other machines, and all that aren't errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

_DROPPED = {
    "torchao": "Failed to load",
    "torchao.kernel.intmm": "Warning: Detected no triton",
    "torch.utils._pytree": "%s is an Enum subclass",
}
"""Loggers and the beginnings of the messages that say nothing about this machine: about compiled libraries for others,
Triton, and torchao's own enums.
"""


def drop_messages_of_torchao() -> None:
    """Has to happen before torchao is imported, as transformers does. Calling it again changes nothing."""
    for name, beginning in _DROPPED.items():
        logger = logging.getLogger(name)
        if not any(isinstance(each, partial) and each.func is _differs for each in logger.filters):
            logger.addFilter(partial(_differs, beginning))


@contextmanager
def errors_only(*names: str, level: int = logging.ERROR) -> Iterator[None]:
    """The loggers of these names ("": all that have no level of their own) tell nothing below `level` meanwhile."""
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    try:
        for logger in levels:
            logger.setLevel(level)
        yield
    finally:
        for logger, before in levels.items():
            logger.setLevel(before)


def _differs(beginning: str, record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(beginning)
