"""What both methods that prune rows of embedding tables share: how many, what stands in for them, and what is claimed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from compressbench.core.protocols import Claim
from compressbench.methods.step import TableStep
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressbench.models.stored_embedding import Tables


class RowStep(TableStep):
    """The rows of all tables are ranked together, and the lowest share one row in their table."""

    sparsity: float = Field(gt=0, lt=1, description="fraction of the rows of all tables that are pruned")
    shared: Literal["mean", "zero"] = Field(
        "mean", description="what stands in for pruned rows: the mean of those of its table, or zeros"
    )

    def misfit(self, table: nn.Embedding) -> str:
        return "" if table.num_embeddings > 1 else "a table of one row"

    def prune(
        self, handle: ModelHandle, step: str, tables: Tables, scores: Mapping[str, torch.Tensor], **notes: int
    ) -> ModelHandle:
        """Prune the rows with the lowest `scores`, by table a number for each row. Equal scores: the later table and row
        go first, so that the result does not depend on the machine. A table that would not become smaller stays whole.
        """
        import torch

        from compressbench.models.parts import replace_module
        from compressbench.models.shared_rows_embedding import SharedRowsEmbedding
        from compressbench.models.stored_embedding import table_of

        is_pruned = lowest(scores, self.sparsity)
        reasons = {name: why for name in tables.names if (why := _no_gain(handle, name, is_pruned[name]))}
        tables = tables.without(reasons)
        for name in tables.names:
            weight, gone = table_of(handle.model, name).weight.detach(), is_pruned[name]
            shared = weight[gone].float().mean(dim=0) if self.shared == "mean" else torch.zeros_like(weight[0])
            replace_module(handle.model, name, SharedRowsEmbedding.prune(weight, gone, shared))
        claim = Claim(step=step, modules=tables.names, left_out=tables.left_out, is_smaller=True)
        num_pruned = sum(int(is_pruned[name].sum()) for name in tables.names)
        num_rows = sum(len(scores[name]) for name in scores)
        counts: dict[str, Any] = {"num_rows": num_rows, "num_pruned_rows": num_pruned, **notes}
        return handle.with_model(handle.model, claim=claim, **counts)


def lowest(scores: Mapping[str, torch.Tensor], fraction: float) -> dict[str, torch.Tensor]:
    """Which rows are among the `fraction` (rounded down) with the lowest scores over all tables: a mask by table."""
    import torch

    together = torch.cat([score.double().cpu() for score in scores.values()]).flip(0)
    mask = torch.zeros(len(together), dtype=torch.bool)
    mask[together.argsort(stable=True)[: int(fraction * len(together))]] = True
    parts = torch.split(mask.flip(0), [len(score) for score in scores.values()])
    return {name: part.to(score.device) for (name, score), part in zip(scores.items(), parts, strict=True)}


def _no_gain(handle: ModelHandle, name: str, is_pruned: torch.Tensor) -> str:
    from compressbench.models.shared_rows_embedding import pruned_bytes
    from compressbench.models.stored_embedding import table_of

    weight = table_of(handle.model, name).weight
    row_bytes, num_pruned = weight.shape[1] * weight.element_size(), int(is_pruned.sum())
    if pruned_bytes(len(weight), len(weight) - num_pruned, row_bytes) < len(weight) * row_bytes:
        return ""
    return f"{num_pruned} of its {len(weight)} rows are among the lowest, too few to make it smaller"
