"""Settings of every test run."""

from __future__ import annotations

import os
import sys

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Tiny tensors shared out over threads take a hundred times longer than their arithmetic on busy cores."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
