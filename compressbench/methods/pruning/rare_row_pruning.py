"""`rare-row-pruning`: rows of embedding tables that training data hardly meet share one row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Batch, Facts
from compressbench.methods.pruning.row_step import RowStep
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch


class RareRowPruning(RowStep):
    """Whole rows of embedding tables, ranked by how often the training split looks them up, over all tables.

    Ids follow Zipf's law: most are met hardly ever, their rows have learned little and are read seldom (Ginart et al. 2019,
    arXiv:1909.11810, build tables on that). An id whose row is pruned is answered with a row that all pruned ids of its
    table share. Rows met equally often are ranked by their place. The counts come from forward passes over training
    batches, and so work for token embeddings, too.
    """

    facts: ClassVar[Facts] = Facts(needs_training_data=True, paper="arXiv:1909.11810")

    batch_size: int = Field(1024, ge=1)
    max_samples: int | None = Field(None, ge=1, description="count over only so many training samples")

    def num_training_samples(self, available: int) -> float:
        return min(available, self.max_samples or available) / 3  # a pass without gradients is a third of a step

    def apply(self, handle: ModelHandle) -> ModelHandle:
        if handle.supplies.training_batches is None:
            raise UnsupportedError("rare-row-pruning counts over training data, and this task has none")
        tables = self.choose(handle)
        batches = handle.supplies.training_batches(self.batch_size, self.max_samples, handle.supplies.seed)
        with _counting(handle, tables.names) as counts:
            num_samples = _run(handle, batches)
        num_unseen = sum(int((count == 0).sum()) for count in counts.values())
        notes = {"num_samples": num_samples, "num_unseen_rows": num_unseen}
        return self.prune(handle, "rare-row-pruning", tables, counts, **notes)


@contextmanager
def _counting(handle: ModelHandle, names: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """By table how often each row is looked up meanwhile (rows, int64)."""
    import torch

    from compressbench.models.stored_embedding import table_of

    tables = {name: table_of(handle.model, name) for name in names}
    counts = {name: torch.zeros(table.num_embeddings, dtype=torch.int64) for name, table in tables.items()}

    def note(name: str, _: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        counts[name] += torch.bincount(args[0].flatten().cpu(), minlength=len(counts[name]))

    hooks = [table.register_forward_pre_hook(partial(note, name)) for name, table in tables.items()]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def _run(handle: ModelHandle, batches: Sequence[Batch]) -> int:
    """A forward pass over every batch; the number of samples."""
    import torch

    from compressbench.models.parts import inputs_of

    num_samples = 0
    with torch.inference_mode():
        for batch in batches:
            inputs = inputs_of(handle.model, {name: each for name, each in batch.items() if name != "labels"})
            handle.model(**inputs)
            num_samples += len(next(iter(inputs.values())))
    return num_samples
