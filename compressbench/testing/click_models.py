"""A recommendation model small enough to make on the spot: random weights, two counts and three tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compressbench.models.handle import ModelHandle

_SIZES = {"user": 60, "item": 40, "device": 5}


def tiny_click_model(seed: int = 0, embedding_dim: int = 16) -> ModelHandle:
    """A randomly initialised DLRM in a handle. It reads the columns age, visits (counts), user, item and device."""
    import torch

    from compressbench.models.click_features import ClickFeatures
    from compressbench.models.dlrm import DlrmConfig, DlrmForClickPrediction
    from compressbench.models.handle import ModelHandle
    from compressbench.records.record import ModelSource

    torch.manual_seed(seed)
    sizes = list(_SIZES.values())
    config = DlrmConfig(
        num_dense=2, table_sizes=sizes, embedding_dim=embedding_dim, bottom_sizes=(16,), top_sizes=(32, 16)
    )
    model = DlrmForClickPrediction(config).eval()
    features = ClickFeatures(("age", "visits"), list(_SIZES), sizes)
    source = ModelSource(id="testing:tiny", revision="random", architecture=type(model).__name__, dtype="float32")
    return ModelHandle(model, features, source, "click-prediction", "float32")
