from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compressbench.core.errors import UnsupportedError
from compressbench.models.dlrm import DlrmConfig, DlrmForClickPrediction
from compressbench.models.load import load_model
from compressbench.models.parts import target_linears
from compressbench.models.size import count_weights
from compressbench.models.widths import family_of
from compressbench.models.work import count_work
from compressbench.recipe.schema import ModelSpec
from compressbench.testing import tiny_click_model

BATCH = {
    "dense_features": torch.tensor([[0.5, 2.0], [1.0, 0.0], [3.0, 0.2]]),
    "sparse_ids": torch.tensor([[0, 1, 2], [59, 39, 4], [7, 1, 0]]),
}


def by_hand(model: DlrmForClickPrediction) -> np.ndarray:
    """Log-odds of the batch as the paper's figure 1 says, a row at a time in float64."""
    weights = {name: value.detach().double().numpy() for name, value in model.state_dict().items()}

    def through(name: str, count: int, x: np.ndarray) -> np.ndarray:
        for at in range(count):
            x = np.maximum(weights[f"{name}.{at}.weight"] @ x + weights[f"{name}.{at}.bias"], 0)
        return x

    found = []
    for dense, ids in zip(BATCH["dense_features"].double().numpy(), BATCH["sparse_ids"].numpy(), strict=True):
        hidden = through("bottom", 2, dense)
        vectors = [hidden, *(weights[f"tables.{at}.weight"][row] for at, row in enumerate(ids))]
        products = [vectors[i] @ vectors[j] for i in range(len(vectors)) for j in range(i)]
        top = through("top", 2, np.concatenate([hidden, products]))
        found.append(weights["classifier.weight"] @ top + weights["classifier.bias"])
    return np.concatenate(found)


def test_log_odds_are_those_of_the_papers_figure_computed_by_hand() -> None:
    model = tiny_click_model().model
    logits = model(**BATCH).logits.detach()
    np.testing.assert_allclose(logits[:, 1].numpy(), by_hand(model), rtol=1e-5)
    assert not logits[:, 0].any()


def test_the_loss_is_the_mean_log_loss_of_the_sigmoid() -> None:
    model, labels = tiny_click_model().model, torch.tensor([1, 0, 1])
    found = model(**BATCH, labels=labels)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(found.logits[:, 1], labels.float())
    torch.testing.assert_close(found.loss, wanted)


def test_it_is_loaded_as_it_was_saved_and_most_of_it_is_tables(tmp_path: Path) -> None:
    made = tiny_click_model()
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    found = load_model(ModelSpec(id=str(tmp_path)), "click-prediction")
    torch.testing.assert_close(found.model(**BATCH).logits, made.model(**BATCH).logits, rtol=0, atol=0)
    assert isinstance(found.model.config, DlrmConfig)
    assert found.model.config.table_sizes == [60, 40, 5]


def test_the_output_head_is_left_alone_and_cutting_widths_is_refused_with_a_reason() -> None:
    model = tiny_click_model().model
    assert set(target_linears(model)) == {"bottom.0", "bottom.1", "top.0", "top.1"}
    with pytest.raises(UnsupportedError, match="not known how to make this kind of model narrower"):
        family_of(model.config.to_dict())


def test_work_counts_the_products_and_of_tables_only_the_rows_that_are_read() -> None:
    model = tiny_click_model().model
    work = count_work(model, BATCH)
    layers = [*model.bottom, *model.top, model.classifier]
    linear = sum(2 * 3 * layer.weight.numel() for layer in layers)
    assert work.flops == linear + 3 * 2 * 4 * 4 * 16
    in_layers = 4 * sum(layer.weight.numel() + layer.bias.numel() for layer in layers)
    assert work.weight_bytes == in_layers + 4 * 16 * (3 + 2 + 3), "two rows read the same item"
    assert count_weights(model).num_parameters == in_layers // 4 + 16 * 105
