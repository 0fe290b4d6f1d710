"""A recommendation model as one Hugging Face model: DLRM (Naumov et al. 2019, arXiv:1906.00091).

Counts go through a small network (the bottom one), every categorical value looks a vector up in its table, all pairs of
these vectors are multiplied, and a second network (the top one) makes log-odds of a click of the products.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

LABELS = {0: "no click", 1: "click"}


class DlrmConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers ships no types
    """`table_sizes` are the rows of each table, `bottom_sizes` and `top_sizes` the widths of the hidden layers."""

    model_type = "dlrm"

    def __init__(
        self,
        num_dense: int = 4,
        table_sizes: Sequence[int] = (100, 50, 10),
        embedding_dim: int = 16,
        bottom_sizes: Sequence[int] = (32,),
        top_sizes: Sequence[int] = (32, 16),
        **kwargs: Any,
    ) -> None:
        self.num_dense, self.embedding_dim = num_dense, embedding_dim
        self.table_sizes, self.bottom_sizes, self.top_sizes = list(table_sizes), list(bottom_sizes), list(top_sizes)
        kwargs.setdefault("id2label", LABELS)
        super().__init__(**kwargs)


class DlrmForClickPrediction(PreTrainedModel):  # type: ignore[misc]
    """One table and one id per categorical column; activation functions are ReLU, as in the paper."""

    config_class = DlrmConfig
    base_model_prefix = "dlrm"
    main_input_name = "sparse_ids"
    accepts_loss_kwargs = False  # the loss is a mean over this batch, whatever the trainer accumulates

    def __init__(self, config: DlrmConfig) -> None:
        super().__init__(config)
        self.num_labels = 2
        width = config.embedding_dim
        self.bottom = _stack([config.num_dense, *config.bottom_sizes, width])
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in config.table_sizes)
        num_vectors = 1 + len(config.table_sizes)
        num_products = num_vectors * (num_vectors - 1) // 2
        self.top = _stack([width + num_products, *config.top_sizes])
        self.classifier = nn.Linear(config.top_sizes[-1], 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """As in the paper's code: tables uniform within 1 / sqrt(rows), linear modules normal."""
        from transformers import initialization as init

        if isinstance(module, nn.Embedding):
            bound = module.num_embeddings**-0.5
            init.uniform_(module.weight, -bound, bound)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=(2 / (module.in_features + module.out_features)) ** 0.5)
            init.normal_(module.bias, std=module.out_features**-0.5)

    def forward(
        self,
        dense_features: Tensor,
        sparse_ids: Tensor,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput:
        """Logits (batch x 2): zero and the log-odds of a click, whose softmax is the probability; with `labels` (batch,)
        also the mean log loss in nats.

        `dense_features` is (batch x counts), `sparse_ids` (batch x tables), row numbers.
        """
        hidden = _run(self.bottom, dense_features)
        looked_up = [table(sparse_ids[:, at]) for at, table in enumerate(self.tables)]
        vectors = torch.stack([hidden, *looked_up], dim=1)
        products = torch.bmm(vectors, vectors.transpose(1, 2))
        rows, columns = torch.tril_indices(vectors.shape[1], vectors.shape[1], -1, device=vectors.device)
        features = torch.cat([hidden, products[:, rows, columns]], dim=1)
        log_odds = self.classifier(_run(self.top, features))
        logits = torch.cat([torch.zeros_like(log_odds), log_odds], dim=1)
        loss = None if labels is None else nn.functional.cross_entropy(logits.float(), labels.view(-1))
        return SequenceClassifierOutput(loss=loss, logits=logits)

    @classmethod
    def from_config(cls, config: DlrmConfig) -> DlrmForClickPrediction:
        """Random weights; the name that automatic classes have for it."""
        return cls(config)


def register() -> type[DlrmForClickPrediction]:
    """Make AutoConfig know the configuration; the class that loads such models. Calling it again changes nothing."""
    AutoConfig.register(DlrmConfig.model_type, DlrmConfig, exist_ok=True)
    return DlrmForClickPrediction


def _stack(sizes: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(left, right) for left, right in pairwise(sizes))


def _run(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for layer in layers:
        x = nn.functional.relu(layer(x))
    return x
