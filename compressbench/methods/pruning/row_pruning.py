"""`row-pruning`: the shortest rows of embedding tables share one row."""

from __future__ import annotations

from typing import ClassVar

from compressbench.core.protocols import Facts
from compressbench.methods.pruning.row_step import RowStep
from compressbench.models.handle import ModelHandle


class RowPruning(RowStep):
    """Whole rows of embedding tables, ranked by their length (the 2-norm) over all tables (group lasso's criterion, as in
    Deng et al. 2021, DeepLight, arXiv:2002.06987, for single weights).

    An id whose row is pruned is answered with a row that all pruned ids of its table share, so that less is stored for
    real: the rows that stay, the shared one, and a row number for each id. Rows that training hardly met are still near
    where they began, which need not be short: `rare-row-pruning` counts instead.
    """

    facts: ClassVar[Facts] = Facts(paper="arXiv:2002.06987")

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.models.stored_embedding import table_of

        tables = self.choose(handle)
        lengths = {name: table_of(handle.model, name).weight.detach().float().norm(dim=1) for name in tables.names}
        return self.prune(handle, "row-pruning", tables, lengths)
