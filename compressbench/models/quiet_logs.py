"""Keeping torchao's complaints about other machines off the terminal: transformers imports it wherever it is installed."""

from __future__ import annotations

import logging
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
    """Has to happen before torchao is imported. Calling it again changes nothing."""
    for name, beginning in _DROPPED.items():
        logger = logging.getLogger(name)
        if not any(isinstance(each, partial) and each.func is _differs for each in logger.filters):
            logger.addFilter(partial(_differs, beginning))


def _differs(beginning: str, record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(beginning)
