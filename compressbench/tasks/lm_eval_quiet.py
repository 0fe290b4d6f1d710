"""lm-evaluation-harness without a trace: its bars and messages, and what it does to random generators and to models."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_RANDOM_SEED, _OTHER_SEED = 0, 1234
"""Those of lm_eval.simple_evaluate, for Python's generator and for those of numpy, torch and the few-shot sampler."""

FEWSHOT_SEED = _OTHER_SEED


@contextmanager
def quiet_harness(told: Callable[[float], None] | None = None) -> Iterator[None]:
    """No messages below an error, no progress bars; `told` hears which part of all requests was done, bit by bit.

    Importing the harness sets a variable for faster downloads; it is taken back.
    """
    variable = "HF_XET_HIGH_PERFORMANCE"
    before = os.environ.get(variable)
    from lm_eval.api import model, task
    from lm_eval.models import huggingface

    if before is None:
        os.environ.pop(variable, None)
    from compressbench.models.quiet import quiet
    from compressbench.models.quiet_logs import errors_only

    modules = [model, task, huggingface]
    bars = [module.tqdm for module in modules]
    for module in modules:
        module.tqdm = lambda *given, **options: _Bar(told, *given, **options)
    try:
        with errors_only("lm_eval"), quiet(), _no_bars_of_datasets():
            yield
    finally:
        for module, bar in zip(modules, bars, strict=True):
            module.tqdm = bar


@contextmanager
def _no_bars_of_datasets() -> Iterator[None]:
    import datasets

    had_bars = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if had_bars:
            datasets.enable_progress_bars()


class _Bar:
    """Has what the harness uses of tqdm. Only the bars over requests say in their description that they run them."""

    def __init__(
        self,
        told: Callable[[float], None] | None,
        iterable: Iterable[Any] = (),
        *,
        total: int | None = None,
        desc: str = "",
        **_: Any,
    ) -> None:
        self._iterable, self._total = iterable, total
        self._told = told if desc.startswith("Running") else None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._iterable)

    def update(self, count: int = 1) -> None:
        if self._told is not None and self._total:
            self._told(count / self._total)

    def close(self) -> None:
        pass


@contextmanager
def as_seeded_by_the_harness() -> Iterator[None]:
    """Random generators as lm_eval.simple_evaluate sets them, and as they were afterwards."""
    import numpy as np
    import torch

    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        random.seed(_RANDOM_SEED)
        np.random.seed(_OTHER_SEED)
        torch.manual_seed(_OTHER_SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


@contextmanager
def weights_left_alone(model: Any) -> Iterator[None]:
    """The harness ties the weights of a model that it gets; a compressed one may have untied them."""
    model.tie_weights = lambda *_, **__: None
    try:
        yield
    finally:
        del model.tie_weights
