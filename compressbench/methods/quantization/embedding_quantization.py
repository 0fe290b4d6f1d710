"""`embedding-quantization`: tables of vectors in 8, 4 or 2 bits, each row with a range of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from compressbench.core.protocols import Claim, Facts
from compressbench.methods.step import TableStep
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from torch import nn


class EmbeddingQuantization(TableStep):
    """Uniform quantization of embedding tables row by row (Guan et al. 2019, arXiv:1911.02079).

    Rows are packed for real and dequantized as they are looked up, by PyTorch's kernels on CPU, so that a look-up reads
    fewer bytes. A row keeps a scale and a smallest value, in float32 at 8 bits and float16 at fewer: at width 16 that is
    another 4 (or 2) bits per value, which the claim leaves out and the size counts. Made for recommendation models,
    whose tables are nearly all of their bytes; token embeddings of other models can be quantized, too, unless they are
    tied to an output head. The linear modules stay as they are.
    """

    facts: ClassVar[Facts] = Facts(
        accepts=frozenset({"float32", "bfloat16", "float16", "int8", "packed"}), paper="arXiv:1911.02079"
    )

    bits: Literal[8, 4, 2] = 8
    search: bool = Field(
        False, description="search each row's range for the least squared error, as the paper does; at 4 and 2 bits"
    )

    @model_validator(mode="after")
    def _searches_where_that_is_known(self) -> EmbeddingQuantization:
        if self.search and self.bits == 8:
            raise ValueError("search is for 4 and 2 bits; at 8 the whole range of a row is kept")
        return self

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.models.parts import replace_module
        from compressbench.models.rowwise_embedding import RowwiseEmbedding
        from compressbench.models.stored_embedding import table_of

        tables = self.choose(handle)
        for name in tables.names:
            weight = table_of(handle.model, name).weight
            replace_module(handle.model, name, RowwiseEmbedding.quantize(weight, self.bits, search=self.search))
        claim = Claim(
            step="embedding-quantization",
            modules=tables.names,
            left_out=tables.left_out,
            bits=self.bits,
            is_smaller=True,
        )
        return handle.with_model(handle.model, claim=claim, num_tables=len(tables.names))

    def misfit(self, table: nn.Embedding) -> str:
        width = table.embedding_dim
        if width * self.bits % 8:
            return f"{width} values of {self.bits} bits don't fill whole bytes"
        # below that the scale and the smallest value of a row are as many bits as are saved
        overhead = 64 if self.bits == 8 else 32
        if width * self.bits + overhead >= 8 * table.weight.element_size() * width:
            return f"rows of {width} values would not become smaller"
        return ""
