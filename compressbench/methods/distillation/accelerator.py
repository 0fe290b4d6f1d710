"""An `accelerate.Accelerator` that leaves no trace in the process.

accelerate keeps its settings in dictionaries shared by the whole process: the first Accelerator decides the precision, and
a second one with another precision is refused. Here each run of training has dictionaries of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from compressbench.core.errors import UnsupportedError


@contextmanager
def one_accelerator(device: str, precision: str, accumulated: int) -> Iterator[Any]:
    """An Accelerator for one process on `device` (cpu, cuda, cuda:1), for as long as the block lasts.

    `precision` is float32 or bfloat16, `accumulated` how many batches make a step. Afterwards the shared settings are
    what they were before. Raises UnsupportedError if the device can't compute in that precision.
    """
    from accelerate import Accelerator  # type: ignore[import-untyped]
    from accelerate.state import AcceleratorState, GradientState, PartialState  # type: ignore[import-untyped]
    from accelerate.utils import GradientAccumulationPlugin  # type: ignore[import-untyped]

    shared = [kind._shared_state for kind in (PartialState, AcceleratorState, GradientState)]
    before = [dict(settings) for settings in shared]
    # a plug-in rather than a number, which an environment variable would override
    plugin = GradientAccumulationPlugin(num_steps=accumulated, sync_with_dataloader=False)
    mixed_precision = "bf16" if precision == "bfloat16" else "no"
    try:
        _replace(shared, [{} for _ in shared])
        try:
            made = Accelerator(
                mixed_precision=mixed_precision, cpu=device == "cpu", gradient_accumulation_plugin=plugin
            )
        except ValueError as error:
            raise UnsupportedError(
                f"training in {precision} is not possible on {device}",
                got=str(error),
                do="Choose another precision, or run it on another machine.",
            ) from error
        yield made
    finally:
        _replace(shared, before)


def _replace(shared: list[Any], content: list[dict[str, Any]]) -> None:
    # in place: whoever holds an Accelerator of their own holds these dictionaries
    for settings, new in zip(shared, content, strict=True):
        settings.clear()
        settings.update(new)
