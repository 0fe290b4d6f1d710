"""Keeping transformers off the terminal, where our own progress bar is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import transformers

from compressbench.models.quiet_logs import errors_only


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and nothing below an error from transformers, for as long as this lasts."""
    had_bar = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        with errors_only("transformers"):
            yield
    finally:
        if had_bar:
            transformers.utils.logging.enable_progress_bar()
